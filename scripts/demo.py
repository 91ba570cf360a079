"""The demo: export a small trained pipeline, dense and pruned, run both, and compare.

Writes out/demo: the two exports, sheet.png (dense above SubNet, same prompts and seeds) and
report.json. Prints what the SubNet keeps, what that promises, and what the clock says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from dipgo.bench import make_report, speedup_of
from dipgo.common.packages import silence_libraries
from dipgo.common.progress import stage
from dipgo.engines.timing import time_runners
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from scripts.harness import DEMO, ROOT, SUBNETS, make_table, run_script, script_parser, write_report

OUT = ROOT / "out" / "demo"
SUBNET = SUBNETS / "demo-dipgo-0.80.json"
PICTURES = 8
SEED = 0
GUIDANCE = 5.0
ZOOM = 2


def main(arguments: list[str]) -> None:
    """Exports, runs, compares."""
    script_parser(__file__, __doc__).parse_args(arguments)
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
    with stage("time both, in alternation"):
        runners = {name: pipeline.runner for name, pipeline in pipelines.items()}
        report = make_report(runners, time_runners(runners, warmup=2, repeats=9))
    report["similarity"] = _similarity(pictures["this"], pictures["against"])
    write_report(OUT / "report.json", report)
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


def _similarity(pictures: NDArray[np.float32], expected: NDArray[np.float32]) -> dict[str, float]:
    """Returns mean SSIM and PSNR (dB) of pictures f32[N, H, W, 3] in [0, 1]."""
    from dipgo.evaluate.metrics import psnr, ssim

    pair = (_pixels(pictures), _pixels(expected))
    return {"ssim": float(ssim(*pair).mean()), "psnr_db": float(psnr(*pair).mean())}


def _pixels(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (pictures * 255).round().astype(np.uint8)


def _save_sheet(rows: list[NDArray[np.float32]], path: Path) -> None:
    """One row of pictures under another, enlarged."""
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    Image.fromarray(_pixels(sheet.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))).save(path)


def _print(report: dict[str, Any]) -> None:
    this, dense = report["this"], report["against"]
    measured, retention = speedup_of(report)
    rows = (
        ("evaluations", str(dense["evaluations"]), str(this["evaluations"])),
        ("block calls", str(dense["block_calls"]), str(this["block_calls"])),
        ("MACs kept", f"{dense['macs_kept']:.3f}", f"{this['macs_kept']:.3f}"),
        ("time", f"{dense['seconds']:.3f} s", f"{this['seconds']:.3f} s"),
        ("ideal speedup", "1", f"{report['speedup']['ideal']:.2f}×"),
        ("measured speedup, turn by turn", "1", measured.text(".2f", "×")),
        ("retention (measured ÷ ideal)", "", retention.text(".3f")),
        ("SSIM to dense", "1", f"{report['similarity']['ssim']:.3f}"),
        ("PSNR to dense", "", f"{report['similarity']['psnr_db']:.1f} dB"),
    )
    title = "demo model, DDIM, 50 steps, guidance, one picture"
    Console().print(make_table(title, ("", "dense", "SubNet"), rows))
    print(f"speedup and retention: {measured.note()}.")
    print(
        "A model this small spends its time on operators' overhead more than on MACs, so part of\n"
        "the promise is lost; docs/results/results.md has Stable Diffusion at real size."
    )
    print(f"pictures (dense above SubNet): {(OUT / 'sheet.png').relative_to(ROOT)}")


if __name__ == "__main__":
    run_script(main)
