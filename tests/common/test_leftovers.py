"""What killed processes leave: removed and reported by the next, while the living keep theirs.

Failed at 3bfeb0e: there nothing was removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dipgo.common import files
from dipgo.common.errors import DipgoError
from dipgo.common.files import check_destination, check_file_destination, staged_directory
from dipgo.common.leftovers import NEW, OLD, is_temporary, remove_leftovers
from dipgo.common.locks import only_one
from dipgo.common.staged import staged_file
from dipgo.common.typed_json import write_text
from dipgo.common.warn import DipgoWarning
from dipgo.engines.tensorrt.build_cache import BuildCache

WRITING = """
import sys, time
from pathlib import Path
from dipgo.common.files import staged_directory
from dipgo.common.staged import staged_file

out = Path(sys.argv[1]) / "out"
with staged_directory(out, force=False, foreign=lambda path: "") as folder, staged_file(
    out.with_suffix(".json")
) as file:
    (folder / "weights").write_bytes(bytes(1000))
    file.write_bytes(bytes(1000))
    print("ready", flush=True)
    time.sleep(600)
"""


def _start_writing(folder: Path) -> subprocess.Popen[bytes]:
    """A process in the midst of writing a directory and a file."""
    command = [sys.executable, "-c", WRITING, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _nothing(path: Path) -> str:
    return ""


NEXT: dict[str, Callable[[Path], object]] = {
    "a directory": lambda folder: check_destination(folder / "another", False, _nothing),
    "a file": lambda folder: check_file_destination(folder / "another.json"),
    "a text": lambda folder: write_text(folder / "another.json", ""),
    "a build cache": BuildCache,
}


@pytest.mark.filterwarnings("error::dipgo.common.warn.DipgoWarning")
@pytest.mark.parametrize("name", NEXT)
def test_the_next_to_write_removes_what_a_killed_one_left(name: str, tmp_path: Path) -> None:
    with _start_writing(tmp_path) as process:
        before = set(tmp_path.iterdir())
        NEXT[name](tmp_path)
        assert before <= set(tmp_path.iterdir())
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(before) == 2
    with pytest.warns(DipgoWarning, match=f"^{tmp_path}: removed 2 temporary files of a command"):
        NEXT[name](tmp_path)
    assert not before & set(tmp_path.iterdir())


PLANTED: dict[str, Callable[[Path], object]] = {
    "a link to a file": lambda path: path.symlink_to(path.with_name("victim")),
    "a link to a folder": lambda path: path.symlink_to(path.parent),
    "a pipe": os.mkfifo,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", PLANTED)
def test_what_dipgo_does_not_write_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    PLANTED[name](tmp_path / f"{NEW}{'0' * 16}")
    for other in (f"{NEW}short", f"{NEW}{'0' * 16}.json.bak", ".dipgo-new", "dipgo-new-"):
        assert not is_temporary(other)
        (tmp_path / other).write_text("")
    before = set(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == before
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_another_user_has_left_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / f"{NEW}{'0' * 16}"
    path.write_text("")
    if os.geteuid() == 0:  # else nobody else's file can be made
        os.chown(path, 12345, 12345)
        remove_leftovers(tmp_path)
        assert path.exists()


# Directories that take another's place.


def _replace(out: Path, content: str) -> None:
    with staged_directory(out, force=True, foreign=_nothing) as folder:
        (folder / "file").write_text(content)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    out = tmp_path / ("o" * 255)
    for content in ("first", "second", "third"):
        _replace(out, content)
        assert list(tmp_path.iterdir()) == [out]
        assert (out / "file").read_text() == content


@pytest.mark.parametrize("when", ["before the first", "between", "after the second"])
def test_without_exchange_the_next_command_puts_back(when: str, tmp_path: Path) -> None:
    """By a real kill at each rename of a process whose system cannot exchange."""
    out = tmp_path / "out"
    _replace(out, "old")
    at = ["before the first", "between", "after the second"].index(when)
    program = f"""
import os, signal
from pathlib import Path
from dipgo.common import files

renames = 0
real = Path.rename

def rename(self, target):
    global renames
    if renames == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    renames += 1
    made = real(self, target)
    if renames == {at} == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return made

files.exchange = lambda one, other: False
Path.rename = rename
with files.staged_directory(Path({str(out)!r}), True, lambda path: "") as folder:
    (folder / "file").write_text("new")
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert out.exists() == (when != "between")
    with pytest.warns(DipgoWarning) as warned:
        remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "file").read_text() == ("new" if when == "after the second" else "old")
    texts = [str(one.message) for one in warned]
    assert any(f"{out}: put back" in text for text in texts) == (when == "between")


@pytest.mark.parametrize("at", [0, 1])
def test_without_exchange_an_interrupt_loses_nothing(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _replace(out, "old")
    real, calls = Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        _replace(out, "new")
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "file").read_text() == "old"


def test_while_it_is_replaced_a_directory_is_never_missing(tmp_path: Path) -> None:
    """Another process looks as often as it can."""
    out = tmp_path / "out"
    _replace(out, "0")
    program = "import os, sys\nwhile os.path.exists(sys.argv[2]):\n os.stat(sys.argv[1])\n"
    running = tmp_path / "running"
    running.touch()
    command = [sys.executable, "-c", program, str(out / "file"), str(running)]
    with subprocess.Popen(command) as process:
        for number in range(300):
            _replace(out, str(number))
        running.unlink()
    assert process.returncode == 0


def test_an_old_folder_holding_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{OLD}{'0' * 16}").mkdir()
    with pytest.warns(DipgoWarning, match="removed a temporary file or folder"):
        remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


# One process at a time.


def test_only_one_works_in_a_folder(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with only_one(lock, tmp_path, "an evaluation"):
        message = f"^{tmp_path}: found an evaluation that another process is doing there; expected"
        with pytest.raises(DipgoError, match=message), only_one(lock, tmp_path, "an evaluation"):
            pass
        assert lock.exists()
    assert not lock.exists()
    lock.touch()  # as a kill leaves it
    with only_one(lock, tmp_path, "an evaluation"):
        pass


def test_a_file_in_use_is_removed_by_nobody(tmp_path: Path) -> None:
    with staged_file(tmp_path / "x.json") as staging:
        staging.write_text("new")
        remove_leftovers(tmp_path)
        assert staging.exists()
    assert (tmp_path / "x.json").read_text() == "new"


def test_folders_in_folders_without_end(tmp_path: Path) -> None:
    """They stay, and stop no command. Failed at 1f7a445: a RecursionError each time."""
    deepest = tmp_path / f"{NEW}{'a' * 16}"
    deepest.mkdir()
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir(deepest)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.fchdir(home)
        os.close(home)
    remove_leftovers(tmp_path)
    subprocess.run(["rm", "-rf", str(deepest)], check=True)  # pytest could not


def test_files_are_not_put_back(tmp_path: Path) -> None:
    """Only folders are ever put aside; a stranger's archive could hold others."""
    aside = tmp_path / f"{OLD}{'a' * 16}"
    aside.mkdir()
    (aside / "planted.txt").write_text("")
    with pytest.warns(DipgoWarning, match="removed"):
        remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
