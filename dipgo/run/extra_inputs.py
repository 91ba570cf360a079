"""What a plan takes besides noise and prompt (masks, control pictures, image prompts), by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.ir.types import TensorType, numpy_dtype

Given: TypeAlias = Any
"""An array of one picture or of each, the same for both halves of guidance; or a pair of such, or
both of all pictures in one array: unconditional, then conditional."""


@dataclass(frozen=True, slots=True)
class FurtherInput:
    """One input of a plan for `count` pictures, of which a batch is taken at a time.

    `halves` are its rows, [count, …] each: those of the unconditional half first, where there are
    two. A number has none.
    """

    number: NDArray[Any] | None
    halves: tuple[NDArray[Any], ...]

    def batch(self, part: slice, missing: int) -> NDArray[Any]:
        """The plan's input for the pictures of `part`, the last of them `missing` times more."""
        if self.number is not None:
            return self.number
        rows = [half[part] for half in self.halves]
        return np.concatenate([np.concatenate([one, one[-1:].repeat(missing, 0)]) for one in rows])


def one_of_each(given: Mapping[str, Given], made: Mapping[str, Given]) -> dict[str, Given]:
    """What was given by name and what was made of pictures. Raises DipgoError for both of one."""
    for name in made:
        if name in given:
            raise DipgoError(
                f"inputs, {name}",
                found="an array, beside the picture and mask that it is made of",
                expected="one of the two",
                remedy="leave it out, or mask_image",
            )
    return {**given, **made}


def further_inputs(
    wanted: Mapping[str, TensorType], given: Mapping[str, Given], batch: int, count: int
) -> dict[str, FurtherInput]:
    """Those that a plan wants, of a batch of `batch`, for `count` pictures. Raises DipgoError."""
    for name in given:
        if name not in wanted:
            raise DipgoError(
                f"inputs, {name}",
                found="an input that the export does not take",
                expected=" ".join(wanted) or "none",
                remedy="leave it out",
            )
    return {
        name: _further(name, kind, given.get(name), batch, count) for name, kind in wanted.items()
    }


def _further(name: str, kind: TensorType, given: Given, batch: int, count: int) -> FurtherInput:
    if given is None:
        raise DipgoError(
            f"inputs, {name}",
            found="none",
            expected=f"{kind}, of which one row is a picture's" if kind.shape else "a number",
            remedy=f'give inputs={{"{name}": …}}',
        )
    if not kind.shape:
        return FurtherInput(_as(name, given, kind, ()), ())
    many = kind.shape[0] // batch
    pair = _halves(given, many, count)
    if len(pair) != many:
        raise DipgoError(
            f"inputs, {name}",
            found=f"{len(pair)} arrays",
            expected="one array, or with guidance (unconditional, conditional)",
            remedy="correct it",
        )
    return FurtherInput(None, tuple(_rows(name, one, kind, count) for one in pair))


def _halves(given: Given, many: int, count: int) -> tuple[Any, ...]:
    if isinstance(given, tuple):
        return given
    array = np.asarray(given)
    if many > 1 and array.ndim and len(array) == many * count:
        return tuple(np.split(array, many))
    return (array,) * many


def _rows(name: str, given: Any, kind: TensorType, count: int) -> NDArray[Any]:
    array = np.asarray(given)
    rows = len(array) if array.ndim else 0
    found = _as(name, array, kind, (1 if rows == 1 else count, *kind.shape[1:]))
    return np.broadcast_to(found, (count, *kind.shape[1:]))


def _as(name: str, given: Any, kind: TensorType, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(given)
    if array.shape != shape:
        raise DipgoError(
            f"inputs, {name}",
            found=f"an array of shape {list(array.shape)}",
            expected=f"{kind.dtype}{list(shape)}",
            remedy="give one picture, or as many as prompts, for the size of the export",
        )
    return array.astype(numpy_dtype(kind.dtype))
