"""The pictures that `run` reads: as diffusers loads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers.utils import load_image
from PIL import Image

from dipgo.run.__main__ import read_picture_of

ORIENTATION = 0x0112
"""The tag of EXIF that says which way up a photo is."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "ending"), [("RGB", "jpg"), ("L", "png"), ("RGBA", "webp")])
def test_photos_are_the_way_up_that_they_say(
    orientation: int, mode: str, ending: str, tmp_path: Path
) -> None:
    """Failed at 21ce821 for 21 of 24: they were read as the camera was held."""
    pixels = np.random.default_rng(orientation).integers(0, 256, (6, 10, len(mode)), np.uint8)
    picture = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"photo.{ending}"
    picture.save(path, exif=exif)
    found, expected = read_picture_of("--from-image", path), load_image(str(path))
    assert (found.mode, found.size) == (expected.mode, expected.size)
    assert np.array_equal(np.asarray(found), np.asarray(expected))
