"""What a pass expects of the plan that it is given, and what to tell who runs it too late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dipgo.plan import Plan


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
