"""The torch backend: the segments in PyTorch, under one CUDA graph. Only it needs torch."""
