"""Files of an export are its own: a link that leads out is refused, one of the Hub's cache is not.

Failed at 3bfeb0e: links were followed wherever they led.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.links import check_within
from dipgo.engines import load
from dipgo.engines.describe import export_facts
from dipgo.engines.export_directory import ExportDirectory
from dipgo.ir.manifest.records import MANIFEST_FILE


def files_of(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file())


def test_links_out_of_an_export_are_refused(
    sample_exports: dict[str, Path], tmp_path: Path
) -> None:
    """Each of its files in turn, though it is the very file."""
    base = sample_exports["dense"]
    for file in files_of(base):
        out = shutil.copytree(base, tmp_path / file.name)
        copy = out / file.relative_to(base)
        copy.unlink()
        copy.symlink_to(file)
        with pytest.raises(DipgoError, match="a link that leads out of the directory"):
            load(out, threads=1)


def test_inspect_follows_no_link_out_of_an_export(
    sample_exports: dict[str, Path], tmp_path: Path
) -> None:
    """It also reads the manifests of engines."""
    out = shutil.copytree(sample_exports["dense"], tmp_path / "out")
    folder = out / "engines" / "torch"
    folder.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("{}")
    (folder / "engines.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DipgoError, match="a link that leads out of the directory"):
        export_facts(ExportDirectory.open(out))


def test_links_within_an_export_and_to_it_are_followed(
    sample_exports: dict[str, Path], tmp_path: Path
) -> None:
    out = shutil.copytree(sample_exports["dense"], tmp_path / "out")
    (out / MANIFEST_FILE).rename(out / "elsewhere.json")
    (out / MANIFEST_FILE).symlink_to("elsewhere.json")
    (tmp_path / "link").symlink_to(out)
    load(tmp_path / "link", threads=1)


@pytest.mark.parametrize("relative", [True, False])
def test_the_hubs_cache_is_made_of_links(
    sample_exports: dict[str, Path], tmp_path: Path, relative: bool
) -> None:
    base = sample_exports["dense"]
    repository = tmp_path / "models--somebody--export"
    out, blobs = repository / "snapshots" / "0123abc", repository / "blobs"
    blobs.mkdir(parents=True)
    for index, file in enumerate(files_of(base)):
        shutil.copyfile(file, blobs / str(index))
        link = out / file.relative_to(base)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = Path(*[".."] * (2 + len(file.relative_to(base).parts) - 1))
        link.symlink_to((up if relative else repository) / "blobs" / str(index))
    load(out, threads=1)


def test_other_folders_called_blobs_are_elsewhere(tmp_path: Path) -> None:
    out, blobs = tmp_path / "snapshots" / "0123abc", tmp_path / "other" / "blobs"
    out.mkdir(parents=True)
    blobs.mkdir(parents=True)
    (blobs / "0").write_text("")
    (out / "file").symlink_to(blobs / "0")
    with pytest.raises(DipgoError):
        check_within(out / "file", out)
    check_within(out / "missing", out)
