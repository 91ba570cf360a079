"""Loop: how the pipeline of a model calls its scheduler, from the first state to the last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

STABLE_DIFFUSION = ("order", "init_noise_sigma", "scale_model_input")
"""The attributes of schedulers that Stable Diffusion's pipelines read."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The calls of a scheduler by a pipeline; the defaults are Stable Diffusion's.

    Attributes:
        pipeline: The pipeline's class, for errors.
        timestep_options: Arguments of `set_timesteps`. With `sigmas` among them the number of
            steps is left out, which is their number.
        step_options: Arguments of `step`, as far as it takes them, where the user says nothing.
        needs_generator: Whether `step` gets a generator even if it takes none, and then fails.
        mixers: Methods of schedulers that put noise on a picture: a trajectory from a picture
            begins with the first of them that the scheduler has.
        spreads_steps: Whether a trajectory from a picture has all steps, spread over the strength
            by `set_timesteps`, in place of the last share of the steps.
        paints: Whether a picture is painted in: a strength of 1 then begins with pure noise.
        reads: Attributes of the scheduler that the pipeline reads: it fails without them. None if
            they are not known.
        scales_in_place: Whether what `scale_model_input` makes of the state takes its place.
    """

    pipeline: str = "StableDiffusionPipeline"
    timestep_options: Mapping[str, Any] = field(default_factory=dict)
    step_options: Mapping[str, Any] = field(default_factory=lambda: {"eta": 0.0})
    needs_generator: bool = False
    mixers: tuple[str, ...] = ("add_noise", "scale_noise")
    spreads_steps: bool = False
    paints: bool = False
    reads: tuple[str, ...] | None = None
    scales_in_place: bool = False

    @property
    def scales_noise(self) -> bool:
        """Whether the first state is multiplied by `init_noise_sigma`."""
        return self.reads is None or "init_noise_sigma" in self.reads

    @property
    def scales_input(self) -> bool:
        """Whether the denoiser's input alone is what `scale_model_input` makes of the state."""
        scales = self.reads is None or "scale_model_input" in self.reads
        return scales and not self.scales_in_place

    def with_timestep_options(self, options: Mapping[str, Any]) -> Loop:
        """Returns the loop with further arguments of `set_timesteps`."""
        return replace(self, timestep_options={**self.timestep_options, **options})
