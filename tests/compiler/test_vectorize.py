"""Operators over lanes: as if each lane were run by itself, whichever inputs the lanes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.dtypes import tensor_type
from dipgo.compiler.trace.lane_rules import RULES
from dipgo.compiler.trace.vectorize import LanedModule, can_have_lanes
from dipgo.export.lower.callee import lower_as_onnx, lowering_of
from dipgo.ir.plan.nodes import Callee
from dipgo.ir.types import Value
from tests.support.lane_cases import CASES as FIRST_CASES
from tests.support.lane_cases import LaneCase
from tests.support.lane_cases_of_masks import MORE_CASES
from tests.support.random_graphs import random_graph

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
"""Absolute and relative: sums may be added up in another order."""

LANES = (1, 2, 5)

CASES = [*FIRST_CASES, *MORE_CASES]


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def as_graph(function: Callable[..., Any], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The function as a graph of operators in which constants are attributes."""
    program = torch.export.export(_Function(function), tuple(inputs), strict=False)
    constants = {
        **program.graph_signature.inputs_to_lifted_tensor_constants,
        **program.graph_signature.inputs_to_buffers,
    }
    graph, copies = fx.Graph(), {}
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            continue  # as `trace` does
        if node.name in constants:
            copies[node] = graph.get_attr(constants[node.name])
        else:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    return fx.GraphModule({name: program.constants[name] for name in constants.values()}, graph)


def patterns(stackable: int, inputs: int) -> Iterator[tuple[bool, ...]]:
    """Every choice of inputs that differ between lanes: at least one of the first."""
    for flags in product((True, False), repeat=stackable):
        if any(flags):
            yield (*flags, *[False] * (inputs - stackable))


def each_lane(module: fx.GraphModule, stacked: Sequence[bool], inputs: Sequence[Tensor]) -> Any:
    """Runs the module once a lane, and stacks what it yields."""
    lanes = len(inputs[list(stacked).index(True)])
    results = [
        tree_leaves(
            module(*(x[lane] if flag else x for x, flag in zip(inputs, stacked, strict=True)))
        )
        for lane in range(lanes)
    ]
    return tuple(torch.stack(one) for one in zip(*results, strict=True))


def check(module: fx.GraphModule, stacked: Sequence[bool], inputs: Sequence[Tensor]) -> None:
    """Lanes at once against lanes one by one; also the element types."""
    found = LanedModule(module, stacked)(*inputs)
    expected = each_lane(module, stacked, inputs)
    tolerance = TOLERANCE.get(inputs[0].dtype, 0.0)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def draw(case: LaneCase, shape: tuple[int, ...]) -> Tensor:
    """Random numbers of the kind that the case is for."""
    if case.high is not None:
        return torch.randint(case.high, shape)
    return torch.randn(shape, dtype=torch.float64)


def test_every_rule_has_a_case() -> None:
    covered = {f"aten.{case.operator}" for case in CASES}
    assert covered == {str(operator).removesuffix(".default") for operator in RULES}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lanes_at_once_equal_lanes_one_by_one(case: LaneCase) -> None:
    torch.manual_seed(0)
    shapes = (*case.shapes, *case.shared)
    module = as_graph(case.function, [draw(case, shape) for shape in shapes])
    called = {str(node.target).removesuffix(".default") for node in module.graph.nodes}
    assert f"aten.{case.operator}" in called
    for lanes, stacked in product(LANES, patterns(len(case.shapes), len(shapes))):
        inputs = [
            draw(case, (lanes, *shape) if flag else shape)
            for shape, flag in zip(shapes, stacked, strict=True)
        ]
        check(module, stacked, inputs)


def test_blocks_of_random_denoisers() -> None:
    """Everything that a plan may batch, with inputs of which some are shared."""
    checked = 0
    for seed in range(6):
        traced = random_graph(seed).traced
        generator = np.random.default_rng(seed)
        torch.manual_seed(seed)
        for node in traced.graph.nodes:
            values = [traced.graph.value(name) for name in node.inputs]
            module = traced.module(
                (node.name,), node.inputs, [value.name for value in node.outputs]
            )
            stacked = generator.random(len(values)) < 0.5
            stacked[generator.integers(len(values))] = True
            shapes = [
                ((3, *value.type.shape) if flag else value.type.shape)
                for value, flag in zip(values, stacked, strict=True)
            ]
            check(module, [bool(flag) for flag in stacked], [torch.randn(one) for one in shapes])
            checked += 1
    assert checked >= 50


def test_what_no_lane_changes_is_repeated_for_every_lane() -> None:
    """Of the outputs one depends on what lanes share alone, and one is an input as it came."""
    inputs = [torch.randn(4, 2, 3), torch.randn(5)]
    module = as_graph(lambda x, y: (x + 1, torch.exp(y), y), [inputs[0][0], inputs[1]])
    check(module, [True, False], inputs)
    _, repeated, given = LanedModule(module, [True, False])(*inputs)
    assert repeated.shape == given.shape == (4, 5)


def test_an_operator_without_a_rule_is_named_in_one_line() -> None:
    x = torch.randn(2, 3)
    module = as_graph(lambda x: (torch.special.erfcx(x),), [x[0]])
    assert not can_have_lanes(module, [True])
    with pytest.raises(DipgoError, match=r"erfcx\.default, which has no rule for lanes") as caught:
        LanedModule(module, [True])
    assert "\n" not in str(caught.value)
    callee = _callee(module, [x[0]], [True])
    with pytest.raises(DipgoError) as caught:
        lower_as_onnx(lowering_of(module, callee, {1, 2}), "seg", callee.inputs, callee.outputs)
    assert "\n" not in str(caught.value)


