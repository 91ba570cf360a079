"""All text encoders of a pipeline, with its own arithmetic, as one module: tokens to conditioning.

Sources: `encode_prompt` of the diffusers pipelines named in `PIPELINES`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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


class ClipEncoder(nn.Module):
    """Token ids i64[rows, tokens] to the last hidden state f32[rows, tokens, width]."""

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """As `StableDiffusionPipeline.encode_prompt` takes it."""
        return (self.encoder(input_ids)[0],)


class SDXLEncoders(nn.Module):
    """Ids for one or two CLIPs to hidden states f32[rows, tokens, sum of widths], and pooled."""

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, *input_ids: Tensor) -> tuple[Tensor, ...]:
        """The penultimate hidden states side by side; pooled is the one that is projected."""
        found = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(self.encoders.values(), input_ids, strict=True)
        ]
        pooled = next(one[0] for one in found if one[0].ndim == 2)
        return torch.cat([one.hidden_states[-2] for one in found], dim=-1), pooled


class SD3Encoders(nn.Module):
    """Ids for two CLIPs and perhaps T5 to hidden states f32[rows, tokens, width], and pooled.

    Without T5 its `t5_tokens` hidden states of `width` are zeros.
    """

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module], t5_tokens: int, width: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.t5_tokens, self.width = t5_tokens, width

    def forward(self, *input_ids: Tensor) -> tuple[Tensor, ...]:
        """CLIP's penultimate hidden states side by side, filled up with zeros; then T5's last."""
        first, second, *t5 = self.encoders.values()
        clips = [
            clip(ids, output_hidden_states=True)
            for clip, ids in zip((first, second), input_ids, strict=False)
        ]
        hidden = torch.cat([one.hidden_states[-2] for one in clips], dim=-1)
        rest = (
            t5[0](input_ids[2])[0]
            if t5
            else hidden.new_zeros(hidden.shape[0], self.t5_tokens, self.width)
        )
        hidden = nn.functional.pad(hidden, (0, rest.shape[-1] - hidden.shape[-1]))
        return torch.cat([hidden, rest], dim=-2), torch.cat([one[0] for one in clips], dim=-1)


class PixArtEncoder(nn.Module):
    """Ids and mask i64[rows, tokens] to T5's last hidden state f32[rows, tokens, width]."""

    wrapped = "encoder"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The mask is a conditioning of the denoiser too, which the tokenizer gives."""
        return (self.encoder(input_ids, attention_mask=mask)[0],)


class FluxEncoders(nn.Module):
    """Ids for CLIP and T5 to T5's hidden states f32[rows, tokens, width] and CLIP's pooled."""

    wrapped = "encoders"

    def __init__(self, encoders: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, input_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, ...]:
        """As `FluxPipeline.encode_prompt` has them."""
        clip, t5 = self.encoders.values()
        return t5(t5_ids)[0], clip(input_ids).pooler_output


def _stable_diffusion(pipeline: Any, tokens: int) -> TextEncoding:
    return TextEncoding(
        ClipEncoder(pipeline.text_encoder),
        (Tokens(pipeline.tokenizer, "input_ids", tokens),),
        (HIDDEN_STATES,),
    )


def _sdxl(pipeline: Any, tokens: int) -> TextEncoding:
    """A refiner has the second encoder alone."""
    present = [suffix for suffix in ("", "_2") if getattr(pipeline, f"text_encoder{suffix}")]
    return TextEncoding(
        SDXLEncoders(_encoders(pipeline, present)),
        tuple(
            Tokens(getattr(pipeline, f"tokenizer{suffix}"), f"input_ids{suffix}", tokens)
            for suffix in present
        ),
        (HIDDEN_STATES, "text_embeds"),
        zeros_without_negative=bool(pipeline.config.force_zeros_for_empty_prompt),
    )


def _sd3(pipeline: Any, tokens: int) -> TextEncoding:
    present = ["", "_2", *(["_3"] if pipeline.text_encoder_3 is not None else [])]
    clip = int(pipeline.tokenizer_max_length)
    lengths = (clip, clip, tokens - clip)
    return TextEncoding(
        SD3Encoders(
            _encoders(pipeline, present),
            tokens - clip,
            int(pipeline.transformer.config.joint_attention_dim),
        ),
        tuple(
            Tokens(getattr(pipeline, f"tokenizer{suffix}"), f"input_ids{suffix}", length)
            for suffix, length in zip(present, lengths, strict=False)
        ),
        (HIDDEN_STATES, "pooled_projections"),
    )


def _pixart(pipeline: Any, tokens: int) -> TextEncoding:
    """Texts are lower-cased, as where diffusers lacks the packages to clean them further."""
    return TextEncoding(
        PixArtEncoder(pipeline.text_encoder),
        (Tokens(pipeline.tokenizer, "input_ids", tokens, mask=ATTENTION_MASK, lower=True),),
        (HIDDEN_STATES,),
    )


def _flux(pipeline: Any, tokens: int) -> TextEncoding:
    return TextEncoding(
        FluxEncoders(_encoders(pipeline, ["", "_2"])),
        (
            Tokens(pipeline.tokenizer, "input_ids", int(pipeline.tokenizer_max_length)),
            Tokens(pipeline.tokenizer_2, "input_ids_2", tokens),
        ),
        (HIDDEN_STATES, "pooled_projections"),
    )


def _encoders(pipeline: Any, suffixes: Sequence[str]) -> dict[str, nn.Module]:
    names = [f"text_encoder{suffix}" for suffix in suffixes]
    return {name: getattr(pipeline, name) for name in names}


PIPELINES: dict[str, Callable[[Any, int], TextEncoding]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionInpaintPipeline": _stable_diffusion,
    "StableDiffusionControlNetPipeline": _stable_diffusion,
    "LatentConsistencyModelPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _sdxl,
    "StableDiffusionXLInpaintPipeline": _sdxl,
    "StableDiffusionXLControlNetPipeline": _sdxl,
    "StableDiffusion3Pipeline": _sd3,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "FluxPipeline": _flux,
}
"""By class, or that of a base class: how a pipeline encodes its prompts."""


def find_text_encoding(pipeline: Any, tokens: int) -> TextEncoding | None:
    """How the pipeline makes conditioning of texts; None where it has no texts, or is not known.

    `tokens` is the length of the hidden states, f32[rows, tokens, width].
    """
    names = [one.__name__ for one in type(pipeline).__mro__]
    build = next((PIPELINES[name] for name in names if name in PIPELINES), None)
    has_encoder = any(getattr(pipeline, f"text_encoder{one}", None) for one in ("", "_2"))
    has_tokenizer = any(getattr(pipeline, f"tokenizer{one}", None) for one in ("", "_2"))
    if build is None or not has_encoder or not has_tokenizer:
        return None
    return build(pipeline, tokens)


def default_of_call(pipeline: Any, argument: str) -> Any:
    """The default that the pipeline's class has for an argument of its call, None if none."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    default = parameters[argument].default if argument in parameters else None
    return None if default is inspect.Parameter.empty else default
