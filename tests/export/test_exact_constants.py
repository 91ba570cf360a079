"""Constants near 0, 1 and the like: the exported graph computes with them, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dipgo.export.lower.exact_constants import TAKEN_FOR
from dipgo.export.lower.onnx import lower

OPERATORS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "add": lambda x, number: x + number,
    "subtract": lambda x, number: x - number,
    "multiply": lambda x, number: x * number,
    "divide": lambda x, number: x / number,
    "keep from 0": lambda x, number: x / torch.sqrt(x * x * 0 + abs(number)),
    "clamp": lambda x, number: x.clamp(min=number),
}

DISTANCES = (1e-12, 1e-10, 1e-8, -1e-9, 3e-7, 4e-6, -9e-5)


class Computes(nn.Module):
    """Applies an operator with several numbers."""

    def __init__(self, operator: Callable[[Tensor, float], Tensor], numbers: list[float]) -> None:
        super().__init__()
        self.operator, self.numbers = operator, numbers

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.operator(x, number) for number in self.numbers)


@pytest.mark.parametrize("name", OPERATORS)
def test_numbers_near_those_of_rules(name: str) -> None:
    """Failed at 4482adb for every operator but clamp: x + 1e-9 was x, and 0 / (0 + 1e-9) NaN."""
    pairs = itertools.product(TAKEN_FOR, DISTANCES)
    numbers = [number + distance for number, distance in pairs if number + distance]
    module = Computes(OPERATORS[name], numbers)
    x = torch.tensor([0.0, 1e-9, -3e-8, 0.25, -1.0, 7.0])
    outputs = [f"y{index}" for index in range(len(numbers))]
    model = lower(module, (x,), name="numbers", inputs=["x"], outputs=outputs)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), _as_it_is())
    found = session.run(outputs, {"x": x.numpy()})
    expected = [result.numpy() for result in module(x)]
    for number, result, wanted in zip(numbers, found, expected, strict=True):
        assert np.isfinite(wanted).all() == np.isfinite(result).all(), number
        np.testing.assert_allclose(result, wanted, rtol=2e-7, atol=1e-14, err_msg=str(number))


def _as_it_is() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def test_exact_numbers_are_still_left_out() -> None:
    module = Computes(OPERATORS["multiply"], [1.0])
    model = lower(module, (torch.ones(3),), name="one", inputs=["x"], outputs=["y"])
    assert [node.op_type for node in model.graph] == ["Identity"]
