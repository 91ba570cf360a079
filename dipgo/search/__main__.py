"""`python -m dipgo.search --model M --steps N --ratio R --prompts FILE --out subnet.json`."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dipgo.common.cli import Parser, refuse_idle, run_command, whole_number
from dipgo.common.errors import DipgoError, setting
from dipgo.common.files import (
    check_file_destination,
    check_folder_destination,
    check_no_result,
    read_prompts,
)
from dipgo.common.options import add_options, read_settings, refuse_without_needs
from dipgo.common.packages import command_packages
from dipgo.common.progress import live_progress, mute_unless, stage
from dipgo.compiler.settings import Request
from dipgo.engines.contents import check_outside_exports
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.options import add_model
from dipgo.schedules import RULES
from dipgo.schedules.rule import left_out
from dipgo.search.log import begin_log, is_log
from dipgo.search.options import add_search_arguments, search_settings
from dipgo.search.request import SEARCH, SearchRequest
from dipgo.search.settings import SearchSettings

EXAMPLES = (
    "python -m dipgo.search --model M --steps 50 --ratio 0.8 --prompts FILE --out subnet.json",
    "python -m dipgo.search --model M --steps 50 --ratio 0.5 --method deepcache --out subnet.json",
)

DIPGO = "dipgo"
"""The name of the search itself among the methods; all others are RULES."""

OWN = ("checkpoint", "checkpointing", "log", "mixed_precision")
RIVALS = ("calibration", "of", "router")
"""Names of options that the search itself reads, or only rules, besides those of settings."""

MEASURED = {"guidance_scale", "seed"}
"""Names of settings with which rules measure a model, too."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command line, as far as the methods need it."""

    options: Namespace
    request: SearchRequest
    prompts: tuple[str, ...]
    settings: SearchSettings
    accelerator: Any


def main(arguments: list[str]) -> None:
    """Parses the arguments, searches and writes the SubNet."""
    _parser().run(_run, arguments)


def _run(options: Namespace) -> None:
    _check_used(options)
    settings = search_settings(options)
    _check_effects(options, settings)
    _check_output(options)
    if options.checkpoint:
        check_folder_destination(options.checkpoint)
    prompts = read_prompts(options.prompts) if options.prompts else ()
    with command_packages("dipgo.search", "a search", "export,search"):
        from accelerate import Accelerator

        from dipgo.search.guards import memory_errors
    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    if options.log and accelerator.is_main_process and not _goes_on(options):
        begin_log(options.log)
    asked = _Asked(options, _request(options), prompts, settings, accelerator)
    with (
        mute_unless(accelerator.is_main_process),
        memory_errors(checkpointing=options.checkpointing),
    ):
        subnet = _search(asked) if options.method == DIPGO else _rival(asked)
    if accelerator.is_main_process:
        subnet.save(options.out)
        print(f"wrote {options.out}: {_summary(subnet)}")


def _check_output(options: Namespace) -> None:
    """Checks the files to write: no result of hours is replaced without `--force`.

    A search with a checkpoint goes on with its log.
    """
    for path in filter(None, (options.out, options.log)):
        check_file_destination(path)
        check_outside_exports(path)
    check_no_result(options.out, options.force)
    if options.log is None:
        return
    if options.log.absolute() == options.out.absolute():
        raise DipgoError(
            "--log", found=f"{options.log} for both", expected="two files", remedy="rename one"
        )
    if not _goes_on(options):
        check_no_result(options.log, options.force)


def _goes_on(options: Namespace) -> bool:
    """Returns whether a search goes on with its log: one that has a checkpoint may have begun."""
    return bool(options.checkpoint) and is_log(options.log)


def _check_used(options: Namespace) -> None:
    """Refuses options that the method does not read, and a method without those that it needs.

    Prompts, their number and the seed belong to the model: all methods may get the same.
    """
    if options.method == DIPGO:
        refuse_idle(options, RIVALS, f"on {DIPGO}'s own search")
        if options.prompts is None:
            raise DipgoError(
                "--prompts",
                found="nothing",
                expected="a text file with one prompt a line",
                remedy="give prompts like those that the model will be used with",
            )
        return
    rule = RULES[options.method]
    own = {item.name for item in fields(SearchSettings)} - MEASURED | {*OWN, "preset"}
    read = {*rule.options, *(("calibration",) if "prompts" in rule.options else ())}
    refuse_idle(options, own | {*RIVALS} - read, f"on the method {rule.name}")
    for name in rule.options:
        if getattr(options, name) is None:
            raise left_out(name)


def _check_effects(options: Namespace, settings: SearchSettings) -> None:
    """Refuses options that have no effect with the settings of dipgo's own search."""
    if options.method != DIPGO:
        return
    refuse_without_needs(options, settings)
    if settings.iterations:
        return
    remedy = f"leave it out, or change {setting('iterations')}"
    refuse_idle(options, ("mixed_precision",), f"with {setting('iterations')} 0", remedy)
    trains = settings.reuse_terms and not settings.reuse_filter and settings.reuse_iterations
    if not trains:
        where = f"with {setting('iterations')} 0, where nothing is trained"
        refuse_idle(options, ("checkpointing",), where, remedy)


