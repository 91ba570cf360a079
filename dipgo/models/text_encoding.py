"""Text encoding: all text encoders of a pipeline as one module from tokens to conditioning.

The module has the pipeline's own arithmetic between the encoders.

Source: `encode_prompt` of the diffusers pipelines that the families name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

CLIP_TOKENS = 77

HIDDEN_STATES = "encoder_hidden_states"

ATTENTION_MASK = "encoder_attention_mask"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer as the pipeline calls it.

    `ids` and `mask` name its results i64[rows, length]; an empty `mask` means that the model takes
    none. `lower` says that texts are lower-cased and stripped first. `widen` is the pipeline's
    function that replaces textual inversions of several vectors in texts for a tokenizer. `caveat`
    says how the pipeline may treat texts otherwise, if it may.
    """

    tokenizer: Any
    ids: str
    length: int
    mask: str = ""
    lower: bool = False
    widen: Callable[[list[str], Any], list[str]] | None = None
    caveat: str = ""

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns ids and, if the model takes it, mask, i64[rows, length], by their names."""
        encoded = self.tokenizer(
            self._prepare(texts),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        named = {self.ids: encoded.input_ids}
        return named | ({self.mask: encoded.attention_mask} if self.mask else {})

    def cut(self, text: str) -> tuple[int, str] | None:
        """Returns the length and what of a text is beyond it, or None if nothing is."""
        (prepared,) = self._prepare([text])
        ids = self.tokenizer(prepared, verbose=False).input_ids
        if len(ids) <= self.length:
            return None
        kept = self.tokenizer(prepared, max_length=self.length, truncation=True).input_ids
        same = zip(ids, kept, strict=False)
        start = next((index for index, (a, b) in enumerate(same) if a != b), len(kept) - 1)
        return self.length, self.tokenizer.decode(ids[start : start + len(ids) - len(kept)])

    def _prepare(self, texts: Sequence[str]) -> list[str]:
        prepared = [text.lower().strip() if self.lower else text for text in texts]
        return self.widen(prepared, self.tokenizer) if self.widen else prepared


@dataclass(frozen=True)
class TextEncoding:
    """The way from texts to conditioning: tokenizers, then a module that takes their `inputs`.

    With `zeros_without_negative` the unconditional rows are zeros in the absence of a negative
    prompt, instead of the encoding of an empty prompt.
    """

    module: nn.Module
    tokens: tuple[Tokens, ...]
    outputs: tuple[str, ...]
    zeros_without_negative: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the module's inputs, in its order."""
        names = (name for tokens in self.tokens for name in (tokens.ids, tokens.mask) if name)
        return tuple(names)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns i64[rows, length] for each of `inputs`."""
        return {name: ids for tokens in self.tokens for name, ids in tokens.encode(texts).items()}

    def widened_by(self, pipeline: Any) -> TextEncoding:
        """Returns the encoding with the pipeline's own textual inversions, if it can load any."""
        widen = getattr(pipeline, "maybe_convert_prompt", None)
        return replace(self, tokens=tuple(replace(one, widen=widen) for one in self.tokens))


def find_encoders(pipeline: Any, suffixes: Sequence[str]) -> dict[str, nn.Module]:
    """Returns the pipeline's text encoders with these suffixes, by their names in the pipeline."""
    names = [f"text_encoder{suffix}" for suffix in suffixes]
    return {name: getattr(pipeline, name) for name in names}


def default_of_call(pipeline: Any, argument: str) -> Any:
    """Returns the default of an argument of the pipeline's call; None where there is none."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    default = parameters[argument].default if argument in parameters else None
    return None if default is inspect.Parameter.empty else default


def takes_argument(pipeline: Any, argument: str) -> bool:
    """Returns whether the pipeline's call takes an argument of this name."""
    return argument in inspect.signature(type(pipeline).__call__).parameters


def default_scale(pipeline: Any) -> float:
    """Returns the default scale of a pipeline's guidance; 1 if its call takes no scale.

    For video, where the scale grows from frame to frame, that of the last frame.
    """
    names = ("guidance_scale", "max_guidance_scale")
    scales = (default_of_call(pipeline, name) for name in names)
    return float(next((scale for scale in scales if scale is not None), 1.0))


def count_tokens(pipeline: Any) -> int:
    """Returns the number of T5's tokens if the pipeline's call takes it, else that of CLIP's."""
    t5 = default_of_call(pipeline, "max_sequence_length")
    return clip_tokens(pipeline) if t5 is None else int(t5)


def clip_tokens(pipeline: Any) -> int:
    """Returns the number of tokens of the first tokenizer; CLIP's where there is no tokenizer."""
    named = (getattr(pipeline, name, None) for name in ("tokenizer", "tokenizer_2"))
    tokenizer = next((each for each in named if each), None)
    return int(tokenizer.model_max_length) if tokenizer else CLIP_TOKENS


def encodes_texts(pipeline: Any) -> bool:
    """Returns whether the pipeline has text encoders and tokenizers, if its class has any."""
    return all(_has(pipeline, part) for part in ("text_encoder", "tokenizer"))


def _has(pipeline: Any, part: str) -> bool:
    names = [name for name in (part, f"{part}_2") if hasattr(pipeline, name)]
    return not names or any(getattr(pipeline, name) is not None for name in names)
