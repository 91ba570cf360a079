"""The command `python -m dipgo.run OUT --prompt "…" --seed 0 --image out.png`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dipgo.common.arrays import read_arrays
from dipgo.common.cli import Parser, run_command, whole_number
from dipgo.common.errors import DipgoError
from dipgo.common.files import check_file_destination
from dipgo.common.picture_files import read_picture
from dipgo.common.progress import progress_bar, stage
from dipgo.common.regular_files import MIB, open_file
from dipgo.common.staged import staged_file
from dipgo.engines.contents import check_outside_exports
from dipgo.engines.options import add_target_arguments, target_options
from dipgo.run.arguments import check_scale
from dipgo.run.diffusers_arguments import remedies_by_flag

ENDINGS = {"image": (".png", ".jpg", ".jpeg", ".webp"), "latents": (".npy",)}

ANIMATED = (".png", ".webp")

MOST_INPUTS = 1024 * MIB
"""Bytes of further inputs, many times those of any model."""

FRAME_MS = 1000 // 7
"""The time that a video's frame is shown: Stable Video Diffusion has seven frames a second."""


def main(arguments: list[str]) -> None:
    """Runs an export once and writes what was asked for."""
    _parser().run(_run, arguments)


def _run(options: Namespace) -> None:
    if not options.image and not options.latents:
        raise DipgoError(
            "dipgo.run",
            found="neither --image nor --latents",
            expected="a file to write",
            remedy="add --image out.png or --latents out.npy",
        )
    if options.guidance_scale is not None:
        check_scale(options.guidance_scale)
    _check_files(options)
    from dipgo.run.pictures import to_images
    from dipgo.run.pipeline import Pipeline

    further = _read_inputs(options.inputs) if options.inputs else {}
    picture = read_picture_of("--from-image", options.from_image)
    mask = read_picture_of("--mask-image", options.mask_image)
    with stage("load the engines"):
        pipeline = Pipeline.from_export(options.out, **target_options(options))
    _check_can_hold(options.image, pipeline)
    steps = len(pipeline.runner.export.plan.steps)
    with progress_bar(f"run {steps} steps", steps) as advance_to:
        made = pipeline(
            options.prompt,
            negative_prompt=options.negative_prompt,
            guidance_scale=options.guidance_scale,
            seed=options.seed,
            image=picture,
            mask_image=mask,
            inputs=further,
            output_type="latent",
            on_step=lambda step: advance_to(step + 1),
        )
    latents = made.images
    times = pipeline.runner.times
    assert times is not None
    print(f"{times.total:.2f} s, of which {times.overhead:.2%} outside the engines")
    if options.seed is None:
        print(f"seed {made.seed}, which was drawn")
    if options.latents:
        with staged_file(options.latents) as path:
            np.save(path, latents)
    if options.image:
        first, *frames = to_images(pipeline.decode(latents)[0])
        save_options: dict[str, Any] = {}
        if frames:
            save_options = {"save_all": True, "append_images": frames, "duration": FRAME_MS}
        if options.image.suffix.lower() == ".png":
            save_options["pnginfo"] = _png_text({"seed": str(made.seed)})
        with staged_file(options.image) as path:
            first.save(path, **save_options)


def _parser() -> Parser:
    parser = Parser(
        "dipgo.run",
        description="Makes a picture with an export directory.",
        examples=(
            'python -m dipgo.run OUT --prompt "a red circle" --seed 0 --image out.png',
            'python -m dipgo.run OUT --prompt "a house" --inputs controlnet.npz --image out.png',
        ),
    )
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, help="export directory")
    add = parser.group("picture").add_argument
    add("--prompt", help="what the picture shows; a class's number or name for a DiT")
    add("--negative-prompt", help="what it should not show")
    add(
        "--seed",
        type=whole_number(0),
        help="of the initial noise, as with diffusers (drawn, and said)",
    )
    add(
        "--guidance-scale",
        type=float,
        metavar="SCALE",
        help="guidance scale (diffusers', or what the SubNet was fitted for)",
    )
    add("--inputs", type=Path, metavar="FILE", help="further inputs by name, .npz")
    add("--from-image", type=Path, metavar="FILE", help="picture to start from, if exported so")
    add(
        "--mask-image",
        type=Path,
        metavar="FILE",
        help="where to paint in it, white, if exported so",
    )
    add = parser.group("output").add_argument
    add("--image", type=Path, metavar="FILE", help="picture to write, .png")
    add("--latents", type=Path, metavar="FILE", help="latents to write, .npy")
    add_target_arguments(parser)
    parser.remedies |= remedies_by_flag()
    parser.rename("--guidance", "--guidance-scale")
    parser.rename("--mask", "--mask-image")
    return parser


def _check_can_hold(image: Path | None, pipeline: Any) -> None:
    from dipgo.run.decoder import VIDEO_AXES

    is_video = len(pipeline.runner.inputs["latents"].shape) == VIDEO_AXES
    if image and is_video and image.suffix.lower() not in ANIMATED:
        raise DipgoError(
            "--image",
            found=f"{image} for a video",
            expected=f"a file that ends in {' or '.join(ANIMATED)}, which can hold one",
            remedy="give the file such a name",
        )


def _png_text(texts: Mapping[str, str]) -> Any:
    """Returns texts by keyword as Pillow puts them into a PNG's file."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    return info


def _read_inputs(path: Path) -> dict[str, Any]:
    expected = "a .npz file of numbers, as numpy.savez(path, mask=…) writes it"
    with open_file(path, expected=expected, most=MOST_INPUTS, where="--inputs") as file:
        try:
            return dict(read_arrays(file, most=MOST_INPUTS))
        except Exception as error:  # of whatever class, by where numpy meets the damage
            raise DipgoError(
                "--inputs",
                found=f"{(str(error).splitlines() or [type(error).__name__])[0]:.200}",
                expected=expected,
                remedy="check the path",
            ) from error


def read_picture_of(option: str, path: Path | None) -> Any:
    """Returns the picture in a file the way up that it says, or None if no file is named."""
    if path is None:
        return None
    return read_picture(path, where=option, remedy="check the path", upright=True)


def _check_files(options: Namespace) -> None:
    """Checks the files to write before the work begins."""
    for name, endings in ENDINGS.items():
        path = getattr(options, name)
        if path is None:
            continue
        if path.suffix.lower() not in endings:
            raise DipgoError(
                f"--{name}",
                found=str(path),
                expected=f"a file that ends in {' or '.join(endings)}",
                remedy="give the file such a name",
            )
        check_file_destination(path)
        check_outside_exports(path)


if __name__ == "__main__":
    sys.exit(run_command(main))
