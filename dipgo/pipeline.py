"""Pipeline: from prompt to picture with an export directory alone, with diffusers' habits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.load import load
from dipgo.engines.parts import Part
from dipgo.engines.runner import OnStep, Runner
from dipgo.errors import DipgoError
from dipgo.noise import draw_noise

if TYPE_CHECKING:
    from PIL.Image import Image

GUIDANCE_SCALE = 7.5
"""As diffusers' Stable Diffusion pipelines have it."""
OutputType = Literal["pil", "np", "latent"]


@dataclass(frozen=True, slots=True)
class PipelineOutput:
    """`images`: PIL pictures, f32[N, H, W, 3] in [0, 1] ("np"), or f32[N, C, h, w] ("latent")."""

    images: Any


class Pipeline:
    """A text-to-image export. Prompts beyond the export's batch are run one batch after another."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.manifest = runner.export.manifest
        self._text = TextInput(runner)
        self._decoder = _part(runner, "vae_decoder")

    @classmethod
    def from_export(
        cls,
        path: str | Path,
        *,
        size: str = "",
        target: str = "onnxruntime",
        provider: str | None = None,
        threads: int = 0,
        check_hashes: bool = True,
    ) -> Pipeline:
        """Loads an export directory; the arguments are those of `load`. Raises DipgoError."""
        runner = load(
            path,
            size=size,
            target=target,
            provider=provider,
            threads=threads,
            check_hashes=check_hashes,
        )
        return cls(runner)

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] = "",
        guidance_scale: float | None = None,
        seed: int | Sequence[int] = 0,
        latents: NDArray[np.float32] | None = None,
        output_type: OutputType = "pil",
        on_step: OnStep = lambda step: None,
    ) -> PipelineOutput:
        """Pictures of the prompts.

        `guidance_scale` is GUIDANCE_SCALE unless given; an export without guidance takes none.
        `seed` gives the noise that `torch.Generator("cpu").manual_seed(seed)` gives diffusers, and
        several seeds, one a picture, what a list of such generators does. `latents` f32[N, C, h,
        w], of unit variance, take the place of the initial noise; what the scheduler draws on the
        way then begins with the seed's first draw. Raises DipgoError.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        _check_seeds(seed, len(prompts))
        negatives = _as_many(negative_prompt, len(prompts))
        scale = self._scale(guidance_scale, negatives)
        noise = self._noise(seed, len(prompts), latents)
        batches = [
            self._run(
                prompts[part],
                negatives[part],
                {name: array[part] for name, array in noise.items()},
                scale,
                on_step,
            )
            for part in self._batches(len(prompts))
        ]
        states = np.concatenate(batches)[: len(prompts)]
        return PipelineOutput(self._output(states, output_type))

    def _scale(self, given: float | None, negatives: list[str]) -> float:
        """The guidance scale; refuses what an export without guidance would have to ignore."""
        if not self.manifest.guidance and (given is not None or any(negatives)):
            raise DipgoError(
                str(self.runner.export.path),
                found="a guidance scale or a negative prompt for an export without guidance",
                expected="neither",
                remedy="leave them out, or export without --no-guidance",
            )
        return GUIDANCE_SCALE if given is None else given

    def _noise(
        self, seed: int | Sequence[int], count: int, latents: NDArray[np.float32] | None
    ) -> dict[str, NDArray[np.float32]]:
        """The plan's inputs that are noise, for `count` pictures."""
        shape = (count, *self.runner.inputs["latents"].shape[1:])
        before = int(latents is not None)  # draws that the seed need not make
        places = {draw.value: draw.index - before for draw in self.runner.export.plan.draws}
        first = [] if latents is not None else [0]
        draws = draw_noise(seed, shape, {*first, *places.values()})
        initial = draws[0] if latents is None else latents
        return {
            "latents": initial * np.float32(self.manifest.sampler.init_noise_sigma),
            **{name: draws[index] for name, index in places.items()},
        }

    def _batches(self, count: int) -> Iterator[slice]:
        size = self.manifest.batch
        return (slice(start, start + size) for start in range(0, count, size))

    def _run(
        self,
        prompts: list[str],
        negatives: list[str],
        noise: dict[str, NDArray[np.float32]],
        guidance_scale: float,
        on_step: OnStep,
    ) -> NDArray[np.float32]:
        missing = self.manifest.batch - len(prompts)
        prompts, negatives = prompts + [""] * missing, negatives + [""] * missing
        padded = {name: _padded(array, missing) for name, array in noise.items()}
        texts = negatives + prompts if self.manifest.guidance else prompts
        inputs: dict[str, Any] = {**padded, **self._text.encode(texts)}
        if self.manifest.guidance:
            inputs["guidance_scale"] = guidance_scale
        return self.runner.run(inputs, on_step=on_step)["latents"]

    def _output(self, latents: NDArray[np.float32], output_type: OutputType) -> Any:
        if output_type == "latent":
            return latents
        pictures = self.decode(latents)
        return pictures if output_type == "np" else [to_image(one) for one in pictures]

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Latents f32[N, C, h, w] to pictures f32[N, H, W, 3] in [0, 1]."""
        size = self.manifest.batch
        padded = np.concatenate([latents, latents[-1:].repeat(-len(latents) % size, axis=0)])
        decoded = [self._decoder(padded[part]) for part in self._batches(len(padded))]
        pictures = np.concatenate(decoded)[: len(latents)].transpose(0, 2, 3, 1)
        return np.clip(pictures / 2 + 0.5, 0.0, 1.0)


class TextInput:
    """Prompts to the denoiser's conditioning."""

    def __init__(self, runner: Runner) -> None:
        from tokenizers import Tokenizer

        export = runner.export
        self._encoder = _part(runner, "text_encoder")
        record = export.manifest.tokenizer
        assert record is not None, "a text encoder without a tokenizer"
        self._tokenizer = Tokenizer.from_file(str(export.path / record.file))
        self._tokenizer.enable_truncation(record.length)
        self._tokenizer.enable_padding(length=record.length, pad_id=record.pad_id)
        self._output_name = export.manifest.parts["text_encoder"].outputs[0].name

    def encode(self, texts: list[str]) -> dict[str, NDArray[np.float32]]:
        """`encoder_hidden_states` f32[rows, tokens, width] of as many texts as rows."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        return {self._output_name: self._encoder(np.asarray(ids, np.int64))}


def to_image(picture: NDArray[np.float32]) -> Image:
    """f32[H, W, 3] in [0, 1] to a PIL picture, rounded as diffusers rounds."""
    from PIL import Image

    return Image.fromarray((picture * 255).round().astype(np.uint8))


def _part(runner: Runner, name: str) -> Part:
    export = runner.export
    if name not in export.manifest.parts:
        raise DipgoError(
            str(export.path),
            found=f"an export of {export.manifest.model.source} without {name.replace('_', ' ')}",
            expected="an export of a text-to-image pipeline",
            remedy="export a pipeline, or run the plan alone with dipgo.engines.load",
        )
    return Part(runner, name)


def _padded(array: NDArray[np.float32], missing: int) -> NDArray[np.float32]:
    """With as many pictures more, of zeros."""
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def _check_seeds(seed: int | Sequence[int], count: int) -> None:
    if isinstance(seed, Sequence) and len(seed) != count:
        raise DipgoError(
            "seed",
            found=f"{len(seed)} seeds",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )


def _as_many(texts: str | Sequence[str], count: int) -> list[str]:
    if isinstance(texts, str):
        return [texts] * count
    if len(texts) != count:
        raise DipgoError(
            "negative_prompt",
            found=f"{len(texts)} texts",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return list(texts)
