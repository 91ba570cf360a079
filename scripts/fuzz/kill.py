"""Kills commands at random moments, and checks what they leave.

    python -m scripts.fuzz.kill --kills 300 --json figures.json
    python -m scripts.fuzz.kill --seeds 17 203

A seed is a kill: a command on a model of toy size, a signal (SIGKILL, SIGTERM, SIGINT), and a
moment within the time that a whole run takes. Then what is at the command's output must be whole,
or what was there before, byte for byte, or nothing if nothing was; no process of the command may
live; a search must go on to the same bytes; and what is left over must be reported and removed by
the next command. The exit code is 1 if one of these does not hold.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from dipgo.common.cli import whole_number
from dipgo.common.leftovers import is_temporary
from dipgo.common.packages import silence_libraries
from scripts.fuzz.kill_cases import CASES, Case, possible_cases, write_all_inputs
from scripts.harness import (
    ROOT,
    add_json,
    make_table,
    new_report,
    run_script,
    script_parser,
    write_report,
)

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

END_SECONDS, LONGEST_SECONDS, ORPHAN_SECONDS = 120.0, 900.0, 5.0
"""The most time for an orderly end, for a whole run, and for orphans to be ended by the system."""

OLD = "reference"


@dataclass
class Trial:
    """What came of a kill: `result` is old, new, none or half; `problem` is "" if all is well."""

    seed: int
    command: str
    signal: str
    after: float
    result: str = ""
    leftovers: int = 0
    ran_again: bool = False
    problem: str = ""


class Workshop:
    """A folder with inputs, and a whole run of each command: its time, and what it has written."""

    def __init__(self, folder: Path, commands: Iterable[str], ending: ExitStack) -> None:
        self.folder, self.commands = folder, list(commands)
        self.running: subprocess.Popen[bytes] | None = None
        ending.callback(self.end)
        self.seconds: dict[str, float] = {}
        write_all_inputs(folder)
        for command in self.commands:
            case, place = CASES[command], folder / OLD / command
            place.mkdir(parents=True)
            case.prepare(folder, place)
            begin = time.monotonic()
            code = self.start(case, place).wait(LONGEST_SECONDS)
            self.seconds[command] = time.monotonic() - begin
            if code:
                raise RuntimeError(f"{command} ends with {code}: {said(place)}")

    def start(self, case: Case, place: Path) -> subprocess.Popen[bytes]:
        """Starts the command as the leader of a session, with its own folder of temporary files."""
        (place / "tmp").mkdir(exist_ok=True)
        first, *words = map(str, case.words(self.folder, place))
        environment = {**os.environ, "TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1"}
        with (place / "said").open("wb") as out:
            self.running = subprocess.Popen(
                [sys.executable, "-m", f"dipgo.{first}", *words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self.running

    def end(self) -> None:
        """Ends the command that runs, if the script is ended meanwhile."""
        if self.running and self.running.poll() is None:
            os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait()

    def try_seed(self, seed: int) -> Trial:
        """Runs a command, kills it and checks what it leaves."""
        draw = random.Random(seed)
        command = self.commands[seed % len(self.commands)]
        number = draw.choice(SIGNALS)
        trial = Trial(seed, command, number.name, draw.uniform(0, self.seconds[command]))
        case, place = CASES[command], self.folder / f"trial-{seed}"
        place.mkdir()
        case.prepare(self.folder, place)
        has_old = case.keeps and draw.random() < 0.5
        old = self.folder / OLD / command / case.result
        if has_old:
            _copy(old, place / case.result)
        before = digest(place / case.result)
        process = self.start(case, place)
        trial.problem = _kill(process, number, trial.after)
        trial.problem = trial.problem or _traceback(place) or _orphans(process.pid)
        trial.result = _state(case, place / case.result, before)
        if trial.result == "half" or (has_old and trial.result == "none"):
            trial.problem = trial.problem or f"{trial.result} of a result"
        trial.leftovers = len(leftovers(place))
        if not trial.problem and (trial.leftovers or (case.resumes and trial.result == "none")):
            trial.ran_again = True
            trial.problem = self._run_again(case, place, bool(trial.leftovers), old)
        if not trial.problem:
            shutil.rmtree(place)
        return trial

    def _run_again(self, case: Case, place: Path, had_leftovers: bool, expected: Path) -> str:
        """Runs the command to its end, and returns what is wrong then."""
        code = self.start(case, place).wait(LONGEST_SECONDS)
        if code:
            return f"the next run ends with {code}: {said(place)}"
        if had_leftovers and ": removed " not in said(place):
            return "what was left over is not reported"
        if leftovers(place):
            return f"left over for good: {leftovers(place)[0]}"
        if not case.is_whole(place / case.result):
            return "the next run's result is not whole"
        if case.resumes and digest(place / case.result) != digest(expected):
            return "gone on to other bytes"
        return ""


def _kill(process: subprocess.Popen[bytes], number: signal.Signals, after: float) -> str:
    """Sends the signal, to the whole group if it is that of a terminal; returns what is wrong."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"goes on after {number.name}"
    return "" if code in (0, -number, 128 + number) else f"ends with {code} after {number.name}"


