"""Runs a repository's model as Triton's Python backend does: `serve.py MODEL ARGS IN OUT`.

MODEL is the model's folder, ARGS a JSON file of what `initialize` is given. IN and OUT are npz
files of arrays named `<request>/<tensor>`; errors are printed as JSON. Without torch.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

ABSENT = ("torch", "diffusers", "transformers", "onnx")


def main(model: str, args: str, given: str, answered: str) -> None:
    """All requests in one call of `execute`."""
    sys.modules.update(dict.fromkeys(ABSENT))  # importing any of them fails
    # The backend appends these, and imports `<version>.model`.
    sys.path += [str(Path(model, "1")), model]
    instance = importlib.import_module("1.model").TritonPythonModel()
    instance.initialize(json.loads(Path(args).read_text()))
    requests = _requests(Path(given))
    responses = instance.execute(requests)
    instance.finalize()
    assert len(responses) == len(requests)
    outputs = {
        f"{index}/{tensor.name()}": tensor.as_numpy()
        for index, response in enumerate(responses)
        for tensor in response.output_tensors
    }
    np.savez(answered, **outputs)
    errors = [response.error and vars(response.error) for response in responses]
    print(json.dumps(errors))


def _requests(path: Path) -> list[Any]:
    tensors: dict[int, list[Any]] = {}
    for key, array in np.load(path).items():
        index, _, name = key.partition("/")
        array = array.astype(object) if array.dtype.kind == "S" else array
        tensors.setdefault(int(index), []).append(pb_utils.Tensor(name, array))
    return [pb_utils.InferenceRequest(tensors[index]) for index in sorted(tensors)]


if __name__ == "__main__":
    main(*sys.argv[1:])
