"""One command for a machine with an NVIDIA GPU: parity with the oracle, and a table of speeds.

    python -m scripts.gpu_check [--models sd15 sdxl dit-xl-2-256] [--json FILE]

PyTorch and diffusers are enough; ONNX Runtime and TensorRT are measured where they are installed.
docs/guide/gpu.md says what the figures are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that dipgo need not be installed

from dipgo.common.cli import Parser, whole_number
from dipgo.common.files import check_file_destination
from scripts.benchmarks.gpu_checks.cases import REAL, SMALL
from scripts.benchmarks.gpu_checks.machine import (
    DEVICES,
    check_device,
    describe,
    silence_diffusers,
    slug,
)
from scripts.benchmarks.gpu_checks.parity import check_parity
from scripts.benchmarks.gpu_checks.paths import ENGINES
from scripts.benchmarks.gpu_checks.report import print_report
from scripts.benchmarks.gpu_checks.settings import Settings, failures
from scripts.benchmarks.gpu_checks.speed import ModelCheck
from scripts.harness import ROOT, add_json, run_script, script_parser, write_report

COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")


def main(arguments: list[str]) -> None:
    """Exit code 1 where anything failed, 2 where there is nothing to measure on."""
    options = _parser().parse_args(arguments)
    check_device(options.device)
    silence_diffusers()
    machine = describe(options.device)
    path = options.json or _default_path(options.device, machine)
    if path:
        check_file_destination(path)
    settings = Settings(
        options.device,
        options.repeats,
        options.steps,
        not options.skip_compile,
        options.compile_mode,
        options.time_limit,
    )
    report = _check(options, settings, machine, partial(write_report, path))
    print_report(report)
    if path:
        print(f"written to {path}")
    problems = failures(report)
    if problems:
        print(f"failed: {len(problems)}, told above", file=sys.stderr)
        raise SystemExit(1)


def _check(
    options: Any,
    settings: Settings,
    machine: dict[str, str],
    write: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Written after every model, so that nothing is lost."""
    left_out = {one.target: one.missing(settings.device) for one in ENGINES}
    report: dict[str, Any] = {
        "machine": machine,
        "repeats": settings.repeats,
        "left_out": {target: reason for target, reason in left_out.items() if reason},
        "parity": {} if options.skip_parity else check_parity(settings),
        "models": {},
    }
    write(report)
    for name in options.models or (REAL if settings.device == "cuda" else SMALL):
        found: dict[str, Any] = {}
        report["models"][name] = found
        found |= settings.attempt(name, ModelCheck(name, settings, found).run)
        write(report)
    return report


def _default_path(device: str, machine: dict[str, str]) -> Path | None:
    """None on the CPU: what is no measurement is not kept with those that are."""
    if device == "cpu":
        return None
    return ROOT / "benchmarks" / "results" / f"gpu-{slug(machine['device'])}.json"


def _parser() -> Parser:
    parser = script_parser(__file__, __doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=(*REAL, *SMALL), help="which (all real ones)")
    add("--repeats", type=whole_number(1), default=5, help="measured runs of each path (5)")
    add("--steps", type=whole_number(2), metavar="N", help="fewer steps, for a quick look")
    add("--skip-compile", action="store_true", help="without torch.compile")
    add("--compile-mode", choices=COMPILE_MODES, default="default", help="of torch.compile")
    add("--skip-parity", action="store_true", help="without the comparison with the oracle")
    add("--time-limit", type=float, metavar="SECONDS", help="begin nothing new after that")
    add_json(parser, what="benchmarks/results/gpu-DEVICE.json unless given")
    add("--device", choices=DEVICES, default="cuda", help="cpu tests the script itself")
    return parser


if __name__ == "__main__":
    run_script(main)
