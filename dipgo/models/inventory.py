"""Takes stock of a pipeline: what is taken up, what an export does without, what is refused.

Code that is called, such as a module's `forward` or a scheduler's `step`, is traced or run with
whatever has been done to it. What dipgo does in place of the pipeline is written after diffusers'
own classes, so there everything has to be as diffusers has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.models.families.unet_inputs import takes_mask
from dipgo.models.family import Family
from dipgo.models.text_encoding import takes_argument

LIBRARIES = (
    *("diffusers", "transformers", "torch", "huggingface_hub", "accelerate", "peft"),
    *("builtins", "functools", "contextlib", "typing"),
)
"""Packages whose code makes up the pipelines that families are written after."""

DENOISERS = ("unet", "transformer")
DECODERS = ("vae", "vqvae")

OPTIONS = {
    "requires_safety_checker",
    "force_zeros_for_empty_prompt",
    "requires_aesthetics_score",
}
"""Options in the configuration of a pipeline that are obeyed, or concern what is left out."""

PROCESSORS = {
    "image_processor": {
        "do_normalize": True,
        "do_binarize": False,
        "do_convert_grayscale": False,
    },
    "mask_processor": {
        "do_normalize": False,
        "do_binarize": True,
        "do_convert_grayscale": True,
    },
}
"""What an export does to pictures and masks, by the options of a pipeline's processors."""

UNREPEATED = (
    "__init__",
    "*progress_bar*",
    "enable_*",
    "disable_*",
    "*load_*",
    "save_*",
    "from_*",
    "to",
    "check_inputs",
    "run_safety_checker",
    "*register_*",
    "*hooks",
)
"""Members of pipelines that make no difference to a picture, or only when they are called."""


def check_pipeline(pipeline: Any, name: str, family: Family, denoiser: Any) -> None:
    """Checks that an export of this pipeline makes the pictures that the pipeline makes.

    Args:
        pipeline: The loaded pipeline of diffusers.
        name: Its name, for errors.
        family: The adapter for its denoiser. One that names no pipelines is for any.
        denoiser: Its denoiser.

    Raises:
        DipgoError: The pipeline has, or has had done to it, what an export would not have.
    """
    base = _followed_class(pipeline, name, family)
    if base is not None:
        for member, where in _replaced_members(pipeline, base):
            raise _refused(
                name,
                f"{member} of {where} in place of that of diffusers' {base.__name__}",
                f"a {base.__name__} as diffusers has it: this is not called, but done again",
                "leave it out, or change the modules or the scheduler instead: these are called",
            )
    if takes_argument(pipeline, "mask_image") and not takes_mask(denoiser):
        raise _refused(
            name,
            f"a {type(pipeline).__name__} around a U-Net that takes no mask: it mixes the picture "
            "with the latents at every step",
            "a U-Net with nine input channels, or another class of pipeline",
            "to draw without a mask, use the class's from_pipe: StableDiffusionPipeline.from_pipe",
        )
    vae = find_vae(pipeline)
    painted = takes_argument(pipeline, "mask_image")
    if painted and type(vae).__name__ == "AsymmetricAutoencoderKL":
        raise _refused(
            name,
            "an AsymmetricAutoencoderKL, whose decoder also takes the picture and its mask",
            "a VAE that decodes latents alone",
            "use an AutoencoderKL",
        )
    _check_options(pipeline, name)
    _check_processors(pipeline, name)


def components(pipeline: Any) -> dict[str, Any]:
    """Returns the parts that a pipeline is made of and has, by their names."""
    recorded = getattr(pipeline, "config", {}).items()
    names = [name for name, value in recorded if isinstance(value, tuple | list)]
    parts = {name: getattr(pipeline, name, None) for name in names if not name.startswith("_")}
    return {name: part for name, part in parts.items() if part is not None}


def find_vae(pipeline: Any) -> Any | None:
    """Returns the model that decodes latents, which is called `vae` or `vqvae`; None if none is."""
    return next((vae for name in DECODERS if (vae := getattr(pipeline, name, None))), None)


