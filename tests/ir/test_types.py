"""The table of element types: each row against numpy, torch and ONNX, and everything read off it.

A new element type is one more row: these tests, and the modules that they name, walk the table.
"""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from dipgo.compiler.trace.dtypes import TORCH_DTYPES, tensor_type
from dipgo.compiler.trace.precision import Precision
from dipgo.engines.torch.executor import combine
from dipgo.export.lower.combine import combine_model
from dipgo.ir.types import (
    COMBINE_FILES,
    ELEMENT_TYPES,
    PRECISIONS,
    ElementType,
    PrecisionName,
    TensorType,
    numpy_dtype,
)

each = pytest.mark.parametrize("name", ELEMENT_TYPES)


@each
def test_row_agrees_with_numpy_torch_and_onnx(name: str) -> None:
    element, torch_dtype = ELEMENT_TYPES[name], TORCH_DTYPES[name]
    assert torch_dtype.itemsize == element.nbytes == TensorType.parse(f"{name}[]").nbytes
    numbers = onnx_ir.DataType(element.onnx)
    assert numbers.itemsize == element.nbytes
    assert element.onnx in onnx.TensorProto.DataType.values()
    ones = torch.ones(2, dtype=torch_dtype)
    assert str(tensor_type(ones)) == f"{name}[2]"
    if element.numpy is None:
        with pytest.raises(TypeError):
            ones.numpy()
        with pytest.raises(KeyError):
            numpy_dtype(name)
    else:
        assert ones.numpy().dtype == numpy_dtype(name) == numbers.numpy()
        assert np.dtype(element.numpy).itemsize == element.nbytes


@pytest.mark.parametrize(
    "field", [field.name for field in fields(ElementType) if field.name != "nbytes"]
)
def test_names_are_unique(field: str) -> None:
    names = [getattr(element, field) for element in ELEMENT_TYPES.values()]
    names = [name for name in names if name is not None]
    assert len(set(names)) == len(names)


def test_precisions_can_be_chosen_and_combined() -> None:
    assert tuple(PRECISIONS) == get_args(PrecisionName)
    for name, element in ELEMENT_TYPES.items():
        assert (element.precision is None) == (element.combine_file is None)
        if element.precision:
            assert Precision(element.precision).dtype == TORCH_DTYPES[name]


@pytest.mark.parametrize("name", COMBINE_FILES)
def test_combinations_have_the_type_of_their_terms(name: str) -> None:
    graph = combine_model(name).graph
    x, x_coefficient, *_ = graph.inputs
    (total,) = graph.outputs
    assert x.dtype == total.dtype == onnx_ir.DataType(ELEMENT_TYPES[name].onnx)
    assert x_coefficient.dtype == onnx_ir.DataType.FLOAT
    ones = torch.ones(2, dtype=TORCH_DTYPES[name])
    (added,) = combine(ones, torch.tensor(0.5), ones, torch.tensor(0.25))
    assert added.dtype == ones.dtype
    assert added.tolist() == [0.75, 0.75]
