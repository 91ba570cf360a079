"""What a plan costs: MACs, and the share of a dense plan's that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from dipgo.plan import Plan


@dataclass(frozen=True, slots=True)
class PlanCost:
    """MACs over all steps, in convolutions and linear layers, and of attention."""

    macs: int
    attention_macs: int
    dense_macs: int
    dense_attention_macs: int

    @property
    def kept(self) -> float:
        """Share of the dense plan's MACs, as the papers count them (no attention products)."""
        return self.macs / self.dense_macs

    @property
    def kept_with_attention(self) -> float:
        """Share of the dense plan's MACs, attention products included."""
        dense = self.dense_macs + self.dense_attention_macs
        return (self.macs + self.attention_macs) / dense


def plan_cost(plan: Plan) -> PlanCost:
    """Row 0 of a SubNet computes everything, so a plan's callees make up the dense denoiser."""
    callees = {callee.name: callee for callee in plan.callees}
    called = [callees[call.callee] for call in plan.calls]
    steps = len(plan.steps)
    return PlanCost(
        macs=sum(callee.macs for callee in called),
        attention_macs=sum(callee.attention_macs for callee in called),
        dense_macs=steps * sum(callee.macs for callee in plan.callees),
        dense_attention_macs=steps * sum(callee.attention_macs for callee in plan.callees),
    )


def evaluations(plan: Plan) -> int:
    """Steps at which anything is called."""
    return len({call.step for call in plan.calls})


def block_calls(plan: Plan) -> int:
    """Executions of blocks (not of glue) over all steps."""
    blocks = set(plan.blocks)
    inside = {
        callee.name: len(blocks.intersection(callee.members or (callee.name,)))
        for callee in plan.callees
    }
    return sum(inside[call.callee] for call in plan.calls)


def step_patterns(plan: Plan) -> int:
    """Distinct sets of callees among the steps that call any."""
    by_step: dict[int, set[str]] = {}
    for call in plan.calls:
        by_step.setdefault(call.step, set()).add(call.callee)
    return len({frozenset(names) for names in by_step.values()})
