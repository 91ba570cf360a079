"""Damaged exports: each is taken, or refused in one line; a small part of the fuzzer's run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from scripts.fuzz.fuzz_exports import fuzz, summary, write_bases
from scripts.fuzz.sandbox import Limits, watch

MUTANTS = 60


@pytest.mark.slow
def test_no_mutant_does_harm(tmp_path: Path) -> None:
    write_bases(tmp_path)
    options = Namespace(seeds=None, first=0, mutants=MUTANTS, jobs=1)
    figures = summary({seed: (said, report) for seed, said, report in fuzz(options, tmp_path)})
    assert not figures["faults"], figures["faults"]
    assert figures["refused"] > MUTANTS / 2


def test_the_sandbox_sees_harm(tmp_path: Path) -> None:
    """What the fuzzer calls harmless must not be so for want of eyes."""
    writes = tmp_path / "writes"
    writes.mkdir()
    (tmp_path / "canary").write_text("")

    def nothing() -> int:
        print("error: refused")
        return 2

    def runs_a_program() -> int:
        import os

        return os.system("true")

    def unpickles() -> int:
        import pickle

        pickle.loads(b"cbuiltins\nprint\n.")
        return 0

    def writes_elsewhere() -> int:
        (tmp_path / "elsewhere").write_text("")
        return 0

    def reads_elsewhere() -> int:
        (tmp_path / "canary").read_text()
        return 0

    def raises() -> int:
        raise KeyError("x")

    def hangs() -> int:
        while True:
            pass

    def takes_memory() -> int:
        return len(bytearray(1 << 33)) * 0

    def dies() -> int:
        import ctypes

        ctypes.string_at(0)
        return 0

    limits = Limits(seconds=5, nbytes=1 << 30)
    assert not watch({"nothing": nothing}, [], writes, limits).faults
    harmful = (runs_a_program, unpickles, writes_elsewhere, reads_elsewhere, raises)
    for action in (*harmful, takes_memory, dies):
        (writes / "result.json").unlink(missing_ok=True)
        assert watch({"it": action}, [], writes, limits).faults, action.__name__
    (writes / "result.json").unlink(missing_ok=True)
    assert watch({"it": hangs}, [], writes, Limits(seconds=0.5)).faults
