"""Reads prompts that are given as embeddings: outputs of the text encoder, a row a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, described, setting
from dipgo.common.given_numbers import array_of
from dipgo.ir.types import TensorType, numpy_dtype

Embeds: TypeAlias = Any
"""Embeddings of all prompts of a call: an array, or what numpy can make one of."""

POOLED_AXES = 2
"""Axes of the output of a text encoder that has a vector for each text, not for each token."""


@dataclass(frozen=True, slots=True)
class GivenEmbeds:
    """Embeddings as diffusers' pipelines take them, each None or with a row for each prompt."""

    prompt_embeds: Embeds = None
    pooled_prompt_embeds: Embeds = None
    prompt_attention_mask: Embeds = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is given."""
        rows = (self.prompt_embeds, self.pooled_prompt_embeds, self.prompt_attention_mask)
        return all(array is None for array in rows)


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A prompt as rows of the plan's inputs, by their names."""

    rows: Mapping[str, NDArray[Any]]


def read_embeds(
    given: GivenEmbeds,
    outputs: Mapping[str, TensorType],
    masks: Mapping[str, TensorType],
    prefix: str = "",
) -> list[Embedded]:
    """Returns a prompt for each row of the embeddings.

    Args:
        given: The embeddings.
        outputs: The types of the outputs of the text encoder, by the plan's inputs.
        masks: The types of the plan's inputs that are masks of tokens.
        prefix: What the names of the arguments begin with: `negative_` for negative prompts.

    Raises:
        DipgoError: An array is missing, has no use, or is of another shape or type.
    """
    inputs = {**outputs, **masks}
    names = {name: _argument(name, inputs, masks, prefix) for name in inputs}
    values = {
        f"{prefix}prompt_embeds": given.prompt_embeds,
        _pooled(prefix): given.pooled_prompt_embeds,
        f"{prefix}prompt_attention_mask": given.prompt_attention_mask,
    }
    for argument, value in values.items():
        if (value is not None) != (argument in names.values()):
            raise _missing(argument) if value is None else _idle(argument)
    arrays: dict[str, NDArray[Any]] = {}
    for name, argument in names.items():
        arrays[name] = _rows(argument, values[argument], inputs[name])
    counts = {names[name]: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise DipgoError(
            setting(f"{prefix}prompt_embeds"),
            found=", ".join(f"{count} rows of {name}" for name, count in counts.items()),
            expected="a row of each for every prompt",
            remedy="give them as one call of the text encoder yields them",
        )
    count = max(counts.values())
    return [Embedded({name: rows[row] for name, rows in arrays.items()}) for row in range(count)]


def _argument(
    name: str, inputs: Mapping[str, TensorType], masks: Mapping[str, TensorType], prefix: str
) -> str:
    """Returns the argument of diffusers' pipelines that holds an input of the plan."""
    if name in masks:
        return f"{prefix}prompt_attention_mask"
    is_pooled = len(inputs[name].shape) == POOLED_AXES
    return _pooled(prefix) if is_pooled else f"{prefix}prompt_embeds"


def _pooled(prefix: str) -> str:
    return f"{prefix}pooled_prompt_embeds"


def _rows(argument: str, value: Embeds, tensor_type: TensorType) -> NDArray[Any]:
    """Returns an array of the plan's type, a row for each prompt."""
    array, shape = array_of(value), tensor_type.shape[1:]
    if array is None or not array.ndim or not len(array) or array.shape[1:] != shape:
        raise DipgoError(
            setting(argument),
            found=described(value) if array is None else f"{array.dtype}{list(array.shape)}",
            expected=f"{tensor_type.dtype}[prompts, {', '.join(map(str, shape))}]",
            remedy="give what the text encoder of this model yields, as an array on the CPU",
        )
    if not np.isfinite(array).all():
        raise DipgoError(
            setting(argument),
            found="NaN or infinity",
            expected="finite numbers",
            remedy="look for the fault in what made this array",
        )
    return array.astype(numpy_dtype(tensor_type.dtype))


def _missing(argument: str) -> DipgoError:
    return DipgoError(
        setting(argument),
        found="none",
        expected="it, besides the other embeddings of the prompts",
        remedy="give what the pipeline's encode_prompt yields",
    )


def _idle(argument: str) -> DipgoError:
    return DipgoError(
        setting(argument),
        found="an array for a model that takes none",
        expected="none",
        remedy="leave it out",
    )
