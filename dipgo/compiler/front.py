"""Reads a model and its sampler, the first half of compiling and of searching."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from dipgo.common.errors import DipgoError
from dipgo.compiler.fit import check_timesteps
from dipgo.compiler.request import Schedule
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.sampler.schedulers import choose_scheduler
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.source import trace_source
from dipgo.compiler.trace.trace import Traced
from dipgo.ir.block_patterns import match_blocks
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.gap_rules import rule_with_function
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.subnet.truncate import cut_to
from dipgo.models.family import Geometry
from dipgo.models.gap_functions import GapShape
from dipgo.models.model import Source


class Fitted(NamedTuple):
    """A schedule as the model's sampler runs it; its SubNet is cut to these timesteps.

    `blocks` are the paths of the gated modules.
    """

    sampler: Sampler
    blocks: tuple[str, ...]
    subnet: SubNet | None


def read_model(
    source: Source, schedule: Schedule, geometry: Geometry, precision: Precision = FP32
) -> tuple[Traced, Sampler, SubNet | None]:
    """Opens the sampler of a schedule and traces the denoiser with the blocks that it gates.

    Args:
        source: The model.
        schedule: The SubNet, or the dense schedule, and the steps.
        geometry: The sizes of a run.
        precision: The types of the graph.

    Returns:
        The traced denoiser, the sampler, and the SubNet of the steps that are run; None for dense.

    Raises:
        DipgoError: SubNet, scheduler and model do not fit together.
    """
    sampler, blocks, subnet = fit_schedule(source, schedule, geometry)
    return _trace(source, subnet, geometry, blocks, precision), sampler, subnet


def fit_schedule(source: Source, schedule: Schedule, geometry: Geometry) -> Fitted:
    """Returns the sampler, the gated modules and the SubNet of the steps, without a trace.

    Args:
        source: The model.
        schedule: The SubNet, or the dense schedule, and the steps.
        geometry: The sizes of a run.

    Raises:
        DipgoError: SubNet, scheduler and model do not fit together, as far as that shows before the
            denoiser is traced.
    """
    if schedule.subnet is not None:
        _check_model(schedule.subnet, source)
    source.check_start(schedule.strength)
    scheduler = choose_scheduler(source.scheduler, schedule)
    model = source.at(geometry)
    sampler = probe(
        scheduler,
        schedule.steps,
        loop=model.loop(scheduler, schedule.steps),
        eta=schedule.eta,
        prior_noise=schedule.subnet.prior_noise if schedule.subnet else None,
        strength=schedule.strength,
        channels=model.channels,
    )
    blocks = _blocks(schedule, source)
    subnet = schedule.subnet
    if subnet is not None:
        if sampler.start.strength is not None:
            subnet = cut_to(subnet, sampler.timesteps)
        check_timesteps(subnet, sampler)
    return Fitted(sampler, blocks, subnet)


def _trace(
    source: Source,
    subnet: SubNet | None,
    geometry: Geometry,
    blocks: tuple[str, ...],
    precision: Precision,
) -> Traced:
    """Traces the denoiser and, if a gap rule has a function, that too, with the rule's table."""
    gaps = subnet.gaps if subnet else ()
    for gap in gaps:
        gap.check_model(source.at(geometry).latent_shape, geometry.guidance)
    rule = rule_with_function(gaps)
    if rule is None:
        return trace_source(source, geometry, blocks, precision)
    shape = GapShape.of(rule)
    traced = trace_source(source, geometry, blocks, precision, shape)
    return replace(traced, given_tables={shape.key: shape.numbers(rule)})


def _blocks(schedule: Schedule, source: Source) -> tuple[str, ...]:
    """Returns the paths of the gated modules; a SubNet names each of its blocks in full."""
    if schedule.subnet is None:
        return match_blocks(source.denoiser, schedule.blocks or source.default_blocks)
    paths = {path for path, _ in source.denoiser.named_modules()}
    for block in schedule.subnet.blocks:
        if block not in paths:
            raise DipgoError(
                f"SubNet, block {block}",
                found=f"no module of that path in {source.name}",
                expected=f"the path of a module within {source.model_class}",
                remedy="fix its name, or use the model that the SubNet was made for",
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
