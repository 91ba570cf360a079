"""The graphs around the plan: text encoder and VAE decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.launches import offsets_of_part
from dipgo.engines.runner import Runner
from dipgo.graph import TensorType
from dipgo.numpy_types import numpy_dtype


class Part:
    """One of the manifest's parts, on the backend of a runner. `inputs` and `outputs` are types."""

    def __init__(self, runner: Runner, name: str) -> None:
        record = runner.export.manifest.parts[name]
        self.inputs = {one.name: TensorType.parse(one.type) for one in record.inputs}
        self.outputs = {one.name: TensorType.parse(one.type) for one in record.outputs}
        self._offsets = offsets_of_part(record)
        self._executor = runner.backend.part(name)

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The part's outputs by name, for arrays of the types of `inputs`."""
        held, _ = self._executor.run(arrays, lambda step: None)
        return {
            name: _view(held[offset:], kind)
            for (name, kind), offset in zip(self.outputs.items(), self._offsets, strict=False)
        }


def _view(held: NDArray[np.uint8], kind: TensorType) -> NDArray[Any]:
    return held[: kind.nbytes].view(numpy_dtype(kind.dtype)).reshape(kind.shape)
