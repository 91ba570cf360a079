"""Random gates: the baseline that any search must beat."""

from __future__ import annotations

import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, with_gates


def random_gates(dense: SubNet, share: float, *, seed: int = 0) -> SubNet:
    """Switches on the first row, and random gates until `share` of the table is on.

    The number of gates is rounded down. With the same seed, the gates of a smaller share are among
    those of a larger one.

    Args:
        dense: The SubNet whose gates are all on.
        share: The share of gates that are on, 0 to 1.
        seed: Seed of the random gates.

    Raises:
        DipgoError: The share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise DipgoError(
            "random gates, share",
            found=f"{share:g}",
            expected="a number from 0 to 1",
            remedy="give the share of gates that are on",
        )
    gates = all_on(dense)
    rest = gates[1:].reshape(-1)  # a view
    wanted = max(int(share * gates.size + 1e-9) - len(dense.blocks), 0)
    rest[np.random.default_rng(seed).permutation(rest.size)[wanted:]] = False
    return with_gates(dense, gates, "random gates", share=share, seed=seed)
