"""The pipeline: from prompt to picture with an export directory alone, used as in diffusers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.arguments import checks_arguments
from dipgo.engines.clones import OnStep
from dipgo.engines.finite import check_finite
from dipgo.engines.load import load
from dipgo.engines.runner import Part, Runner
from dipgo.engines.targets import DEFAULT_TARGET
from dipgo.run.arguments import (
    EMBEDDED_SCALES,
    OutputType,
    check_output_type,
    check_scale,
    repeated,
    reported,
    seeds_of,
)
from dipgo.run.call_prompts import check_used, negatives_of_call, prompts_of_call
from dipgo.run.callbacks import StepEnd, StepEnds, both
from dipgo.run.decoder import Decoder, batches
from dipgo.run.diffusers_arguments import judge_arguments
from dipgo.run.diffusers_members import WithoutDiffusersMembers
from dipgo.run.extra_inputs import FurtherInput, Given, further_inputs, one_of_each, read_inputs
from dipgo.run.fitted import warn_of_call, warn_of_export
from dipgo.run.hub import find_export, push_export
from dipgo.run.latents import check_latents, draw_inputs
from dipgo.run.pictures import ENCODER, FRAME_ENCODER, Pictures, check_image
from dipgo.run.prompt_embeds import Embeds, GivenEmbeds
from dipgo.run.prompts import Negative, Prompt, conditioning_inputs, conditioning_of

ENCODERS = (ENCODER, FRAME_ENCODER)


@dataclass(frozen=True, slots=True)
class PipelineOutput:
    """The pictures of a call.

    `images` are PIL pictures, f32[N, H, W, 3] in [0, 1] ("np"), or f32[N, C, h, w] ("latent"); for
    videos lists of pictures, f32[N, F, H, W, 3], or f32[N, F, C, h, w]. `seed` is that of their
    noise, which was drawn if none was passed, or a list with one for each; None for generators.
    """

    images: Any
    seed: int | list[int | None] | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    """All pictures of a call, made batch by batch; `negatives` is None if none are passed."""

    prompts: list[Prompt]
    negatives: list[Negative] | None
    noise: Mapping[str, NDArray[np.float32]]
    further: dict[str, FurtherInput]
    scale: float


class Pipeline(WithoutDiffusersMembers):
    """A pipeline from an export. Prompts beyond its batch are run one batch after another.

    Any number of threads may call it: as many runs as its runner has clones go on at a time, and
    further ones wait. `close()`, or the end of `with`, frees its engines.
    """

    @checks_arguments
    def __init__(self, runner: Runner) -> None:
        """Takes the runner of the export.

        Raises:
            DipgoError: The export is of less than a pipeline.
        """
        self.runner = runner
        self.manifest = runner.export.manifest
        warn_of_export(self.manifest)
        self._condition, self._pipeline = conditioning_of(runner)
        self._further = {
            name: tensor_type
            for name, tensor_type in conditioning_inputs(runner).items()
            if name not in self._condition.gives
        }
        names = [name for name in ENCODERS if name in self.manifest.parts]
        self._encoders = {name: Part(runner, name) for name in names}
        self._decoder = Decoder(runner)

    def __repr__(self) -> str:
        facts = self.runner.describe()
        return f"<{type(self).__name__}: {self._pipeline.class_name}, {facts}>"

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees engines and buffers, when runs that go on have ended; see `Runner.close`.

        Raises:
            DipgoError: It is called within a run.
        """
        self.runner.close()

    @classmethod
    @checks_arguments
    def from_export(
        cls,
        path: str | Path,
        *,
        size: str = "",
        target: str = DEFAULT_TARGET,
        provider: str | None = None,
        threads: int = 0,
        check_hashes: bool = True,
        clones: int = 1,
    ) -> Pipeline:
        """Loads an export directory; the arguments are those of `dipgo.engines.load`.

        Raises:
            DipgoError: The export cannot be loaded, or is of less than a pipeline.
        """
        runner = load(
            path,
            size=size,
            target=target,
            provider=provider,
            threads=threads,
            check_hashes=check_hashes,
            clones=clones,
        )
        return cls(runner)

    def clone(self) -> Pipeline:
        """Returns a pipeline with the same weights and engines, and with buffers of its own.

        Raises:
            DipgoError: The backend has no more than one, or memory does not suffice.
        """
        return type(self)(self.runner.clone())

    @classmethod
    @checks_arguments
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> Pipeline:
        """Loads an export by its path, or by its id on the Hub.

        Args:
            model: The path or the id.
            revision: The revision on the Hub.
            token: The token for the Hub.
            options: Further arguments of `from_export`.

        Raises:
            DipgoError: The export cannot be fetched or loaded, or is of less than a pipeline.
        """
        return cls.from_export(find_export(model, revision, token), **options)

    @checks_arguments
    def push_to_hub(
        self, repository: str, *, private: bool | None = None, token: str | None = None
    ) -> str:
        """Uploads the export directory to the Hub and returns its address.

        Raises:
            DipgoError: The Hub cannot be reached.
        """
        path = self.runner.export.path
        return push_export(path, repository, private=private, token=token)

    @checks_arguments
    def __call__(
        self,
        prompt: Prompt | Sequence[Prompt] = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        generator: Any = None,
        seed: int | Sequence[int] | None = None,
        latents: NDArray[np.float32] | None = None,
        image: Any = None,
        mask_image: Any = None,
        inputs: Mapping[str, Given] | None = None,
        prompt_embeds: Embeds = None,
        pooled_prompt_embeds: Embeds = None,
        prompt_attention_mask: Embeds = None,
        negative_prompt_embeds: Embeds = None,
        negative_pooled_prompt_embeds: Embeds = None,
        negative_prompt_attention_mask: Embeds = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        on_step: OnStep = lambda step: None,
        **of_diffusers: Any,
    ) -> Any:
        """Makes pictures.

        Args:
            prompt: Texts, class labels or names of classes; one, or a list.
            negative_prompt: One text, or a text for each prompt; by default none, or the one that
                the SubNet was fitted for.
            num_images_per_prompt: The pictures to make of each prompt.
            guidance_scale: By default that of diffusers' pipeline, or the nearest that the SubNet
                was fitted for; an export without guidance takes none.
            generator: A seed, or torch's generator of the CPU, or a list of these with one for each
                picture. A generator moves on by what is drawn, as in diffusers.
            seed: Yields the noise that `torch.Generator("cpu").manual_seed(seed)` yields in
                diffusers; a list of seeds that of a list of such generators, one for each picture.
                Without it one is drawn, and the output says which.
            latents: f32[N, C, h, w] of unit variance, in place of the initial noise; what the
                scheduler draws later then begins with the seed's first draw.
            image: The picture that an export with a strength starts from, an inpainting model
                paints in, or a video begins with: a PIL picture, or f32[3, H, W] in [-1, 1]; one
                for all, or a list with one for each.
            mask_image: White where to paint in `image`: PIL's, or f32[H, W] in [0, 1].
            inputs: The plan's other inputs, by name (`controlnet_cond`, `image_embeds`, …): arrays
                with one row for all pictures or one for each; or pairs of these, (unconditional,
                conditional), or both in one array.
            prompt_embeds: Embeddings in place of `prompt`, a row for each, as diffusers' pipeline
                of the model has them: arrays, or what numpy makes arrays of.
            pooled_prompt_embeds: Their pooled embeddings, if the model has those.
            prompt_attention_mask: The mask of their tokens, if the model takes one.
            negative_prompt_embeds: Embeddings in place of `negative_prompt`.
            negative_pooled_prompt_embeds: Their pooled embeddings.
            negative_prompt_attention_mask: The mask of their tokens.
            output_type: "pil", "np" or "latent".
            return_dict: If False, the result is the tuple (images,).
            callback_on_step_end: Called as (pipeline, step, timestep, {}). It must change nothing:
                a plan is fixed.
            on_step: Called with the index of a step when something of it has been run.
            **of_diffusers: Further arguments of diffusers' pipelines, such as `height`: taken if
                the export has that value.

        Returns:
            A PipelineOutput.

        Raises:
            DipgoError: An argument does not fit the export or the other arguments.
        """
        judge_arguments(of_diffusers, self.runner, ARGUMENTS)
        check_output_type(output_type)
        embeds = GivenEmbeds(prompt_embeds, pooled_prompt_embeds, prompt_attention_mask)
        negative_embeds = GivenEmbeds(
            negative_prompt_embeds, negative_pooled_prompt_embeds, negative_prompt_attention_mask
        )
        prompt_list = prompts_of_call(self._condition, prompt, embeds, image)
        negatives = negatives_of_call(
            self._condition, self.manifest, negative_prompt, negative_embeds, len(prompt_list)
        )
        check_used(self.runner, self._condition, prompt_list, negatives, guidance_scale)
        prompts = repeated(prompt_list, num_images_per_prompt)
        pictures = Pictures(image, mask_image)
        check_image(self.runner.export, pictures)
        seeds, given = seeds_of(generator, seed), read_inputs(inputs or {})
        drawn = draw_inputs(
            self.runner,
            self._encoders,
            pictures,
            given,
            latents,
            seeds,
            len(prompts),
        )
        all_inputs = one_of_each(given, drawn.made)
        further = further_inputs(self._further, all_inputs, self.manifest.batch, len(prompts))
        own = self._pipeline.guidance_scale
        scale = check_scale(own if guidance_scale is None else guidance_scale)
        warn_of_call(self.manifest, scale, negatives)
        request = _Request(
            prompts,
            None if negatives is None else repeated(negatives, num_images_per_prompt),
            drawn.noise,
            further,
            scale,
        )
        made = [
            self._run(request, part, callback_on_step_end, on_step)
            for part in batches(len(prompts), self.manifest.batch)
        ]
        drawn_latents = check_finite("latents", np.concatenate(made)[: len(prompts)])
        images = self._decoder.output(drawn_latents, output_type)
        return PipelineOutput(images, reported(seeds)) if return_dict else (images,)

    def _run(
        self, request: _Request, part: slice, callback: StepEnd | None, on_step: OnStep
    ) -> NDArray[np.float32]:
        """Returns latents f32[B, C, h, w] of a batch, filled with its last prompt and zeros."""
        prompts = self._filled(request.prompts[part])
        negatives = None if request.negatives is None else self._filled(request.negatives[part])
        missing = self.manifest.batch - len(request.prompts[part])
        noise = {name: _padded(array[part], missing) for name, array in request.noise.items()}
        further = {
            name: further_input.batch(part, missing)
            for name, further_input in request.further.items()
        }
        inputs: dict[str, Any] = {**noise, **self._condition(prompts, negatives), **further}
        if self.manifest.guidance:
            inputs["guidance_scale"] = max(request.scale, 1.0)  # below 1, diffusers does not guide
        for name, as_input in EMBEDDED_SCALES.items():
            if name in self.runner.inputs:
                inputs[name] = as_input(request.scale, self.runner.inputs[name].shape)
        if callback is None:
            return self.runner.run(inputs, on_step=on_step)["latents"]
        ends = StepEnds(self, callback, [step.timestep for step in self.runner.export.plan.steps])
        latents = self.runner.run(inputs, on_step=both(on_step, ends.on_step))["latents"]
        ends.finish()
        return latents

    def _filled(self, items: list[Any]) -> list[Any]:
        return items + items[-1:] * (self.manifest.batch - len(items))

    @checks_arguments
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decodes latents f32[N, C, h, w] to pictures f32[N, H, W, 3] in [0, 1].

        Without a VAE the latents are the picture, in [-1, 1]. Latents and pictures of videos have
        an axis of frames after N.

        Raises:
            DipgoError: The latents are of another shape or type, or numbers of a picture are
                infinite or NaN.
        """
        shape = self.runner.inputs["latents"].shape[1:]
        return self._decoder.decode(check_latents(latents, None, shape))


ARGUMENTS = [
    name
    for name, parameter in inspect.signature(Pipeline.__call__).parameters.items()
    if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
]
"""The names of the arguments of a call."""


def _padded(array: NDArray[np.float32], missing: int) -> NDArray[np.float32]:
    """Pads the batch axis with zeros."""
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
