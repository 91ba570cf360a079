"""Files that are written whole: links, devices, pipes, planted names, long names, permissions.

Failed at 3bfeb0e: all but the tests of errors.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.files import check_file_destination
from dipgo.common.staged import scratch_folder, staged_file
from dipgo.common.typed_json import write_text
from dipgo.engines.tensorrt.build_cache import BuildCache

TEXT = "what was written\n"
Write = Callable[[Path], None]


def _staged(path: Path) -> None:
    with staged_file(path) as staging:
        staging.write_text(TEXT)


WRITERS: dict[str, Write] = {
    "write_text": lambda path: write_text(path, TEXT),
    "staged_file": _staged,
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Write:
    return WRITERS[request.param]


def test_a_link_stays(write: Write, tmp_path: Path) -> None:
    """Also one whose file is not there yet, and one to another link."""
    (tmp_path / "elsewhere").mkdir()
    target, link, second = (tmp_path / name for name in ("elsewhere/a.json", "b.json", "c.json"))
    link.symlink_to("elsewhere/a.json")
    second.symlink_to(link)
    write(second)
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.read_text() == TEXT
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_pipe_is_written_to(write: Write, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe.json", list[str]()
    os.mkfifo(pipe)
    check_file_destination(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join()
    assert read == [TEXT]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays(write: Write) -> None:
    """Of what a superuser replaces without being asked; other users were refused."""
    if not os.access("/dev", os.W_OK):
        return
    before = os.lstat("/dev/null")
    check_file_destination(Path("/dev/null"))
    try:
        write(Path("/dev/null"))
        assert os.path.samestat(os.lstat("/dev/null"), before)
    finally:
        if not stat.S_ISCHR(os.lstat("/dev/null").st_mode):
            os.unlink("/dev/null")
            os.mknod("/dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


PROGRAM = """
import sys
from pathlib import Path
from dipgo.common.files import check_file_destination
from dipgo.common.typed_json import write_text

check_file_destination(Path(sys.argv[1]))
print("before")
write_text(Path(sys.argv[1]), "{}\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to", ["a pipe", "a file"])
def test_the_process_s_own_output(name: str, to: str, tmp_path: Path) -> None:
    """In its place among what is printed, also where the output is a file."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    command = [sys.executable, "-c", PROGRAM, name]
    with (tmp_path / "out").open("w+b") as file:
        out = subprocess.PIPE if to == "a pipe" else file
        done = subprocess.run(command, cwd=tmp_path, stdout=out, check=True)
    found = done.stdout if to == "a pipe" else (tmp_path / "out").read_bytes()
    assert found == b"before\n{}\nafter\n"


def test_a_planted_link_is_not_followed(write: Write, tmp_path: Path) -> None:
    """At the names that 0.1 used: those of the file and of the process."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (f".x.json.{os.getpid()}.tmp", f".x.{os.getpid()}.json"):
        (tmp_path / name).symlink_to(victim)
    write(tmp_path / "x.json")
    assert victim.read_text() == "precious"
    assert (tmp_path / "x.json").read_text() == TEXT
    assert not (tmp_path / "x.json").is_symlink()


def test_a_planted_link_in_the_build_cache_is_not_followed(tmp_path: Path) -> None:
    victim, engine = tmp_path / "victim", tmp_path / "engine"
    victim.write_text("precious")
    engine.write_bytes(b"an engine")
    cache = BuildCache(tmp_path / "cache")
    (cache.folder / f".key.{os.getpid()}").symlink_to(victim)
    cache.store("key", engine)
    assert victim.read_text() == "precious"
    assert cache.fetch("key", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"an engine"


@pytest.mark.parametrize("length", [240, 249, 255])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_long_names(write: Write, length: int, letter: str, tmp_path: Path) -> None:
    """As long as the system allows, in bytes."""
    size = len(letter.encode())
    name = letter * ((length - 5) // size)
    name = f"{name}{'a' * (length - 5 - len(name.encode()))}.json"
    assert len(name.encode()) == length
    check_file_destination(tmp_path / name)
    write(tmp_path / name)
    assert (tmp_path / name).read_text() == TEXT


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_the_umask_s(write: Write, mask: int, tmp_path: Path) -> None:
    with _umask(mask):
        write(tmp_path / "x.json")
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("old")

    def fail() -> None:
        with staged_file(tmp_path / "x.json") as staging:
            staging.write_text("half")
            raise error

    with pytest.raises((error, DipgoError)):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == "old"


def test_without_a_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    def use() -> None:
        with scratch_folder():
            raise AssertionError

    with pytest.raises(DipgoError, match=r"^folder for temporary files: found none that can be"):
        use()


def _loop(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a name that is too long": (lambda folder: folder / ("a" * 256), "File name too long"),
    "a link to itself": (lambda folder: _loop(folder / "loop"), "symbolic links"),
    "a folder": (lambda folder: folder, "a folder"),
    "a link to nowhere": (lambda folder: _link(folder / "x", folder / "no/y"), "no such folder"),
}


def _link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_places_that_are_refused(name: str, tmp_path: Path) -> None:
    make, found = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(DipgoError, match=found):
        check_file_destination(path)
    with pytest.raises(DipgoError, match="cannot be written"):
        write_text(path, json.dumps(None))
    assert all(path.is_symlink() for path in tmp_path.iterdir())
