"""Draws trajectories: a scheduler of diffusers with options, a task, steps, strength and eta."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import diffusers


@dataclass(frozen=True)
class Case:
    """A drawn trajectory."""

    task: str
    scheduler: str
    options: dict[str, Any]
    steps: int
    strength: float | None = None
    eta: float = 0.0

    def make_scheduler(self) -> Any:
        return getattr(diffusers, self.scheduler)(**self.options)


CHOICES: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "use_karras_sigmas": (True,),
    "use_exponential_sigmas": (True,),
    "use_beta_sigmas": (True,),
    "use_flow_sigmas": (True,),
    "use_lu_lambdas": (True,),
    "rescale_betas_zero_snr": (True,),
    "final_sigmas_type": ("zero", "sigma_min"),
    "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2"),
    "solver_order": (1, 2, 3),
    "lower_order_final": (False, True),
    "euler_at_final": (True,),
    "variance_type": ("fixed_small", "fixed_large", "learned", "learned_range"),
    "invert_sigmas": (True,),
    "use_dynamic_shifting": (True,),
    "time_shift_type": ("exponential", "linear"),
    "shift": (1.0, 3.0),
    "flow_shift": (3.0,),
    "stochastic_sampling": (True,),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "thresholding": (True,),
    "skip_prk_steps": (True, False),
    "set_alpha_to_one": (False, True),
    "steps_offset": (0, 1),
    "beta_schedule": ("linear", "scaled_linear"),
}
"""Values of the options of schedulers."""

OTHER_STEPS = (
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "CogVideoXDPMScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "KarrasVeScheduler",
    "RePaintScheduler",
    "SCMScheduler",
    "ScoreSdeVeScheduler",
    "VQDiffusionScheduler",
)
"""Schedulers of other loops than a denoiser's."""


def scheduler_names() -> list[str]:
    """Returns the schedulers that diffusers has for this environment."""
    names = []
    for name in sorted(dir(diffusers)):
        if not name.endswith("Scheduler") or name.startswith("Flax") or name in OTHER_STEPS:
            continue
        cls = getattr(diffusers, name)
        if isinstance(cls, type) and not getattr(cls, "_backends", ()) and _has_defaults(cls):
            names.append(name)
    return names


def _has_defaults(cls: type) -> bool:
    """Returns whether a class can be made without arguments: what others need is not known."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(
        parameter.default is not inspect.Parameter.empty or parameter.kind in variable
        for parameter in parameters
    )


def draw_cases(count: int, seed: int, **fixed: Any) -> Iterator[Case]:
    """Yields drawn cases, of which a scheduler's own constructor takes the options."""
    chance = random.Random(seed)
    names = scheduler_names()
    while count:
        case = draw_case(chance, names, **fixed)
        try:
            case.make_scheduler()
        except (ValueError, NotImplementedError, TypeError):  # options that exclude one another
            continue
        count -= 1
        yield case


def draw_case(chance: random.Random, names: list[str], **fixed: Any) -> Case:
    name = fixed.get("scheduler") or chance.choice(names)
    if "task" in fixed:  # more often those that the task is for
        weights = [1 + 4 * _tasks_of(name).count(fixed["task"]) for name in names]
        (name,) = chance.choices(names, weights)
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    options: dict[str, Any] = {
        option: False for option in ("clip_sample", "clip_denoised") if option in parameters
    }
    allowed = [option for option in CHOICES if option in parameters]
    for option in chance.sample(allowed, min(len(allowed), chance.choice((0, 1, 2, 3)))):
        options[option] = chance.choice(CHOICES[option])
    task_name = fixed.get("task") or chance.choice(_tasks_of(name))
    takes = TASK_FLAGS[task_name]
    if "variance" in takes and "variance_type" in parameters and chance.random() < 0.7:
        options["variance_type"] = chance.choice(("learned", "learned_range"))
    strength = chance.choice((0.3, 0.5, 0.8, 1.0)) if "picture" in takes else None
    if "mask" in takes:
        strength = chance.choice((None, 0.5, 0.8, 1.0))
    eta = chance.choice((0.0, 0.6)) if "eta" in takes else 0.0
    if "eta" not in inspect.signature(getattr(diffusers, name).step).parameters:
        eta = 0.0
    steps = chance.choice((1, 2, 3, 4, 5, 7, 10, 13, 20))
    return Case(task_name, name, options, steps, strength, eta)


TASK_FLAGS: dict[str, tuple[str, ...]] = {
    "text": ("eta",),
    "picture": ("picture", "eta"),
    "inpainting": ("mask", "eta"),
    "lcm text": (),
    "lcm picture": ("picture",),
    "sd3 text": (),
    "sd3 picture": ("picture",),
    "flux": (),
    "dit": (),
    "unconditional": (),
    "unconditional, variance": ("variance",),
}


def _tasks_of(scheduler: str) -> list[str]:
    """Returns tasks, those more often that the scheduler is made for."""
    flow = ["sd3 text", "sd3 picture", "flux"]
    lcm = ["lcm text", "lcm picture"]
    others = ["text", "picture", "picture", "inpainting", "inpainting", "dit"]
    others += ["unconditional", "unconditional, variance"]
    if "Flow" in scheduler or "LTX" in scheduler:
        return 4 * flow + lcm + others
    if scheduler.startswith(("LCM", "TCD")):
        return 4 * lcm + flow + others
    return flow + lcm + 2 * others
