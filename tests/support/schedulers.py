"""Schedulers by name, and a random model that they sample from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.ir.sampler import Sampler

NAMES = (
    "ddim", "pndm", "plms", "dpm++-multi", "dpm++-single", "euler", "unipc", "deis", "lms",
    "heun", "kdpm2",
)  # fmt: skip

SD15 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
Model = Callable[[Any, float], Any]


def sd15(prediction: str = "epsilon", **changes: Any) -> Any:
    return diffusers.DDIMScheduler(prediction_type=prediction, **(SD15 | changes))


def named(name: str, prediction: str = "epsilon") -> Any:
    if name == "lms":
        pytest.importorskip("scipy")
    return make_scheduler(sd15(prediction), name)


class DDIMForFlux(diffusers.DDIMScheduler):  # type: ignore[misc]
    """DDIM that takes sigmas and their shift, which Flux's pipeline passes, and ignores them."""

    def set_timesteps(
        self, num_inference_steps: int = 0, device: Any = None, sigmas: Any = None, mu: Any = None
    ) -> None:
        super().set_timesteps(len(sigmas) if sigmas is not None else num_inference_steps, device)


def ddim_for(name: str) -> Any:
    """Returns DDIM, as a pipeline of the zoo's model can call it."""
    return (DDIMForFlux if name == "flux" else diffusers.DDIMScheduler)(clip_sample=False)


def random_model() -> tuple[Any, Model]:
    """A noise f64[1, 4, 8, 8], and a random model that is linear in it and varies in time."""
    generator = torch.Generator("cpu").manual_seed(0)
    noise, here, beside = torch.randn(3, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    return noise, lambda x, t: (here * x + beside * x.roll(1, dims=-1)) * (0.5 + t / 2000)


def run_recurrence(sampler: Sampler) -> list[Any]:
    """The same from the terms alone."""
    noise, model = random_model()
    values: dict[str, list[Any]] = {"noise": [noise], "input": [], "output": []}
    for index, terms in enumerate((*sampler.inputs, sampler.result)):
        latents = sum(term.coefficient * values[term.kind][term.index] for term in terms)
        values["input"].append(latents)
        if index < len(sampler.rows):
            timestep = sampler.timesteps[sampler.rows[index]]
            values["output"].append(model(latents, timestep))
    return values["input"]


def deviation(found: list[Any], wanted: list[Any]) -> float:
    """The largest difference in any pair, relative to the largest value there."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
