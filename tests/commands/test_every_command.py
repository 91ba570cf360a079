"""Errors that several commands report alike, and their form as processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

import dipgo.bench
import dipgo.run.__main__
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE
from tests.support.refusals import (
    PROMPT,
    Refused,
    check_message,
)


@pytest.mark.parametrize("main", [dipgo.run.__main__.main, dipgo.bench.main], ids=["run", "bench"])
def test_every_command_checks_the_export(
    main: Callable[[list[str]], None], damaged: Path, tmp_path: Path, refused: Refused
) -> None:
    (damaged / WEIGHTS_FILE).unlink()
    image = [*PROMPT, "--image", tmp_path / "out.png"] if main is dipgo.run.__main__.main else []
    refused(main, [damaged, *image], WEIGHTS_FILE, "no such file", "a file of the export")
    refused(main, [tmp_path / "no", *image], MANIFEST_FILE, "No such file", "the manifest of an")
    refused(main, [tmp_path, *image], MANIFEST_FILE, "No such file", "the manifest of an export")


PROVIDERS = [("tpu", "a name that is not known", "one of cpu, cuda")]

if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
    PROVIDERS.append(("cuda", "an onnxruntime with", "CUDAExecutionProvider"))


@pytest.mark.parametrize(("provider", "found", "expected"), PROVIDERS)
def test_a_provider_that_is_not_there(
    provider: str, found: str, expected: str, exported: Path, tmp_path: Path, refused: Refused
) -> None:
    message = (f"provider {provider}", found, expected)
    refused(dipgo.bench.main, [exported, "--provider", provider], *message)
    image = [*PROMPT, "--image", tmp_path / "out.png", "--provider", provider]
    refused(dipgo.run.__main__.main, [exported, *image], *message)


COMMANDS = {
    "export": ["--model", "arch:sd15", "--subnet", "no.json", "--out", "out"],
    "run": ["no", "--prompt", "a red circle", "--image", "out.png"],
    "inspect": ["no"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_as_a_command(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"dipgo.{name}", *COMMANDS[name]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    check_message(result.stderr, ("no",))
    assert list(tmp_path.iterdir()) == []
