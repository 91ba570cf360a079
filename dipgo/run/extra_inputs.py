"""Prepares a plan's inputs besides noise and prompt: masks, control pictures, image prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, close_to, described
from dipgo.common.given_numbers import array_of
from dipgo.ir.types import TensorType, numpy_dtype

Given: TypeAlias = Any
"""An array for all pictures or with a row for each, the same for both halves of guidance.

Or a pair of such arrays, unconditional and conditional, or both halves of all pictures in one
array: unconditional, then conditional.
"""


@dataclass(frozen=True, slots=True)
class FurtherInput:
    """An input of a plan for `count` pictures, of which a batch is taken at a time.

    `halves` are its rows, [count, …] each: those of the unconditional half first, if there are two.
    A number has no halves.
    """

    number: NDArray[Any] | None
    halves: tuple[NDArray[Any], ...]

    def batch(self, part: slice, missing: int) -> NDArray[Any]:
        """Returns the plan's input for the pictures of `part`.

        The last picture is repeated `missing` times, to fill the batch.
        """
        if self.number is not None:
            return self.number
        rows = [half[part] for half in self.halves]
        return np.concatenate(
            [np.concatenate([half, half[-1:].repeat(missing, 0)]) for half in rows]
        )


def read_inputs(inputs: Mapping[str, Given]) -> dict[str, Given]:
    """Returns the user's inputs by name, each an array or a pair of arrays; None is not given.

    Raises:
        DipgoError: A name is no text, or a value is no array of numbers.
    """
    for name in inputs:
        if not isinstance(name, str):
            raise DipgoError(
                "inputs",
                found=f"{described(name)} as a name",
                expected="arrays by name",
                remedy="give the names of inputs as text",
            )
    return {
        name: tuple(_array(name, half) for half in value)
        if isinstance(value, tuple)
        else _array(name, value)
        for name, value in inputs.items()
        if value is not None
    }


def _array(name: str, value: Any) -> NDArray[Any]:
    array = array_of(value)
    if array is None:
        raise DipgoError(
            f"inputs, {name}",
            found=described(value),
            expected="an array of numbers, or a pair of them: (unconditional, conditional)",
            remedy="give it as numpy's array",
        )
    return array


def one_of_each(inputs: Mapping[str, Given], made: Mapping[str, Given]) -> dict[str, Given]:
    """Returns the user's inputs and those made of pictures, by name.

    Raises:
        DipgoError: An input is in both.
    """
    for name in made:
        if name in inputs:
            raise DipgoError(
                f"inputs, {name}",
                found="an array, besides the picture and mask that it is made of",
                expected="one of the two",
                remedy="leave it out, or mask_image",
            )
    return {**inputs, **made}


def further_inputs(
    wanted: Mapping[str, TensorType], inputs: Mapping[str, Given], batch: int, count: int
) -> dict[str, FurtherInput]:
    """Returns the inputs that a plan wants, each for `count` pictures.

    Args:
        wanted: The type of each input for a batch of `batch` pictures.
        inputs: The user's inputs and those made of pictures, by name.
        batch: The pictures that the plan makes at once.
        count: The pictures of the run.

    Raises:
        DipgoError: An input is missing, unknown, or of another shape.
    """
    for name in inputs:
        if name not in wanted:
            raise DipgoError(
                f"inputs, {name}",
                found="an input that the export does not take",
                expected=" ".join(wanted) or "none",
                remedy=close_to(name, wanted, "leave it out"),
            )
    return {
        name: _further(name, tensor_type, inputs.get(name), batch, count)
        for name, tensor_type in wanted.items()
    }


def _further(
    name: str, tensor_type: TensorType, value: Given, batch: int, count: int
) -> FurtherInput:
    if value is None:
        raise DipgoError(
            f"inputs, {name}",
            found="none",
            expected=f"{tensor_type}, of which one row is a picture's"
            if tensor_type.shape
            else "a number",
            remedy=f'give inputs={{"{name}": …}}',
        )
    if not tensor_type.shape:
        return FurtherInput(_as(name, value, tensor_type, ()), ())
    many = tensor_type.shape[0] // batch
    pair = _halves(value, many, count)
    if len(pair) != many:
        raise DipgoError(
            f"inputs, {name}",
            found=f"{len(pair)} arrays",
            expected="one array, or with guidance (unconditional, conditional)",
            remedy="correct it",
        )
    return FurtherInput(None, tuple(_rows(name, half, tensor_type, count) for half in pair))


def _halves(value: Given, many: int, count: int) -> tuple[Any, ...]:
    if isinstance(value, tuple):
        return value
    array = np.asarray(value)
    if many > 1 and array.ndim and len(array) == many * count:
        return tuple(np.split(array, many))
    return (array,) * many


def _rows(name: str, value: Any, tensor_type: TensorType, count: int) -> NDArray[Any]:
    array = np.asarray(value)
    rows = len(array) if array.ndim else 0
    converted = _as(name, array, tensor_type, (1 if rows == 1 else count, *tensor_type.shape[1:]))
    return np.broadcast_to(converted, (count, *tensor_type.shape[1:]))


def _as(name: str, value: Any, tensor_type: TensorType, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(value)
    if array.shape != shape:
        raise DipgoError(
            f"inputs, {name}",
            found=f"an array of shape {list(array.shape)}",
            expected=f"{tensor_type.dtype}{list(shape)}",
            remedy="give one picture, or as many as prompts, for the size of the export",
        )
    return array.astype(numpy_dtype(tensor_type.dtype))