def said(place: Path) -> str:
    """Returns what the command has printed."""
    return (place / "said").read_text(errors="replace")


def _traceback(place: Path) -> str:
    """Returns what is wrong with what was printed; Python's own start prints tracebacks of its own.

    Those name no file of ours.
    """
    text = said(place)
    is_ours = "Traceback" in text and f"{ROOT / 'dipgo'}{os.sep}" in text
    return f"a traceback: {text[text.index('Traceback') :]}" if is_ours else ""


def _orphans(session: int) -> str:
    """Returns what still lives of a session, which it ends, after a moment for the system to."""
    end = time.monotonic() + ORPHAN_SECONDS
    while (living := _living(session)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    return f"{len(living)} orphans" if living else ""


def _living(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX" and int(fields[3]) == session:
            found.append(int(entry.name))
    return found


def _state(case: Case, result: Path, before: str) -> str:
    if not os.path.lexists(result):
        return "none"
    if before and digest(result) == before:
        return "old"
    return "new" if case.is_whole(result) else "half"


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copyfile(source, place)


def digest(path: Path) -> str:
    """Returns a hash of the names and contents of a file or folder, "" if there is none."""
    if not os.path.lexists(path):
        return ""
    total = hashlib.sha256()
    for each in sorted((path, *path.rglob("*"))):
        total.update(f"{each.relative_to(path)}\0".encode())
        total.update(hashlib.sha256(each.read_bytes()).digest() if each.is_file() else b"")
    return total.hexdigest()


def leftovers(place: Path) -> list[Path]:
    """Returns the temporary files and folders below a folder, of which none lies in another."""
    found = [path for path in place.rglob("*") if is_temporary(path.name)]
    return [path for path in found if not any(map(found.__contains__, path.parents))]


def summary(trials: list[Trial]) -> dict[str, Any]:
    """Returns counts by command and signal, and the failures by seed."""
    counts: dict[str, dict[str, int]] = {}
    for trial in trials:
        row = counts.setdefault(f"{trial.command} {trial.signal}", Counter())
        row.update({"kills": 1, trial.result: 1, "left over": int(trial.leftovers > 0)})
        row.update({"ran again": int(trial.ran_again), "failures": int(bool(trial.problem))})
    return {
        "kills": len(trials),
        "counts": {name: dict(row) for name, row in sorted(counts.items())},
        "failures": {trial.seed: trial.problem for trial in trials if trial.problem},
        "trials": [asdict(trial) for trial in trials],
    }


def main(arguments: list[str]) -> None:
    """Kills, prints failures as they come and a table, and writes the figures."""
    parser = script_parser(__file__, __doc__)
    add = parser.add_argument
    add("--kills", type=whole_number(1), default=300, metavar="N", help="kills (300)")
    add("--seed", type=whole_number(0), default=0, metavar="S", help="the first seed (0)")
    add("--seeds", type=whole_number(0), nargs="+", metavar="S", help="these seeds alone")
    add("--commands", nargs="+", choices=list(CASES), metavar="NAME", help="of these (all)")
    add_json(parser)
    options = parser.parse_args(arguments)
    # A shell's background jobs ignore it, and so would the commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    silence_libraries()
    console, trials = Console(soft_wrap=True), list[Trial]()
    with TemporaryDirectory() as folder, ExitStack() as ending:
        workshop = Workshop(Path(folder), options.commands or possible_cases(), ending)
        for command, seconds in workshop.seconds.items():
            console.print(f"{command}: {seconds:.1f} s", highlight=False)
        ending.callback(lambda: _report(console, workshop.seconds, trials, options.json))
        for seed in options.seeds or range(options.seed, options.seed + options.kills):
            trial = workshop.try_seed(seed)
            trials.append(trial)
            console.print(" ".join(map(str, asdict(trial).values())), markup=False, highlight=False)
    if any(trial.problem for trial in trials):
        sys.exit(1)


def _report(
    console: Console, seconds: dict[str, float], trials: list[Trial], path: Path | None
) -> None:
    """Prints a table and writes the figures; of the kills so far, if a signal ends the script."""
    figures = summary(trials)
    headings = ("kills", "none", "old", "new", "half", "left over", "ran again", "failures")
    rows = [
        [name, *(str(row.get(heading, 0)) for heading in headings)]
        for name, row in figures["counts"].items()
    ]
    console.print(make_table(None, ["", *headings], rows))
    write_report(path, new_report(seconds=seconds, **figures))


if __name__ == "__main__":
    run_script(main)
