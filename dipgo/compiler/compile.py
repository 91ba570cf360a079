"""Compile: model, SubNet and sampler become a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.compiler.fit import check_timesteps
from dipgo.compiler.passes import OPTIMISE, OnPass, Pass, run_passes
from dipgo.compiler.request import Schedule
from dipgo.compiler.sampler.image_to_image import Start, find_start
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.sampler.trajectory import start_scheduler
from dipgo.compiler.split_blocks import choose_split_blocks
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.source import trace_source
from dipgo.compiler.trace.trace import Traced
from dipgo.compiler.unroll import unroll
from dipgo.ir.block_patterns import match_blocks
from dipgo.ir.plan.plan import Plan
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from dipgo.ir.subnet.truncate import cut_to
from dipgo.models.family import Geometry
from dipgo.models.gap_filter import FILTERS, FilterShape
from dipgo.models.source import Source


@dataclass(frozen=True)
class Compiled:
    """A plan, what its callees are cut from, the scheduler that it contains, and its start."""

    plan: Plan
    traced: Traced
    scheduler: Any
    eta: float
    start: Start


def compile_plan(
    source: Source,
    schedule: Schedule,
    geometry: Geometry,
    passes: Sequence[Pass] = OPTIMISE,
    on_pass: OnPass = lambda name, plan: None,
    precision: Precision = FP32,
) -> Compiled:
    """Traces, unrolls and optimises. Raises DipgoError where the parts do not fit together.

    `on_pass` is called with "unroll" and the plan before the passes, then after each.
    """
    scheduler, sampler, blocks = fit_schedule(source, schedule, geometry)
    cut = _subnet(schedule, sampler)
    traced = _trace(source, cut, geometry, blocks, precision)
    subnet = cut or SubNet.dense(
        sampler.timesteps,
        [block.name for block in traced.graph.blocks],
        num_inference_steps=schedule.steps,
        model=ModelRef(source.model_class, source.config_sha256),
        scheduler=SchedulerRef(type(scheduler).__name__),
    )
    split = choose_split_blocks(traced.graph, subnet, sampler)
    plan = unroll(traced.graph, subnet, sampler, split)
    on_pass("unroll", plan)
    options = source.timestep_options(scheduler, geometry, schedule.steps)
    started = start_scheduler(scheduler, schedule.steps, options, schedule.strength)
    start = find_start(started, schedule.strength)
    optimised = run_passes(plan, passes, on_pass)
    return Compiled(optimised, traced, scheduler, sampler.eta, start)


def _subnet(schedule: Schedule, sampler: Sampler) -> SubNet | None:
    """That of the schedule, cut to the steps that are run."""
    if schedule.subnet is None or schedule.strength is None:
        return schedule.subnet
    return cut_to(schedule.subnet, sampler.timesteps)


def _trace(
    source: Source,
    subnet: SubNet | None,
    geometry: Geometry,
    blocks: tuple[str, ...],
    precision: Precision,
) -> Traced:
    """The denoiser and, for a SubNet with filters, what applies them; their numbers are a table."""
    filters = subnet.reuse_filters if subnet else None
    if not filters:
        return trace_source(source, geometry, blocks, precision)
    shape = FilterShape.of(filters)
    _check_filters_fit(filters[0].channels, shape.halves, source, geometry)
    traced = trace_source(source, geometry, blocks, precision, shape)
    return replace(traced, given_tables={FILTERS: shape.table(filters)})


def _check_filters_fit(channels: int, halves: bool, source: Source, geometry: Geometry) -> None:
    shape = source.at(geometry).latent_shape
    if len(shape) != 4 or shape[1] != channels:
        raise DipgoError(
            "SubNet, reuse_filters",
            found=f"filters of {channels} channels for latents of shape {list(shape)}",
            expected="latents [pictures, channels, height, width] of as many channels",
            remedy="use the model that the SubNet was made for",
        )
    if halves and not geometry.guidance:
        raise DipgoError(
            "SubNet, reuse_filters",
            found="filters of unconditional predictions",
            expected="none for a denoiser without guidance: it makes no such predictions",
            remedy="export with guidance, or use a SubNet that was searched without it",
        )


def fit_schedule(
    source: Source, schedule: Schedule, geometry: Geometry
) -> tuple[Any, Sampler, tuple[str, ...]]:
    """The scheduler, its arithmetic, and the paths of the gated modules.

    Raises DipgoError where SubNet, scheduler and model do not fit together, as far as that can be
    told before the denoiser is traced.
    """
    given = schedule.subnet
    if given is not None:
        _check_model(given, source)
    scheduler = _scheduler(given, schedule, source)
    _check_steps(schedule.steps, scheduler)
    options = source.timestep_options(scheduler, geometry, schedule.steps)
    prior_noise = given.prior_noise if given else None
    sampler = probe(
        scheduler,
        schedule.steps,
        eta=schedule.eta,
        prior_noise=prior_noise,
        strength=schedule.strength,
        **options,
    )
    blocks = _blocks(schedule, source)
    left = _subnet(schedule, sampler)
    if left is not None:
        check_timesteps(left, sampler)
    return scheduler, sampler, blocks


def _blocks(schedule: Schedule, source: Source) -> tuple[str, ...]:
    """Paths of the gated modules; a SubNet names each of its own in full."""
    if schedule.subnet is None:
        return match_blocks(source.denoiser, schedule.blocks or source.family.default_blocks)
    paths = {path for path, _ in source.denoiser.named_modules()}
    for block in schedule.subnet.blocks:
        if block not in paths:
            raise DipgoError(
                f"SubNet, block {block}",
                found=f"no module of that path in {source.name}",
                expected=f"the path of a module within {source.model_class}",
                remedy="mend its name, or use the model that the SubNet was made for",
            )
    return match_blocks(source.denoiser, schedule.subnet.blocks)


def _check_model(subnet: SubNet, source: Source) -> None:
    if subnet.model is None:
        return
    if subnet.model.class_name != source.model_class:
        raise DipgoError(
            "SubNet, model.class",
            found=subnet.model.class_name,
            expected=f"{source.model_class}, as {source.name} has",
            remedy="use the model that the SubNet was made for",
        )
    if subnet.model.config_sha256 not in (None, source.config_sha256):
        raise DipgoError(
            "SubNet, model.config_sha256",
            found=str(subnet.model.config_sha256),
            expected=f"{source.config_sha256}, as {source.name} has",
            remedy="use the model that the SubNet was made for",
        )


def _scheduler(subnet: SubNet | None, schedule: Schedule, source: Source) -> Any:
    given = subnet.scheduler if subnet else None
    wanted = given.class_name if given else None
    if schedule.scheduler is None and given is not None:
        scheduler = make_scheduler(source.scheduler, wanted, given.config)
    else:
        scheduler = make_scheduler(source.scheduler, schedule.scheduler)
    if wanted and type(scheduler).__name__ != wanted:
        raise DipgoError(
            "--scheduler",
            found=type(scheduler).__name__,
            expected=f"{wanted}, as the SubNet has",
            remedy="leave --scheduler out, or use a SubNet for that scheduler",
        )
    if subnet and subnet.scheduler and subnet.scheduler.config:
        _check_scheduler_config(subnet.scheduler.config, scheduler)
    return scheduler


def _check_steps(steps: int, scheduler: Any) -> None:
    most = scheduler.config.get("num_train_timesteps", steps)
    if steps > most:
        raise DipgoError(
            "--steps",
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
