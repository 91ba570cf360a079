"""The cost of a plan: its MACs, and the share of a dense plan's that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from dipgo.ir.graph import GAP_FUNCTION, PART
from dipgo.ir.plan.nodes import PROLOGUE, Call, TableRow
from dipgo.ir.plan.plan import Plan, calls_by_step


@dataclass(frozen=True, slots=True)
class PlanCost:
    """The MACs over all steps, in convolutions and linear layers and in attention."""

    macs: int
    attention_macs: int
    dense_macs: int
    dense_attention_macs: int

    @property
    def kept(self) -> float:
        """The share of the dense plan's MACs, as the papers count them (no attention products)."""
        return self.macs / self.dense_macs

    @property
    def kept_with_attention(self) -> float:
        """The share of the dense plan's MACs, attention products included."""
        dense = self.dense_macs + self.dense_attention_macs
        return (self.macs + self.attention_macs) / dense


def plan_cost(plan: Plan) -> PlanCost:
    """Counts the MACs of a plan and of its dense plan.

    Row 0 of a SubNet computes everything, so the plan's callees make up the dense denoiser. A dense
    plan calls each callee at every step, except those that are hoisted out of the loop and depend
    on no timestep: it calls these once. Reuse filters count towards the plan's cost, but a dense
    plan has none.
    """
    callees = {callee.name: callee for callee in plan.callees}
    lanes = [(callees[call.callee], call.width) for call in plan.calls]
    once = {call.callee for call in plan.calls if call.step == PROLOGUE and not _has_rows(call)}
    dense = [
        (callee, 1 if callee.name in once else len(plan.steps))
        for callee in plan.callees
        if GAP_FUNCTION not in (callee.members or (callee.name,))
    ]
    return PlanCost(
        macs=sum(callee.macs * width for callee, width in lanes),
        attention_macs=sum(callee.attention_macs * width for callee, width in lanes),
        dense_macs=sum(callee.macs * times for callee, times in dense),
        dense_attention_macs=sum(callee.attention_macs * times for callee, times in dense),
    )


def _has_rows(call: Call) -> bool:
    return any(isinstance(leaf, TableRow) for leaf in call.leaves)


def block_calls(plan: Plan) -> int:
    """Counts the executions of blocks (not of glue) over all steps.

    Each lane of a batch is an execution. A block in parts runs where its first part runs.
    """
    blocks = {*plan.blocks, *(f"{block}{PART}0" for block in plan.blocks)}
    inside = {
        callee.name: len(blocks.intersection(callee.members or (callee.name,)))
        for callee in plan.callees
    }
    return sum(inside[call.callee] * call.width for call in plan.calls)


def step_patterns(plan: Plan) -> int:
    """Counts the distinct sets of callees among the steps that call any."""
    return len({frozenset(call.callee for call in calls) for calls in calls_by_step(plan).values()})
