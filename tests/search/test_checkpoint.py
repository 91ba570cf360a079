"""Checkpoints of searches: whatever happens to a file, it is refused or the state as it was.

By the code of 3bfeb0e: a bit that had flipped in a tensor was taken, and damaged headers ended in
tracebacks.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.search.checkpoint import (
    FORMAT,
    SHA256,
    VERSION,
    _digest,
    load_checkpoint,
    restore,
    save_checkpoint,
    training_state,
)
from scripts.fuzz.mutants import damage_bytes, every_cut, every_flip, every_zeroed_page

IDENTITY = {"model": "a" * 64, "steps": 50, "blocks": ["down_blocks.0", "mid_block"]}


def trained(module: nn.Linear) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return optimizer


def state() -> dict[str, Tensor]:
    module = nn.Linear(4, 8)
    return training_state(module, trained(module))


@pytest.mark.slow
def test_any_damage(tmp_path: Path) -> None:
    path, whole = tmp_path / "gates.safetensors", state()
    save_checkpoint(path, 7, IDENTITY, whole)
    data, wrong = path.read_bytes(), []
    for mutant in chain(
        every_cut(data, 200),
        every_flip(data, len(data)),
        every_zeroed_page(data, 100, page=16),
        damage_bytes(data, 300),
    ):
        path.write_bytes(mutant.data)
        try:
            read = load_checkpoint(path, IDENTITY)
        except DipgoError:
            continue
        assert read is not None
        same = read.iteration == 7 and read.tensors.keys() == whole.keys()
        if not same or not all(torch.equal(read.tensors[name], whole[name]) for name in whole):
            wrong.append(mutant.name)
    assert not wrong


def _written(path: Path, tensors: dict[str, Tensor], **header: str) -> None:
    """Writes a checkpoint of another's making, with the right hash."""
    facts = {"format": FORMAT, "version": VERSION, "iteration": "1", "identity": "{}", **header}
    save_file(tensors, path, metadata={**facts, SHA256: _digest(facts, tensors)})


HEADERS = {
    "a version of before": ({"version": "2"}, "version: found 2; expected 3"),
    "another format": ({"format": "pt"}, "another safetensors file"),
    "an iteration that is none": ({"iteration": "-1"}, "without an identity or an iteration"),
    "an iteration of any size": ({"iteration": "9" * 5000}, "without an identity or an iteration"),
    "an identity that is none": ({"identity": "[1]"}, "without an identity or an iteration"),
    "an identity that is no JSON": ({"identity": "{"}, "without an identity"),
    "a deep identity": ({"identity": "[" * 100_000}, "without an identity"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_anothers_making(name: str, tmp_path: Path) -> None:
    header, message = HEADERS[name]
    _written(tmp_path / "a.safetensors", {"gates": torch.ones(2)}, **header)
    with pytest.raises(DipgoError, match=message):
        load_checkpoint(tmp_path / "a.safetensors", {})


def _without(name: str) -> Any:
    return lambda tensors: tensors.pop(name)


CHANGES: dict[str, Any] = {
    "no weight": _without("parameter.weight"),
    "another shape": lambda tensors: tensors.update({"parameter.weight": torch.ones(3, 3)}),
    "another type": lambda tensors: tensors.update({"parameter.bias": torch.ones(8).half()}),
    "a moment of another shape": lambda tensors: tensors.update(
        {"optimizer.0.exp_avg": torch.ones(1)}
    ),
    "a moment of no parameter": lambda tensors: tensors.update({"optimizer.9.step": torch.ones(1)}),
    "a moment without a number": lambda tensors: tensors.update({"optimizer.x": torch.ones(1)}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tensors_of_anothers_making(name: str, tmp_path: Path) -> None:
    tensors = state()
    CHANGES[name](tensors)
    _written(tmp_path / "a.safetensors", tensors)
    read = load_checkpoint(tmp_path / "a.safetensors", {})
    module = nn.Linear(4, 8)
    assert read is not None
    with pytest.raises(DipgoError, match=r"a\.safetensors: found no checkpoint of a search \(with"):
        restore(read, module, trained(module))


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float64, torch.uint8])
def test_tensors_of_any_type_and_shape(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"none": torch.zeros(0, 3), "one": torch.tensor(2), "many": torch.ones(3, 2)}
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_checkpoint(tmp_path / "a.safetensors", 0, {}, {**tensors, "t": torch.ones(2, 3).t()})
    read = load_checkpoint(tmp_path / "a.safetensors", {})
    assert read is not None
    assert all(torch.equal(read.tensors[name], tensors[name]) for name in tensors)
    assert np.array_equal(read.tensors["t"], np.ones((3, 2)))
