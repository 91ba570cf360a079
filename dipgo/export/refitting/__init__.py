"""Puts another model's weights, or a LoRA's, into an export and its engines."""

import sys

from dipgo.common.moved import forward

# Until 0.1 this was one module; its names are forwarded to the module that holds them now.
forward(sys.modules[__name__], "dipgo.export.refitting.refit")
