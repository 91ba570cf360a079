"""The TensorRT backends: TensorRT, and TensorRT for RTX, by one code path."""
