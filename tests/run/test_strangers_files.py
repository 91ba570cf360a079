"""Pictures and arrays of strangers: read as they stand, or refused in one line, within 2 GiB.

Failed at 3bfeb0e: of the archives two ended in tracebacks, and five were read that hold no numbers
or inflate; of the pictures two ended in tracebacks, an EPS was handed to Ghostscript, and files of
icons were read.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dipgo.run.__main__ import _read_inputs, read_picture_of
from scripts.fuzz.mutants import damage_bytes, every_cut
from tests.support.limits import outcomes, saved


def _npy(array: Any, shape: str = "") -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    data = file.getvalue()
    if not shape:
        return data
    header = data[: data.index(b"\n") + 1]
    text = header[10:].decode()
    start, end = text.index("(", text.index("shape")), text.index(")", text.index("shape"))
    changed = (text[:start] + shape + text[end + 1 :]).rstrip()
    return (
        header[:10]
        + changed.ljust(len(text) - 1)[: len(text) - 1].encode()
        + b"\n"
        + data[len(header) :]
    )


def _npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


ROW = _npy(np.ones(4, np.float32))

ARCHIVES = {
    "an array": ROW,
    "objects": _npz({"a.npy": _npy(np.array([{}, None], object))}),
    "texts": _npz({"a.npy": _npy(np.array(["a"]))}),
    "a huge shape": _npz({"a.npy": _npy(np.ones(4, np.float32), "(1099511627776,)")}),
    "a negative shape": _npz({"a.npy": _npy(np.ones(4, np.float32), "(-4,)")}),
    "a shape of more": _npz({"a.npy": _npy(np.ones(4, np.float32), "(5,)")}),
    "a member that inflates": _npz({"a.npy": bytes(1 << 27)}),
    "no array": _npz({"a.npy": b"hello"}),
    "a text file": _npz({"a.txt": b"hello"}),
    "another method": _npz({"a.npy": ROW}, zipfile.ZIP_BZIP2),
    "a cut archive": _npz({"a.npy": ROW})[:-30],
}


def test_arrays(tmp_path: Path) -> None:
    results = outcomes("tests.support.readers:read_inputs", saved(ARCHIVES, tmp_path, ".npz"))
    assert not {k: v for k, v in results.items() if not v.startswith("refused: --inputs: found ")}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_as_numpy_writes_them(save: Any, order: Any, tmp_path: Path) -> None:
    given = {
        "mask": np.arange(24, dtype=np.float16).reshape(2, 3, 4, order=order),
        "scale": np.float32(1.5),
        "none": np.zeros((0, 3)),
        "big": np.arange(3, dtype=">i4"),
        "truth": np.array([True, False]),
        "large": np.random.default_rng(0).random((300, 1000)),
    }
    save(tmp_path / "in.npz", **given)
    read = _read_inputs(tmp_path / "in.npz")
    assert read.keys() == given.keys()
    for name, array in given.items():
        assert read[name].dtype == array.dtype
        assert np.array_equal(read[name], array)


@pytest.mark.slow
def test_any_damage_to_arrays(tmp_path: Path) -> None:
    """A bit of a number that flips is found by the archive's own sums."""
    data = _npz({"a.npy": ROW, "b.npy": _npy(np.arange(100.0))})
    mutants = [*damage_bytes(data, 400), *every_cut(data, 100)]
    results = outcomes("tests.support.readers:read_inputs", saved(mutants, tmp_path, ".npz"))
    assert not {k: v for k, v in results.items() if not v.startswith(("read", "refused: "))}


def _picture(size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, **options)
    return file.getvalue()


def _png_of(width: int, height: int) -> bytes:
    """A PNG that says so, of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99)))


PNG = _picture(format="PNG")

PICTURES = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "PDF": b"%PDF-1.4\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
    "PPM": b"P6 2 2 255\n" + bytes(12),
    "a picture of icons": _picture((16, 16), format="ICO"),
    "a cut PNG": PNG[: len(PNG) // 2],
    "a cut JPEG": _picture(format="JPEG")[:200],
    "a PNG of 10^9 pixels": _png_of(32_000, 32_000),
    "a PNG of 10^8 pixels": _png_of(10_000, 10_000),
    "a PNG of no pixels": _png_of(0, 10),
    "a PNG of a line": _png_of(2**31 - 1, 1),
    "text": b"hello",
    "nothing": b"",
}


def test_pictures(tmp_path: Path) -> None:
    results = outcomes("tests.support.readers:read_picture", saved(PICTURES, tmp_path, ".png"))
    assert not {
        k: v for k, v in results.items() if not v.startswith("refused: --from-image: found")
    }


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_pictures_of_each_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(_picture(format=name))
    read = read_picture_of("--from-image", path)
    assert (read.size, read.mode) == ((40, 30), "RGB")
    assert np.array_equal(np.asarray(read), np.asarray(Image.open(path).convert("RGB")))


def test_the_first_of_many(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 250, 10)]
    for ending in ("gif", "png", "webp", "tiff"):
        path = tmp_path / f"in.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert np.asarray(read_picture_of("--from-image", path)).max() < 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_any_damage_to_pictures(name: str, tmp_path: Path) -> None:
    data = _picture(format=name)
    mutants = [*damage_bytes(data, 150), *every_cut(data, 40)]
    results = outcomes("tests.support.readers:read_picture", saved(mutants, tmp_path, ".png"))
    assert not {k: v for k, v in results.items() if not v.startswith(("read", "refused: "))}
