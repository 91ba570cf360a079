"""Checks a user's request and loads its model, schedule and sizes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.settings import DENSE, Request, ScheduleSettings
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.family import Geometry
from dipgo.models.model import Source
from dipgo.models.source import load_source


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps to unroll, with a SubNet or, if that is None, with all blocks at every step.

    `scheduler` None stands for the SubNet's, else the model's own; no `blocks` for the family's.
    `eta` is how much noise a scheduler with this option (DDIM) draws, None for what the pipeline
    says: a SubNet does not. With a
    `strength` the last share of the steps is run, from a picture.
    """

    subnet: SubNet | None
    steps: int
    scheduler: str | None
    blocks: tuple[str, ...]
    eta: float | None = None
    strength: float | None = None


def read_schedule(subnet: SubNet | str | Path, settings: ScheduleSettings) -> Schedule:
    """Returns the schedule of a SubNet, its path or "dense".

    Raises:
        DipgoError: The settings contradict the SubNet.
    """
    if subnet == DENSE:
        return _schedule(None, _steps_of_dense(settings.steps), settings)
    loaded = subnet if isinstance(subnet, SubNet) else SubNet.load(subnet)
    if settings.steps not in (None, loaded.num_inference_steps):
        raise DipgoError(
            setting("steps"),
            found=str(settings.steps),
            expected=f"{loaded.num_inference_steps}, as the SubNet has",
            remedy=f"leave {setting('steps')} out",
        )
    if settings.blocks:
        raise DipgoError(
            setting("blocks"),
            found="patterns as well as a SubNet",
            expected="none: the SubNet names its blocks",
            remedy=f"leave {setting('blocks')} out",
        )
    return _schedule(loaded, loaded.num_inference_steps, settings)


def _schedule(subnet: SubNet | None, steps: int, settings: ScheduleSettings) -> Schedule:
    return Schedule(
        subnet, steps, settings.scheduler, settings.blocks, settings.eta, settings.strength
    )


def _steps_of_dense(steps: int | None) -> int:
    if steps is None:
        raise DipgoError(
            f"{setting('subnet')} dense",
            found="no number of steps",
            expected=f"{setting('steps')} N",
            remedy="say how many steps to unroll",
        )
    return steps


Progress = Callable[[str], AbstractContextManager[object]]
"""Called with what is about to happen; the context lasts as long as that does."""


def silent(stage: str) -> AbstractContextManager[object]:
    """Shows no progress."""
    return nullcontext()


@dataclass(frozen=True)
class Prepared:
    """A request with its model loaded, as `compile_plan` takes it."""

    source: Source
    schedule: Schedule
    geometry: Geometry


def prepare(model: Any, request: Request, progress: Progress = silent) -> Prepared:
    """Checks a request and loads its model.

    Args:
        model: A path, a Hub id, an `arch:` name or a loaded diffusers pipeline.
        request: The SubNet and the settings.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The request is contradictory, or the model cannot have it.
    """
    schedule = read_schedule(request.subnet, request)
    with progress("load the model"):
        source = load_source(model, request.loras)
    geometry = source.geometry(request.batch, request.height, request.width, request.guidance)
    source.check_geometry(geometry, from_picture=request.strength is not None)
    return Prepared(source, schedule, geometry)
