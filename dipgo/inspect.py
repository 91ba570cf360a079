"""`python -m dipgo.inspect SUBNET|OUT|PLAN`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dipgo.common.cli import Parser, refuse_idle, run_command
from dipgo.common.errors import DipgoError, setting
from dipgo.common.one_line import one_line, printable
from dipgo.common.options import add_options, read_settings
from dipgo.common.packages import command_packages
from dipgo.common.progress import stage
from dipgo.compiler.passes import PlanSize, find_passes, plan_size, run_passes
from dipgo.compiler.passes.live_ranges import lower_bound_nbytes, naive_nbytes
from dipgo.compiler.settings import DENSE, Request
from dipgo.engines.describe import export_facts
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export.settings import PASS_NAMES, ExportSettings
from dipgo.ir.misfit import fitted_facts
from dipgo.ir.plan.parse import is_plan_file, read_plan
from dipgo.ir.plan.plan import Plan
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.options import add_model

MIB = 1 << 20

EXAMPLES = (
    "python -m dipgo.inspect subnet.json",
    "python -m dipgo.inspect OUT",
    "python -m dipgo.inspect dense --model arch:sd15 --steps 20 --no-plan",
)

ALWAYS, PASSES = {"subnet", "no_plan"}, {"passes", "print_between_passes"}
"""Names of options that anything shown has a use for, and of those for a plan's text."""

TABLE_WIDTH = 110
"""Columns that the savings of the passes need, also if the output is not a terminal."""


def main(arguments: list[str]) -> None:
    """Shows a SubNet file, an export directory, or a plan before and after the passes."""
    _parser().run(_inspect, arguments)


def _inspect(options: Namespace) -> None:
    console = Console(soft_wrap=True, highlight=False, width=max(TABLE_WIDTH, Console().width))
    path = Path(options.subnet)
    compiles = bool(options.model)
    if path.is_dir() and not (compiles and options.subnet == DENSE):
        _refuse(options, ALWAYS, "on an export, whose plan is complete", "leave it out")
        _show_export(path, options, console)
    elif is_plan_file(path):
        _refuse(options, {*ALWAYS, *PASSES}, "on a plan's text", "leave it out")
        _show_passes(_passes_on_file(path, options), options, console)
    elif compiles:
        _show_passes(_passes_on_model(options), options, console)
    elif options.subnet == DENSE and not path.exists():
        raise DipgoError(
            setting("model"),
            found="no model for dense",
            expected="the model to compile",
            remedy=f"add {setting('model')} M and {setting('steps')} N",
        )
    else:
        remedy = f"add {setting('model')} M, or leave it out"
        _refuse(options, ALWAYS, "where no model is compiled", remedy)
        _show_subnet(SubNet.load(path), console)


MOST_MARKS = 100_000
"""Gates that are shown: more than any model has, and no more than a terminal takes in seconds."""


def _parser() -> Parser:
    parser = Parser(
        "dipgo.inspect",
        description="Shows a SubNet, an export, or a plan's text.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "subnet", metavar="SUBNET|OUT|PLAN", help="with --model also the word dense"
    )
    add_model(parser, required=False, help="compile the SubNet for this model")
    add_options(parser, Request)
    add_options(parser, ExportSettings, only=("passes",))
    add = parser.group("output").add_argument
    add("--no-plan", action="store_true", help="leave out the plan's text")
    add("--print-between-passes", action="store_true", help="show the plan after each pass")
    return parser


def _refuse(options: Namespace, used: Set[str], where: str, remedy: str) -> None:
    """Refuses all options but `used`, as they would have no effect."""
    refuse_idle(options, options.changed - used, where, remedy)


@dataclass
class _History:
    """The plan before the passes, named `unroll` or `file`, and after each."""

    plans: list[tuple[str, Plan]] = field(default_factory=list)

    def add(self, name: str, plan: Plan) -> None:
        """Adds a plan; the pass manager calls it."""
        self.plans.append((name, plan))


def _passes_on_file(path: Path, options: Namespace) -> _History:
    history = _History()
    plan = read_plan(path)
    history.add("file", plan)
    chosen = find_passes(options.passes or ())
    run_passes(plan, chosen, history.add)
    return history


