"""How commands end: signals at any moment, output that is full, closed or ASCII only.

Of 3bfeb0e, SIGTERM, full and ASCII output were run and failed; the rest is by its code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dipgo.common.cli import run_command
from dipgo.common.early_interrupts import is_a_command
from dipgo.common.errors import DipgoError
from dipgo.common.signals import EndedError
from tests.support.golden import GOLDEN
from tests.support.refusals import SUBNET
from tests.support.signals import said_in_time, take_signals

ENDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
ENDS |= {signal.SIGHUP: "ended by SIGHUP"}

WRITING = """
import sys, threading, time
from pathlib import Path
from dipgo.common.cli import run_command
from dipgo.common.files import staged_directory
from dipgo.common.leftovers import temporary_folder

class Slow:
    def __del__(self):
        sum(range(100_000))

def translate():
    try:
        time.sleep(600)
    except BaseException as error:
        raise ValueError("another") from error

def main(arguments):
    out = Path(arguments[0])
    with (
        staged_directory(out, False, lambda path: "") as folder,
        temporary_folder(out.parent) as other,
    ):
        (folder / "weights").write_bytes(bytes(1000))
        print("ready", flush=True)
        while True:
            HOW

sys.exit(run_command(main))
"""
"""A command in the midst of its work."""

HOW = {
    "in Python": "sum(range(1000))",
    "asleep": "time.sleep(600)",
    "waiting for a thread": "threading.Event().wait()",
    "in a destructor": "Slow()",
    "where exceptions are translated": "translate()",
}


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
@pytest.mark.parametrize("how", HOW)
def test_a_signal_ends_a_command_in_order(how: str, number: signal.Signals, tmp_path: Path) -> None:
    """Code 128 and the signal, one line, and nothing half-written."""
    program = WRITING.replace("HOW", HOW[how])
    command = [sys.executable, "-c", program, str(tmp_path / "a" / "out")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_signals,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        said = said_in_time(process)
    assert process.returncode == 128 + number
    assert said == f"{ENDS[number]}\n"
    assert list(tmp_path.iterdir()) == []


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    """As `nohup` has it."""
    program = """
import os, signal, sys
from dipgo.common.cli import run_command

signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(run_command(lambda arguments: os.kill(os.getpid(), signal.SIGHUP), []))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_several_signals_at_once_interrupt_no_cleanup() -> None:
    done = []

    def main(arguments: list[str]) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            done.append("cleaned up")

    assert run_command(main, []) == 128 + signal.SIGTERM
    assert done == ["cleaned up"]


def test_handlers_are_put_back() -> None:
    def state() -> list[object]:
        return [*map(signal.getsignal, ENDS), sys.unraisablehook]

    before = state()
    for error in (None, DipgoError("", found="", expected="", remedy=""), KeyboardInterrupt()):

        def main(arguments: list[str], error: BaseException | None = error) -> None:
            assert state() != before
            if error:
                raise error

        run_command(main, [])
        assert state() == before


