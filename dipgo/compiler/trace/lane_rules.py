"""Rules that compute operators over lanes, and where each of them holds.

An operator without a rule, or with lanes in an argument for which its rule does not hold, keeps its
calls from being batched (`vectorize.can_have_lanes`): it never stops an export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from dipgo.compiler.trace.lane_operators import (
    AXES,
    added_product,
    arguments_of,
    aten,
    attention,
    axes,
    convolved,
    einsum,
    elementwise,
    folded,
    joined,
    leading,
    matmul,
    permuted,
    rank_of,
    reduced,
    shaped_as,
    sized,
    typed_as,
)
from dipgo.compiler.trace.torch_private import conversion, tree_leaves

Compute: TypeAlias = Callable[[int, Any, Any, dict[str, Any]], Any]
"""Computes all lanes, of: the number of lanes, the operator, its arguments, those by keyword."""

Holds: TypeAlias = Callable[[Mapping[str, Any], Set[str]], bool]
"""Returns whether a rule holds, of: all arguments by name, and the names of those with lanes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator is computed over lanes, and for which arguments that holds."""

    compute: Compute
    holds: Holds


def find_rule(target: Any, args: Any, kwargs: Any, has_lanes: Callable[[Any], bool]) -> Rule | None:
    """Returns the operator's rule, None where it has none or its rule does not hold.

    Args:
        target: The operator.
        args: Its arguments, as values or as nodes of a graph.
        kwargs: Those by keyword.
        has_lanes: Whether a value or node has lanes.
    """
    rule = RULES.get(target)
    if rule is None:
        return None
    arguments = arguments_of(target, args, kwargs)
    laned = {name for name, value in arguments.items() if any(map(has_lanes, tree_leaves(value)))}
    return rule if rule.holds(arguments, laned) else None


def _overloads(names: str) -> list[Any]:
    """Returns operators of aten by name and overload."""
    return [getattr(getattr(aten, name), overload) for name, overload in map(_split, names.split())]


def _split(name: str) -> tuple[str, str]:
    operator_name, _, overload = name.partition(".")
    return operator_name, overload or "default"


def _of(*names: str) -> Holds:
    """Returns a condition: that no arguments but these have lanes."""
    return lambda arguments, laned: laned <= set(names)


def _anywhere(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
    return True


_of_first = _of("self", "input")


def _counts_axes(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
    """A scalar has no axis to count."""
    return _of_first(arguments, laned) and rank_of(arguments["self"]) > 0


def _names_axes(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
    """Without axes these operators flatten their operand."""
    named = all(arguments[name] not in (None, []) for name in AXES & arguments.keys())
    return named and _counts_axes(arguments, laned)


def _pads_constants(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
    """Other modes go by the number of axes."""
    return _of_first(arguments, laned) and arguments["mode"] == "constant"


def _has_batch(others: int) -> Holds:
    """Returns a condition: that the operand's first axis is a batch, before `others` more."""

    def holds(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
        operand = arguments["input"] if "input" in arguments else arguments["self"]
        return _of_first(arguments, laned) and rank_of(operand) > others

    return holds


def _uses_running_statistics(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
    return _of_first(arguments, laned) and not arguments["training"]


def _convolves(others: int) -> Holds:
    """Returns a condition: one set of filters and a batch, or see `convolved` for the filters."""
    one_set = _has_batch(others)

    def holds(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
        if "weight" not in laned:
            return one_set(arguments, laned)
        plain = arguments["stride"] == arguments["dilation"] == [1, 1] and arguments["groups"] == 1
        return others == 3 and plain and arguments["bias"] is None

    return holds


def _sums_plainly(arguments: Mapping[str, Any], laned: Set[str]) -> bool:
    return bool(arguments["alpha"] == arguments["beta"] == 1)


def _rules(names: str, compute: Compute, holds: Holds) -> dict[Any, Rule]:
    return dict.fromkeys(_overloads(names), Rule(compute, holds))


RULES: dict[Any, Rule] = {
    **_rules(
        "linear layer_norm rms_norm dropout clone contiguous to.dtype to.dtype_layout to.device "
        "silu gelu relu relu6 sigmoid tanh exp sin cos sqrt rsqrt neg abs softplus "
        "reciprocal pow.Tensor_Scalar log log1p hardswish hardtanh hardsigmoid leaky_relu elu selu "
        "mish detach alias lift_fresh_copy clamp clamp_min clamp_max erf sign floor ceil round "
        "square isnan logical_not bitwise_not zeros_like ones_like full_like tril triu mT "
        "pixel_shuffle",
        leading,
        _of_first,
    ),
    conversion(): Rule(leading, _of_first),
    **_rules("embedding", leading, _of("indices")),
    **_rules("pad", leading, _pads_constants),
    **_rules("type_as to.other", typed_as, _anywhere),
    **_rules("expand_as view_as", shaped_as, _anywhere),
    **_rules(
        "add.Tensor sub.Tensor mul.Tensor div.Tensor add.Scalar sub.Scalar mul.Scalar div.Scalar "
        "maximum minimum pow.Tensor_Tensor pow.Scalar rsub.Scalar remainder.Scalar floor_divide "
        "div.Tensor_mode atan2 lerp.Scalar lerp.Tensor addcmul where.self where.ScalarOther "
        "where.ScalarSelf where.Scalar masked_fill.Scalar logical_and "
        "logical_or logical_xor bitwise_and.Tensor bitwise_or.Tensor __and__.Tensor __or__.Tensor "
        "eq.Tensor ne.Tensor gt.Tensor lt.Tensor ge.Tensor le.Tensor eq.Scalar ne.Scalar gt.Scalar "
        "lt.Scalar ge.Scalar le.Scalar",
        elementwise,
        _anywhere,
    ),
    **_rules("masked_fill.Tensor", elementwise, _of("self", "mask")),
    **_rules("unsqueeze", axes, _of_first),
    **_rules(
        "squeeze.dim squeeze.dims transpose.int movedim.int flatten.using_ints unflatten.int chunk "
        "split.Tensor split_with_sizes slice.Tensor narrow select.int index_select mean.dim "
        "sum.dim_IntList prod.dim_int var.dim var.correction std.dim std.correction "
        "linalg_vector_norm softmax.int log_softmax.int logsumexp cumsum amax amin max.dim min.dim "
        "any.dim all.dim glu unbind.int flip",
        axes,
        _counts_axes,
    ),
    **_rules("argmax roll repeat_interleave.self_int", axes, _names_axes),
    **_rules("mean sum", reduced, _of_first),
    **_rules("cat stack", joined, _of("tensors")),
    **_rules("view reshape expand broadcast_to repeat new_zeros new_ones", sized, _of_first),
    **_rules("group_norm instance_norm", folded, _has_batch(1)),
    **_rules("batch_norm", folded, _uses_running_statistics),
    **_rules(
        "upsample_nearest2d.vec upsample_bilinear2d.vec avg_pool2d max_pool2d adaptive_avg_pool2d",
        folded,
        _has_batch(2),
    ),
    **_rules("conv_transpose1d", folded, _has_batch(2)),
    **_rules("conv_transpose2d.input", folded, _has_batch(3)),
    **_rules("conv1d", convolved, _convolves(2)),
    **_rules("conv2d", convolved, _convolves(3)),
    **_rules("conv3d", convolved, _convolves(4)),
    **_rules("matmul mm bmm mv dot", matmul, _anywhere),
    **_rules("addmm baddbmm", added_product, _sums_plainly),
    **_rules("permute", permuted, _of_first),
    **_rules("scaled_dot_product_attention", attention, _of("query", "key", "value", "attn_mask")),
    **_rules("einsum", einsum, _of("tensors")),
}
"""By operator; a case for each is in tests/support/lane_cases.py."""
