"""The error of the demo model's SubNets against dense, at guidance scales from 1 to 12.

    python -m scripts.benchmarks.measure_guidance NAME=FILE … [--pairs 32] [--json FILE]

Held-out prompts and seeds, the same at every scale, on ONNX Runtime: the mean of the latents'
relative errors, and of the pictures' PSNR.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from dipgo.common.cli import whole_number
from dipgo.common.files import read_prompts
from dipgo.common.progress import stage
from dipgo.evaluate.fitted import without_fitted
from dipgo.evaluate.metrics import latent_error, psnr
from dipgo.evaluate.pairs import Pair, make_pairs
from dipgo.export import export
from dipgo.ir.subnet.subnet import SubNet
from dipgo.run.pipeline import Pipeline
from scripts.harness import (
    DEMO,
    add_json,
    add_threads,
    make_table,
    new_report,
    run_script,
    script_parser,
    write_report,
)

SCALES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.5, 8.0, 9.0, 10.0, 11.0, 12.0)
STEPS, BATCH = 50, 8


def main(arguments: list[str]) -> None:
    """Draws, measures, writes the JSON file and prints a table."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("subnets", nargs="+", type=_named_file, metavar="NAME=FILE")
    parser.add_argument("--pairs", type=whole_number(2), default=32, metavar="N", help="(32)")
    add_threads(parser)
    add_json(parser)
    options = parser.parse_args(arguments)
    subnets = {name: SubNet.load(path) for name, path in options.subnets}
    pairs = make_pairs(read_prompts(DEMO / "prompts.txt"), options.pairs, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        pipelines = dict(_pipelines(subnets, Path(folder), options.threads))
        rows = [_row(pipelines, pairs, scale) for scale in SCALES]
    fitted = {
        name: subnet.fitted_for and subnet.fitted_for.guidance for name, subnet in subnets.items()
    }
    report = new_report(pairs=options.pairs, steps=STEPS, fitted=fitted, scales=rows)
    write_report(options.json, report)
    Console().print(_table(tuple(subnets), rows))


def _named_file(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign:
        raise ValueError
    return name, Path(path)


_named_file.__name__ = "a name and a SubNet's file such as one=subnet.json"


def _pipelines(
    subnets: Mapping[str, SubNet], folder: Path, threads: int
) -> Iterator[tuple[str, Pipeline]]:
    """Yields dense and the SubNets; exports without what they were fitted for do not warn."""
    plain = {name: without_fitted(subnet) for name, subnet in subnets.items()}
    exported: dict[str, SubNet | str] = {"dense": "dense", **plain}
    for index, (name, subnet) in enumerate(exported.items()):
        with stage(f"export {name}"):
            out = export(
                DEMO / "model",
                subnet,
                folder / str(index),
                steps=STEPS,
                scheduler="ddim",
                batch=BATCH,
            )
        yield name, Pipeline.from_export(out, threads=threads)


def _row(
    pipelines: Mapping[str, Pipeline], pairs: tuple[Pair, ...], scale: float
) -> dict[str, Any]:
    """Returns the means of one scale, by SubNet."""
    with stage(f"draw at {scale:g}"):
        drawn = {name: _draw(pipeline, pairs, scale) for name, pipeline in pipelines.items()}
    latents, pictures = drawn.pop("dense")
    return {
        "guidance": scale,
        "latent_error": {
            name: float(latent_error(found, latents).mean()) for name, (found, _) in drawn.items()
        },
        "psnr_db": {
            name: float(psnr(found, pictures).mean()) for name, (_, found) in drawn.items()
        },
    }


def _draw(
    pipeline: Pipeline, pairs: tuple[Pair, ...], scale: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Returns latents f32[N, C, h, w] and pictures u8[N, H, W, 3]."""
    latents: NDArray[np.float32] = pipeline(
        [pair.prompt for pair in pairs],
        seed=[pair.seed for pair in pairs],
        guidance_scale=scale,
        output_type="latent",
    ).images
    return latents, (pipeline.decode(latents) * 255).round().astype(np.uint8)


def _table(names: tuple[str, ...], rows: list[dict[str, Any]]) -> Any:
    headings = ("guidance", *(f"{name}: error" for name in names), *(f"{n}: dB" for n in names))
    cells = [
        (
            f"{row['guidance']:g}",
            *(f"{row['latent_error'][name]:.4f}" for name in names),
            *(f"{row['psnr_db'][name]:.1f}" for name in names),
        )
        for row in rows
    ]
    return make_table("error against dense, means", headings, cells, texts=0)


if __name__ == "__main__":
    run_script(main)
