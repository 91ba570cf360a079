"""Slots of random plans: no byte is shared by values that live together, and few are wasted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from dipgo.compiler.passes.allocate_slots import allocate_slots
from dipgo.compiler.passes.live_ranges import lower_bound_nbytes, naive_nbytes
from dipgo.ir.plan.nodes import Call, Combine, Stack
from dipgo.ir.plan.plan import Plan
from tests.support.random_plans import KINDS, UNROLLED, random_plan

PLANS = {"unet": 200, "chain": 200, "faster diffusion": 100}
BAR = 1.05
"""Arena over the largest sum of live bytes, which knows nothing of lanes lying side by side."""


def check_slots(plan: Plan) -> None:
    """Written from the definition: plays the plan on a memory of intervals.

    A write takes its bytes from whatever held them; a read finds its value whole. The lanes of
    an output, and those of a stack, follow one another without a gap.
    """
    slots = {slot.value: slot for slot in plan.slots}
    holds: dict[str, tuple[int, int]] = {}
    for statement in plan.statements:
        for name in _names_read(statement):
            assert name in holds or name not in slots, f"{name} is not there any more"
        for name in _names_written(statement):
            start, end = slots[name].offset, slots[name].offset + slots[name].nbytes
            for other in [one for one, (low, high) in holds.items() if low < end and start < high]:
                del holds[other]
            holds[name] = (start, end)
        for name in _names_written(statement):
            assert name in holds, f"{name} is overwritten by another result of its own statement"
        for lanes in _side_by_side(statement):
            for before, after in itertools.pairwise(lanes):
                assert holds[before][1] == holds[after][0]
    assert plan.result in holds


def _names_read(statement: Call | Combine) -> list[str]:
    if isinstance(statement, Combine):
        return [name for _, name in statement.terms]
    words = " ".join(map(str, statement.operands)).replace("{", " ").replace("}", " ").split()
    return [word[1:] for word in words if word.startswith("%")]


def _names_written(statement: Call | Combine) -> list[str]:
    return [statement.result] if isinstance(statement, Combine) else list(statement.results)


def _side_by_side(statement: Call | Combine) -> list[list[str]]:
    """Results that are the lanes of one output, and values that are the lanes of one operand."""
    if isinstance(statement, Combine):
        return []
    stacks = [one for one in statement.operands if isinstance(one, Stack)]
    width = len(stacks[0].lanes) if stacks else 1
    outputs = range(0, len(statement.results), width)
    rows = [list(statement.results[first : first + width]) for first in outputs]
    values = [[str(lane)[1:] for lane in one.lanes] for one in stacks if "%" in str(one)]
    return [*rows, *values]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_is_shared(kind: str) -> None:
    for seed in range(8):
        check_slots(allocate_slots(random_plan(kind, seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_sees_a_shared_byte(kind: str) -> None:
    """Every slot but the first moved to where the first is."""
    plan = allocate_slots(random_plan(kind, 0))
    first = plan.slots[0].offset
    with pytest.raises(AssertionError):
        check_slots(replace(plan, slots=tuple(replace(one, offset=first) for one in plan.slots)))


def _ratios(kind: str, plans: int, *, batched: bool) -> list[tuple[float, float]]:
    """For each plan of a kind its arena, and that without reuse, over the lower bound."""
    found = []
    for seed in range(plans):
        plan = allocate_slots(random_plan(kind, seed, batched=batched))
        check_slots(plan)
        bound = lower_bound_nbytes(plan)
        found.append((plan.arena_nbytes / bound, naive_nbytes(plan) / bound))
    arenas, naive = zip(*found, strict=True)
    print(
        f"\n{kind}, {'batched' if batched else 'sequential'}: {len(found)} plans, arena over "
        f"bound largest {max(arenas):.4f} mean {sum(arenas) / len(arenas):.4f}, over {BAR}: "
        f"{sum(one > BAR for one in arenas)}; without reuse mean {sum(naive) / len(naive):.1f}"
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNROLLED)
def test_the_arena_is_close_to_the_bound(kind: str) -> None:
    """500 plans in all, as exports have them."""
    assert max(arena for arena, _ in _ratios(kind, PLANS[kind], batched=True)) <= BAR


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNROLLED)
def test_so_it_is_without_batches(kind: str) -> None:
    assert max(arena for arena, _ in _ratios(kind, PLANS[kind] // 4, batched=False)) <= BAR
