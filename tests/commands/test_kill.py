"""Commands that are killed at random moments leave nothing half-written, and no process.

By the code of 3bfeb0e, temporary folders stayed for good and `build`'s processes ran on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dipgo.common.leftovers import NEW
from scripts.fuzz.kill import SIGNALS, Trial, digest, leftovers, summary
from scripts.fuzz.kill_cases import CASES

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_twelve_kills(tmp_path: Path) -> None:
    """Of the commands that take the least time; the seeds have every signal."""
    report = tmp_path / "kills.json"
    words = ["--kills", "12", "--commands", "search", "refit", "--json", str(report)]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.fuzz.kill", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0
    figures = json.loads(report.read_text())
    assert (figures["kills"], figures["failures"]) == (12, {})
    assert {trial["signal"] for trial in figures["trials"]} == {one.name for one in SIGNALS}


def test_a_summary_counts_failures() -> None:
    trials = [
        Trial(0, "export", "SIGKILL", 1.0, "old", leftovers=1, ran_again=True),
        Trial(1, "export", "SIGKILL", 2.0, "half", problem="half of a result"),
    ]
    figures = summary(trials)
    assert figures["failures"] == {1: "half of a result"}
    counts = {"kills": 2, "old": 1, "half": 1, "left over": 1, "ran again": 1, "failures": 1}
    assert figures["counts"] == {"export SIGKILL": counts}


def test_a_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    assert digest(tmp_path / "no") == ""
    (tmp_path / "a").write_text("1")
    seen = {digest(tmp_path)}
    (tmp_path / "a").write_text("2")
    seen.add(digest(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(digest(tmp_path))
    (tmp_path / "c").mkdir()
    seen.add(digest(tmp_path))
    assert len(seen) == 4


def test_leftovers_are_counted_once(tmp_path: Path) -> None:
    outer = tmp_path / "x" / f"{NEW}{'0' * 16}"
    (outer / f"{NEW}{'1' * 16}").mkdir(parents=True)
    assert leftovers(tmp_path) == [outer]
    assert set(CASES) == {"export", "search", "refit", "evaluate", "bench", "build"}
