"""Writes reference pictures of the demo's held-out captions, drawn as its data set is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from scripts.demo_model.common import draw_set
from scripts.demo_model.shapes import split_scenes
from scripts.harness import run_script, script_parser


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    _, pictures = draw_set(split_scenes()[1], args.pictures, args.seed)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(args.out / f"{index:05}.png")


if __name__ == "__main__":
    run_script(main)
