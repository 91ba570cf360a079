"""The ONNX Runtime backend: sessions, memory and bound calls."""
