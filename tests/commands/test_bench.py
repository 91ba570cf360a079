"""Arguments that `python -m dipgo.bench` refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import dipgo.bench
from dipgo.ir.manifest.records import MANIFEST_FILE
from tests.support.refusals import (
    Refused,
)

BENCHES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "warmup": (["--warmup", "-1"], ("--warmup", "'-1'", "at least 0", "--help")),
    "repeats": (["--repeats", "0"], ("--repeats", "'0'", "at least 1", "--help")),
    "threads": (["--threads", "x"], ("--threads", "'x'", "at least 0", "--help")),
    "no folder": (["--json", "{tmp}/no/x.json"], ("no/x.json", "no such folder", "exists", "make")),
    "against nothing": (["--against", "{tmp}/no"], (MANIFEST_FILE, "No such file", "the manifest")),
    "against dense": (["--against", "dense"], ("--against dense", "pipeline", "--model M", "say")),
    "against another's twin": (
        ["--against", "dense", "--model", "{tiny_dit}"],
        ("--against dense", "DiTTransformer2DModel", "UNet2DConditionModel", "name the model"),
    ),
}


@pytest.mark.parametrize("name", BENCHES)
def test_arguments_of_bench(
    name: str, exported: Path, tiny_dit: Path, tmp_path: Path, refused: Refused
) -> None:
    options, fragments = BENCHES[name]
    given = [option.format(tmp=tmp_path, tiny_dit=tiny_dit) for option in options]
    refused(dipgo.bench.main, [exported, *given], *fragments)
