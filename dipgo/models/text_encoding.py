"""All text encoders of a pipeline, with its own arithmetic, as one module: tokens to conditioning.

Sources: `encode_prompt` of the diffusers pipelines that the families name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

CLIP_TOKENS = 77

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


def count_tokens(pipeline: Any) -> int:
    """Returns the tokens of T5 where the pipeline's call takes their number, else of CLIP."""
    t5 = default_of_call(pipeline, "max_sequence_length")
    return clip_tokens(pipeline) if t5 is None else int(t5)


def clip_tokens(pipeline: Any) -> int:
    """Returns the tokens of the first tokenizer, those of CLIP where there is none."""
    tokenizer = getattr(pipeline, "tokenizer", None)
    return int(tokenizer.model_max_length) if tokenizer else CLIP_TOKENS


def encodes_texts(pipeline: Any) -> bool:
    """Returns whether it has text encoders and tokenizers, where it has places for them."""
    return all(_has(pipeline, part) for part in ("text_encoder", "tokenizer"))


def _has(pipeline: Any, part: str) -> bool:
    names = [name for name in (part, f"{part}_2") if hasattr(pipeline, name)]
    return not names or any(getattr(pipeline, name) is not None for name in names)
