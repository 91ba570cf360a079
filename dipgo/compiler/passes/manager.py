"""The pass manager: runs passes in order, and checks what each expects of the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dipgo.common.errors import DipgoError, close_to, setting
from dipgo.compiler.passes.allocate_slots import allocate_slots
from dipgo.compiler.passes.batch_calls import CanBatch, batch_calls
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
    """A condition on the plan that holds until the pass `broken_by` has run."""

    holds: Callable[[Plan], bool]
    broken_by: str
    problem: str


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
    """A function from plan to plan, and what it expects of the plan.

    Attributes:
        run: The function; the pass has its name.
        expects: What must hold of the plan.
        needs_one_size: Whether it is left out of an export for several sizes.
        makes_slots: Whether values have their slots after it: engines write to slots.
        makes_lanes: Whether it also takes which calls can be batched.
    """

    run: Callable[..., Plan]
    expects: tuple[Condition, ...] = ()
    needs_one_size: bool = False
    makes_slots: bool = False
    makes_lanes: bool = False

    @property
    def name(self) -> str:
        """The name of the pass, as in `--passes`."""
        return self.run.__name__


OPTIMISE: tuple[Pass, ...] = (
    Pass(number_values, (NO_SLOTS,)),
    Pass(eliminate_dead_calls, (NO_SLOTS,)),
    Pass(fuse_steps, (NO_SLOTS,)),
    Pass(fold_timesteps, (NO_SLOTS,)),
    Pass(hoist_prompt_work, (NO_SLOTS,)),
    Pass(form_segments, (NO_SLOTS, NOT_BATCHED, NO_SEGMENTS)),
    Pass(batch_calls, (NO_SLOTS, NOT_BATCHED), needs_one_size=True, makes_lanes=True),
    Pass(allocate_slots, makes_slots=True),
)
"""Every pass, in the order in which an export runs them."""


def find_passes(names: Sequence[str]) -> tuple[Pass, ...]:
    """Returns the passes of these names, in this order.

    Raises:
        DipgoError: No pass has one of the names.
    """
    known = {optimisation.name: optimisation for optimisation in OPTIMISE}
    for name in names:
        if name not in known:
            raise DipgoError(
                setting("passes"),
                found=name or "an empty name",
                expected=f"names among {', '.join(known)}",
                remedy=close_to(name, known),
            )
    return tuple(known[name] for name in names)


@dataclass(frozen=True, slots=True)
class PlanSize:
    """The sizes of a plan that a pass can reduce.

    `loop_parameters` are the parameters of all that is called at any step.
    """

    callees: int
    calls: int
    macs: int
    loop_parameters: int
    cache_nbytes: int
    """Bytes of the arena; before slots are allocated, the most bytes that live at once."""


def plan_size(plan: Plan) -> PlanSize:
    """Counts everything that is called: MACs include attention, and a batch is one call."""
    cost = plan_cost(plan)
    called = {call.callee for call in plan.calls}
    in_loop = {call.callee for call in plan.calls if call.step != PROLOGUE}
    return PlanSize(
        callees=len(called),
        calls=len(plan.calls),
        macs=cost.macs + cost.attention_macs,
        loop_parameters=sum(callee.parameters for callee in plan.callees if callee.name in in_loop),
        cache_nbytes=plan.arena_nbytes or lower_bound_nbytes(plan),
    )


OnPass = Callable[[str, Plan], object]
"""A function called with a pass's name and the plan that it left."""


def run_passes(
    plan: Plan,
    passes: Sequence[Pass] = OPTIMISE,
    on_pass: OnPass = lambda name, plan: None,
    can_batch: CanBatch = lambda callee, differing: True,
) -> Plan:
    """Applies the passes in order and verifies the plan before the first and after each.

    Args:
        plan: The plan.
        passes: The passes.
        on_pass: Called after each.
        can_batch: Which calls `batch_calls` may batch: those whose operators have rules for lanes.

    Raises:
        DipgoError: A pass comes too late.
    """
    verify(plan)
    for optimisation in passes:
        _check_expectations(optimisation, plan)
        asked = (can_batch,) if optimisation.makes_lanes else ()
        plan = verify(optimisation.run(plan, *asked))
        on_pass(optimisation.name, plan)
    return plan


def _check_expectations(optimisation: Pass, plan: Plan) -> None:
    for condition in optimisation.expects:
        if not condition.holds(plan):
            before = f"put {optimisation.name} before {condition.broken_by}"
            raise DipgoError(
                f"pass {optimisation.name}",
                found=condition.problem,
                expected=f"a plan as it is before {condition.broken_by}",
                remedy=f"run {optimisation.name} once"
                if optimisation.name == condition.broken_by
                else before,
            )
