"""Serves an export directory with Triton Inference Server's Python backend."""
