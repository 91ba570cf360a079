"""Puts another model's weights, or a LoRA's, into an export and its engines."""

import sys

from dipgo.common.moved import forward

# A module of this name held what is in these until 0.1.
forward(sys.modules[__name__], "dipgo.export.refitting.refitted_copy")
