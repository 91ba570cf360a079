"""Plans' texts that were edited by hand, and passes out of order: one line, exit code 2."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import dipgo.export.__main__
import dipgo.inspect
from dipgo.common.cli import run_command
from dipgo.compiler.passes import OPTIMISE, find_passes, run_passes
from dipgo.compiler.unroll import unroll
from dipgo.ir.plan.parse import parse_plan
from tests.support.handmade import UNET, euler, subnet

ROWS = ("111", "000", "001", "111")
PLAN = unroll(UNET, subnet(*ROWS), euler(len(ROWS)))
UNROLLED, FINAL = str(PLAN), str(run_passes(PLAN))
Refuse = Callable[..., str]


@pytest.fixture
def inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Inspects a text that must be refused, and returns the one line."""

    def run(text: str, *options: str) -> str:
        path = tmp_path / "plan.txt"
        path.write_text(text)
        assert run_command(dipgo.inspect.main, [str(path), *options]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        return line

    return run


def edit(text: str, old: str, new: str) -> str:
    """Replaces what must be there, once."""
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


def _slot_of(name: str) -> str:
    found = re.search(rf"%{re.escape(name)}(@\d+\+\d+)", FINAL)
    assert found
    return found[1]


EDITS = {
    "a read of what is never written": (
        edit(UNROLLED, "s0.mid = mid(%s0.down0:1", "s0.mid = mid(%ghost"),
        "s0, mid: a read of %ghost, which nothing earlier writes",
    ),
    "a read of what is written later": (
        edit(UNROLLED, "s0.conv_in = conv_in(%s0.latents", "s0.conv_in = conv_in(%s1.latents"),
        "s0, conv_in: a read of %s1.latents, a cycle: s1, %s1.latents <- ",
    ),
    "a read of a later call that needs nothing of this one": (
        edit(
            UNROLLED,
            "s0.down0:1 = down0(%s0.conv_in %s0.time",
            "s0.down0:1 = down0(%s0.conv_in %s1.time",
        ),
        "s0, down0: a read of %s1.time, which nothing earlier writes, only s1, time",
    ),
    "a cycle of two calls": (
        edit(UNROLLED, "s0.down0:1 = down0(%s0.conv_in", "s0.down0:1 = down0(%s0.up0"),
        "s0, down0: a read of %s0.up0, a cycle: s0, up0 <- s0, down0 <- s0, up0",
    ),
    "a write over a live value": (
        edit(FINAL, f"%s0.mid{_slot_of('s0.mid')}", f"%s0.mid{_slot_of('s0.down0:0')}"),
        "s0, seg0: %s0.mid overwrites %s0.down0:0, which is still read",
    ),
    "lanes of an output apart": (
        edit(FINAL, f"%s2.head{_slot_of('s2.head')}", "%s2.head@1048576+4096"),
        "s0, seg1: %s0.head and %s2.head, lanes of one output, in slots that are not side by side",
    ),
    "rows of a stack that are not neighbours": (
        edit(FINAL, "{time[0] time[2]}", "{time[0] time[3]}"),
        "s0, seg1: time[0] and time[3], which do not lie side by side, in a stack",
    ),
    "a slot for nothing": (
        edit(FINAL, "%s0.mid@", "%s0.mud@"),
        "s0, seg1: a read of %s0.mid, which nothing earlier writes",
    ),
    "a stack for an input of one lane": (
        edit(FINAL, "  stacked time\n", ""),
        "s0, seg1: a stack for %time, not stacked",
    ),
    "no stack for an input of several lanes": (
        edit(FINAL, "{time[3]}", "time[3]"),
        "s3, seg1: no stack for %time",
    ),
    "a line that is none": (
        edit(UNROLLED, "  %s0.mid = mid(", "  %s0.mid - mid("),
        "plan text, line ",
    ),
    "an unknown state": (
        edit(UNROLLED, "state %latents", "state %noise"),
        "state: %noise is no input",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_named_by_step_and_call(name: str, inspect: Refuse) -> None:
    text, message = EDITS[name]
    line = inspect(text)
    assert line.startswith(f"error: plan.txt: found {message}"), line


ORDERS = {
    "batch_calls,form_segments": "pass form_segments: found a plan whose calls are batched",
    "allocate_slots,fuse_steps": "pass fuse_steps: found a plan whose values have their slots",
    "form_segments,form_segments": "pass form_segments: found a plan whose callees are segments",
    "batch_calls,batch_calls": "pass batch_calls: found a plan whose calls are batched",
    "hoist": "--passes: found hoist; expected names among number_values, ",
    "number_values,": "--passes: found an empty name; expected names among",
}


@pytest.mark.parametrize("order", ORDERS)
def test_passes_out_of_order(order: str, inspect: Refuse) -> None:
    assert inspect(UNROLLED, "--passes", order).startswith(f"error: {ORDERS[order]}")


def test_an_export_needs_slots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--subnet", "dense", "--steps", "2", "--model", "arch:sd15"]
    arguments += ["--passes", "number_values,form_segments", "--out", str(tmp_path / "out")]
    assert run_command(dipgo.export.__main__.main, arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --passes: found form_segments as the last; expected allocate")
    assert not (tmp_path / "out").exists()


def test_passes_on_a_file_are_those_of_the_compiler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the passes stand the plans, each a text that parses; then the table of savings."""
    path = tmp_path / "plan.txt"
    path.write_text(f"# by hand\n\n{UNROLLED}\n")
    names = [one.name for one in OPTIMISE]
    arguments = [str(path), "--passes", ",".join(names), "--print-between-passes"]
    assert run_command(dipgo.inspect.main, arguments) == 0
    printed = capsys.readouterr().out
    texts = re.findall(
        r"^# after (\w+)\n(plan .+?\nreturn \S+)\n", printed, re.DOTALL | re.MULTILINE
    )
    assert [name for name, _ in texts] == ["file", *names]
    plan = PLAN
    for name, text in texts[1:]:
        plan = run_passes(plan, find_passes([name]))
        assert parse_plan(text) == plan
    table = printed[printed.rindex("after ") :]
    assert [line.split()[0] for line in table.splitlines()[1:10]] == ["file", *names]
    assert "cache " in table
    assert "without reuse" in table


def test_print_between_passes_needs_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "subnet.json"
    subnet(*ROWS).save(path)
    assert run_command(dipgo.inspect.main, [str(path), "--print-between-passes"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: --print-between-passes: found an option without effect where no model is compiled"
    )
