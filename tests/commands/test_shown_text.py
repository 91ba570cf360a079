"""What commands show of strangers' files has no control characters, and is not endless.

Failed at 3bfeb0e: `inspect` printed a manifest's names as they are, and every gate.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import msgspec
import numpy as np
import pytest

import dipgo
import dipgo.inspect
from dipgo.common.cli import run_command
from dipgo.ir.manifest.records import MANIFEST_FILE

EVIL = "\x1b]0;title\x07\x1b[2J\u202e[bold red]"


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(dipgo.inspect.main, [str(path)]) == 0
    return capsys.readouterr().out


def without_controls(text: str) -> bool:
    return not any(unicodedata.category(each) in ("Cc", "Cf") for each in text if each != "\n")


@pytest.mark.parametrize("field", ["class", "source", "name", "block", "value", "lora"])
def test_a_manifests_texts_are_escaped(
    damaged: Path, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = damaged / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    if field in ("class", "source"):
        manifest["model"][field] = EVIL
    elif field == "name":
        manifest["program"]["name"] = EVIL
    elif field == "block":
        manifest["program"]["blocks"][0] = EVIL
    elif field == "lora":
        lora = {"name": EVIL, "sha256": "0" * 64, "scale": 1.0}
        manifest["fitted"] = {"loras": [lora]}
    else:
        old = json.dumps(manifest["program"]["slots"][0]["value"])
        text = path.read_text().replace(old, json.dumps(EVIL))
        manifest = json.loads(text.replace(f'"%{old[1:]}', f'"%{json.dumps(EVIL)[1:]}'))
    path.write_text(json.dumps(manifest))
    if field == "value":
        run_command(dipgo.inspect.main, [str(path.parent)])
        printed = capsys.readouterr()
        assert without_controls(printed.out + printed.err)
        return
    text = shown(damaged, capsys)
    assert without_controls(text)
    assert "\\x1b" in text
    assert "[bold red]" in text  # rich would take it for a style


def test_a_subnet_of_very_many_gates_is_shown_in_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = tuple(f"blocks.{index}" for index in range(50_000))
    subnet = dipgo.SubNet.dense(
        [float(step) for step in range(20, 0, -1)], blocks, num_inference_steps=20
    )
    subnet.save(tmp_path / "subnet.json")
    text = shown(tmp_path / "subnet.json", capsys)
    assert len(text) < 500_000
    assert "50000 blocks, 20 rows in all" in " ".join(text.split())


def test_terms_of_linear_combinations_have_a_bound(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a launch, and a line of a manifest may name many."""
    path = damaged / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    combine = next(each for each in manifest["program"]["statements"] if each["op"] == "combine")
    combine["values"] *= 20_000
    combine["coefficients"] *= 20_000
    path.write_bytes(msgspec.json.encode(manifest))
    assert run_command(dipgo.inspect.main, [str(damaged)]) == 2
    assert np.char.count(capsys.readouterr().err, "\n") == 1
