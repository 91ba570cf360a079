"""Trains the judge on drawn pictures only, blurred, noised and re-lit so that it is robust."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dipgo.evaluate.judges.classifier import Classifier, load_classifier, save_classifier
from scripts.demo_model.classifier import build_classifier
from scripts.demo_model.common import draw_set, progress, set_learning_rate, to_tensor
from scripts.demo_model.shapes import HEADS, Scene, all_scenes, split_scenes
from scripts.harness import run_script, script_parser

PEAK_RATE = 2e-3


def augment(pictures: Tensor) -> Tensor:
    """Blur, contrast, brightness and noise, each of a random strength: f32[B, 3, 64, 64]."""
    n = len(pictures)
    blurred = functional.avg_pool2d(
        functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1
    )
    share, contrast, light, strength = torch.rand(4, n, 1, 1, 1)
    mixed = torch.lerp(pictures, blurred, share)
    lit = mixed * (0.85 + 0.3 * contrast) + 0.12 * (light - 0.5)
    noisy: Tensor = lit + 0.1 * strength * torch.randn_like(pictures)
    return noisy


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """The class indices i64[N] of each head."""
    table = torch.tensor([scene.labels for scene in scenes])
    return {head: table[:, i] for i, head in enumerate(HEADS)}


def train_classifier(out: Path, minutes: float, batch: int = 128, seed: int = 0) -> None:
    """Train within the wall-clock budget, save as float16, and print the held-out accuracy."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes, drawn = draw_set(all_scenes(), 12_000, seed + 100)
    labels = targets(scenes)
    model = build_classifier()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    for step, share in progress(minutes):
        set_learning_rate(optimizer, PEAK_RATE, step, share)
        rows = rng.integers(0, len(drawn), batch)
        logits = model(augment(to_tensor(drawn[rows])))
        loss = sum(
            (functional.cross_entropy(logits[head], labels[head][rows]) for head in HEADS),
            start=torch.zeros(()),
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % 200 == 0:
            print(f"classifier step {step} {share:.0%} loss {loss:.4f}", flush=True)
    save_classifier(model, out)
    report_accuracy(load_classifier(out))


def report_accuracy(model: Classifier, n: int = 4000) -> None:
    """Print the share of fresh drawings of held-out captions that all four heads read right."""
    scenes, pictures = draw_set(split_scenes()[1], n, seed=999)
    for name, tensor in (
        ("clean", to_tensor(pictures)),
        ("augmented", augment(to_tensor(pictures))),
    ):
        found = model.predict(tensor)
        hits = {
            head: [got == getattr(s, head) for got, s in zip(found[head], scenes, strict=True)]
            for head in HEADS
        }
        every = np.all(list(hits.values()), axis=0).mean()
        parts = ", ".join(f"{head} {np.mean(hit):.2%}" for head, hit in hits.items())
        print(f"classifier on {n} {name} drawings: all four {every:.2%}; {parts}", flush=True)


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/demo/classifier"))
    parser.add_argument("--minutes", type=float, default=2.0)
    args = parser.parse_args(arguments)
    train_classifier(args.out, args.minutes)


if __name__ == "__main__":
    run_script(main)
