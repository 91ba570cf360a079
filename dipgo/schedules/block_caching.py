"""Block Caching (arXiv 2312.03209): a block is reused while its outputs have changed little.

It is calibrated with `dipgo.search.calibrate.activation_changes`. The paper's optional scale and
shift on reuse are left out: they are weights, not gates.
"""

from __future__ import annotations

import numpy as np

from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.activation_changes import Changes
from dipgo.schedules.base import all_on, check_table, with_gates

METHOD = "Block Caching"


def block_caching(dense: SubNet, changes: Changes, threshold: float) -> SubNet:
    """Reuses blocks while their changes since the last computation sum to ≤ `threshold`.

    Args:
        dense: The SubNet whose gates are all on.
        changes: Measured changes from step to step; lag 1 is used.
        threshold: The paper's δ, which is 0.5 there.

    Raises:
        DipgoError: `changes` belong to other steps or blocks.

    Source:
        Wimbauer et al. 2023 (arXiv 2312.03209).
    """
    step_by_step = changes.at_lag(1, dense.blocks)
    check_table(METHOD, dense, step_by_step.shape)
    gates = all_on(dense)
    since = np.zeros(len(dense.blocks))
    for row in range(1, len(gates)):
        since += step_by_step[row]
        gates[row] = since > threshold
        since[gates[row]] = 0.0
    return with_gates(dense, gates, METHOD, threshold=threshold)
