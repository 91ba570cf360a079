"""Another checkout of dipgo beside this one: the same bytes, and times and memory in one run.

    git worktree add ../before bd89103
    python -m scripts.benchmarks.compare_versions ../before [--only CASE …] [--rounds N] [--json F]

Both run with this Python and its packages. Exports and SubNets of fixed cases are compared byte by
byte, but for the version's string; what is timed runs interleaved, and ratios are medians of pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipgo.common.hashes import sha256_of
from dipgo.common.machine import describe_machine
from dipgo.engines.ratios import paired_ratio

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo"
SUBNETS = ROOT / "examples" / "subnets"
DEMO_SUBNET = SUBNETS / "demo-dipgo-0.80.json"
SUBNET = "SUBNET"
NEWER_KEYS = ("fitted",)
"""Optional keys of a SubNet that came later: an older checkout refuses what it does not know."""
DEMO_MODEL = ("--model", str(DEMO / "model"))
SD15 = ("--model", "arch:sd15", "--subnet", str(SUBNETS / "sd15-dipgo-0.80.json"))
SEARCH = (
    *("search", *DEMO_MODEL, "--scheduler", "ddim", "--ratio", "0.8"),
    *("--prompts", str(DEMO / "search-prompts.txt")),
)
MIB = 2**20
LARGE = 64 * MIB

# The arguments after `python -m dipgo`; OUT is where the result is to be, SUBNET a copy of
# DEMO_SUBNET that older checkouts read too.
EXPORTS: dict[str, tuple[str, ...]] = {
    "demo, searched": (*("export", *DEMO_MODEL, "--subnet", SUBNET, "--out", "OUT"),),
    "demo, dense, fp16": (
        *("export", *DEMO_MODEL, "--subnet", "dense", "--steps", "20", "--scheduler", "dpm++"),
        *("--precision", "fp16", "--out", "OUT"),
    ),
    "demo, two sizes, OpenVINO": (
        *("export", *DEMO_MODEL, "--subnet", str(SUBNETS / "demo-deepcache-5.json")),
        *("--also-size", "64x96", "--target", "openvino", "--out", "OUT"),
    ),
    "sd15, published": ("export", *SD15, "--out", "OUT"),
}
SEARCHES: dict[str, tuple[str, ...]] = {
    "exchange and filters": (
        *(*SEARCH, "--steps", "20", "--pool", "4", "--exchanges", "12"),
        *("--exchange-examples", "2", "--out", "OUT"),
    ),
    "gradient and weights": (
        *(*SEARCH, "--steps", "10", "--pool", "2", "--iterations", "4", "--exchanges", "4"),
        *("--exchange-examples", "1", "--reuse-filter", "0", "--reuse-iterations", "6"),
        *("--out", "OUT"),
    ),
    "deepcache": (
        *(*SEARCH, "--ratio", "0.55", "--steps", "50", "--method", "deepcache"),
        *("--blocks", "down_blocks.*", "mid_block", "up_blocks.*", "--out", "OUT"),
    ),
}
LOAD = "import sys; from dipgo.engines import load; load(sys.argv[1])"
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
IMPORT_PAIRS = 40
IMPORTS = ("import dipgo.engines", "import dipgo; dipgo.Pipeline")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    seconds: float
    peak_nbytes: int


def main() -> None:
    """Compares, prints a line for each figure, and writes them. Exit code 1 where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved pairs of each time")
    parser.add_argument(
        "--only", nargs="+", choices=(*EXPORTS, *SEARCHES), help="exports, searches"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = options.only or [*EXPORTS, *SEARCHES]
        report = compare((options.before.absolute(), ROOT), Path(folder), options.rounds, names)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if any(different for different in report["different"].values()):
        sys.exit(1)


def compare(
    checkouts: tuple[Path, Path], folder: Path, rounds: int, names: Sequence[str]
) -> dict[str, Any]:
    """Returns names of what differs, and figures of both checkouts, by case."""
    report: dict[str, Any] = {"machine": describe_machine(), "different": {}, "figures": {}}
    subnet = json.loads(DEMO_SUBNET.read_bytes())
    (folder / SUBNET).write_text(
        json.dumps({key: subnet[key] for key in subnet if key not in NEWER_KEYS})
    )
    for name in names:
        arguments = _put((EXPORTS | SEARCHES)[name], SUBNET, folder / SUBNET)
        repeats = 1 if name in SEARCHES else rounds
        with tempfile.TemporaryDirectory(dir=folder) as case:
            outs, usages = _pairs(checkouts, Path(case) / "out", arguments, repeats)
            different = compare_outputs(outs, checkouts)
            loads = _loads(checkouts, outs, rounds) if name in EXPORTS else []
        report["different"][name] = different
        print(f"{name}: {', '.join(different) or 'the same bytes'}", flush=True)
        _note_usage(report, name, usages)
        if loads:
            _note_usage(report, f"{name}, loaded", loads)
    for statement in IMPORTS:
        _note(report, f"{statement}, seconds", _import_times(checkouts, statement, folder))
    _note_runs(report, checkouts, folder, rounds)
    return report


def _pairs(
    checkouts: Sequence[Path], folder: Path, arguments: Sequence[str], rounds: int
) -> tuple[list[Path], list[list[Usage]]]:
    """Runs a command in both checkouts, interleaved; the last outputs stay."""
    outs = [folder.with_name(f"{folder.name}-{index}") for index in range(len(checkouts))]
    force = ("--force",) if arguments[0] == "export" else ()
    usages = []
    for _ in range(rounds):
        pair = []
        for root, out in zip(checkouts, outs, strict=True):
            pair.append(_run(root, [*_put(arguments, "OUT", out), *force]))
        usages.append(pair)
    return outs, usages


def _loads(checkouts: Sequence[Path], outs: Sequence[Path], rounds: int) -> list[list[Usage]]:
    """Loads each checkout's export with it, hashes and all, in a process of its own."""
    return [
        [
            _run_python(root, ["-c", LOAD, str(out)])
            for root, out in zip(checkouts, outs, strict=True)
        ]
        for _ in range(rounds)
    ]


def _put(arguments: Sequence[str], word: str, path: Path) -> list[str]:
    return [str(path) if argument == word else argument for argument in arguments]


def _run(root: Path, arguments: Sequence[str]) -> Usage:
    """Runs `python -m dipgo ARGUMENTS` in a checkout."""
    return _run_python(root, ["-m", "dipgo", *arguments])


def _run_python(root: Path, arguments: Sequence[str]) -> Usage:
    """Runs Python in a checkout, which is then first on the path."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *arguments], cwd=root, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            sys.exit(f"{root}: {' '.join(arguments)}\n{said.read().decode()}")
    return Usage(time.perf_counter() - began, usage.ru_maxrss * 1024)


def compare_outputs(outs: Sequence[Path], checkouts: Sequence[Path]) -> list[str]:
    """Returns the names of files that differ, or are in one of two outputs alone."""
    contents = [
        {name: _digest(path, _version(root)) for name, path in _files(out).items()}
        for out, root in zip(outs, checkouts, strict=True)
    ]
    names = sorted({*contents[0], *contents[1]})
    return [name for name in names if contents[0].get(name) != contents[1].get(name)]


def _files(out: Path) -> dict[str, Path]:
    if out.is_file():
        return {"subnet": out}
    return {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}


def _digest(path: Path, version: bytes) -> str:
    """Returns the hash of a file, without the version's string, which only small files hold.

    Weights are not read whole: the peak of a later child would be that of this process, whose
    memory it shares until it starts its program.
    """
    if path.stat().st_size > LARGE:
        return sha256_of(path)
    return hashlib.sha256(path.read_bytes().replace(version, b"VERSION")).hexdigest()


def _version(root: Path) -> bytes:
    """The version's string as files hold it."""
    code = "import dipgo; print(dipgo.__version__)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, check=True
    )
    return b'"' + printed.stdout.strip() + b'"'


