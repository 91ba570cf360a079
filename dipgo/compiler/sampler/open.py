"""Opens a sampler: the scheduler of a schedule, checked, as the linear map that it performs."""

from __future__ import annotations

from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.request import Schedule
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.sampler.schedulers import make_scheduler
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.family import Geometry
from dipgo.models.model import Source


def open_sampler(source: Source, schedule: Schedule, geometry: Geometry) -> Sampler:
    """Makes the schedule's scheduler, sets its timesteps as the pipeline does, and reads it off.

    Raises:
        DipgoError: The scheduler is not the SubNet's, or has no linear map.
    """
    scheduler = _scheduler(schedule.subnet, schedule, source)
    _check_steps(schedule.steps, scheduler)
    return probe(
        scheduler,
        schedule.steps,
        eta=schedule.eta,
        prior_noise=schedule.subnet.prior_noise if schedule.subnet else None,
        strength=schedule.strength,
        **source.timestep_options(scheduler, geometry, schedule.steps),
    )


def _scheduler(subnet: SubNet | None, schedule: Schedule, source: Source) -> Any:
    record = subnet.scheduler if subnet else None
    wanted = record.class_name if record else None
    if schedule.scheduler is None and record is not None:
        scheduler = make_scheduler(source.scheduler, wanted, record.config)
    else:
        scheduler = make_scheduler(source.scheduler, schedule.scheduler)
    if wanted and type(scheduler).__name__ != wanted:
        raise DipgoError(
            setting("scheduler"),
            found=type(scheduler).__name__,
            expected=f"{wanted}, as the SubNet has",
            remedy=f"leave {setting('scheduler')} out, or use a SubNet for that scheduler",
        )
    if subnet and subnet.scheduler and subnet.scheduler.config:
        _check_scheduler_config(subnet.scheduler.config, scheduler)
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


def _check_scheduler_config(config: dict[str, Any], scheduler: Any) -> None:
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
