"""Makes a part of the denoiser that computes several independent calls at once, in lanes.

Values that differ from call to call carry a leading axis, with an entry for each lane; values that
all calls share carry none, and are computed once. The number of lanes stays symbolic, so that one
graph serves every width. (The same idea as `torch.vmap`, which fixes the number of lanes while
exporting and takes attention apart.)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.torch_private import argument_defaults, conversion, tree_leaves, tree_map

aten = torch.ops.aten


@dataclass(frozen=True)
class Laned:
    """A tensor with a leading axis of lanes."""

    tensor: Tensor


class LanedModule(nn.Module):
    """A module over lanes: inputs whose flag in `stacked` is set have a leading axis of lanes.

    Every output has that axis.

    Args:
        module: A module that computes one lane.
        stacked: A flag for each input; at least one is set.
    """

    def __init__(self, module: fx.GraphModule, stacked: Sequence[bool]) -> None:
        super().__init__()
        assert any(stacked), "lanes of which none differs"
        self.module, self.stacked = module, tuple(stacked)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Computes all lanes.

        Raises:
            DipgoError: An operator has no rule.
        """
        lanes = inputs[self.stacked.index(True)].shape[0]
        arguments = [
            Laned(tensor) if flag else tensor
            for tensor, flag in zip(inputs, self.stacked, strict=True)
        ]
        outputs = _Interpreter(self.module, lanes).run(*arguments)
        return tuple(_with_lanes(output, lanes) for output in outputs)


def _with_lanes(value: Tensor | Laned, lanes: int) -> Tensor:
    if isinstance(value, Laned):
        return value.tensor
    return value.unsqueeze(0).expand(lanes, *value.shape)


class _Interpreter(fx.Interpreter):
    """An interpreter that runs operators on lanes by the rules below.

    Operators on values that all lanes share run as they are.
    """

    def __init__(self, module: fx.GraphModule, lanes: int) -> None:
        super().__init__(module)
        self.lanes = lanes
        self.extra_traceback = False  # it would add lines to the errors that are raised here

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not any(isinstance(argument, Laned) for argument in tree_leaves((args, kwargs))):
            return super().call_function(target, args, kwargs)
        if target is operator.getitem:
            return args[0][args[1]]
        rule = RULES.get(target)
        if rule is None:
            raise _without_rule(str(target))
        return tree_map(Laned, rule(self.lanes, target, args, dict(kwargs)))


def _without_rule(operation: str) -> DipgoError:
    return DipgoError(
        "pass batch_calls",
        found=f"the operator {operation}, which has no rule for lanes",
        expected="operators with a rule in dipgo/compiler/trace/vectorize.py",
        remedy=f"leave batch_calls out of {setting('passes')}",
    )


Rule = Callable[[int, Any, Any, dict[str, Any]], Any]


def _bare(value: Any) -> Any:
    return value.tensor if isinstance(value, Laned) else value