def _passes_on_model(options: Namespace) -> _History:
    with command_packages("dipgo.inspect", "compiling", "export"):
        from dipgo.compiler.compile import compile_plan
        from dipgo.compiler.request import prepare
    history = _History()
    chosen = find_passes(options.passes or PASS_NAMES)
    request = read_settings(options, Request)
    prepared = prepare(options.model, request, stage)
    with stage("trace, unroll, run the passes"):
        compile_plan(prepared.source, prepared.schedule, prepared.geometry, chosen, history.add)
    return history


def _show_passes(history: _History, options: Namespace, console: Console) -> None:
    plan = history.plans[-1][1]
    for name, step in history.plans if options.print_between_passes else ():
        console.print(Text(printable(f"# after {name}\n{step}\n")))
    if not options.print_between_passes and not options.no_plan:
        console.print(Text(printable(str(plan))))
    console.print()
    console.print(_savings([(name, plan_size(plan)) for name, plan in history.plans]))
    if plan.slots:
        console.print(_cache(plan))


def _savings(sizes: Sequence[tuple[str, PlanSize]]) -> Table:
    """Returns a table of what the plan calls, computes and keeps after each pass, with the change.

    The parameters are those of the callees that the loop calls, in millions.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("after", no_wrap=True)
    for column in ("callees", "calls", "GMACs", "loop Mparams", "cache MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    before = sizes[0][1]
    for name, size in sizes:
        table.add_row(
            name,
            _change(size.callees, before.callees, "d"),
            _change(size.calls, before.calls, "d"),
            _change(size.macs / 1e9, before.macs / 1e9, ".3f"),
            _change(size.loop_parameters / 1e6, before.loop_parameters / 1e6, ".3f"),
            _change(size.cache_nbytes / MIB, before.cache_nbytes / MIB, ".2f"),
        )
        before = size
    return table


def _change(after: float, before: float, form: str) -> str:
    change = after - before
    return f"{after:{form}} ({change:+{form}})" if change else f"{after:{form}}"


def _cache(plan: Plan) -> str:
    arena, bound, naive = plan.arena_nbytes, lower_bound_nbytes(plan), naive_nbytes(plan)
    return (
        f"cache {arena / MIB:.2f} MiB: lower bound {bound / MIB:.2f} MiB "
        f"(+{arena / bound - 1:.2%}), without reuse {naive / MIB:.2f} MiB"
    )


def _show_subnet(subnet: SubNet, console: Console) -> None:
    rows = ["".join("01"[int(gate)] for gate in row) for row in subnet.gates]
    _show_gates(subnet.blocks, subnet.timesteps, rows, console)
    console.print(f"steps {subnet.num_inference_steps}   gates kept {subnet.kept:.4f}")
    for line in filter(None, (rule.describe() for rule in subnet.gaps)):
        console.print(Text(one_line(line)))
    if subnet.fitted_for:
        for name, fact in fitted_facts(subnet.fitted_for).items():
            console.print(Text(f"{one_line(name):12} {one_line(fact)}"))


def _show_export(path: Path, options: Namespace, console: Console) -> None:
    export = ExportDirectory.open(path)
    plan = export.plan
    if not options.no_plan:
        console.print(Text(printable(str(plan))))
    rows = {step.row: step for step in plan.steps}
    _show_gates(
        plan.blocks,
        [step.timestep for step in rows.values()],
        [step.gates for step in rows.values()],
        console,
    )
    for name, fact in export_facts(export).items():
        console.print(Text(f"{one_line(name):12} {one_line(fact)}"))
    console.print(_cache(plan))


def _show_gates(
    blocks: Sequence[str], timesteps: Sequence[float], rows: Sequence[str], console: Console
) -> None:
    """Prints a row a block and a column a step: full if computed, a dot if reused."""
    marks = ".#" if console.options.ascii_only else "·█"
    shown = [one_line(block) for block in blocks[: max(1, MOST_MARKS // len(rows))]]
    width = max(map(len, shown))
    first, last = timesteps[0], timesteps[-1]
    console.print(f"{'':{width}} t = {first:g} … {last:g}, {len(timesteps)} timesteps")
    for column, block in enumerate(shown):
        line = Text(f"{block:>{width}} ")
        for row in rows[:MOST_MARKS]:
            on = row[column] == "1"
            line.append(marks[on], style="green" if on else "dim")
        console.print(line)
    if len(shown) < len(blocks) or len(rows) > MOST_MARKS:
        console.print(f"… {len(blocks)} blocks, {len(rows)} rows in all")


if __name__ == "__main__":
    sys.exit(run_command(main))
