"""Compile: model, SubNet and sampler become a plan, with the program that its callees are cut from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipgo.errors import DipgoError
from dipgo.models.family import Geometry, GuidedDenoiser, example_inputs
from dipgo.models.source import Source
from dipgo.passes import run_passes
from dipgo.patterns import match_blocks
from dipgo.plan import Plan
from dipgo.samplers import make_scheduler, probe
from dipgo.subnet import ModelRef, SchedulerRef, SubNet
from dipgo.trace import Traced, trace
from dipgo.unroll import unroll

DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What to unroll: a SubNet (an object, or the path of one) or `dense`, with its options."""

    subnet: SubNet | str | Path = DENSE
    steps: int | None = None
    scheduler: str | None = None
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """A plan, what its callees are cut from, and the scheduler that it contains."""

    plan: Plan
    traced: Traced
    subnet: SubNet
    scheduler: Any


def compile_plan(source: Source, schedule: Schedule, geometry: Geometry) -> Compiled:
    """Traces, unrolls and optimises. Raises DipgoError where the parts do not fit together."""
    given = None if schedule.subnet == DENSE else _load(schedule.subnet)
    steps = _number_of_steps(given, schedule)
    if given is not None:
        _check_model(given, source)
    scheduler = _scheduler(given, schedule, source)
    sampler = probe(scheduler, steps)
    patterns = given.blocks if given else schedule.blocks or source.family.default_blocks
    traced = _trace(source, geometry, match_blocks(source.denoiser, patterns))
    subnet = given or SubNet.dense(
        sampler.timesteps,
        [block.name for block in traced.graph.blocks],
        num_inference_steps=steps,
        model=ModelRef(source.model_class, source.config_sha256),
        scheduler=SchedulerRef(type(scheduler).__name__),
    )
    plan = run_passes(unroll(traced.graph, subnet, sampler))
    return Compiled(plan, traced, subnet, scheduler)


def _load(subnet: SubNet | str | Path) -> SubNet:
    return subnet if isinstance(subnet, SubNet) else SubNet.load(subnet)


def _number_of_steps(subnet: SubNet | None, schedule: Schedule) -> int:
    if subnet is None:
        if schedule.steps is None:
            raise DipgoError(
                "--subnet dense",
                found="no number of steps",
                expected="--steps N",
                remedy="say how many steps to unroll",
            )
        return schedule.steps
    if schedule.steps not in (None, subnet.num_inference_steps):
        raise DipgoError(
            "--steps",
            found=str(schedule.steps),
            expected=f"{subnet.num_inference_steps}, as the SubNet has",
            remedy="leave --steps out",
        )
    if schedule.blocks:
        raise DipgoError(
            "--blocks",
            found="patterns beside a SubNet",
            expected="none: the SubNet names its blocks",
            remedy="leave --blocks out",
        )
    return subnet.num_inference_steps


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
    wanted = subnet.scheduler.class_name if subnet and subnet.scheduler else None
    scheduler = make_scheduler(source.scheduler, schedule.scheduler or wanted)
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


def _trace(source: Source, geometry: Geometry, blocks: tuple[str, ...]) -> Traced:
    example, roles = example_inputs(
        source.family, source.denoiser, geometry, source.pixels_per_latent
    )
    conditioning = tuple(source.family.conditioning(source.denoiser, geometry))
    guided = GuidedDenoiser(source.denoiser, source.family, conditioning, geometry.guidance)
    return trace(
        guided.eval(),
        example,
        roles,
        blocks,
        model_class=source.model_class,
        config_sha256=source.config_sha256,
    )
