"""Places that `python -m dipgo.export` refuses to write to, and what a failure leaves there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.files import staged_directory
from dipgo.export import __main__ as export_command
from dipgo.export.destination import may_replace
from dipgo.ir.manifest.records import MANIFEST_FILE
from tests.support.refusals import (
    Refused,
    files_of_at_most,
)

DENSE = ["--model", "arch:sd15", "--subnet", "dense", "--steps", "3"]
"""Refused for their OUT before the model is loaded."""


def test_out_that_exists(tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "out"
    out.mkdir()
    message = (str(out), "something of that name", "does not exist", "--force")
    refused(export_command.main, [*DENSE, "--out", out], *message)


def _files_of_others(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("")


def _a_plan_of_others(out: Path) -> None:
    out.mkdir()
    (out / MANIFEST_FILE).write_text('{"format": "floor plan"}')


def _a_file(out: Path) -> None:
    out.write_text("")


def _a_link(out: Path) -> None:
    out.symlink_to("nowhere")


@pytest.mark.parametrize("make", [_files_of_others, _a_plan_of_others, _a_file, _a_link])
def test_force_replaces_only_exports(
    make: Callable[[Path], None], tmp_path: Path, refused: Refused
) -> None:
    out = tmp_path / "out"
    make(out)
    message = (str(out), "not an export", "an export directory", "choose another name")
    refused(export_command.main, [*DENSE, "--out", out, "--force"], *message)


@pytest.mark.parametrize("folder", ["/proc", "{tmp}/file", "{tmp}/file/deeper"])
def test_out_that_cannot_be_written(folder: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("")
    out = Path(folder.format(tmp=tmp_path)) / "out"
    message = (str(out), "where no file can be made", "may be written", "choose another place")
    refused(export_command.main, [*DENSE, "--out", out], *message)


def test_a_disk_that_is_full_half_way(pipeline: Path, damaged: Path, refused: Refused) -> None:
    message = (str(damaged), "File too large", "room enough", "nothing was left behind")
    dense = ["--subnet", "dense", "--steps", "2", "--scheduler", "euler"]
    with files_of_at_most(1 << 20):
        given = ["--model", pipeline, *dense, "--out", damaged, "--force"]
        refused(export_command.main, given, *message)


def test_folders_made_for_out_go_again(tmp_path: Path) -> None:
    with (
        pytest.raises(DipgoError, match=r"found .+File too large.+; expected .+; free some space"),
        files_of_at_most(1000),
        staged_directory(
            tmp_path / "a" / "b" / "out", force=False, may_replace=may_replace
        ) as folder,
    ):
        (folder / "file").write_bytes(bytes(2000))
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(DipgoError, match="found something of that name"),
        staged_directory(out, force=False, may_replace=may_replace),
    ):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]
