"""Compiles model, SubNet and sampler into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dipgo.compiler.front import read_model
from dipgo.compiler.passes import OPTIMISE, OnPass, Pass, run_passes
from dipgo.compiler.passes.batch_calls import CanBatch
from dipgo.compiler.request import Schedule
from dipgo.compiler.split_blocks import choose_split_blocks
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.trace import Traced
from dipgo.compiler.trace.vectorize import can_have_lanes
from dipgo.compiler.unroll import unroll
from dipgo.ir.fitted import Fitted
from dipgo.ir.manifest.convert import sampler_record
from dipgo.ir.manifest.records import SamplerRecord
from dipgo.ir.plan.nodes import Callee
from dipgo.ir.plan.plan import Plan
from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from dipgo.models.family import Geometry
from dipgo.models.model import Source


@dataclass(frozen=True)
class Compiled:
    """A plan, the trace from which its callees are cut, and the scheduler that it contains.

    `fitted` is what the SubNet was fitted for, None for dense or if it does not say so.
    """

    plan: Plan
    traced: Traced
    sampler: SamplerRecord
    fitted: Fitted | None = None


def compile_plan(
    source: Source,
    schedule: Schedule,
    geometry: Geometry,
    passes: Sequence[Pass] = OPTIMISE,
    on_pass: OnPass = lambda name, plan: None,
    precision: Precision = FP32,
) -> Compiled:
    """Traces, unrolls and optimises.

    Args:
        source: The model.
        schedule: The SubNet, or the dense schedule, and the steps.
        geometry: The sizes of a run.
        passes: The passes to run, in order.
        on_pass: Called with "unroll" and the plan before the passes, then after each.
        precision: The types of the graph.

    Raises:
        DipgoError: Model, SubNet and scheduler do not fit together.
    """
    traced, sampler, subnet = read_model(source, schedule, geometry, precision)
    subnet = subnet or SubNet.dense(
        sampler.timesteps,
        [block.name for block in traced.graph.blocks],
        num_inference_steps=schedule.steps,
        model=ModelRef(source.model_class, source.config_sha256),
        scheduler=SchedulerRef(sampler.scheduler_class),
    )
    fitted = schedule.subnet.fitted_for if schedule.subnet else None
    split = choose_split_blocks(traced.graph, subnet, sampler)
    plan = unroll(traced.graph, subnet, sampler, split)
    on_pass("unroll", plan)
    optimised = run_passes(plan, passes, on_pass, batchable(traced))
    return Compiled(optimised, traced, sampler_record(sampler), fitted)


def batchable(traced: Traced) -> CanBatch:
    """Returns a function that tells whether a callee's operators can compute lanes."""

    def can_batch(callee: Callee, differing: frozenset[str]) -> bool:
        names = [value.name for value in callee.inputs]
        outputs = [value.name for value in callee.outputs]
        module = traced.module(callee.members or (callee.name,), names, outputs)
        return can_have_lanes(module, [name in differing for name in names])

    return can_batch
