"""Headers of safetensors files: what they say is checked against the file.

Failed at 3bfeb0e: a length of 2**60 ended in a MemoryError.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dipgo.common.errors import DipgoError
from dipgo.common.tensor_file import read_header
from scripts.fuzz.mutants import damage_bytes, damage_json


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(3, np.int64),
        "scalar": np.zeros((), np.float16),
        "none": np.zeros((0, 4), np.uint8),
    }
    save_file(tensors, tmp_path / "file.safetensors", metadata={"key": "value"})
    return tmp_path / "file.safetensors"


def test_equals_the_library(path: Path) -> None:
    content = path.read_bytes()
    entries = read_header(path, remedy="")
    for name, tensor in load_file(path).items():
        start, end = entries[name].data_offsets
        assert content[start:end] == tensor.tobytes()
        assert entries[name].shape == list(tensor.shape)
    assert len(entries) == 4


def written(path: Path, header: bytes, length: int | None = None) -> Path:
    content = path.read_bytes()
    (old,) = struct.unpack("<Q", content[:8])
    size = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + header + content[8 + old :])
    return path


def header_of(path: Path) -> Any:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 4]},
        {"shape": [2**62, 2**62]},
        {"shape": [-2, -3]},
        {"dtype": "F64"},
        {"data_offsets": [0, 2**40]},
        {"data_offsets": [24, 0]},
        {"data_offsets": [-24, 0]},
        {"data_offsets": [0]},
        {"data_offsets": "0"},
    ],
)
def test_a_tensor_is_within_the_file(path: Path, change: dict[str, Any]) -> None:
    header = header_of(path)
    header["a"].update(change)
    with pytest.raises(DipgoError, match="expected a whole safetensors file"):
        read_header(written(path, json.dumps(header).encode()), remedy="")


@pytest.mark.parametrize("length", [0, 1, 100_000_001, 2**40, 2**63, 2**64 - 1])
def test_the_length_of_a_header_is_bounded(path: Path, length: int) -> None:
    with pytest.raises(DipgoError):
        read_header(written(path, b"{}", length), remedy="")


def test_damaged_files_are_refused_or_read(path: Path) -> None:
    content, refused = path.read_bytes(), 0
    mutants = [*damage_bytes(content, 200), *damage_json(header_of(path), 200)]
    for index, mutant in enumerate(mutants):
        path.write_bytes(content)
        if index < 200:
            path.write_bytes(mutant.data)
        else:
            written(path, mutant.data)
        refused += bool(_refusal(path))
    assert refused > 100


def _refusal(path: Path) -> str:
    try:
        read_header(path, remedy="")
    except DipgoError as error:
        return str(error)
    return ""
