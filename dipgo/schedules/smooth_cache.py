"""SmoothCache (arXiv 2411.10510): all blocks of a type are reused together, for a few steps.

It is calibrated with `dipgo.search.calibrate.activation_changes`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.activation_changes import Changes
from dipgo.schedules.base import all_on, check_table, with_gates

METHOD = "SmoothCache"


def smooth_cache(dense: SubNet, changes: Changes, threshold: float) -> SubNet:
    """Reuses blocks after a computed step for the largest lag whose error is ≤ `threshold`.

    The error is the mean relative change over the blocks of one type. The first and the last step
    are always computed.

    Args:
        dense: The SubNet whose gates are all on.
        changes: Measured changes from step to step, up to the largest lag to try.
        threshold: The paper's α.

    Raises:
        DipgoError: `changes` belong to other steps or blocks.

    Source:
        Liu et al. 2024 (arXiv 2411.10510).
    """
    lags = [changes.at_lag(lag, dense.blocks) for lag in range(1, changes.lags + 1)]
    check_table(METHOD, dense, lags[0].shape)
    gates = all_on(dense)
    types = np.array([component_type(block) for block in dense.blocks])
    for block_type in np.unique(types):
        errors = np.stack([lag[:, types == block_type].mean(axis=1) for lag in lags])
        gates[:, types == block_type] = _computed(errors, threshold)[:, None]
    return with_gates(dense, gates, METHOD, threshold=threshold, max_lag=changes.lags)


def component_type(block: str) -> str:
    """Returns the block's path with numbers replaced: `up_blocks.3` has the type `up_blocks.*`."""
    return ".".join("*" if part.isdigit() else part for part in block.split("."))


def _computed(errors: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Returns the steps that are computed, bool[steps].

    `errors` f64[lags, steps] holds for each step its change since the step a lag before.
    """
    lags, steps = errors.shape
    computed = np.zeros(steps, dtype=np.bool_)
    row = 0
    while row < steps:
        computed[row] = True
        reach = range(min(lags, steps - 1 - row), 0, -1)
        row += 1 + next((lag for lag in reach if errors[lag - 1, row + lag] <= threshold), 0)
    computed[-1] = True
    return computed
