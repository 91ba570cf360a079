"""Passes: functions from plan to plan, each leaving a valid plan. docs/design.md, stage 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dipgo.passes.allocate_slots import allocate_slots
from dipgo.passes.eliminate_dead_calls import eliminate_dead_calls
from dipgo.passes.fold_timesteps import fold_timesteps
from dipgo.passes.form_segments import form_segments
from dipgo.passes.fuse_steps import fuse_steps
from dipgo.passes.number_values import number_values
from dipgo.plan import Plan
from dipgo.plan_check import verify

Pass: TypeAlias = Callable[[Plan], Plan]

OPTIMISE: tuple[Pass, ...] = (
    number_values,
    eliminate_dead_calls,
    fuse_steps,
    fold_timesteps,
    form_segments,
    allocate_slots,
)


def run_passes(plan: Plan, passes: Sequence[Pass] = OPTIMISE) -> Plan:
    """Applies the passes in order and verifies the plan before the first and after each."""
    verify(plan)
    for one in passes:
        plan = verify(one(plan))
    return plan