def _leading(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators that act on trailing axes and let any number of axes lead."""
    return target(*map(_bare, args), **kwargs)


def _elementwise(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Broadcasts: missing axes are inserted after the axis of the lanes, not before it."""
    rank = max(_rank(operand) for operand in args)
    return target(*(_aligned(operand, rank) for operand in args), **kwargs)


def _matmul(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Turns a vector into a matrix of one row or one column, and drops that axis of the result."""
    left, right = args
    row, column = _rank(left) == 1, _rank(right) == 1
    left = _map_tensor(left, lambda vector: vector.unsqueeze(-2)) if row else left
    right = _map_tensor(right, lambda vector: vector.unsqueeze(-1)) if column else right
    product = _elementwise(lanes, target, (left, right), kwargs)
    product = product.squeeze(-2) if row else product
    return product.squeeze(-1) if column else product


def _map_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return Laned(change(value.tensor)) if isinstance(value, Laned) else change(value)


def _rank(value: Any) -> int:
    """Returns the rank within a lane."""
    if isinstance(value, Laned):
        return value.tensor.dim() - 1
    return value.dim() if isinstance(value, Tensor) else 0


def _aligned(value: Any, rank: int) -> Any:
    if not isinstance(value, Laned):
        return value
    tensor = value.tensor
    missing = rank - _rank(value)
    return tensor.reshape(tensor.shape[0], *[1] * missing, *tensor.shape[1:]) if missing else tensor


def _folded(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators whose first axis is a batch: lanes are folded into it, and unfolded after."""
    value, *rest = args
    return target(value.tensor.flatten(0, 1), *rest, **kwargs).unflatten(0, (lanes, -1))


def _convolved(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Convolves as `_folded` does, or with filters for each lane as a product over neighbourhoods.

    A convolution has one set of filters for all of its batch, and groups cannot stay symbolic.
    """
    arguments = _by_name(target, args, kwargs)
    if not isinstance(arguments["weight"], Laned):
        return _folded(lanes, target, args, kwargs)
    plain = arguments["stride"] == arguments["dilation"] == [1, 1] and arguments["groups"] == 1
    if target is not aten.conv2d.default or not plain or arguments["bias"] is not None:
        raise _without_rule(f"{target} with other filters in each lane")
    filters, (down, right) = arguments["weight"].tensor, arguments["padding"]
    value = functional.pad(_with_lanes(arguments["input"], lanes), (right, right, down, down))
    rows, columns = filters.shape[-2:]
    height, width = value.shape[-2] - rows + 1, value.shape[-1] - columns + 1
    shifts = [(y, x) for y in range(rows) for x in range(columns)]
    seen = torch.stack([value[..., y : y + height, x : x + width] for y, x in shifts], dim=3)
    product = filters.flatten(2).unsqueeze(1) @ seen.flatten(2, 3).flatten(-2)
    return product.reshape(*product.shape[:-1], height, width)


def _attention(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Attends with lanes folded into the batch, or as the batch if query, key and value have none.

    A mask may lack axes, and is expanded to the batch that it stands for.
    """
    arguments = _by_name(target, args, kwargs)
    mask = arguments["attn_mask"]
    batched = _rank(arguments["query"]) > 2
    names = ["query", "key", "value"]
    if mask is not None:
        tensor = _with_lanes(mask, lanes)
        query = _with_lanes(arguments["query"], lanes)
        tensor = _aligned(Laned(tensor), query.dim() - 1)
        arguments["attn_mask"] = Laned(tensor.expand(-1, query.shape[1], *tensor.shape[2:]))
        names.append("attn_mask")
    for name in names:
        tensor = _with_lanes(arguments[name], lanes)
        arguments[name] = tensor.flatten(0, 1) if batched else tensor
    attended = target(**arguments)
    return attended.unflatten(0, (lanes, -1)) if batched else attended


_AXES = {"dim", "dim0", "dim1", "dims", "start_dim", "end_dim"}
"""Names of arguments that count axes."""

_REDUCTIONS = {aten.mean.dim, aten.sum.dim_IntList, aten.amax.default}
"""Operators that reduce all axes if no axes are named."""


def _axes(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators with arguments that count axes: axes counted from the front move by one."""
    arguments = _by_name(target, args, kwargs)
    rank = max(map(_rank, tree_leaves(tuple(arguments.values()))))
    for name in _AXES & arguments.keys():
        reduces_all = target in _REDUCTIONS and arguments[name] in (None, [])
        every = list(range(rank)) if reduces_all else arguments[name]
        arguments[name] = tree_map(lambda axis: axis + 1 if axis >= 0 else axis, every)
    return target(**tree_map(_bare, arguments))


def _permuted(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Permutes the axes of a lane; the axis of the lanes stays first."""
    value, order = args
    rank = _rank(value)
    return target(value.tensor, [0, *(axis % rank + 1 for axis in order)])


def _joined(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs `cat` and `stack`, with shared tensors repeated for every lane."""
    tensors, *rest = args
    laned = [Laned(_with_lanes(tensor, lanes)) for tensor in tensors]
    return _axes(lanes, target, (laned, *rest), kwargs)


def _sized(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators whose second argument is the shape of the result."""
    value, size, *rest = args
    if target is aten.view.default:  # lanes may not be contiguous where one lane is
        target = aten.reshape.default
    tensor = _aligned(value, len(size)) if target in _BROADCASTS else value.tensor
    first = 1 if target is aten.repeat.default else lanes
    return target(tensor, [first, *size], *rest, **kwargs)


_BROADCASTS = {aten.expand.default, aten.repeat.default}


def _einsum(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Adds a letter for the lanes to the operands that have them, and to the result."""
    equation, operands = args[0].replace(" ", ""), args[1]
    terms, arrow, result = equation.partition("->")
    lane = next(letter for letter in ascii_letters if letter not in equation)
    marked = [
        f"{lane}{term}" if isinstance(operand, Laned) else term
        for term, operand in zip(terms.split(","), operands, strict=True)
    ]
    result = result if arrow else _implied(terms)
    return target(
        f"{','.join(marked)}->{lane}{result}", [_bare(operand) for operand in operands], **kwargs
    )


def _implied(terms: str) -> str:
    """Returns the result of an equation without an arrow: the letters that occur once, sorted."""
    once = (letter for letter in sorted(set(terms)) if terms.count(letter) == 1)
    return ("..." if "..." in terms else "") + "".join(filter(str.isalpha, once))


def _by_name(target: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns all arguments by their names in the operator's schema, defaults included."""
    arguments = {}
    for index, (name, default) in enumerate(argument_defaults(target)):
        arguments[name] = args[index] if index < len(args) else kwargs.get(name, default)
    return arguments


def _overloads(names: str) -> list[Any]:
    """Returns operators of aten by name and overload."""
    return [getattr(getattr(aten, name), overload) for name, overload in map(_split, names.split())]


def _split(name: str) -> tuple[str, str]:
    operator_name, _, overload = name.partition(".")
    return operator_name, overload or "default"


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        _overloads(
            "linear layer_norm rms_norm embedding dropout clone contiguous to.dtype "
            "to.dtype_layout silu gelu relu sigmoid tanh exp sin cos sqrt rsqrt neg abs "
            "softplus reciprocal pow.Tensor_Scalar log hardswish leaky_relu elu detach alias "
            "lift_fresh_copy clamp pad"
        ),
        _leading,
    ),
    conversion(): _leading,
    **dict.fromkeys(
        _overloads(
            "add.Tensor sub.Tensor mul.Tensor div.Tensor add.Scalar mul.Scalar maximum minimum "
            "pow.Tensor_Tensor where.self eq.Tensor eq.Scalar ne.Scalar gt.Scalar "
            "lt.Scalar ge.Scalar le.Scalar rsub.Scalar"
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        _overloads(
            "unsqueeze squeeze.dim squeeze.dims transpose.int flatten.using_ints "
            "unflatten.int chunk split.Tensor split_with_sizes slice.Tensor select.int mean.dim "
            "sum.dim_IntList softmax.int cumsum amax unbind.int flip repeat_interleave.self_int"
        ),
        _axes,
    ),
    **dict.fromkeys(_overloads("cat stack"), _joined),
    **dict.fromkeys(_overloads("view reshape expand repeat"), _sized),
    **dict.fromkeys(_overloads("group_norm upsample_nearest2d.vec avg_pool2d"), _folded),
    **dict.fromkeys(_overloads("conv1d conv2d conv3d"), _convolved),
    aten.matmul.default: _matmul,
    aten.permute.default: _permuted,
    aten.scaled_dot_product_attention.default: _attention,
    aten.einsum.default: _einsum,
}
