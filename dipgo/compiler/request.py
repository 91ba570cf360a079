"""Prepare: what the user asks for, checked: the model, the schedule and the sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.subnet.truncate import cut_to
from dipgo.models.family import Geometry
from dipgo.models.lora import Lora
from dipgo.models.source import Source, load_source

DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What to unroll: a SubNet, or with None every block that `blocks` match at every step.

    `scheduler` None stands for the SubNet's, else the model's own; no `blocks` for the family's.
    `eta` is how much noise a scheduler draws that lets one choose (DDIM): a SubNet does not say.
    With a `strength` the last share of the steps is run, from a picture.
    """

    subnet: SubNet | None
    steps: int
    scheduler: str | None
    blocks: tuple[str, ...]
    eta: float = 0.0
    strength: float | None = None

    def remaining(self, timesteps: Sequence[float]) -> SubNet | None:
        """Returns the SubNet, cut to the `timesteps` that are run; None for dense."""
        if self.subnet is None or self.strength is None:
            return self.subnet
        return cut_to(self.subnet, timesteps)


def read_schedule(
    subnet: SubNet | str | Path,
    steps: int | None,
    scheduler: str | None,
    blocks: tuple[str, ...],
    eta: float = 0.0,
    strength: float | None = None,
) -> Schedule:
    """`subnet` is a SubNet, its path or "dense". Raises DipgoError where options contradict it."""
    if subnet == DENSE:
        return Schedule(None, _steps_of_dense(steps), scheduler, blocks, eta, strength)
    given = subnet if isinstance(subnet, SubNet) else SubNet.load(subnet)
    if steps not in (None, given.num_inference_steps):
        raise DipgoError(
            "--steps",
            found=str(steps),
            expected=f"{given.num_inference_steps}, as the SubNet has",
            remedy="leave --steps out",
        )
    if blocks:
        raise DipgoError(
            "--blocks",
            found="patterns beside a SubNet",
            expected="none: the SubNet names its blocks",
            remedy="leave --blocks out",
        )
    return Schedule(given, given.num_inference_steps, scheduler, blocks, eta, strength)


def _steps_of_dense(steps: int | None) -> int:
    if steps is None:
        raise DipgoError(
            "--subnet dense",
            found="no number of steps",
            expected="--steps N",
            remedy="say how many steps to unroll",
        )
    return steps


Progress = Callable[[str], AbstractContextManager[object]]
"""Called with what is about to happen; the context lasts as long as that does."""


def silent(stage: str) -> AbstractContextManager[object]:
    """No progress is shown."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile a model for. `height` and `width` are in pixels, 0 for the model's own.

    `eta`, 0 to 1, is for schedulers that take one, such as DDIM. `guidance` None stands for
    classifier-free guidance where the model's pipeline has it.
    """

    subnet: SubNet | str | Path = DENSE
    steps: int | None = None
    scheduler: str | None = None
    blocks: tuple[str, ...] = ()
    batch: int = 1
    height: int = 0
    width: int = 0
    guidance: bool | None = None
    eta: float = 0.0
    loras: tuple[Lora, ...] = ()
    strength: float | None = None


@dataclass(frozen=True)
class Prepared:
    """What `compile_plan` takes."""

    source: Source
    schedule: Schedule
    geometry: Geometry


def prepare(model: Any, request: Request, progress: Progress = silent) -> Prepared:
    """Checks the request and loads the model. Raises DipgoError.

    `model` is a path, a Hub id, an `arch:` name or a loaded diffusers pipeline.
    """
    sizes = {name: getattr(request, name) for name in ("batch", "steps", "height", "width")}
    _check_sizes(**sizes)
    schedule = read_schedule(
        request.subnet,
        request.steps,
        request.scheduler,
        request.blocks,
        request.eta,
        request.strength,
    )
    with progress("load the model"):
        source = load_source(model, request.loras)
    geometry = source.geometry(request.batch, request.height, request.width, request.guidance)
    check_pixels(geometry, source)
    if request.strength is not None:
        _check_takes_pictures(source, geometry)
    return Prepared(source, schedule, geometry)


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        least = 0 if name in ("height", "width") else 1
        if size is not None and size < least:
            raise DipgoError(
                f"--{name}",
                found=str(size),
                expected=f"a number of at least {least}",
                remedy="correct it",
            )


def _check_takes_pictures(source: Source, geometry: Geometry) -> None:
    shape = source.family.latent_shape(source.denoiser, geometry, source.pixels_per_latent)
    if len(shape) != 4:
        raise DipgoError(
            "--strength",
            found=f"a {source.model_class}, whose latents are of shape {list(shape)}",
            expected="latents [pictures, channels, height, width], which a picture is encoded to",
            remedy="leave --strength out",
        )


def check_pixels(geometry: Geometry, source: Source, prefix: str = "--") -> None:
    """Raises DipgoError, where `prefix` begins, for a size that is no whole number of latents."""
    scale = source.pixels_per_latent
    for name, size in (("height", geometry.height), ("width", geometry.width)):
        if size % scale:
            raise DipgoError(
                f"{prefix}{name}",
                found=str(size),
                expected=f"a multiple of {scale}, the pixels of one latent",
                remedy=f"use {max(scale, round(size / scale) * scale)}",
            )
