"""Runs a drawn trajectory by diffusers' own pipeline, and by the sampler that we read off.

Both call the same tiny denoiser, with the same noise and conditioning.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dipgo.common.errors import DipgoError
from dipgo.common.torch_noise import PictureNoise
from dipgo.common.warn import DipgoWarning
from dipgo.compiler.front import fit_schedule
from dipgo.compiler.request import Schedule
from dipgo.compiler.sampler.schedulers import choose_scheduler
from dipgo.ir.sampler import Sampler, Term
from dipgo.models.guided import guided_denoiser
from dipgo.models.model import Source
from dipgo.models.source import load_source
from dipgo.run.latents import draw_latents
from tests.support.compare import relative_error
from tests.support.drawn_trajectories import Case
from tests.support.pipeline_tasks import PIXELS, SCALE, SEED, SIDE, task


@dataclass(frozen=True)
class Outcome:
    """What came of a case: diffusers' latents or error, and ours."""

    case: Case
    expected: torch.Tensor | Exception
    found: torch.Tensor | Exception
    warned: bool = False
    """Whether we say that the pipeline uses the scheduler in another way than is meant."""

    @property
    def error(self) -> float:
        assert isinstance(self.expected, torch.Tensor)
        assert isinstance(self.found, torch.Tensor)
        return relative_error(self.found, self.expected)

    def verdict(self, tolerance: float) -> str:
        """Returns agrees, refused, warned, both (fail), accepted, wrong or crash.

        Refused is what diffusers runs, accepted what it cannot run, or not to finite numbers.
        """
        if isinstance(self.found, Exception):
            if not isinstance(self.found, DipgoError):
                return "crash"
            return "both" if isinstance(self.expected, Exception) else "refused"
        if isinstance(self.expected, Exception):
            return "accepted"
        if self.warned:
            return "warned"
        return "agrees" if self.error <= tolerance else "wrong"


@torch.no_grad()
def compare(case: Case) -> Outcome:
    """Runs a case by diffusers' pipeline and by ours."""
    expected = _result(run_diffusers, case)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = _result(run_ours, case)
    is_warned = any(issubclass(one.category, DipgoWarning) for one in warned)
    return Outcome(case, expected, found, is_warned)


def _result(run: Callable[[Case], torch.Tensor], case: Case) -> torch.Tensor | Exception:
    state = torch.random.get_rng_state()
    try:
        result = run(case)
    except Exception as error:
        return error
    finally:
        torch.random.set_rng_state(state)
    return result if result.isfinite().all() else ValueError("latents that are not finite")


def _picture() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a picture f32[1, 3, H, W] and a mask f32[1, 1, H, W], in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 3, PIXELS, PIXELS, generator=generator)
    return picture, (torch.rand(1, 1, PIXELS, PIXELS, generator=generator) > 0.5).float()


class _Steps:
    """Records what a scheduler's steps return, as a pipeline calls them."""

    def __init__(self, scheduler: Any) -> None:
        self.latest: Any = None
        step = scheduler.step

        def recorded(*arguments: Any, **keywords: Any) -> Any:
            self.latest = step(*arguments, **keywords)
            return self.latest

        recorded.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
        scheduler.step = recorded


def run_diffusers(case: Case) -> torch.Tensor:
    """Returns the latents of diffusers' pipeline."""
    made = task(case.task)
    pipeline, call = made.pipeline, dict(made.call)
    pipeline.scheduler = case.make_scheduler()
    steps = _Steps(pipeline.scheduler)
    torch.manual_seed(SEED)
    generator = None if made.global_noise else torch.Generator().manual_seed(SEED)
    picture, mask = _picture()
    if made.takes_mask:
        call |= {"image": picture, "mask_image": mask, "height": PIXELS, "width": PIXELS}
        call["strength"] = 1.0 if case.strength is None else case.strength
    elif made.from_picture:
        call |= {"image": picture, "strength": case.strength}
    if made.takes_eta:
        call["eta"] = case.eta
    if case.task == "flux":
        call |= {"height": PIXELS, "width": PIXELS}
    if "embeds" in " ".join(call):
        call["output_type"] = "latent"
    pipeline(num_inference_steps=case.steps, generator=generator, **call)
    latest = steps.latest
    result: torch.Tensor = latest[0] if isinstance(latest, tuple) else latest.prev_sample
    return result.chunk(2)[0] if case.task == "dit" else result