def test_a_fault_is_still_shown() -> None:
    def main(arguments: list[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main, [])
    assert not issubclass(EndedError, Exception)


# Interrupts while Python imports.

INTERRUPTING = """
import signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == NAME:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""
"""A `sitecustomize` that interrupts where a module is imported for the first time."""

COMMANDS = {
    "export": ["--model", "arch:sd15", "--subnet", "dense", "--steps", "2", "--out", "out"],
    "search": ["--model", "M", "--steps", "2", "--ratio", "0.5", "--prompts", "p", "--out", "out"],
    "evaluate": ["--model", "M", "--subnets", "subnet.json", "--prompts", "p", "--out", "out"],
    "run": ["OUT", "--prompt", "a", "--image", "out.png"],
    "bench": ["OUT"],
    "build": ["OUT", "--target", "tensorrt"],
    "refit": ["OUT", "--model", "M", "--out", "out"],
    "inspect": ["subnet.json"],
}
EARLY = ("dipgo.common.lazy", "argparse", "dipgo.common.cli", "msgspec")


def _run(words: list[str], folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=take_signals,
        **more,  # type: ignore[call-overload]
    )


def _interrupted(module: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    custom = folder / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(INTERRUPTING.replace("NAME", repr(module)))
    (folder / "subnet.json").write_text(json.dumps(SUBNET))
    (folder / "p").write_text("a\n")
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([str(custom), os.environ.get("PYTHONPATH", root)])
    return _run(words, folder, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.parametrize("module", EARLY)
@pytest.mark.parametrize("name", ["inspect", "export"])
def test_an_interrupt_in_the_first_second(name: str, module: str, tmp_path: Path) -> None:
    words = ["-m", f"dipgo.{name}", *COMMANDS[name]]
    _check_interrupted(_interrupted(module, words, tmp_path), module)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupt_while_a_command_imports(name: str, tmp_path: Path) -> None:
    """By `dipgo X` too, and in what is imported when the command has begun."""
    module = "torch" if name in ("export", "search", "refit") else "dipgo.common.settings"
    module = "rich.console" if name == "inspect" else module
    _check_interrupted(_interrupted(module, ["-m", "dipgo", name, *COMMANDS[name]], tmp_path), name)


def _check_interrupted(done: subprocess.CompletedProcess[str], what: str) -> None:
    """Shells see code 130 in both."""
    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT), (what, done.stderr)
    assert done.stderr.splitlines()[-1:] == ["interrupted"]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "original", "expected"),
    [
        (["-m", "x"], ["python", "-m", "dipgo.export", "x"], True),
        (["-m"], ["python", "-X", "dev", "-m", "dipgo"], True),
        (["/usr/bin/dipgo", "export"], ["python", "/usr/bin/dipgo", "export"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["-m"], ["python", "-m", "dipgonal"], False),
        (["-c"], ["python", "-c", "import dipgo"], False),
        (["mine.py", "-m", "dipgo"], ["python", "mine.py", "-m", "dipgo"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_programs_that_import_dipgo_keep_their_handler(
    arguments: list[str], original: list[str], expected: bool
) -> None:
    assert is_a_command(arguments, original) == expected


# Output.


@pytest.fixture
def subnet(tmp_path: Path) -> Path:
    path = tmp_path / "subnet.json"
    path.write_text(json.dumps(SUBNET))
    return path


PRINTING: dict[str, Callable[[Path], list[str]]] = {
    "a SubNet": lambda subnet: ["-m", "dipgo.inspect", str(subnet)],
    "help": lambda subnet: ["-m", "dipgo.export", "--help"],
    "the version": lambda subnet: ["-m", "dipgo", "--version"],
    "the commands": lambda subnet: ["-m", "dipgo", "--help"],
    "a plan": lambda subnet: ["-m", "dipgo.inspect", str(_plan(subnet))],
}


def _plan(subnet: Path) -> Path:
    return next(path for path in sorted(GOLDEN.rglob("*.txt")) if path.read_text()[:5] == "plan ")


@pytest.mark.parametrize("what", PRINTING)
def test_output_that_is_full(what: str, subnet: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *PRINTING[what](subnet)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: output: found a place that takes no more (No space left")


@pytest.mark.parametrize("what", PRINTING)
def test_output_that_is_closed(what: str, subnet: Path) -> None:
    """As by `| head -0`. Rich ends with 1, what prints otherwise as SIGPIPE would."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *PRINTING[what](subnet)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.returncode in (1, 128 + signal.SIGPIPE)
    assert done.stderr == ""


ASCII = {
    "by PYTHONIOENCODING": {"PYTHONIOENCODING": "ascii"},
    "by LC_ALL": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("how", ASCII)
@pytest.mark.parametrize("what", PRINTING)
def test_output_in_ascii(what: str, how: str, subnet: Path, tmp_path: Path) -> None:
    done = _run(PRINTING[what](subnet), tmp_path, env={**os.environ, **ASCII[how]})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    if what == "a SubNet":
        assert {"#.#", "##.", "###"} & {line.split()[-1] for line in done.stdout.splitlines()}
