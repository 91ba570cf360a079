"""Implements `--target torch`: every segment as a program for PyTorch without weights.

Weights are inputs of the programs, by their names in the export's one weights file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import torch
from torch import nn
from torch.func import functional_call

from dipgo.common.hashes import sha256_of
from dipgo.common.version import __version__
from dipgo.engines.torch.program_file import Program
from dipgo.export.lower.callee import Lowering
from dipgo.export.lower.program_nodes import program_of
from dipgo.export.lower.weights import WeightStore
from dipgo.ir.manifest.engines import (
    ENGINES_FILE,
    ENGINES_FOLDER,
    ENGINES_FORMAT,
    ENGINES_VERSION,
    EngineManifest,
    EngineRecord,
    encode_engines,
)
from dipgo.ir.manifest.records import MANIFEST_FILE

Captured: TypeAlias = tuple[Program, list[str]]
"""A program, and the names of the weights that it takes."""


class TorchPrograms:
    """The programs of an export, by the names of segments and parts."""

    def __init__(self) -> None:
        self._programs: dict[str, Captured] = {}

    def add(self, name: str, lowering: Lowering, prefix: str, store: WeightStore) -> None:
        """Captures a program; adds to `store` its weights that no graph has named."""
        self._programs[name] = capture_program(lowering, prefix, store)

    def write(self, directory: Path) -> None:
        """Writes the folder `engines/torch`."""
        write_programs(self._programs, directory)


class _Functional(nn.Module):
    """The module as a function of its inputs and weights; it holds no weights itself."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._hidden, self._names = (module,), tuple(names)

    def forward(self, inputs: tuple[torch.Tensor, ...], weights: tuple[torch.Tensor, ...]) -> Any:
        return functional_call(
            self._hidden[0], dict(zip(self._names, weights, strict=True)), inputs
        )


@torch.no_grad()
def capture_program(lowering: Lowering, prefix: str, store: WeightStore) -> Captured:
    """Returns the program and the names of its weights; adds to `store` the unnamed ones.

    Raises:
        DipgoError: The module calls an operator that a program cannot.
    """
    state = dict(lowering.module.state_dict())
    shapes = lowering.dynamic_shapes
    dynamic: Any = None if shapes is None else (shapes[0], tuple({} for _ in state))
    captured = torch.export.export(
        _Functional(lowering.module, list(state)),
        (tuple(lowering.example), tuple(state.values())),
        dynamic_shapes=dynamic,
        strict=False,
    )
    program = program_of(captured, len(lowering.example))
    stored = [
        store.add(f"{prefix}.{weight}", tensor) for weight, tensor in lowering.weights.items()
    ]
    return program, stored


def write_programs(programs: Mapping[str, Captured], directory: Path) -> None:
    """Writes the folder `engines/torch` of an export whose manifest has been written."""
    folder = directory / ENGINES_FOLDER / "torch"
    folder.mkdir(parents=True)
    records: dict[str, EngineRecord] = {}
    for name, (program, weights) in programs.items():
        path = folder / f"{name}.json"
        content = msgspec.json.encode(program)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        records[name] = EngineRecord(path.name, len(content), digest, digest, {}, weights)
    manifest = EngineManifest(
        format=ENGINES_FORMAT,
        version=ENGINES_VERSION,
        dipgo=__version__,
        target="torch",
        library_version=str(torch.__version__),
        compute_capabilities=[],
        gpu=None,
        plan_sha256=sha256_of(directory / MANIFEST_FILE),
        engines=records,
    )
    (folder / ENGINES_FILE).write_bytes(encode_engines(manifest))
