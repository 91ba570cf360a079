"""Reads arrays and numbers that a program has given, of whatever type they are."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, described


def array_of(value: Any) -> NDArray[Any] | None:
    """Returns a value as an array of numbers, or None if it is none.

    Lists and everything that numpy can make an array of are taken, such as tensors of the CPU.
    """
    if hasattr(value, "detach"):  # a tensor that a gradient is kept for
        value = value.detach()
    try:
        array = np.asarray(value)
    except Exception:  # lists of unequal lengths, or a tensor that numpy cannot read
        return None
    return array if array.dtype.kind in "biuf" else None


def finite_number(where: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns a number as an array without axes.

    Raises:
        DipgoError: It is no number, the type does not hold it, or it is not finite.
    """
    is_number = isinstance(value, Real if dtype.kind == "f" else Integral)
    number = _held(value, dtype) if is_number and not isinstance(value, bool) else None
    if number is None:
        raise DipgoError(
            where,
            found="NaN or infinity" if _is_endless(value) else described(value),
            expected=f"a finite number that {dtype} holds",
            remedy="look for the fault in what made this number",
        )
    return number


def _held(value: Any, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Returns a number in a type, or None if that does not hold it."""
    try:
        with np.errstate(over="ignore"):
            number = np.asarray(float(value) if dtype.kind == "f" else int(value), dtype)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def _is_endless(value: Any) -> bool:
    return isinstance(value, float | np.floating) and not math.isfinite(value)
