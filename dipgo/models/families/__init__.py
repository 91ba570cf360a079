"""The families of denoisers, one module each."""

import sys

from dipgo.common.moved import forward

# A module of this name held what is in these until 0.1.
forward(sys.modules[__name__], "dipgo.models.registry")
