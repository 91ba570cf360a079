"""Lowers traced segments to ONNX graphs and PyTorch programs."""

import sys

from dipgo.common.moved import forward

# Until 0.1 this was one module; its names are forwarded to the modules that hold them now.
forward(sys.modules[__name__], "dipgo.export.lower.onnx")