def sampler_of(case: Case) -> tuple[Source, Any, Sampler]:
    """Returns our reading of a case's model and scheduler, as `export` makes it."""
    made = task(case.task)
    made.pipeline.scheduler = case.make_scheduler()
    source = load_source(made.pipeline)
    schedule = Schedule(None, case.steps, None, (), case.eta or None, case.strength)
    geometry = source.geometry(1, *((PIXELS, PIXELS) if case.task == "flux" else (0, 0)))
    source.check_geometry(geometry, from_picture=case.strength is not None)
    choose_scheduler(source.scheduler, schedule)
    return source, geometry, fit_schedule(source, schedule, geometry).sampler


def run_ours(case: Case) -> torch.Tensor:
    """Returns the latents of the sampler's recurrence, around the same denoiser."""
    made = task(case.task)
    source, geometry, sampler = sampler_of(case)
    sized = source.at(geometry)
    noise, shape = PictureNoise(SEED), sized.latent_shape[1:]
    picture, mask = _picture()
    vae = getattr(made.pipeline, "vae", None)
    start = _encoded(vae, 2 * picture - 1, noise) if sampler.start.strength is not None else 0.0
    packed = (SIDE // 2, SIDE // 2) if case.task == "flux" else None
    first = torch.from_numpy(draw_latents(noise, 1, shape, packed))
    first = sampler.start.image_scale * start + np.float32(sampler.start.noise_scale) * first
    conditioning = dict(made.conditioning)
    if made.takes_mask:
        masked = _encoded(vae, (2 * picture - 1) * (mask < 0.5), noise)
        small = torch.nn.functional.interpolate(mask, size=(SIDE, SIDE))
        conditioning |= {"mask": small.repeat(2, 1, 1, 1)}
        conditioning |= {"masked_image_latents": masked.repeat(2, 1, 1, 1)}
    rows = 2 if case.task == "dit" else 1  # DiT's pipeline draws for both halves of guidance
    drawn = noise.draw_those((rows, *shape), {index - 1 for index in sampler.draws})
    draws = {index + 1: torch.from_numpy(array[:1]) for index, array in drawn.items()}
    module = guided_denoiser(source.family, source.denoiser, geometry)
    rest = [conditioning[name] for name in module.names]
    rest += [torch.tensor(SCALE)] if geometry.guidance else []

    def model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        prediction: torch.Tensor = module(latents, torch.tensor(timestep), *rest)[0]
        return prediction

    return carry_out(sampler, first, model, draws)


def _encoded(vae: Any, picture: torch.Tensor, noise: PictureNoise) -> torch.Tensor:
    posterior = vae.encode(picture, return_dict=False)[0]
    drawn = torch.from_numpy(noise.draw(tuple(posterior.mean.shape)))
    sample = posterior.mean + posterior.std * drawn
    scaled: torch.Tensor = (sample - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return scaled


def carry_out(
    sampler: Sampler, noise: torch.Tensor, model: Any, draws: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Returns the final latents of a recurrence, computed in float32 as plans are."""
    values: dict[str, Any] = {"noise": [noise], "input": [], "output": [], "draw": draws}

    def total(terms: tuple[Term, ...]) -> torch.Tensor:
        parts = [term.coefficient * values[term.kind][term.index] for term in terms]
        return torch.stack(parts).sum(dim=0)

    for row, terms in zip(sampler.rows, sampler.inputs, strict=True):
        values["input"].append(total(terms))
        values["output"].append(model(values["input"][-1], sampler.timesteps[row]))
    return total(sampler.result)
