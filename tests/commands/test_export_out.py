"""Places that `python -m dipgo.export` refuses to write to, and what a failure leaves there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.files import check_destination, staged_directory
from dipgo.common.leftovers import NEW
from dipgo.engines.contents import engine_contents, foreign_content
from dipgo.export import __main__ as export_command
from dipgo.export.destination import foreign
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER, ENGINES_FORMAT
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE
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


def _add(name: str) -> Callable[[Path], None]:
    def add(out: Path) -> None:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")

    return add


def _link(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).symlink_to("/etc")


def _list(name: str) -> Callable[[Path], None]:
    """Adds a file that the manifest lists: it may be a stranger's, or edited."""

    def add(out: Path) -> None:
        _add(name)(out)
        manifest = json.loads((out / MANIFEST_FILE).read_bytes())
        manifest.setdefault("files", {})[name] = {"sha256": "", "nbytes": 8}
        (out / MANIFEST_FILE).write_text(json.dumps(manifest))

    return add


ADDED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file": (_add("notes.txt"), "notes.txt"),
    "a file that is listed": (_list("thesis.txt"), "thesis.txt"),
    "a file in a folder that is listed": (_list("mine/a.onnx"), "mine"),
    "a file that is not shown": (_add(".notes"), ".notes"),
    "a folder": (_add("mine/notes.txt"), "mine"),
    "an empty folder": (lambda out: (out / "mine").mkdir(), "mine"),
    "a link": (_link("link"), "link"),
    "a size that it has not": (_add("plan-8x8.json"), "plan-8x8.json"),
    "a file among engines": (_add("engines/notes.txt"), "engines/notes.txt"),
    "no engines": (_add("engines/mine/notes.txt"), "engines/mine"),
    "a file named as their folder": (_add("engines"), "engines"),
    "a name that looks temporary": (_add(".dipgo-new-1"), ".dipgo-new-1"),
    "what an earlier version left": (_add("engines/.tensorrt.a1/x"), "engines/.tensorrt.a1"),
}


@pytest.mark.parametrize("name", ADDED)
def test_force_deletes_nothing_of_the_user_s(name: str, damaged: Path, refused: Refused) -> None:
    """Failed at 3bfeb0e: all was deleted with the export."""
    add, named = ADDED[name]
    add(damaged)
    message = (str(damaged), f"{named}, which is no file of an export", "an export directory")
    refused(export_command.main, [*DENSE, "--out", damaged, "--force"], *message)


def _add_engines(out: Path) -> None:
    folder = out / ENGINES_FOLDER / "torch"
    folder.mkdir(parents=True)
    (folder / "mid.engine").write_bytes(b"")
    record = {"file": "mid.engine", "nbytes": 0}
    manifest = {"format": ENGINES_FORMAT, "engines": {"mid": record}}
    (folder / ENGINES_FILE).write_text(json.dumps(manifest))


def _add_leftovers(out: Path) -> None:
    (out / f"{NEW}{'0' * 16}").write_text("")
    (out / ENGINES_FOLDER / f"{NEW}{'1' * 16}").mkdir(parents=True)


OURS: dict[str, Callable[[Path], object]] = {
    "as it was written": lambda out: None,
    "with engines": _add_engines,
    "with leftovers of killed builds": _add_leftovers,
    "with a damaged file": lambda out: (out / WEIGHTS_FILE).write_bytes(b""),
    "without some files": lambda out: (out / WEIGHTS_FILE).unlink(),
    "with files that are links": lambda out: (
        (out / WEIGHTS_FILE).rename(out.parent / "blob"),
        (out / WEIGHTS_FILE).symlink_to("../blob"),
    ),
    "empty": lambda out: [path.unlink() for path in out.iterdir()],
}


@pytest.mark.parametrize("name", OURS)
def test_force_replaces_an_export(name: str, damaged: Path) -> None:
    OURS[name](damaged)
    check_destination(damaged, force=True, foreign=foreign)


@pytest.mark.parametrize("name", [name for name in OURS if name != "empty"])
def test_engines_replace_nothing_but_engines(name: str, damaged: Path) -> None:
    """Only what a manifest of engines lists; the export around them does not matter."""
    OURS[name](damaged)
    check_destination(damaged / ENGINES_FOLDER / "torch", force=True, foreign=_engines)
    (damaged / ENGINES_FOLDER / "torch").mkdir(parents=True, exist_ok=True)
    (damaged / ENGINES_FOLDER / "torch" / "notes.txt").write_text("")
    with pytest.raises(DipgoError, match=r"not a folder of engines|notes\.txt, which is no file"):
        check_destination(damaged / ENGINES_FOLDER / "torch", force=True, foreign=_engines)


def _engines(out: Path) -> str:
    return foreign_content(out, engine_contents(out), "a folder of engines")


MENTIONS: dict[str, str] = {
    "in another field": '{"title": "dipgo.export"}',
    "in a text": 'not JSON, but about "dipgo.export"',
    "deeper": '{"plans": [{"format": "dipgo.export"}]}',
    "in a list": '["dipgo.export"]',
    "as a part": '{"format": "like dipgo.export"}',
}


@pytest.mark.parametrize("name", MENTIONS)
def test_a_plan_that_mentions_us_is_no_export(name: str, tmp_path: Path, refused: Refused) -> None:
    """Failed at 3bfeb0e where the format stands in quotation marks anywhere near the beginning."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST_FILE).write_text(MENTIONS[name])
    given = [*DENSE, "--out", tmp_path / "out", "--force"]
    refused(export_command.main, given, "out", "not an export", "an export directory")


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
        staged_directory(tmp_path / "a" / "b" / "out", force=False, foreign=foreign) as folder,
    ):
        (folder / "file").write_bytes(bytes(2000))
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(DipgoError, match="found something of that name"),
        staged_directory(out, force=False, foreign=foreign),
    ):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]
