"""Key steps: a published set, for any number of steps and of key steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dipgo.errors import DipgoError


def scale_key_steps(published: Sequence[int], of: int, steps: int, count: int) -> tuple[int, ...]:
    """`count` key steps of `steps`, spaced as the `published` ones are among `of`.

    The published ones are taken for quantiles of a density of key steps, from which any number
    can be drawn; as many of as many are themselves. Raises DipgoError.
    """
    if not 1 <= count <= steps:
        raise DipgoError(
            "key steps",
            found=f"{count} of {steps} steps",
            expected=f"1 to {steps}",
            remedy="choose key steps among the steps",
        )
    ranks = np.arange(count) * len(published) / count
    places = np.interp(ranks, np.arange(len(published) + 1), (*published, of)) * steps / of
    keys = [-1]
    for rank, place in enumerate(places):  # distinct, with room for those that follow
        keys.append(min(max(int(place + 1e-9), keys[-1] + 1), steps - count + rank))
    return tuple(keys[1:])