def _import_times(checkouts: Sequence[Path], statement: str, folder: Path) -> list[list[float]]:
    """Times imports with compiled code at hand, as users have it, in either order by turns."""
    environment = {name: text for name, text in os.environ.items() if name != NO_BYTECODE}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")

    def seconds(root: Path) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], cwd=root, check=True, env=environment)
        return time.perf_counter() - began

    for root in checkouts:
        seconds(root)
    pairs = []
    for index in range(IMPORT_PAIRS):
        order = slice(None, None, -1 if index % 2 else 1)
        pairs.append([seconds(root) for root in checkouts[order]][order])
    return pairs


def _note_runs(
    report: dict[str, Any], checkouts: Sequence[Path], folder: Path, rounds: int
) -> None:
    """Seconds of the demo's trajectory, and the share of them outside the engines.

    Each checkout runs its own export: an older one refuses what a manifest says since then.
    """
    arguments = _put(EXPORTS["demo, searched"], SUBNET, folder / SUBNET)
    outs = [folder / f"demo-{index}" for index in range(len(checkouts))]
    for root, out in zip(checkouts, outs, strict=True):
        _run(root, _put(arguments, "OUT", out))
    pairs = []
    for index in range(rounds):
        pair = []
        for root, out in zip(checkouts, outs, strict=True):
            result = folder / f"bench-{out.name}-{index}.json"
            _run(root, ["bench", str(out), "--repeats", "15", "--json", str(result)])
            pair.append(json.loads(result.read_text())["this"])
        pairs.append(pair)
    figures: dict[str, Callable[[dict[str, Any]], float]] = {
        "demo, searched: a run, seconds": lambda bench: bench["seconds"],
        "demo, searched: outside the engines, seconds": lambda bench: (
            bench["seconds"] * bench["overhead"]
        ),
    }
    for name, figure in figures.items():
        _note(report, name, [[figure(bench) for bench in pair] for pair in pairs])


def _note_usage(report: dict[str, Any], name: str, usages: list[list[Usage]]) -> None:
    _note(report, f"{name}, seconds", [[usage.seconds for usage in pair] for pair in usages])
    peaks = [[usage.peak_nbytes / MIB for usage in pair] for pair in usages]
    _note(report, f"{name}, peak MiB", peaks)


def _note(report: dict[str, Any], name: str, pairs: list[list[float]]) -> None:
    """Keeps and prints medians of both checkouts, and the median of the paired ratios."""
    of_each = list(zip(*pairs, strict=True))
    before, after = map(statistics.median, of_each)
    ratio = paired_ratio(of_each[1], of_each[0])
    report["figures"][name] = {
        "before": before,
        "after": after,
        "ratio": ratio.median,
        "interval": [ratio.low, ratio.high],
        "confidence": ratio.confidence,
        "pairs": pairs,
    }
    print(f"{name}: {before:.4g} before, {after:.4g} after, ratio {ratio.text('.3f')}", flush=True)


if __name__ == "__main__":
    main()
