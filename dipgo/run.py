"""`python -m dipgo.run OUT --prompt "…" --seed 0 --image out.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dipgo.cli import Parser, run_command, stage
from dipgo.errors import DipgoError


def main(arguments: list[str]) -> None:
    """Runs an export once and writes what was asked for."""
    options = _parser().parse_args(arguments)
    if not options.image and not options.latents:
        raise DipgoError(
            "dipgo.run",
            found="neither --image nor --latents",
            expected="a file to write",
            remedy="add --image out.png or --latents out.npy",
        )
    for path in filter(None, (options.image, options.latents)):
        _check_writable(path)
    from dipgo.pipeline import Pipeline, to_image

    with stage("load the engines"):
        pipeline = Pipeline.from_export(
            options.out, provider=options.provider, threads=options.threads
        )
    with stage(f"run {len(pipeline.runner.export.plan.steps)} steps"):
        latents = pipeline(
            options.prompt,
            negative_prompt=options.negative_prompt,
            guidance_scale=options.guidance,
            seed=options.seed,
            output_type="latent",
        ).images
    times = pipeline.runner.times
    assert times is not None
    print(f"{times.total:.2f} s, of which {times.overhead:.2%} outside the engines")
    if options.latents:
        np.save(options.latents, latents)
    if options.image:
        to_image(pipeline.decode(latents)[0]).save(options.image)


def _parser() -> Parser:
    parser = Parser("dipgo.run", description="Makes a picture with an export directory.")
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="export directory")
    add("--prompt", required=True, help="what the picture shows")
    add("--negative-prompt", default="", help="what it should not show")
    add("--seed", type=int, default=0, help="of the initial noise, as with diffusers (0)")
    add("--guidance", type=float, default=7.5, help="guidance scale (7.5)")
    add("--image", type=Path, metavar="FILE", help="picture to write, .png")
    add("--latents", type=Path, metavar="FILE", help="latents to write, .npy")
    add("--provider", default="cpu", help="cpu or cuda (cpu)")
    add("--threads", type=int, default=0, help="0 takes every core (0)")
    return parser


def _check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if not path.absolute().parent.is_dir():
        raise DipgoError(
            str(path),
            found="a folder that does not exist",
            expected="a file in an existing folder",
            remedy="make the folder first",
        )


if __name__ == "__main__":
    sys.exit(run_command(main))
