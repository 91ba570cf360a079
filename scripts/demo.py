"""The demo: export a small trained pipeline, dense and pruned, run both, and compare.

Writes out/demo: the two exports, sheet.png (dense above SubNet, same prompts and seeds) and
report.json. Prints what the SubNet keeps, what that promises, and what the clock says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from dipgo.bench import make_report
from dipgo.common.cli import run_command
from dipgo.common.packages import silence_libraries
from dipgo.common.progress import stage
from dipgo.engines.timing import time_runners
from dipgo.export import export
from dipgo.run.pipeline import Pipeline

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "demo"
OUT = ROOT / "out" / "demo"
SUBNET = ROOT / "examples" / "subnets" / "demo-dipgo-0.80.json"
PICTURES = 8
SEED = 0
GUIDANCE = 5.0
ZOOM = 2


def main(_: list[str]) -> None:
    """Exports, runs, compares."""
    silence_libraries()
    _export("dense", OUT / "dense")
    _export(SUBNET, OUT / "subnet")
    with stage("load the engines"):
        pipelines = {
            name: Pipeline.from_export(OUT / folder)
            for name, folder in (("this", "subnet"), ("against", "dense"))
        }
    prompts = (DEMO / "prompts.txt").read_text().splitlines()[:PICTURES]
    with stage(f"draw {PICTURES} pictures with each"):
        pictures = {name: _draw(pipeline, prompts) for name, pipeline in pipelines.items()}
    _save_sheet([pictures["against"], pictures["this"]], OUT / "sheet.png")
    with stage("time both by turns"):
        runners = {name: pipeline.runner for name, pipeline in pipelines.items()}
        report = make_report(runners, time_runners(runners, warmup=2, repeats=9))
    report["similarity"] = similarity(pictures["this"], pictures["against"])
    (OUT / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    _print(report)


def _export(subnet: str | Path, out: Path) -> None:
    steps = 50 if subnet == "dense" else None
    print(f"== export {out.relative_to(ROOT)}", file=sys.stderr)
    export(DEMO / "model", subnet, out, steps=steps, scheduler="ddim", force=True, progress=stage)


def _draw(pipeline: Pipeline, prompts: list[str]) -> NDArray[np.float32]:
    pictures: NDArray[np.float32] = pipeline(
        prompts, seed=SEED, guidance_scale=GUIDANCE, output_type="np"
    ).images
    return pictures


def similarity(found: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    """Mean SSIM and PSNR (dB) of pictures f32[N, H, W, 3] in [0, 1]."""
    import torch
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    first, second = (torch.from_numpy(one.transpose(0, 3, 1, 2)) for one in (found, expected))
    return {
        "ssim": float(structural_similarity_index_measure(first, second, data_range=1.0)),
        "psnr_db": float(peak_signal_noise_ratio(first, second, data_range=1.0)),
    }


def _save_sheet(rows: list[NDArray[np.float32]], path: Path) -> None:
    """One row of pictures under another, enlarged."""
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    pixels = (sheet.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1) * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)


def _print(report: dict[str, Any]) -> None:
    this, dense, speedup = report["this"], report["against"], report["speedup"]
    table = Table(title="demo model, DDIM, 50 steps, guidance, one picture")
    for heading in ("", "dense", "SubNet"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("evaluations", str(dense["evaluations"]), str(this["evaluations"]))
    table.add_row("block calls", str(dense["block_calls"]), str(this["block_calls"]))
    table.add_row("MACs kept", f"{dense['macs_kept']:.3f}", f"{this['macs_kept']:.3f}")
    table.add_row("time", f"{dense['seconds']:.3f} s", f"{this['seconds']:.3f} s")
    table.add_row("ideal speedup", "1", f"{speedup['ideal']:.2f}×")
    table.add_row("measured speedup", "1", f"{speedup['measured']:.2f}×")
    table.add_row("retention (measured ÷ ideal)", "", f"{speedup['retention']:.3f}")
    table.add_row("SSIM to dense", "1", f"{report['similarity']['ssim']:.3f}")
    table.add_row("PSNR to dense", "", f"{report['similarity']['psnr_db']:.1f} dB")
    Console().print(table)
    print(
        "A model this small spends its time on operators' overhead more than on MACs, so part of\n"
        "the promise is lost; docs/results/results.md has Stable Diffusion at real size."
    )
    print(f"pictures (dense above SubNet): {(OUT / 'sheet.png').relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
