"""Schedulers that draw noise on the way, each with its eta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UnCLIPScheduler,
)

from dipgo.compiler.sampler.probe import make_scheduler
from scripts.generate.sampler_table import SD15

NAMED = {
    "euler-a": 0.0,
    "ddpm": 0.0,
    "ddim": 0.7,
    "lcm": 0.0,
    "tcd": 0.3,
    "kdpm2-a": 0.0,
    "dpm++-sde": 0.0,
    "sa": 0.0,
}
"""By the short names that `export` knows, for a pipeline of Stable Diffusion's."""


def _named(name: str, eta: float) -> Callable[[], tuple[Any, float]]:
    return lambda: (make_scheduler(DDIMScheduler(**SD15), name), eta)


def _like_sd15(kind: Any, **config: Any) -> Callable[[], tuple[Any, float]]:
    return lambda: (kind.from_config(DDIMScheduler(**SD15).config, **config), 0.0)


SCHEDULERS: dict[str, Callable[[], tuple[Any, float]]] = {
    **{name: _named(name, eta) for name, eta in NAMED.items()},
    "ddim, as DDPM": _named("ddim", 1.0),
    "dpm++-sde of order 3": _like_sd15(
        DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++", solver_order=3
    ),
    "dpm-sde": _like_sd15(
        DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min"
    ),
    "dpm++-sde, single step": _like_sd15(
        DPMSolverSinglestepScheduler,
        algorithm_type="sde-dpmsolver++",
        final_sigmas_type="sigma_min",
    ),
    "flow-euler": lambda: (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), 0.0),
    "flow-lcm": lambda: (FlowMatchLCMScheduler(), 0.0),
    "unclip": lambda: (UnCLIPScheduler(clip_sample=False), 0.0),
}
