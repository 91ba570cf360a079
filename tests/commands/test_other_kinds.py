"""A pipeline, an export and a SubNet, each in place of the others: a line says where it belongs.

By the code of 3bfeb0e: the line said that plan.json or model_index.json is not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dipgo
from dipgo.common.errors import DipgoError
from dipgo.common.kinds import EXPORT, PIPELINE, SUBNET, kind_of
from dipgo.engines import load
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export import refit
from dipgo.models.source import load_source

SUBNET_FILE = Path(__file__).parents[2] / "examples" / "subnets" / "demo-deepcache-5.json"

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "load": (EXPORT, load),
    "Pipeline": (EXPORT, dipgo.Pipeline.from_export),
    "open": (EXPORT, ExportDirectory.open),
    "refit": (EXPORT, lambda path: refit(path, "no", "out")),
    "SubNet": (SUBNET, dipgo.SubNet.load),
    "load_source": (PIPELINE, load_source),
}


@pytest.fixture
def paths(pipeline: Path, exported: Path, tmp_path: Path) -> dict[str, Path]:
    """Each kind, in a folder whose name has to be quoted in a shell."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    named = {EXPORT: exported, PIPELINE: pipeline, SUBNET: SUBNET_FILE}
    for path in named.values():
        (folder / path.name).symlink_to(path)
    return {kind: folder / path.name for kind, path in named.items()}


@pytest.mark.parametrize("reader", READERS)
def test_another_kind_is_named(reader: str, paths: dict[str, Path]) -> None:
    wanted, read = READERS[reader]
    for kind, path in paths.items():
        assert kind_of(path) == kind
        if kind == wanted:
            continue
        with pytest.raises(DipgoError) as caught:
            read(path)
        assert caught.value.where == str(path)
        assert (caught.value.found, caught.value.expected) == (kind, wanted)
        assert caught.value.remedy


def test_what_is_of_no_kind_is_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    for path in (tmp_path, tmp_path / "file", tmp_path / "no", Path("a\0b"), Path("x" * 300)):
        assert kind_of(path) == ""


@pytest.mark.parametrize("size", ["64x64", "1x64x64", "32x32"])
def test_sizes_say_the_own_one(size: str, exported: Path, tmp_path: Path) -> None:
    """The own one may be said too."""
    copied = Path(shutil.copytree(exported, tmp_path / "out"))
    if size != "32x32":
        assert ExportDirectory.open(copied, size=size).size == ""
        return
    with pytest.raises(DipgoError, match="size 32x32: found an export for 64x64; expected a size"):
        ExportDirectory.open(copied, size=size)


@pytest.mark.parametrize("reader", ["load", "Pipeline", "open", "refit", "SubNet"])
def test_a_manifest_in_place_of_its_directory(reader: str, exported: Path) -> None:
    wanted, read = READERS[reader]
    with pytest.raises(DipgoError) as caught:
        read(exported / "plan.json")
    assert caught.value.found == "the manifest of an export directory"
    assert (str(exported) in caught.value.remedy) == (wanted == EXPORT)