def test_other_filters_in_each_lane_are_for_plain_convolutions() -> None:
    shapes = [(1, 2, 6, 6), (2, 2, 3, 3)]
    strided = as_graph(
        lambda x, w: torch.nn.functional.conv2d(x, w, stride=2), [torch.ones(one) for one in shapes]
    )
    assert can_have_lanes(strided, [True, False])
    assert not can_have_lanes(strided, [False, True])
    with pytest.raises(DipgoError, match=r"found the operator aten\.conv2d\.default, which has no"):
        LanedModule(strided, [False, True])


def test_without_a_rule_what_all_lanes_share_is_computed_all_the_same() -> None:
    inputs = [torch.randn(2, 3), torch.randn(3)]
    module = as_graph(lambda x, y: x + torch.special.erfcx(y), [inputs[0][0], inputs[1]])
    check(module, [True, False], inputs)


GENERATOR = torch.Generator().manual_seed(0)
MODULATE, PROJECT, CONVOLVE, SCALE = (
    torch.randn(shape, generator=GENERATOR) / 4 for shape in ((16, 8), (3, 8), (4, 6, 3, 3), (4,))
)
"""Weights, which all lanes share."""


def _transformer(hidden: Tensor, embedding: Tensor, prompt: Tensor, mask: Tensor) -> Any:
    """adaLN, then attention to the prompt; the projection of the prompt is an output too."""
    modulation = functional.linear(functional.silu(embedding), MODULATE)
    scale, shift = modulation.unsqueeze(1).chunk(2, dim=-1)
    hidden = functional.layer_norm(hidden, (8,)) * (1 + scale) + shift
    query, key = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in (hidden, prompt))
    attended = functional.scaled_dot_product_attention(query, key, key, mask)
    return attended.transpose(1, 2).flatten(2), functional.linear(prompt, PROJECT)


def _convolution(picture: Tensor, skip: Tensor, embedding: Tensor) -> Any:
    """A residual block with a skip connection, upsampling, and patches put back in their place."""
    joined = torch.cat([picture, skip], dim=1)
    hidden = functional.conv2d(joined, CONVOLVE, SCALE, padding=1)
    hidden = functional.group_norm(hidden + embedding[:, :, None, None], 2, SCALE, SCALE)
    larger = functional.interpolate(hidden, scale_factor=2.0)
    patches = larger.reshape(2, 16, 8, 2, 2, 2)
    return larger, torch.einsum("nhwpqc->nchpwq", patches).reshape(2, 2, 32, 16)


def _vectors(left: Tensor, right: Tensor, matrix: Tensor) -> Any:
    """What has no batch within a lane."""
    product = torch.matmul(torch.matmul(left, matrix), right)
    return (
        product,
        (matrix * left).amax(),
        torch.where(left >= 0, right, matrix).mean(0, keepdim=True),
    )


LOWERED: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], str]] = {
    "transformer": (_transformer, ((2, 6, 8), (2, 8), (2, 3, 8), (6, 3)), "1100"),
    "transformer_mask": (_transformer, ((2, 6, 8), (2, 8), (2, 3, 8), (2, 1, 6, 3)), "0101"),
    "convolution": (_convolution, ((2, 3, 8, 8), (2, 3, 8, 8), (2, 4)), "101"),
    "convolution_shared": (_convolution, ((2, 3, 8, 8), (2, 3, 8, 8), (2, 4)), "001"),
    "vectors": (_vectors, ((4,), (4,), (4, 4)), "110"),
}


def _callee(module: fx.GraphModule, inputs: Sequence[Tensor], stacked: Sequence[bool]) -> Callee:
    """As a plan declares it: names, and the types of one lane."""
    values = tuple(Value(f"x{index}", tensor_type(one)) for index, one in enumerate(inputs))
    results = tuple(
        Value(f"y{index}", tensor_type(one)) for index, one in enumerate(module(*inputs))
    )
    names = tuple(one.name for one, flag in zip(values, stacked, strict=True) if flag)
    return Callee("callee", (), values, results, 0, 0, 0, names)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [{1, 2, 7}, {2}], ids=["any", "static"])
@pytest.mark.parametrize("name", LOWERED)
def test_lanes_in_onnx_runtime(name: str, widths: set[int]) -> None:
    """One graph for every number of lanes, or for the only one."""
    function, shapes, flags = LOWERED[name]
    stacked = [flag == "1" for flag in flags]
    torch.manual_seed(0)
    one_lane = [torch.randn(shape) for shape in shapes]
    module = as_graph(function, one_lane)
    callee = _callee(module, one_lane, stacked)
    lowering = lowering_of(module, callee, widths)
    model = lower_as_onnx(lowering, callee.name, callee.inputs, callee.outputs)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for width in widths:
        inputs = [
            torch.randn(width, *shape) if flag else torch.randn(shape)
            for shape, flag in zip(shapes, stacked, strict=True)
        ]
        found = session.run(None, {f"x{index}": x.numpy() for index, x in enumerate(inputs)})
        expected = each_lane(module, stacked, inputs)
        for one, other in zip(found, expected, strict=True):
            tolerance = TOLERANCE[other.dtype]
            np.testing.assert_allclose(one, other.numpy(), rtol=tolerance, atol=tolerance)
