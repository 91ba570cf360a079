"""Prepare: what the user asks for, checked: the model, the schedule and the sizes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipgo.errors import DipgoError
from dipgo.export.compile import DENSE, Schedule, read_schedule
from dipgo.models.family import Geometry
from dipgo.models.source import Source, load_source
from dipgo.subnet import SubNet

Progress = Callable[[str], AbstractContextManager[object]]
"""Called with what is about to happen; the context lasts as long as that does."""


def silent(stage: str) -> AbstractContextManager[object]:
    """No progress is shown."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile a model for. `height` and `width` are in pixels, 0 for the model's own.

    `guidance` False leaves guidance out where the model takes it; where it does not, there is none.
    """

    subnet: SubNet | str | Path = DENSE
    steps: int | None = None
    scheduler: str | None = None
    blocks: tuple[str, ...] = ()
    batch: int = 1
    height: int = 0
    width: int = 0
    guidance: bool = True


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
    schedule = read_schedule(request.subnet, request.steps, request.scheduler, request.blocks)
    with progress("load the model"):
        source = load_source(model)
    guidance = request.guidance and source.family.takes_guidance
    geometry = Geometry(request.batch, request.height, request.width, guidance, source.tokens)
    check_pixels(geometry, source)
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
