"""The schedulers one can ask for by name, each made from a pipeline's own scheduler's config."""

from collections.abc import Mapping
from typing import Any

from dipgo.common.errors import DipgoError

# Short name: diffusers class, and what it needs beyond the pipeline's config.
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
"""What may differ between schedulers of one class for one model."""

DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Made from the config of any scheduler of Stable Diffusion's kind, though not listed so."""


def make_scheduler(base: Any, name: str | None, config: Mapping[str, Any] | None = None) -> Any:
    """A scheduler called `name` with the config of `base`, a pipeline's own; `base` for None.

    `name` is one of SCHEDULERS or the name of a diffusers class (`DDIMScheduler`). Of a `config`
    that a SubNet has, the options that short names stand for are taken: the rest is the model's.
    Raises
    DipgoError for a name unknown, for a scheduler that needs a package that is missing, and
    for one made for another kind of model than `base`'s.
    """
    if name is None:
        return base
    class_name, extra = SCHEDULERS.get(name, (name, {}))
    kind = _find_class(class_name, name)
    if not _fits(base, kind):
        raise DipgoError(
            f"scheduler {name}",
            found=f"{class_name} for a pipeline of {type(base).__name__}",
            expected=f"a scheduler that {type(base).__name__} can be exchanged for",
            remedy=f"choose one of {_compatible_names(base)}",
        )
    given = {key: value for key, value in (config or {}).items() if key in OPTIONS}
    return kind.from_config(base.config, **{**extra, **given})


def beyond_class(base: Any, scheduler: Any) -> dict[str, Any] | None:
    """Of a scheduler's config what its class and the config of `base` do not say, if anything.

    With it `make_scheduler(base, class)` makes the same scheduler again.
    """
    if scheduler is base:
        return None
    plain = make_scheduler(base, type(scheduler).__name__).config
    own = scheduler.config.items()
    more = {key: one for key, one in own if not key.startswith("_") and plain.get(key) != one}
    return more or None


def public_config(scheduler: Any) -> dict[str, Any]:
    """Returns a scheduler's configuration without diffusers' private entries, sorted."""
    config = scheduler.config
    return {key: config[key] for key in sorted(config) if not key.startswith("_")}


def _fits(base: Any, kind: Any) -> bool:
    """Whether one of both says that it can take the other's place, or a distilled model's can."""
    if isinstance(base, kind) or kind in base.compatibles:
        return True
    if kind.__name__ in DISTILLED:
        return "DDIMScheduler" in type(base)._compatibles
    return type(base).__name__ in kind._compatibles


def _find_class(class_name: str, name: str) -> Any:
    import diffusers

    kind = getattr(diffusers, class_name, None) if class_name.endswith("Scheduler") else None
    if kind is None:
        raise DipgoError(
            f"scheduler {name}",
            found="a name that diffusers has no scheduler of",
            expected=f"one of {', '.join(SCHEDULERS)}, or the name of a diffusers class",
            remedy="correct the name",
        )
    if hasattr(kind, "_backends"):  # diffusers' stand-in for a class it cannot import
        raise DipgoError(
            f"scheduler {name}",
            found=f"{class_name}, which needs {' and '.join(kind._backends)}",
            expected="an environment with these packages",
            remedy="pip install what is missing, or choose another scheduler",
        )
    return kind


def _compatible_names(base: Any) -> str:
    """The short names that would do, else the pipeline's own class."""
    classes = {kind.__name__ for kind in base.compatibles} | {type(base).__name__}
    names = [name for name, (class_name, _) in SCHEDULERS.items() if class_name in classes]
    return ", ".join(names or [type(base).__name__])
