"""Writes docs/images/demo.png: the demo's pictures, those of dense left of the SubNet's.

Takes what `make demo` drew, out/demo/sheet.png: dense in the upper row, the SubNet in the lower.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
SHEET = ROOT / "out" / "demo" / "sheet.png"
PICTURE = ROOT / "docs" / "images" / "demo.png"
SIDE = 128
"""Pixels of a picture on the sheet."""
COLUMNS = 4
GAP = 24


def main() -> None:
    """Lays the two rows side by side, each in rows of `COLUMNS` pictures."""
    sheet = np.asarray(Image.open(SHEET).convert("RGB"))
    dense, subnet = (_block(row) for row in np.split(sheet, 2))
    gap = np.full((len(dense), GAP, 3), 255, np.uint8)
    PICTURE.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate([dense, gap, subnet], axis=1)).save(PICTURE, optimize=True)


def _block(row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a row of pictures u8[SIDE, N * SIDE, 3] broken into rows of `COLUMNS`."""
    width = COLUMNS * SIDE
    return np.concatenate([row[:, x : x + width] for x in range(0, row.shape[1], width)])


if __name__ == "__main__":
    main()
