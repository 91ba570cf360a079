"""Operators over lanes: each function computes all lanes of an operator of its kind.

It takes the number of lanes, the operator, its arguments, and those by keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from dipgo.compiler.trace.torch_private import argument_defaults, tree_leaves, tree_map

aten = torch.ops.aten


@dataclass(frozen=True)
class Laned:
    """A tensor with a leading axis of lanes."""

    tensor: Tensor


def with_lanes(value: Tensor | Laned, lanes: int) -> Tensor:
    """Returns the tensor with its axis of lanes, which a shared one gets."""
    if isinstance(value, Laned):
        return value.tensor
    return value.unsqueeze(0).expand(lanes, *value.shape)


def _bare(value: Any) -> Any:
    return value.tensor if isinstance(value, Laned) else value


def leading(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators that act on trailing axes and let any number of axes lead."""
    return target(*map(_bare, args), **tree_map(_bare, kwargs))


def typed_as(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Converts to the type of another tensor, of which nothing else counts."""
    value, *rest = args
    return target(with_lanes(value, lanes), *map(_bare, rest), **kwargs)


def shaped_as(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Expands or reshapes to the shape that another tensor has within a lane."""
    value, other = args
    shape = other.tensor.shape[1:] if isinstance(other, Laned) else other.shape
    by_size = aten.expand.default if target is aten.expand_as.default else aten.reshape.default
    return sized(lanes, by_size, (Laned(with_lanes(value, lanes)), list(shape)), {})


def elementwise(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Broadcasts: missing axes are inserted after the axis of the lanes, not before it."""
    rank = max(rank_of(operand) for operand in (*args, *kwargs.values()))
    by_name = {name: _aligned(operand, rank) for name, operand in kwargs.items()}
    return target(*(_aligned(operand, rank) for operand in args), **by_name)


def matmul(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Turns a vector into a matrix of one row or one column, and drops that axis of the result."""
    left, right = args
    row, column = rank_of(left) == 1, rank_of(right) == 1
    left = _map_tensor(left, lambda vector: vector.unsqueeze(-2)) if row else left
    right = _map_tensor(right, lambda vector: vector.unsqueeze(-1)) if column else right
    product = elementwise(lanes, aten.matmul.default, (left, right), kwargs)
    product = product.squeeze(-2) if row else product
    return product.squeeze(-1) if column else product


def added_product(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Adds the product of two matrices, or of two batches of these, to a tensor."""
    added, *factors = args
    product = matmul(lanes, aten.matmul.default, factors, {})
    if any(isinstance(factor, Laned) for factor in factors):
        product = Laned(product)
    return elementwise(lanes, aten.add.Tensor, (added, product), {})


def _map_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return Laned(change(value.tensor)) if isinstance(value, Laned) else change(value)


def rank_of(value: Any) -> int:
    """Returns the rank within a lane, of a value or of a node of a graph for one lane."""
    if isinstance(value, Laned):
        return value.tensor.dim() - 1
    if isinstance(value, fx.Node):
        value = value.meta["val"]
    return value.dim() if isinstance(value, Tensor) else 0


def _aligned(value: Any, rank: int) -> Any:
    if not isinstance(value, Laned):
        return value
    tensor = value.tensor
    missing = rank - rank_of(value)
    return tensor.reshape(tensor.shape[0], *[1] * missing, *tensor.shape[1:]) if missing else tensor


def folded(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators whose first axis is a batch: lanes are folded into it, and unfolded after."""
    value, *rest = args
    return target(value.tensor.flatten(0, 1), *rest, **kwargs).unflatten(0, (lanes, -1))


def convolved(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Convolves as `folded` does, or with filters for each lane as a product over neighbourhoods.

    A convolution has one set of filters for all of its batch, and groups cannot stay symbolic.
    """
    arguments = arguments_of(target, args, kwargs)
    if not isinstance(arguments["weight"], Laned):
        return folded(lanes, target, args, kwargs)
    filters, (down, right) = arguments["weight"].tensor, arguments["padding"]
    value = functional.pad(with_lanes(arguments["input"], lanes), (right, right, down, down))
    rows, columns = filters.shape[-2:]
    height, width = value.shape[-2] - rows + 1, value.shape[-1] - columns + 1
    shifts = [(y, x) for y in range(rows) for x in range(columns)]
    seen = torch.stack([value[..., y : y + height, x : x + width] for y, x in shifts], dim=3)
    product = filters.flatten(2).unsqueeze(1) @ seen.flatten(2, 3).flatten(-2)
    return product.reshape(*product.shape[:-1], height, width)


def attention(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Attends with lanes folded into the batch, or as the batch if query, key and value have none.

    A mask may lack axes, and is expanded to the batch that it stands for.
    """
    arguments = arguments_of(target, args, kwargs)
    mask = arguments["attn_mask"]
    batched = rank_of(arguments["query"]) > 2
    names = ["query", "key", "value"]
    if mask is not None:
        tensor = with_lanes(mask, lanes)
        query = with_lanes(arguments["query"], lanes)
        tensor = _aligned(Laned(tensor), query.dim() - 1)
        arguments["attn_mask"] = Laned(tensor.expand(-1, query.shape[1], *tensor.shape[2:]))
        names.append("attn_mask")
    for name in names:
        tensor = with_lanes(arguments[name], lanes)
        arguments[name] = tensor.flatten(0, 1) if batched else tensor
    attended = target(**arguments)
    return attended.unflatten(0, (lanes, -1)) if batched else attended


AXES = {"dim", "dim0", "dim1", "dims", "start_dim", "end_dim", "source", "destination"}
"""Names of arguments that count axes."""

_REDUCTIONS = {
    *(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default),
    *(aten.var.dim, aten.var.correction, aten.std.dim, aten.std.correction),
    aten.linalg_vector_norm.default,
}
"""Operators that reduce all axes if no axes are named."""


def axes(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators with arguments that count axes: axes counted from the front move by one."""
    arguments = arguments_of(target, args, kwargs)
    rank = max(map(rank_of, tree_leaves(tuple(arguments.values()))))
    for name in AXES & arguments.keys():
        reduces_all = target in _REDUCTIONS and arguments[name] in (None, [])
        every = list(range(rank)) if reduces_all else arguments[name]
        arguments[name] = tree_map(lambda axis: axis + 1 if axis >= 0 else axis, every)
    return target(**tree_map(_bare, arguments))


def reduced(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Reduces each lane to a scalar."""
    along = aten.mean.dim if target is aten.mean.default else aten.sum.dim_IntList
    return along(args[0].tensor.reshape(lanes, -1), [1], **kwargs)


def permuted(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Permutes the axes of a lane; the axis of the lanes stays first."""
    value, order = args
    rank = rank_of(value)
    return target(value.tensor, [0, *(axis % rank + 1 for axis in order)])


def joined(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs `cat` and `stack`, with shared tensors repeated for every lane."""
    tensors, *rest = args
    laned = [Laned(with_lanes(tensor, lanes)) for tensor in tensors]
    return axes(lanes, target, (laned, *rest), kwargs)


def sized(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs operators whose second argument is the shape of the result."""
    value, size, *rest = args
    if target is aten.view.default:  # lanes may not be contiguous where one lane is
        target = aten.reshape.default
    tensor = _aligned(value, len(size)) if target in _BROADCASTS else value.tensor
    first = 1 if target is aten.repeat.default else lanes
    return target(tensor, [first, *size], *rest, **kwargs)


_BROADCASTS = {aten.expand.default, aten.broadcast_to.default, aten.repeat.default}


def einsum(lanes: int, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
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


def arguments_of(target: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns all arguments by their names in the operator's schema, defaults included."""
    arguments = {}
    for index, (name, default) in enumerate(argument_defaults(target)):
        arguments[name] = args[index] if index < len(args) else kwargs.get(name, default)
    return arguments
