"""The torch backend: the same segments in PyTorch, under one CUDA graph. It alone needs torch."""
