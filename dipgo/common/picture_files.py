"""Reads files of pictures, of formats that need no other program and of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dipgo.common.errors import DipgoError
from dipgo.common.quiet import without_warnings
from dipgo.common.regular_files import MIB, open_file

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that Pillow itself decodes; others are handed to programs, or have no one picture."""

MOST_BYTES = 256 * MIB

MOST_PIXELS = 8192 * 8192
"""Four times what any model draws; Pillow takes three times four bytes for each."""

EXPECTED = f"a file that holds a picture ({', '.join(FORMATS)})"


def read_picture(path: Path, *, where: str, remedy: str, upright: bool = False) -> Image:
    """Returns the picture in a file, the first one if there are several, as RGB.

    Args:
        path: The file.
        where: The place that errors name.
        remedy: What the user can do about a file that is no picture.
        upright: Whether to turn it the way up that a photo's EXIF says.

    Raises:
        DipgoError: The file cannot be read, is of no such format, damaged, or has too many pixels.
    """
    from PIL import ImageOps

    with open_picture(path, where=where, remedy=remedy) as image:
        try:
            return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
        except Exception as error:  # of whatever class, by where Pillow meets the damage
            raise _no_picture(where, error, remedy) from None


@contextmanager
def open_picture(path: Path, *, where: str, remedy: str) -> Iterator[Image]:
    """Yields the picture in a file with its size; its pixels are not read yet.

    Raises:
        DipgoError: As of `read_picture`.
    """
    from PIL import Image

    with open_file(path, expected=EXPECTED, most=MOST_BYTES, where=where) as file:
        try:
            with without_warnings():
                image = Image.open(file, formats=FORMATS)
        except Exception as error:  # as above
            raise _no_picture(where, error, remedy) from None
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise DipgoError(
                where,
                found=f"a picture of {width} x {height} pixels",
                expected=f"at most {MOST_PIXELS:,} pixels",
                remedy="scale it to the size that the export makes",
            )
        yield image


def _no_picture(where: str, error: Exception, remedy: str) -> DipgoError:
    lines = str(error).splitlines() or [type(error).__name__]
    return DipgoError(where, found=f"{lines[0]:.200}", expected=EXPECTED, remedy=remedy)
