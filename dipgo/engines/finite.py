"""Refuses results that are no numbers: as pictures they are black, and equal to one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting


def check_finite(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the values.

    Raises:
        DipgoError: One of them is infinite or NaN.
    """
    wrong = values.size - np.count_nonzero(np.isfinite(values))
    if wrong:
        raise DipgoError(
            name,
            found=f"{wrong} of {values.size} numbers that are infinite or NaN",
            expected="finite numbers",
            remedy="lower the guidance scale; or export in fp32, or with more modules in "
            f"{setting('keep_fp32')}",
        )
    return values
