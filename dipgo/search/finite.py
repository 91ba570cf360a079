"""Stops a search at the first number that is none."""

from __future__ import annotations

import torch
from torch import Tensor

from dipgo.errors import DipgoError


def check_finite(value: Tensor, iteration: int, what: str) -> None:
    """Raises DipgoError, naming the iteration, for a NaN or an infinity in `value`."""
    if bool(torch.isfinite(value).all()):
        return
    raise DipgoError(
        f"search, iteration {iteration}",
        found=f"NaN or infinity in {what}",
        expected="finite numbers",
        remedy="lower --learning-rate or leave mixed precision out, and run again: "
        "the last checkpoint is from before this iteration",
    )
