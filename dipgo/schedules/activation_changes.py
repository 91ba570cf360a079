"""Records how much blocks' outputs change from step to step, for calibrated schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Mean relative L1 changes of blocks' outputs, `relative` f64[lags, steps, blocks].

    `relative[lag - 1, step, block]` is ‖y_step − y_(step−lag)‖₁ / ‖y_step‖₁, averaged over the
    batch; nan where `step` is less than `lag`.
    """

    blocks: tuple[str, ...]
    relative: NDArray[np.float64]

    @property
    def lags(self) -> int:
        """The largest lag that was measured."""
        return len(self.relative)

    def at_lag(self, lag: int, blocks: Sequence[str]) -> NDArray[np.float64]:
        """Returns the changes f64[steps, blocks] at a lag, in the order of `blocks`.

        Raises:
            DipgoError: The lag or a block was not measured.
        """
        missing = [block for block in blocks if block not in self.blocks]
        if missing or not 1 <= lag <= self.lags:
            raise DipgoError(
                "activation changes",
                found=f"lags 1 to {self.lags} of {' '.join(self.blocks)}",
                expected=f"lag {lag} of {' '.join(blocks)}",
                remedy="calibrate with the blocks of the SubNet",
            )
        columns = [self.blocks.index(block) for block in blocks]
        table: NDArray[np.float64] = self.relative[lag - 1][:, columns]
        return table
