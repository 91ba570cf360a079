"""Runs the SuperNet: the traced graph over all steps, with a gate on every block."""

import sys

from dipgo.common.moved import forward

# Until dipgo 0.1 a module of this name held these definitions.
forward(
    sys.modules[__name__],
    "dipgo.search.supernet.supernet",
    "dipgo.search.supernet.gating",
    "dipgo.search.supernet.row_gates",
)
