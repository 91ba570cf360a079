"""docs/internals: what the pages say to write makes a pass and a schedule, and touches no more."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest

from tests.support.follow_page import ROOT, follow

PAGES = ROOT / "docs" / "internals"
GOLDEN = Path("tests", "golden", "passes")


@pytest.mark.slow
def test_add_a_pass(tmp_path: Path) -> None:
    copy = follow(PAGES / "add-a-pass.md", tmp_path)
    for command in copy.commands:
        copy.command(command)
    compared = filecmp.dircmp(ROOT / GOLDEN, copy.root / GOLDEN)
    assert compared.right_only == ["drop_zero_terms.txt"]
    assert (compared.left_only, compared.diff_files) == ([], [])


def test_add_a_schedule(tmp_path: Path) -> None:
    copy = follow(PAGES / "add-a-schedule.md", tmp_path)
    for command in copy.commands:
        copy.command(command)
    assert "\n| `block-dance` | BlockDance |" in (copy.root / "docs/guide/schedules.md").read_text()
    assert "`dipgo.schedules.block_dance`" in (copy.root / "docs/reference/modules.md").read_text()
    (example,) = copy.examples
    assert (copy.python("-c", example),) == copy.outputs
    assert "dipgo,block-dance,fewer-steps" in copy.python("-m", "dipgo.search", "--help")
