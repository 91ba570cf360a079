"""The SuperNet: the traced graph over all steps, with a gate on every block."""

import sys

from dipgo.common.moved import forward

# A module of this name held what is in these until 0.1.
forward(
    sys.modules[__name__],
    "dipgo.search.supernet.supernet",
    "dipgo.search.supernet.gating",
    "dipgo.search.supernet.row_gates",
)