def starts_from_picture(pipeline: Any) -> bool:
    """Returns whether the pipeline's class begins with a picture instead of noise."""
    return takes_argument(pipeline, "strength") and not takes_argument(pipeline, "mask_image")


def _followed_class(pipeline: Any, name: str, family: Family) -> type | None:
    """Returns the class of diffusers that the family follows; None if it names no classes."""
    if not family.pipelines:
        return None
    for cls in type(pipeline).__mro__:
        if cls.__name__ in family.pipelines:
            return cls
    raise _refused(
        name,
        f"a {type(pipeline).__name__}, whose way of making pictures no adapter follows",
        f"for this denoiser one of {', '.join(family.pipelines)}",
        f"use the class's from_pipe: {family.pipelines[0]}.from_pipe; or name the class in the "
        "`pipelines` of an adapter of your own",
    )


def _replaced_members(pipeline: Any, base: type) -> Iterator[tuple[str, str]]:
    """Yields members of `base` that are not diffusers' own here, and where they are from."""
    classes = type(pipeline).__mro__
    before = classes[: classes.index(base)]
    for member in dir(base):
        if _is_unrepeated(member):
            continue
        if member in vars(pipeline) and callable(getattr(base, member)):
            yield f"the {member}", "the object"
        owner = next((cls for cls in before if member in vars(cls)), None)
        if owner is not None and _is_code(inspect.getattr_static(owner, member)):
            yield f"the {member}", owner.__name__
        elif _is_foreign(inspect.getattr_static(base, member)):
            yield f"another {member}", "the class"
    for attribute, value in vars(pipeline).items():
        if attribute.endswith("_processor") and not _is_of_library(type(value).__module__):
            yield f"a {type(value).__name__} as {attribute}", "the object"


def _is_unrepeated(member: str) -> bool:
    own_protocol = member.startswith("__") and member != "__call__"
    return own_protocol or any(fnmatch(member, pattern) for pattern in UNREPEATED)


def _is_code(member: Any) -> bool:
    return callable(member) or isinstance(member, property | classmethod | staticmethod)


def _is_foreign(member: Any) -> bool:
    """Returns whether a function, method or property, or what it wraps, is no library's own."""
    function = member
    while function is not None:
        if inspect.isfunction(function) and not _is_of_library(function.__globals__["__name__"]):
            return True
        inner = (getattr(function, name, None) for name in ("fget", "__wrapped__", "func"))
        function = next((found for found in inner if found is not None), None)
    return callable(member) and not _is_of_library(type(member).__module__)


def _is_of_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def _check_options(pipeline: Any, name: str) -> None:
    for option, value in getattr(pipeline, "config", {}).items():
        plain = not isinstance(value, tuple | list) and not option.startswith("_")
        if plain and value and option not in OPTIONS:
            raise _refused(
                name,
                f"the option {option} {value!r}",
                f"no other options than {' '.join(sorted(OPTIONS))}",
                "leave it out",
            )


def _check_processors(pipeline: Any, name: str) -> None:
    """Checks that pictures and masks are read, and pictures given out, as an export does it."""
    for attribute, options in PROCESSORS.items():
        config = getattr(getattr(pipeline, attribute, None), "config", {})
        for option, usual in options.items():
            if config.get(option, usual) != usual:
                raise _refused(
                    name,
                    f"the option {option} {config[option]!r} of its {attribute}",
                    f"{usual!r}, as pipelines of diffusers have it",
                    f"leave the {attribute} as it is",
                )


def _refused(name: str, found: str, expected: str, remedy: str) -> DipgoError:
    return DipgoError(f"model {name}", found=found, expected=expected, remedy=remedy)


def check_start(pipeline: Any, name: str, strength: float | None) -> None:
    """Checks that a pipeline that begins with a picture is told how far it may go from it.

    Raises:
        DipgoError: The class begins with a picture, and there is no strength.
    """
    if strength is None and pipeline is not None and starts_from_picture(pipeline):
        raise DipgoError(
            setting("strength"),
            found=f"none for {name}, a {type(pipeline).__name__}, which begins with a picture",
            expected="a share of the steps, above 0 and up to 1",
            remedy=f"give {setting('strength')}, or use a pipeline that begins with noise",
        )
