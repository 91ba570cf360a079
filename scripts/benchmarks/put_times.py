"""Puts times that were taken apart from the pictures into the tables of a comparison.

    python -m scripts.benchmarks.compare_methods --pairs 2 --batch 2 \\
        --dir out/times --json times.json
    python -m scripts.benchmarks.put_times times.json … --into benchmarks/results/compare-ddim.json

Timing wants an idle machine, drawing does not: a run with two pairs has the times of the same
SubNets in minutes. A table of `--into` takes the times of the table with the same sampler and kept
share, method by method where the MACs are the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dipgo.common.errors import DipgoError
from scripts.harness import run_script, script_parser, write_report

TIMES = ("speedup", "speedup_interval", "speedup_confidence", "seconds", "dense_seconds")
SAME_MACS = 1e-6
"""What the MACs of one SubNet may differ by between two runs."""


def main(arguments: list[str]) -> None:
    """Rewrites the file in one step, and names the methods that got no time. Raises DipgoError."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("times", nargs="+", type=Path, metavar="FILE", help="with the times")
    parser.add_argument("--into", type=Path, required=True, metavar="FILE", help="what gets them")
    options = parser.parse_args(arguments)
    comparison = json.loads(options.into.read_text())
    for path in options.times:
        timed = json.loads(path.read_text())
        for table in timed["tables"]:
            others = put(table, _same(comparison["tables"], table), timed)
            if others:
                print(f"{path.name}: another SubNet was timed, or none: {', '.join(others)}")
    write_report(options.into, comparison)


def put(timed: dict[str, Any], table: dict[str, Any], run: dict[str, Any]) -> list[str]:
    """The times of one table, with the machine that took them; the methods that got none.

    A method whose schedule is calibrated may come out otherwise on another machine: what was
    timed is then not what was drawn with.
    """
    rows = {row["method"]: row for row in (timed["dense"], *timed["subnets"])}
    others = []
    for row in (table["dense"], *table["subnets"]):
        found = rows.get(row["method"])
        same = found and abs(found["macs_of_dense"] - row["macs_of_dense"]) <= SAME_MACS
        row |= {name: found.get(name) if found and same else None for name in TIMES}
        if not same:
            others.append(row["method"])
    table["times"] = {name: run[name] for name in ("machine", "threads", "time_batch")}
    return others


def _same(tables: list[dict[str, Any]], timed: dict[str, Any]) -> dict[str, Any]:
    for table in tables:
        if all(table[name] == timed[name] for name in ("sampler", "steps", "kept")):
            return table
    raise DipgoError(
        f"{timed['sampler']} at {timed['kept']:g}",
        found="no such table",
        expected="one with the same sampler, steps and kept share",
        remedy="name the file that has it with --into",
    )


if __name__ == "__main__":
    run_script(main)
