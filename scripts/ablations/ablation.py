"""What the ablations share: variants of a search, their options, and a run that resumes.

`ablate_loss`, `ablate_sparsity` and `ablate_search` each list variants; `run` searches with each
and measures it on the same held-out pairs. A row is written to the JSON file as soon as it is
measured, and is not measured again while its set-up is the same.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from dipgo.common.cli import Parser, whole_number
from dipgo.common.errors import DipgoError
from dipgo.common.packages import silence_libraries
from dipgo.common.progress import live_progress, stage
from dipgo.search.settings import SearchSettings
from scripts.ablations.ablation_quality import Bench
from scripts.ablations.ablation_table import ablation_table
from scripts.harness import DEMO, ROOT, add_json, new_report, script_parser, write_report

MODEL, SEARCH_PROMPTS, HELD_OUT = DEMO / "model", DEMO / "search-prompts.txt", DEMO / "prompts.txt"
GUIDANCE = 5.0
TABLE_WIDTH = 150
SHORTENED = ("iterations", "exchanges", "reuse_iterations")
"""Options that replace a variant's own number where that is not 0."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A search to compare with others; `rival` names a method of `dipgo.search.rivals` instead."""

    name: str
    settings: SearchSettings
    blocks: tuple[str, ...] = ()
    backup: str = "output"
    rival: str = ""


Variants = Callable[[Namespace], Sequence[Variant]]


def ablation_parser(file: str, description: str | None) -> Parser:
    """Returns a parser with the options that all ablations have, for the one in `file`."""
    parser = script_parser(file, description)
    add, count = parser.add_argument, whole_number(1)
    add_json(parser, default=ROOT / "out" / f"{Path(file).stem}.json", what="results")
    add("--only", nargs="+", default=[], metavar="NAME", help="only these variants")
    add("--kept", type=float, default=0.2, metavar="R", help="share of the cost to keep (0.2)")
    add("--scheduler", default="ddim", metavar="NAME", help="(ddim)")
    add("--steps", type=whole_number(2), default=50, metavar="N", help="of the sampler (50)")
    add("--batch", type=count, default=4, metavar="N", help="prompts a batch (4)")
    add("--pairs", type=whole_number(2), default=64, metavar="N", help="held-out pairs (64)")
    add("--iterations", type=count, metavar="N", help="of the gradient, where there is one")
    add("--exchanges", type=count, metavar="N", help="tries, where there are any")
    add("--reuse-iterations", type=count, metavar="N", help="of trained weights for reuse")
    add("--pool", type=count, metavar="N", help="batches of prompts to search with")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="of the search (0)")
    add("--checkpointing", action="store_true", help="compute activations twice: less memory")
    return parser


def run(variants: Sequence[Variant], options: Namespace) -> None:
    """Searches with each variant, measures it, writes the JSON file and prints the table."""
    silence_libraries()
    chosen = [_adapted(one, options) for one in _chosen(variants, options.only)]
    rows = _finished(options.json)
    bench = Bench(MODEL, SEARCH_PROMPTS, HELD_OUT, options, GUIDANCE)
    for variant in chosen:
        setup = {**bench.setup, **asdict(variant), "blocks": list(variant.blocks)}
        if rows.get(variant.name, {}).get("setup") != setup:
            rows[variant.name] = {"setup": setup, **_row(bench, variant)}
            write_report(options.json, {"rows": rows})
    names = [variant.name for variant in chosen]
    Console(width=TABLE_WIDTH).print(ablation_table({name: rows[name] for name in names}))


def _row(bench: Bench, variant: Variant) -> dict[str, Any]:
    """A search that fails has a row as well: the others go on."""
    with stage(f"== {variant.name}"), live_progress() as show:
        try:
            found = bench.measure(
                variant.settings,
                variant.blocks,
                variant.backup,
                variant.rival,
                lambda one: show(one.stage, one.done, one.total, f"distance {one.distance:.4f}"),
            )
        except DipgoError as error:
            found = {"error": str(error)}
    return new_report(**found)


def _chosen(variants: Sequence[Variant], only: Sequence[str]) -> list[Variant]:
    names = [variant.name for variant in variants]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise DipgoError(
            "--only",
            found=" ".join(unknown),
            expected=f"names among {' '.join(names)}",
            remedy="correct it",
        )
    return [variant for variant in variants if not only or variant.name in only]


def _adapted(variant: Variant, options: Namespace) -> Variant:
    """With the options that shorten a search; the published penalty stops at what is kept."""
    settings = variant.settings
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in SHORTENED
        if getattr(options, name) is not None and getattr(settings, name)
    }
    if options.pool:
        given["pool"] = options.pool
    given |= {"tau": options.kept, "guidance_scale": GUIDANCE, "seed": options.seed}
    return replace(variant, settings=replace(settings, **given))


def _finished(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    rows: dict[str, Any] = json.loads(path.read_text())["rows"]
    return rows
