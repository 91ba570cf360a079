"""The pass manager: runs passes in order, checks what each expects, and tells what each saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.passes.allocate_slots import allocate_slots
from dipgo.compiler.passes.batch_calls import batch_calls
from dipgo.compiler.passes.eliminate_dead_calls import eliminate_dead_calls
from dipgo.compiler.passes.fold_timesteps import fold_timesteps
from dipgo.compiler.passes.form_segments import form_segments
from dipgo.compiler.passes.fuse_steps import fuse_steps
from dipgo.compiler.passes.hoist_prompt_work import hoist_prompt_work
from dipgo.compiler.passes.live_ranges import lower_bound_nbytes
from dipgo.compiler.passes.number_values import number_values
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.plan.nodes import PROLOGUE
from dipgo.ir.plan.plan import Plan
from dipgo.ir.plan.verify import verify


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds until the pass `broken_by` has run."""

    holds: Callable[[Plan], bool]
    broken_by: str
    found: str


NO_SLOTS = Condition(
    lambda plan: not plan.slots, "allocate_slots", "a plan whose values have their slots"
)

NOT_BATCHED = Condition(
    lambda plan: not any(callee.stacked for callee in plan.callees),
    "batch_calls",
    "a plan whose calls are batched",
)

NO_SEGMENTS = Condition(
    lambda plan: not any(callee.members for callee in plan.callees),
    "form_segments",
    "a plan whose callees are segments",
)


@dataclass(frozen=True, slots=True)
class Pass:
    """A function from plan to plan, and what it expects of the plan."""

    run: Callable[[Plan], Plan]
    expects: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        """As in `--passes`."""
        return self.run.__name__


OPTIMISE: tuple[Pass, ...] = (
    Pass(number_values, (NO_SLOTS,)),
    Pass(eliminate_dead_calls, (NO_SLOTS,)),
    Pass(fuse_steps, (NO_SLOTS,)),
    Pass(fold_timesteps, (NO_SLOTS,)),
    Pass(hoist_prompt_work, (NO_SLOTS,)),
    Pass(form_segments, (NO_SLOTS, NOT_BATCHED, NO_SEGMENTS)),
    Pass(batch_calls, (NO_SLOTS, NOT_BATCHED)),
    Pass(allocate_slots),
)
"""Every pass, in the order in which an export runs them."""


def find_passes(names: Sequence[str]) -> tuple[Pass, ...]:
    """The passes of these names, in this order. Raises DipgoError."""
    known = {one.name: one for one in OPTIMISE}
    for name in names:
        if name not in known:
            raise DipgoError(
                setting("passes"),
                found=name or "an empty name",
                expected=f"names among {', '.join(known)}",
                remedy="correct the name",
            )
    return tuple(known[name] for name in names)


@dataclass(frozen=True, slots=True)
class PlanSize:
    """What a pass can save. `loop_parameters` are those of what is called at any step."""

    callees: int
    calls: int
    macs: int
    loop_parameters: int
    cache_nbytes: int
    """Of the arena; before slots are allocated, the most that lives at once."""


def plan_size(plan: Plan) -> PlanSize:
    """Counts what is called: MACs include attention, a batch is one call."""
    cost = plan_cost(plan)
    called = {call.callee for call in plan.calls}
    in_loop = {call.callee for call in plan.calls if call.step != PROLOGUE}
    return PlanSize(
        callees=len(called),
        calls=len(plan.calls),
        macs=cost.macs + cost.attention_macs,
        loop_parameters=sum(one.parameters for one in plan.callees if one.name in in_loop),
        cache_nbytes=plan.arena_nbytes or lower_bound_nbytes(plan),
    )


OnPass = Callable[[str, Plan], object]
"""Called with a pass's name and the plan that it left."""


def run_passes(
    plan: Plan,
    passes: Sequence[Pass] = OPTIMISE,
    on_pass: OnPass = lambda name, plan: None,
) -> Plan:
    """Applies the passes in order and verifies the plan before the first and after each.

    Raises DipgoError where a pass comes too late.
    """
    verify(plan)
    for one in passes:
        _check_expectations(one, plan)
        plan = verify(one.run(plan))
        on_pass(one.name, plan)
    return plan


def _check_expectations(one: Pass, plan: Plan) -> None:
    for condition in one.expects:
        if not condition.holds(plan):
            before = f"put {one.name} before {condition.broken_by}"
            raise DipgoError(
                f"pass {one.name}",
                found=condition.found,
                expected=f"a plan as it is before {condition.broken_by}",
                remedy=f"run {one.name} once" if one.name == condition.broken_by else before,
            )