def _summary(subnet: SubNet) -> str:
    rows, columns = subnet.gates.shape
    kept = subnet.provenance.get("kept")
    share = "" if kept is None else f"keeps {kept:.4f} of the cost, "
    return f"{share}{int(subnet.gates.sum())} of {rows * columns} gates on"


def _search(asked: _Asked) -> SubNet:
    from dipgo.search.api import search

    options = asked.options
    with live_progress() as show:
        return search(
            options.model,
            asked.request,
            asked.prompts,
            asked.settings,
            accelerator=asked.accelerator,
            checkpointing=options.checkpointing,
            checkpoint=options.checkpoint,
            log=options.log,
            stage=stage,
            on_progress=lambda progress: show(
                progress.stage,
                progress.done,
                progress.total,
                f"loss {progress.loss:.4f}, kept {progress.kept:.3f}",
            ),
        )


def _rival(asked: _Asked) -> SubNet:
    from dipgo.search.api import pose
    from dipgo.search.rivals import Rivals

    options, settings = asked.options, asked.settings
    of = SubNet.load(options.of) if options.of else None
    with stage("trace the model"):
        problem = pose(options.model, asked.request, asked.accelerator.device)
    with live_progress() as show:
        rivals = Rivals(
            problem,
            asked.prompts,
            guidance_scale=settings.guidance_scale,
            count=options.calibration,
            seed=settings.seed,
            of=of,
            router=options.router,
            on_gate=lambda done, total: show("measure gates", done, total, ""),
        )
        return rivals.make(options.method, asked.request.kept)


def _request(options: Namespace) -> SearchRequest:
    return read_settings(options, SearchRequest, weigh=_weigh(options.cost))


def _weigh(cost: str) -> Any:
    """Returns the function that prices calls; `latency:OUT` times an export on this machine."""
    from dipgo.search.cost.model import latency_weights, macs_weights, parameter_weights

    measure, _, path = cost.partition(":")
    if measure == "latency" and path:
        plan, seconds = _timed(Path(path))
        return lambda graph: latency_weights(graph, plan, seconds)
    known = {"macs": macs_weights, "parameters": parameter_weights}
    if cost not in known:
        raise DipgoError(
            "--cost",
            found=cost,
            expected="macs, parameters or latency:OUT",
            remedy="OUT is an export of the same model with the same blocks",
        )
    return known[cost]


def _timed(path: Path) -> tuple[Any, dict[str, float]]:
    """Returns the plan of an export, and the seconds that each of its callees takes in a run."""
    from dipgo.engines import load
    from dipgo.engines.timing import time_runners

    runner = load(path)
    with stage(f"time {path}"):
        timing = time_runners({"it": runner}, warmup=1, repeats=5)["it"]
    return runner.export.plan, timing.segments


def _for(name: str, text: str) -> str:
    """Returns the help text of an option that only the rules which need the option `name` read."""
    names = (rule.name for rule in RULES.values() if name in rule.options)
    return f"{', '.join(names)}: {text}"


def _parser() -> Parser:
    parser = Parser("dipgo.search", description="Finds a SubNet.", examples=EXAMPLES)
    add_model(parser)
    add_options(parser, SearchRequest, described=Request)
    add = parser.group(SEARCH).add_argument
    add("--prompts", type=Path, metavar="FILE", help="prompts to search with, one a line")
    add(
        "--method",
        choices=(DIPGO, *RULES),
        default=DIPGO,
        help="DiP-GO's search, or a rival (dipgo)",
    )
    add("--cost", default="macs", metavar="COST", help="macs, parameters or latency:OUT (macs)")
    add("--checkpoint", type=Path, metavar="DIR", help="folder to stop and go on in")
    add(
        "--no-checkpointing",
        dest="checkpointing",
        action="store_false",
        help="keep activations: faster, more memory",
    )
    add("--mixed-precision", choices=("no", "fp16", "bf16"), help="of the gradient search")
    add_search_arguments(parser)
    add = parser.group("rivals").add_argument
    add(
        "--calibration",
        type=whole_number(1),
        default=1,
        metavar="N",
        help=_for("prompts", "batches (1)"),
    )
    add("--of", type=Path, metavar="FILE", help=_for("of", "the SubNet to take"))
    add("--router", type=Path, metavar="FILE", help=_for("router", "the router to take"))
    add = parser.group("output").add_argument
    add("--out", required=True, type=Path, metavar="FILE", help="SubNet file to write")
    add("--log", type=Path, metavar="FILE", help="CSV file, a line an iteration")
    add("--force", action="store_true", help="replace a SubNet and a log that are there (off)")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
