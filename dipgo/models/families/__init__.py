"""The families of denoisers, one module each."""

import sys

from dipgo.common.moved import forward

# Until 0.1 a module of this name held the registry: its names are forwarded.
forward(sys.modules[__name__], "dipgo.models.registry")
