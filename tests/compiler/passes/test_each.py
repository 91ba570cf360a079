"""Each pass on a plan made by hand, against its golden dump; and what must hold of all plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.compiler.passes import OPTIMISE, run_passes
from dipgo.compiler.passes.eliminate_dead_calls import eliminate_dead_calls
from dipgo.compiler.passes.fuse_steps import fuse_steps
from dipgo.compiler.passes.live_ranges import live_ranges, lower_bound_nbytes
from dipgo.compiler.passes.number_values import number_values
from dipgo.compiler.unroll import unroll
from dipgo.ir.plan.cost import block_calls, plan_cost, step_patterns
from dipgo.ir.plan.nodes import Call, Combine, Read, Slot
from dipgo.ir.plan.parse import PlanSyntaxError, parse_plan
from dipgo.ir.plan.plan import Plan, evaluations
from dipgo.ir.plan.verify import InvalidPlanError, verify
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import Value
from tests.support.handmade import UNET, euler, subnet

ROWS = ("111", "000", "001", "111")


def plan_of(*rows: str) -> Plan:
    """The plan before any pass."""
    return unroll(UNET, subnet(*rows), euler(len(rows)))


def test_each_pass_has_its_golden_dump(check_golden: Callable[[str, str], None]) -> None:
    plan = plan_of(*ROWS)
    check_golden("passes/unroll", str(plan))
    for one in OPTIMISE:
        plan = verify(one.run(plan))
        check_golden(f"passes/{one.name}", str(plan))


def test_a_fully_reused_step_costs_nothing() -> None:
    """Rows 1 to 3 telescope: one evaluation, one combination."""
    plan = run_passes(plan_of("111", "000", "000", "000"))
    assert evaluations(plan) == 1
    (call,) = plan.calls
    assert call.step == 0
    (combine,) = (one for one in plan.statements if isinstance(one, Combine))
    assert [number for number, _ in combine.terms] == pytest.approx(
        [0.9**4, 0.1 * (1 + 0.9 + 0.9**2 + 0.9**3)]
    )


def reusing() -> SubNet:
    """Rows 1, 2 and 4 compute nothing; 2 and 4 weigh the latest predictions."""
    made = subnet("111", "000", "000", "111", "000")
    return replace(made, reuse=((), (), (1.25,), (), (1.5, -0.5)))


def reusing_plan() -> Plan:
    """Before any pass."""
    return unroll(UNET, reusing(), euler(5))


def test_reuse_weights_have_golden_dumps(check_golden: Callable[[str, str], None]) -> None:
    check_golden("passes/reuse_unroll", str(reusing_plan()))
    check_golden("passes/reuse_optimised", str(run_passes(reusing_plan())))


HALVES = ((), (), (0.5,), (), (0.25, 0.125))


def test_weights_of_unconditional_halves(check_golden: Callable[[str, str], None]) -> None:
    """The half is an output of the head where it is weighed, and nowhere else."""
    head = UNET.nodes[-1]
    outputs = (*head.outputs, Value("unconditional", head.outputs[0].type))
    nodes = (*UNET.nodes[:-1], replace(head, outputs=outputs))
    guided = replace(UNET, nodes=nodes, unconditional="unconditional")
    assert unroll(guided, reusing(), euler(5)) == reusing_plan()
    weighed = replace(reusing(), reuse_unconditional=HALVES)
    plan = unroll(guided, weighed, euler(5))
    check_golden("passes/reuse_halves_unroll", str(plan))
    check_golden("passes/reuse_halves_optimised", str(run_passes(plan)))
    with pytest.raises(
        DipgoError, match=r"reuse_unconditional: .+ without guidance.+; export with"
    ):
        unroll(UNET, weighed, euler(5))


def test_reuse_weights_become_combinations_alone() -> None:
    """No call more than the rows that compute, and none of the weighted predictions is left."""
    plan = run_passes(reusing_plan())
    assert [call.step for call in plan.calls] == [0, 3]
    combined = [one for one in plan.statements if isinstance(one, Combine)]
    assert [one.step for one in combined] == [3, 5]
    assert {name for one in combined for _, name in one.terms} == {
        "latents",
        "s0.head",
        "s3.latents",
        "s3.head",
    }
    numbers = {name: number for number, name in combined[0].terms}
    decay, rate = 0.9, 0.1
    assert numbers["latents"] == pytest.approx(decay**3)
    assert numbers["s0.head"] == pytest.approx(rate * (decay**2 + decay + 1.25))
    last = {name: number for number, name in combined[1].terms}
    assert last["s3.head"] == pytest.approx(rate * (decay + 1.5))
    assert last["s0.head"] == pytest.approx(rate * -0.5)


def test_a_dense_plan_is_one_segment_called_at_every_step() -> None:
    plan = run_passes(plan_of("111", "111", "111"))
    assert len(plan.callees) == 1
    assert [call.step for call in plan.calls] == [0, 1, 2]
    assert plan_cost(plan).kept == 1.0


def test_counts() -> None:
    plan = run_passes(plan_of(*ROWS))
    assert (evaluations(plan), block_calls(plan), step_patterns(plan)) == (3, 7, 1)


def test_a_gate_that_nothing_reads_is_dead() -> None:
    """At the last step only down0 is on, but up0 is reused: nothing is called."""
    plan = run_passes(plan_of("111", "100"))
    assert evaluations(plan) == 1


gate_rows = st.lists(st.text("01", min_size=3, max_size=3), min_size=0, max_size=12)


@settings(max_examples=200, deadline=None)
@given(gate_rows)
def test_slots_of_random_plans(rows: list[str]) -> None:
    """An independent look at every slot: no byte holds two values that are both still needed."""
    plan = run_passes(plan_of("111", *rows))
    owner: dict[int, str] = {}
    slots = {slot.value: slot for slot in plan.slots}
    granularity = 64
    for statement in plan.statements:
        operands = statement.operands if isinstance(statement, Call) else ()
        names = [one.name for one in operands if isinstance(one, Read)]
        if isinstance(statement, Combine):
            names = [name for _, name in statement.terms]
        for name in names:
            if name in slots:
                assert {owner[unit] for unit in _units(slots[name], granularity)} == {name}
        written = statement.results if isinstance(statement, Call) else (statement.result,)
        for name in written:
            owner.update(dict.fromkeys(_units(slots[name], granularity), name))
    assert {owner[unit] for unit in _units(slots[plan.result], granularity)} == {plan.result}
    assert lower_bound_nbytes(plan) <= plan.arena_nbytes
    assert plan.arena_nbytes <= 1.2 * lower_bound_nbytes(plan)
    assert parse_plan(str(plan)) == plan


def _units(slot: Slot, granularity: int) -> range:
    return range(slot.offset // granularity, -(-(slot.offset + slot.nbytes) // granularity))


def test_the_verifier_refuses_broken_plans() -> None:
    plan = run_passes(plan_of(*ROWS))
    first = plan.calls[0]
    broken = {
        "nothing earlier writes": replace(plan, statements=plan.statements[1:]),
        "second definition": replace(plan, statements=(first, *plan.statements)),
        "undeclared callee": replace(plan, callees=()),
        "never written": replace(plan, result="elsewhere"),
        "a row that no table holds": replace(plan, tables=()),
        "already ended": replace(plan, statements=(*plan.statements, first)),
        "has no slot": replace(plan, slots=plan.slots[1:]),
        "which is still read": replace(plan, slots=_all_at_zero(plan)),
    }
    for message, bad in broken.items():
        with pytest.raises((InvalidPlanError, KeyError), match=message):
            verify(bad)


def _all_at_zero(plan: Plan) -> tuple[Slot, ...]:
    return tuple(replace(slot, offset=0) for slot in plan.slots)


@pytest.mark.parametrize(
    "line", ["  %x =", "s7 t=1.0 row=0 111", "input latents f32[1]", "table t f99[1] rows=0"]
)
def test_text_that_is_no_plan_is_named_by_line(line: str) -> None:
    text = str(plan_of("111")).splitlines()
    with pytest.raises(PlanSyntaxError, match="plan text, line 4"):
        parse_plan("\n".join([*text[:3], line, *text[3:]]))


def test_live_ranges_end_where_a_value_is_last_read() -> None:
    plan = eliminate_dead_calls(number_values(plan_of("111", "001")))
    ranges = {one.value: one for one in live_ranges(fuse_steps(plan))}
    positions = [str(getattr(s, "callee", "combine")) for s in fuse_steps(plan).statements]
    assert positions[ranges["s0.down0:0"].last] == "up0"
    assert ranges["s0.down0:0"].last > ranges["s0.down0:1"].last


def test_who_reads_a_block_that_is_passed_by_is_in_another_segment() -> None:
    """With `identity`, up0 reads what down0 makes under the name of mid: no edge of the graph."""
    made = replace(subnet("111", "101", "101"), backup=("output", "identity", "output"))
    plan = run_passes(unroll(UNET, made, euler(3)))
    segment = {member: callee.name for callee in plan.callees for member in callee.members}
    assert segment["down0"] != segment["up0"]
    last = plan.calls[-1]
    assert Read("s2.down0:1") in last.operands
