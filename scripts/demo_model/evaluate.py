"""Counts how often the judge reads a generated picture as its caption says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from dipgo.evaluate.judges.classifier import load_classifier
from scripts.demo_model.common import to_tensor
from scripts.demo_model.shapes import HEADS, Scene, split_scenes
from scripts.harness import add_json, run_script, script_parser, write_report

GUIDANCE = 5.0
STEPS = 50


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load in float32 with the DDIM sampler."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.to(torch.float32)  # transformers 5 loads a text encoder in the type of its file
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: StableDiffusionPipeline,
    scenes: Sequence[Scene],
    seeds: Sequence[int],
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    batch: int = 64,
) -> NDArray[np.uint8]:
    """One picture a (scene, seed) pair: u8[N, 64, 64, 3]."""
    pictures = []
    for start in range(0, len(scenes), batch):
        rows = slice(start, start + batch)
        drawn = pipeline(
            [scene.caption for scene in scenes[rows]],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[rows]],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        ).images
        pictures.append((drawn * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def read_correctly(
    classifier_folder: Path, scenes: Sequence[Scene], pictures: NDArray[np.uint8]
) -> dict[str, NDArray[np.bool_]]:
    """For each head, which of the pictures u8[N, 64, 64, 3] is read as its scene says."""
    found = load_classifier(classifier_folder).predict(to_tensor(pictures))
    return {
        head: np.array(
            [got == getattr(scene, head) for got, scene in zip(found[head], scenes, strict=True)]
        )
        for head in HEADS
    }


def summarise(hits: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """The share read correctly for each head, and for all heads at once."""
    shares = {head: float(hit.mean()) for head, hit in hits.items()}
    return {**shares, "all": float(np.all(list(hits.values()), axis=0).mean())}


def save_sheet(pictures: NDArray[np.uint8], file: Path, columns: int = 16) -> None:
    """Save the pictures u8[N, 64, 64, 3] as one sheet, left to right, top to bottom."""
    rows = len(pictures) // columns
    grid = pictures[: rows * columns].reshape(rows, columns, 64, 64, 3)
    Image.fromarray(np.concatenate(np.concatenate(grid, axis=1), axis=1)).save(file)


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--model", type=Path, default=Path("examples/demo/model"))
    parser.add_argument("--classifier", type=Path, default=Path("examples/demo/classifier"))
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0, help="the first of consecutive seeds")
    parser.add_argument("--training-captions", action="store_true", help="not the held-out ones")
    add_json(parser)
    parser.add_argument("--sheet", type=Path, help="save the pictures here")
    args = parser.parse_args(arguments)

    training, held_out = split_scenes()
    pool = training if args.training_captions else held_out
    scenes = [pool[i % len(pool)] for i in range(args.pictures)]
    seeds = list(range(args.seed, args.seed + args.pictures))
    pictures = generate(load_pipeline(args.model), scenes, seeds, args.guidance, args.steps)
    hits = read_correctly(args.classifier, scenes, pictures)
    shares = summarise(hits)

    print(f"{len(scenes)} pictures, {args.steps} DDIM steps, guidance {args.guidance}")
    for head, share in shares.items():
        print(f"  {head:7} {share:7.2%}")
    for i in np.flatnonzero(~np.all(list(hits.values()), axis=0)):
        wrong = ", ".join(head for head in HEADS if not hits[head][i])
        print(f"  picture {i}, seed {seeds[i]}: {wrong} wrong: {scenes[i].caption}")
    if args.sheet:
        save_sheet(pictures, args.sheet)
    settings = {"pictures": len(scenes), "steps": args.steps, "guidance": args.guidance}
    write_report(args.json, {**settings, "read_correctly": shares})


if __name__ == "__main__":
    run_script(main)
