"""`python -m dipgo.inspect SUBNET|OUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dipgo.cli import Parser, run_command
from dipgo.engines.export_dir import ExportDirectory
from dipgo.manifest import WEIGHTS_FILE
from dipgo.passes.allocate_slots import lower_bound_nbytes
from dipgo.plan_cost import block_calls, evaluations, plan_cost, step_patterns
from dipgo.subnet import SubNet

MIB = 1 << 20


def main(arguments: list[str]) -> None:
    """Shows a SubNet file, or an export directory."""
    parser = Parser("dipgo.inspect", description="Shows a SubNet, or the plan of an export.")
    parser.add_argument("path", metavar="SUBNET|OUT", type=Path)
    parser.add_argument("--no-plan", action="store_true", help="leave out the plan's text")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    if options.path.is_dir():
        _show_export(options.path, console, with_plan=not options.no_plan)
    else:
        _show_subnet(SubNet.load(options.path), console)


def _show_subnet(subnet: SubNet, console: Console) -> None:
    rows = ["".join("01"[int(gate)] for gate in row) for row in subnet.gates]
    _show_gates(subnet.blocks, subnet.timesteps, rows, console)
    console.print(f"steps {subnet.num_inference_steps}   gates kept {subnet.kept:.4f}")


def _show_export(path: Path, console: Console, with_plan: bool) -> None:
    export = ExportDirectory.open(path)
    plan, manifest = export.plan, export.manifest
    if with_plan:
        console.print(Text(str(plan)))
    rows = {step.row: step for step in plan.steps}
    _show_gates(
        plan.blocks,
        [step.timestep for step in rows.values()],
        [step.gates for step in rows.values()],
        console,
    )
    cost = plan_cost(plan)
    facts = {
        "model": f"{manifest.model.class_name} of {manifest.model.source}, {manifest.precision}",
        "sampler": f"{manifest.sampler.scheduler_class}, {plan.num_inference_steps} steps",
        "evaluations": f"{evaluations(plan)} of {len(plan.steps)}",
        "block calls": f"{block_calls(plan)}, in {step_patterns(plan)} step patterns",
        "segments": " ".join(callee.name for callee in plan.callees),
        "MACs kept": f"{cost.kept:.4f}, with attention {cost.kept_with_attention:.4f}",
        "weights": f"{manifest.files[WEIGHTS_FILE].nbytes / MIB:.1f} MiB",
        "directory": f"{sum(file.nbytes for file in manifest.files.values()) / MIB:.1f} MiB",
        "cache": f"{plan.arena_nbytes / MIB:.2f} MiB "
        f"(lower bound {lower_bound_nbytes(plan) / MIB:.2f} MiB)",
    }
    for name, fact in facts.items():
        console.print(f"{name:12} {fact}")


def _show_gates(
    blocks: Sequence[str], timesteps: Sequence[float], rows: Sequence[str], console: Console
) -> None:
    """One row a block, one column a step: full where it is computed, a dot where reused."""
    width = max(map(len, blocks))
    first, last = timesteps[0], timesteps[-1]
    console.print(f"{'':{width}} t = {first:g} … {last:g}, {len(timesteps)} timesteps")
    for column, block in enumerate(blocks):
        line = Text(f"{block:>{width}} ")
        for row in rows:
            on = row[column] == "1"
            line.append("█" if on else "·", style="green" if on else "dim")
        console.print(line)


if __name__ == "__main__":
    sys.exit(run_command(main))
