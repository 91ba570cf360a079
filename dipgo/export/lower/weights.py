"""Stores weights once, in a safetensors file that the ONNX graphs name as external data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from dipgo.common.tensor_file import read_header
from dipgo.compiler.trace.torch_private import storage_id
from dipgo.export.lower.hide_weights import TRANSPOSED
from dipgo.ir.manifest.records import REMEDY
from dipgo.models.finite_weights import check_no_nan

INLINE_NBYTES = 1024
"""Initializers made by the lowering itself, such as shapes, stay in the graph up to this size."""

MADE_BY_LOWERING = "/"
"""Occurs in the names of larger initializers made by the lowering, and in no weight's name."""


class WeightStore:
    """Collects the tensors of all graphs, writes them once, then points the graphs at the file."""

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._names: list[tuple[ir.Value, str]] = []

    @property
    def nbytes(self) -> int:
        """Returns the bytes of all tensors collected."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def collect(self, model: ir.Model, own: Mapping[str, torch.Tensor], prefix: str) -> None:
        """Takes the model's initializers; `own` maps names to the tensors that keep their name.

        Raises:
            DipgoError: A tensor holds NaN.
        """
        for value in model.graph.initializers.values():
            assert value.name is not None
            assert value.const_value is not None
            if value.name in own:
                name, tensor = f"{prefix}.{value.name}", own[value.name]
            elif value.name.removesuffix(TRANSPOSED) in own:
                name = f"{prefix}.{value.name}"
                tensor = own[value.name.removesuffix(TRANSPOSED)].T
            elif value.const_value.nbytes > INLINE_NBYTES:
                name = f"{model.graph.name}{MADE_BY_LOWERING}{value.name}"
                tensor = _as_torch(value.const_value.numpy().copy())
            else:
                continue
            self.add(name, tensor)
            self._names.append((value, name))

    def add(self, name: str, tensor: torch.Tensor) -> str:
        """Stores a tensor, also one that no graph has named; returns its name in the file.

        Raises:
            DipgoError: The tensor holds NaN: so would every picture.
        """
        if name not in self._tensors:
            check_no_nan(f"weight {name}", tensor)
            self._tensors[name] = tensor.detach().contiguous()
        return name

    def write(self, path: Path) -> None:
        """Writes the file and makes each collected initializer a reference into it."""
        save_tensors(self._tensors, path)
        offsets = tensor_offsets(path)
        for value, name in self._names:
            start, end = offsets[name]
            assert value.const_value is not None
            value.const_value = ir.ExternalTensor(
                location=path.name,
                offset=start,
                length=end - start,
                dtype=value.const_value.dtype,
                shape=ir.Shape(value.const_value.shape.numpy()),
                name=str(value.name),
                base_dir=str(path.parent),
            )


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes a safetensors file; tensors that overlap in memory are written once each.

    Weights may be views of one storage, which the library refuses.
    """
    reached: dict[int, int] = {}
    apart = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        storage, begin = storage_id(tensor), tensor.data_ptr()
        apart[name] = tensor.clone() if begin < reached.get(storage, 0) else tensor
        reached[storage] = max(reached.get(storage, 0), begin + tensor.nbytes)
    save_file({name: apart[name] for name in tensors}, path)


def _as_torch(array: NDArray[Any]) -> torch.Tensor:
    """Converts an array, also bf16 of the package ml_dtypes, which torch does not know."""
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)


def tensor_offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Returns start and end of every tensor, in bytes from the beginning of a safetensors file.

    Raises:
        DipgoError: The file is damaged.
    """
    return {name: entry.data_offsets for name, entry in read_header(path, remedy=REMEDY).items()}
