"""Arguments that `python -m dipgo.run` refuses, and what it says of its seed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import dipgo.run.__main__
from dipgo.common.cli import run_command
from dipgo.export import export
from tests.support.refusals import (
    PROMPT,
    Refused,
    check_message,
    file_tree,
    files_of_at_most,
)

RUNS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "nothing to write": ([], ("dipgo.run", "neither --image", "a file to write", "add --image")),
    "no prompt": (["--prompt"], ("--prompt", "", "one argument", "--help")),
    "seed": (["--seed", "-1"], ("--seed", "'-1'", "at least 0", "python -m dipgo.run --help")),
    "a large seed": (
        ["--seed", str(2**64), "--latents", "{tmp}/out.npy"],
        ("--seed", str(2**64), "from 0 to", "choose a seed"),
    ),
    "guidance": (
        ["--guidance-scale", "much"],
        ("--guidance-scale", "'much'", "a number", "--help"),
    ),
    "guidance, not finite": (
        ["--guidance-scale", "nan", "--latents", "{tmp}/out.npy"],
        ("--guidance-scale", "nan", "a finite number", "correct it"),
    ),
    "threads": (["--threads", "-1"], ("--threads", "'-1'", "at least 0", "--help")),
    "no folder": (
        ["--image", "{tmp}/no/out.png"],
        ("no/out.png", "no such folder", "a folder that exists", "make the folder first"),
    ),
    "a folder": (["--image", "{tmp}/a.png"], ("a.png", "a folder", "a file to write", "name a")),
    "unwritable": (["--latents", "/proc/out.npy"], ("/proc/out.npy", "/proc", "may be written")),
    "ending": (["--image", "{tmp}/out.txt"], ("--image", "out.txt", "ends in .png", "give")),
    "ending of latents": (["--latents", "{tmp}/x"], ("--latents", "x", "ends in .npy", "give")),
}


@pytest.mark.parametrize("name", RUNS)
def test_arguments_of_run(name: str, exported: Path, tmp_path: Path, refused: Refused) -> None:
    options, fragments = RUNS[name]
    (tmp_path / "a.png").mkdir()
    given = [option.format(tmp=tmp_path) for option in options]
    refused(dipgo.run.__main__.main, [exported, *PROMPT, "--threads", "1", *given], *fragments)


def test_a_disk_that_is_full_after_the_run(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    out.write_text("what was there")
    with files_of_at_most(1000):
        given = [exported, *PROMPT, "--threads", "1", "--latents", out]
        assert run_command(dipgo.run.__main__.main, list(map(str, given))) == 2
    check_message(capsys.readouterr().err, ("out.npy", "", "room enough", "nothing was left"))
    assert file_tree(tmp_path) == {out: b"what was there"}


@pytest.fixture(scope="module")
def unguided(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export without guidance."""
    out = tmp_path_factory.mktemp("unguided") / "out"
    return export(pipeline, "dense", out, steps=1, guidance=False)


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--guidance-scale", "5"], ["--negative-prompt", "a circle"]])
def test_an_export_without_guidance_takes_none(
    option: list[str], unguided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [unguided, *PROMPT, *option, "--latents", tmp_path / "out.npy"]
    assert run_command(dipgo.run.__main__.main, list(map(str, given))) == 2
    assert "for an export without guidance; expected neither; leave" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()


def test_a_seed_that_is_drawn_is_said(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command and in the PNG; with it the same picture is made again."""
    out, again = tmp_path / "out.png", tmp_path / "again.png"
    common = [str(exported), *PROMPT, "--threads", "1"]
    assert run_command(dipgo.run.__main__.main, [*common, "--image", str(out)]) == 0
    said = re.search(r"^seed (\d+), which was drawn$", capsys.readouterr().out, re.MULTILINE)
    assert said is not None
    with Image.open(out) as picture:
        assert picture.text == {"seed": said[1]}
    given = [*common, "--seed", said[1], "--image", str(again)]
    assert run_command(dipgo.run.__main__.main, given) == 0
    assert "seed" not in capsys.readouterr().out
    assert again.read_bytes() == out.read_bytes()
    other = [*common, "--image", str(out)]
    assert run_command(dipgo.run.__main__.main, other) == 0
    assert again.read_bytes() != out.read_bytes()
