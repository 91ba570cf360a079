"""What a build leaves that is killed: no processes, no folder taken for a target, no half engine.

By the code of 3bfeb0e, workers ran on and a cut entry of the cache was taken; the latter was run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.leftovers import NEW
from dipgo.common.warn import DipgoWarning
from dipgo.engines.contents import built_targets
from dipgo.engines.describe import export_facts
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.tensorrt.build_cache import BuildCache, default_folder
from dipgo.export.refitting.engines import open_built
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER
from tests.support.signals import said_in_time, take_signals

BUILDING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from dipgo.common.cli import run_command
from dipgo.engines.tensorrt import build

def build_one(self, name, on_built):
    build.run_in_a_process(
        "tests.support.sleeping_worker", f"{folder}/{name}", name, expected="", remedy=""
    )

def main(arguments):
    it = build._Build.__new__(build._Build)
    it.graphs = {"one": "", "two": ""}
    it.export = type("It", (), {"manifest": type("It", (), {"segments": []})})
    it.run(2, print)

folder = sys.argv[1]
build._Build._one = build_one
sys.exit(run_command(main))
"""
"""A build whose workers sleep."""


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_workers_end_with_the_build(number: signal.Signals, tmp_path: Path) -> None:
    """However it ends; the signal goes to the build alone."""
    command = [sys.executable, "-c", BUILDING, str(tmp_path)]
    files = [tmp_path / name for name in ("one", "two")]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", root)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=take_signals
    ) as process:
        while not all(file.exists() for file in files):
            assert process.poll() is None
            time.sleep(0.02)
        workers = [int(file.read_text()) for file in files]
        assert all(map(_is_alive, workers))
        process.send_signal(number)
        said = said_in_time(process)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert process.returncode == expected
    assert len(said.splitlines()) == (number != signal.SIGKILL)
    end = time.monotonic() + 60
    while any(map(_is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(_is_alive, workers))


LEFT = [f"{NEW}{'0' * 16}", ".tensorrt.abc123"]
"""As this version names what it builds in, and as 0.1 did."""


@pytest.mark.parametrize("name", LEFT)
def test_a_killed_build_is_no_target(
    name: str, sample_exports: dict[str, Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(sample_exports["dense"], tmp_path / "out"))
    folder = out / ENGINES_FOLDER / name
    folder.mkdir(parents=True)
    (folder / ENGINES_FILE).write_text("{")
    export = ExportDirectory.open(out)
    assert built_targets(out) == []
    assert open_built(export) == {}
    assert "weights" in export_facts(export)


# The cache.

CONTENT = bytes(range(256)) * 5000


def _cut(entry: Path) -> None:
    os.truncate(entry, entry.stat().st_size // 2)


def _flip(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": _cut,
    "cut to nothing": lambda entry: os.truncate(entry, 0),
    "cut in its head": lambda entry: os.truncate(entry, 30),
    "longer": lambda entry: entry.write_bytes(entry.read_bytes() + b"\0"),
    "a flipped bit": _flip,
    "of 0.1, without a hash": lambda entry: entry.write_bytes(CONTENT),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_built_again(name: str, tmp_path: Path) -> None:
    engine, fetched = tmp_path / "engine", tmp_path / "fetched"
    engine.write_bytes(CONTENT)
    cache = BuildCache(tmp_path / "cache")
    cache.store("key", engine)
    (entry,) = cache.folder.iterdir()
    DAMAGE[name](entry)
    with pytest.warns(DipgoWarning, match=rf"^{entry}: not the engine .+ built again$"):
        assert not cache.fetch("key", fetched)
    assert not fetched.exists()
    cache.store("key", engine)
    assert cache.fetch("key", fetched)
    assert fetched.read_bytes() == CONTENT


def test_without_a_home_the_cache_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    message = "^cache: found no home of this user, .+; expected a folder to keep them in; give one"
    with pytest.raises(DipgoError, match=message):
        default_folder()


@pytest.mark.parametrize("named", ["", "relative"])
def test_a_relative_cache_does_not_count(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory Specification has it."""
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/dipgo/engines")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert default_folder() == Path("/var/cache/dipgo/engines")
