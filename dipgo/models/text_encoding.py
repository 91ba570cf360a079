"""All text encoders of a pipeline, with its own arithmetic, as one module: tokens to conditioning.

Sources: `encode_prompt` of the diffusers pipelines named in `PIPELINES`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

HIDDEN_STATES = "encoder_hidden_states"

ATTENTION_MASK = "encoder_attention_mask"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer as the pipeline calls it. `ids` and `mask` name what it gives, i64[rows, length].

    Without a `mask` the model is called without one. `lower` says that texts are lower-cased and
    stripped before.
    """

    tokenizer: Any
    ids: str
    length: int
    mask: str = ""
    lower: bool = False

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Ids and, if the model takes it, mask, i64[rows, length], by their names."""
        given = self.tokenizer(
            [text.lower().strip() if self.lower else text for text in texts],
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        named = {self.ids: given.input_ids}
        return named | ({self.mask: given.attention_mask} if self.mask else {})


@dataclass(frozen=True)
class TextEncoding:
    """From texts to conditioning: tokens, then a module that takes them in the order of `inputs`.

    With `zeros_without_negative` the unconditional rows are zeros where no negative prompt is
    given: they are not those of an empty one.
    """

    module: nn.Module
    tokens: tuple[Tokens, ...]
    outputs: tuple[str, ...]
    zeros_without_negative: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the module's inputs."""
        names = (name for one in self.tokens for name in (one.ids, one.mask) if name)
        return tuple(names)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """i64[rows, length] for each of `inputs`."""
        return {name: ids for one in self.tokens for name, ids in one.encode(texts).items()}


def find_encoders(pipeline: Any, suffixes: Sequence[str]) -> dict[str, nn.Module]:
    names = [f"text_encoder{suffix}" for suffix in suffixes]
    return {name: getattr(pipeline, name) for name in names}


def default_of_call(pipeline: Any, argument: str) -> Any:
    """The default that the pipeline's class has for an argument of its call, None if none."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    default = parameters[argument].default if argument in parameters else None
    return None if default is inspect.Parameter.empty else default
