"""Trains the whole demo model: `python -m scripts.demo_model.train`."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from scripts.demo_model.build_tokenizer import build_tokenizer
from scripts.demo_model.shapes import split_scenes
from scripts.demo_model.train_classifier import train_classifier
from scripts.demo_model.train_unet import Plan, train_unet
from scripts.demo_model.train_vae import train_decoder, train_vae
from scripts.harness import run_script, script_parser


def write_prompts(file: Path, n: int = 64) -> None:
    """Write held-out captions, one a line."""
    captions = [scene.caption for scene in split_scenes()[1]]
    file.write_text("\n".join(captions[:n]) + "\n")


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/demo"))
    parser.add_argument("--work", type=Path, default=Path("out/demo-train"))
    parser.add_argument("--vae-minutes", type=float, default=10.0)
    parser.add_argument("--decoder-minutes", type=float, default=3.0)
    parser.add_argument("--unet-minutes", type=float, default=40.0)
    parser.add_argument("--classifier-minutes", type=float, default=3.0)
    args = parser.parse_args(arguments)

    torch.set_num_threads(os.cpu_count() or 1)
    vae, tokenizer = args.work / "vae", args.work / "tokenizer"
    args.out.mkdir(parents=True, exist_ok=True)
    write_prompts(args.out / "prompts.txt")
    build_tokenizer(tokenizer)
    train_vae(vae, args.vae_minutes)
    train_decoder(vae, args.decoder_minutes)
    train_classifier(args.out / "classifier", args.classifier_minutes)
    train_unet(args.out / "model", vae, tokenizer, Plan(minutes=args.unet_minutes))


if __name__ == "__main__":
    run_script(main)
