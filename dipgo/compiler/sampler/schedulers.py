"""Makes schedulers by their short names, each from the config of a pipeline's scheduler."""

from collections.abc import Mapping
from typing import Any

from dipgo.common.errors import DipgoError, close_to, setting
from dipgo.compiler.request import Schedule
from dipgo.models.diffusers_private import compatible_classes, missing_packages

# By short name: the diffusers class, and the options it needs beyond the pipeline's config.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-multi": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++-single": ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis"}),
    "lms": ("LMSDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "kdpm2-a": ("KDPM2AncestralDiscreteScheduler", {}),
    "sa": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}

OPTIONS = {key for _, extra in SCHEDULERS.values() for key in extra}
"""The options that may differ between schedulers of one class for one model."""

DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers made from the config of any scheduler for Stable Diffusion, though not listed so."""


def choose_scheduler(base: Any, schedule: Schedule) -> Any:
    """Returns the scheduler of a schedule: the one it names, else the SubNet's, else `base`.

    Args:
        base: The pipeline's own scheduler.
        schedule: The SubNet, or the dense schedule, and the steps.

    Raises:
        DipgoError: The scheduler is not the SubNet's, or has fewer timesteps than steps are asked.
    """
    record = schedule.subnet.scheduler if schedule.subnet else None
    wanted = record.class_name if record else None
    name, config = schedule.scheduler, None
    if name is None and record is not None:
        name, config = wanted, record.config
    scheduler = make_scheduler(base, name, config)
    if wanted and type(scheduler).__name__ != wanted:
        raise DipgoError(
            setting("scheduler"),
            found=type(scheduler).__name__,
            expected=f"{wanted}, as the SubNet has",
            remedy=f"leave {setting('scheduler')} out, or use a SubNet for that scheduler",
        )
    if record and record.config:
        _check_config(record.config, scheduler)
    _check_steps(schedule.steps, scheduler)
    return scheduler


def _check_steps(steps: int, scheduler: Any) -> None:
    most = scheduler.config.get("num_train_timesteps", steps)
    if steps > most:
        raise DipgoError(
            setting("steps"),
            found=str(steps),
            expected=f"at most {most}, the timesteps that {type(scheduler).__name__} has",
            remedy="take fewer steps",
        )


def _check_config(config: dict[str, Any], scheduler: Any) -> None:
    for key, value in config.items():
        if key.startswith("_"):
            continue
        actual = scheduler.config.get(key)
        if actual != value:
            raise DipgoError(
                f"SubNet, scheduler.config.{key}",
                found=repr(value),
                expected=f"{actual!r}, as the model's scheduler has",
                remedy="use the scheduler that the SubNet was made for",
            )


def make_scheduler(base: Any, name: str | None, config: Mapping[str, Any] | None = None) -> Any:
    """Returns the scheduler called `name` with the config of `base`, or `base` for None.

    Args:
        base: The pipeline's own scheduler.
        name: One of SCHEDULERS, or the name of a diffusers class (`DDIMScheduler`).
        config: The scheduler config in a SubNet. Only the options that short names stand for are
            taken from it: the rest is the model's.

    Raises:
        DipgoError: The name is unknown, the scheduler needs a package that is missing, or it is for
            another type of model than `base`.
    """
    if name is None:
        return base
    class_name, extra = SCHEDULERS.get(name, (name, {}))
    cls = _find_class(class_name, name)
    if not _fits(base, cls):
        raise DipgoError(
            f"scheduler {name}",
            found=f"{class_name} for a pipeline of {type(base).__name__}",
            expected=f"a scheduler that {type(base).__name__} can be exchanged for",
            remedy=f"choose one of {_compatible_names(base)}",
        )
    pinned = {key: value for key, value in (config or {}).items() if key in OPTIONS}
    return cls.from_config(base.config, **{**extra, **pinned})


def beyond_class(base: Any, scheduler: Any) -> dict[str, Any] | None:
    """Returns the part of a config that its class and the config of `base` do not imply.

    With it `make_scheduler(base, class, config)` makes the same scheduler again.

    Returns:
        The options, or None if there are none.
    """
    if scheduler is base:
        return None
    plain = make_scheduler(base, type(scheduler).__name__).config
    own = scheduler.config.items()
    options = {
        key: value for key, value in own if not key.startswith("_") and plain.get(key) != value
    }
    return options or None


def _fits(base: Any, cls: Any) -> bool:
    """Returns whether either class lists the other as compatible, or a distilled model's fits."""
    if isinstance(base, cls) or cls in base.compatibles:
        return True
    if cls.__name__ in DISTILLED:
        return "DDIMScheduler" in compatible_classes(type(base))
    return type(base).__name__ in compatible_classes(cls)


def _classes() -> list[str]:
    """Returns the names of diffusers' schedulers."""
    import diffusers

    return [name for name in dir(diffusers) if name.endswith("Scheduler")]


def _find_class(class_name: str, name: str) -> Any:
    import diffusers

    cls = getattr(diffusers, class_name, None) if class_name.endswith("Scheduler") else None
    if cls is None:
        raise DipgoError(
            f"scheduler {name}",
            found="a name that diffusers has no scheduler of",
            expected=f"one of {', '.join(SCHEDULERS)}, or the name of a diffusers class",
            remedy=close_to(name, [*SCHEDULERS, *_classes()]),
        )
    missing = missing_packages(cls)
    if missing:
        raise DipgoError(
            f"scheduler {name}",
            found=f"{class_name}, which needs {' and '.join(missing)}",
            expected="an environment with these packages",
            remedy=f"pip install {' '.join(missing)}, or choose another scheduler",
        )
    return cls


def _compatible_names(base: Any) -> str:
    """Returns the short names of compatible schedulers, else the pipeline's own class."""
    classes = {cls.__name__ for cls in base.compatibles} | {type(base).__name__}
    names = [name for name, (class_name, _) in SCHEDULERS.items() if class_name in classes]
    return ", ".join(names or [type(base).__name__])
