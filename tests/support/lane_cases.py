"""Small functions of tensors, one at least for each operator with a rule for lanes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LaneCase:
    """A function that runs `operator` on inputs of these shapes, within a lane.

    What `shared` gives, such as weights and tables, never differs from lane to lane.
    """

    operator: str
    function: Callable[..., Any]
    shapes: tuple[Shape, ...]
    shared: tuple[Shape, ...] = ()
    high: int | None = None
    """Inputs are integers below this; else they are normal numbers, f64."""

    def __str__(self) -> str:
        return f"{self.operator} {' '.join(map(str, self.shapes))}"


def case(operator: str, function: Callable[..., Any], *shapes: Shape, **more: Any) -> LaneCase:
    return LaneCase(operator, function, shapes, **more)


def unary(names: str, change: Callable[[Tensor], Tensor]) -> list[LaneCase]:
    """Operators of one tensor, after a change that keeps it where they are defined."""
    operators = {name: getattr(aten, name) for name in names.split()}
    return [
        case(name, lambda x, one=one: one(change(x)), (2, 3, 4)) for name, one in operators.items()
    ]


def binary(name: str, operator: Callable[..., Any], **more: Any) -> list[LaneCase]:
    """Shapes that agree, that broadcast, and of either rank higher than the other."""
    shapes = [
        ((2, 3), (2, 3)),
        ((3, 4), (2, 3, 4)),
        ((2, 3, 4), (4,)),
        ((), (2, 3)),
        ((2, 1), (3,)),
    ]
    return [case(name, operator, *pair, **more) for pair in shapes]


def scalars(names: str) -> list[LaneCase]:
    """Operators of a tensor and a number."""
    operators = {name: getattr(aten, name).Scalar for name in names.split()}
    return [
        case(f"{name}.Scalar", lambda x, one=one: one(x, 1), (2, 3), high=3)
        for name, one in operators.items()
    ]


def along(name: str, *functions: Callable[[Tensor], Any]) -> list[LaneCase]:
    """An operator on f32[2, 4, 6], with axes counted from the front and from the back."""
    return [case(name, one, (2, 4, 6)) for one in functions]


def _attend(*shapes: Shape, **options: Any) -> LaneCase:
    """Query, key, value and perhaps a mask."""

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, mask, **options)

    return case("scaled_dot_product_attention", attend, *shapes)


def _attend_where(query: Tensor, mask: Tensor) -> Tensor:
    """Attention with a mask of truth values, of which no row is all false."""
    seen = mask - mask.mean(dim=-1, keepdim=True) >= 0
    return functional.scaled_dot_product_attention(query, query, query, seen)


def _literal(x: Tensor) -> Tensor:
    return x * torch.tensor([1.0, 2.0, 3.0])


CASES: list[LaneCase] = [
    case("linear", functional.linear, (2, 3, 4), shared=((5, 4), (5,))),
    case("linear", functional.linear, (4,), shared=((5, 4),)),
    case(
        "layer_norm",
        lambda x, w, b: functional.layer_norm(x, (4,), w, b),
        (2, 3, 4),
        shared=((4,), (4,)),
    ),
    case("layer_norm", lambda x: functional.layer_norm(x, (3, 4)), (2, 3, 4)),
    case("rms_norm", lambda x, w: functional.rms_norm(x, (4,), w), (2, 3, 4), shared=((4,),)),
    case("embedding", lambda i: functional.embedding(i, torch.eye(5)[:, 1:]), (2, 3), high=5),
    case("dropout", lambda x: aten.dropout(x, 0.5, False), (2, 3)),
    case("to.dtype", lambda x: x.to(torch.float32), (2, 3)),
    case("to.dtype_layout", lambda x: aten.to.dtype_layout(x, dtype=torch.float16), (2, 3)),
    case("_to_copy", lambda x: aten._to_copy(x, dtype=torch.float32), (2, 3)),
    case("pow.Tensor_Scalar", lambda x: x**2, (2, 3)),
    case("clamp", lambda x: x.clamp(-0.5, 0.5), (2, 3)),
    case("leaky_relu", lambda x: functional.leaky_relu(x, 0.3), (2, 3)),
    case("gelu", lambda x: functional.gelu(x, approximate="tanh"), (2, 3)),
    case("lift_fresh_copy", _literal, (2, 3)),
    *unary(
        "clone contiguous silu gelu relu sigmoid tanh exp sin cos neg abs softplus hardswish "
        "leaky_relu elu detach alias lift_fresh_copy",
        lambda x: x,
    ),
    *unary("sqrt rsqrt log reciprocal", lambda x: x.abs() + 0.5),
    *binary("add.Tensor", lambda x, y: torch.add(x, y, alpha=2)),
    *binary("sub.Tensor", lambda x, y: torch.sub(x, y, alpha=3)),
    *binary("mul.Tensor", torch.mul),
    *binary("div.Tensor", lambda x, y: x / (y.abs() + 0.5)),
    *binary("maximum", torch.maximum),
    *binary("minimum", torch.minimum),
    *binary("pow.Tensor_Tensor", lambda x, y: (x.abs() + 0.5) ** y),
    *binary("eq.Tensor", torch.eq, high=2),
    *binary("where.self", lambda x, y: torch.where(x > 0, x, y)),
    case("where.self", lambda c, x, y: torch.where(c > 0, x, y), (3,), (2, 1), (4, 1, 1)),
    *scalars("add mul eq ne gt lt ge le rsub"),
    case("matmul", torch.matmul, (2, 3, 4), (2, 4, 5)),
    case("matmul", torch.matmul, (3, 4), (2, 4, 5)),
    case("matmul", torch.matmul, (2, 3, 4), (4, 5)),
    case("matmul", torch.matmul, (2, 1, 3, 4), (3, 4, 5)),
    case("matmul", torch.matmul, (4,), (4,)),
    case("matmul", torch.matmul, (3, 4), (4,)),
    case("matmul", torch.matmul, (4,), (2, 4, 5)),
    case("matmul", torch.matmul, (2, 3, 4), (4,)),
    *along("unsqueeze", *(lambda x, axis=axis: x.unsqueeze(axis) for axis in (0, 1, 3, -1, -4))),
    *along(
        "squeeze.dim",
        lambda x: x[:1].squeeze(0),
        lambda x: x[:, :1].squeeze(1),
        lambda x: x[..., :1].squeeze(-1),
    ),
    *along("squeeze.dims", lambda x: x[:1, :1].squeeze((0, -2))),
    *along(
        "transpose.int",
        lambda x: x.transpose(0, 1),
        lambda x: x.transpose(-1, 0),
        lambda x: x.transpose(-1, -2),
    ),
    *along(
        "flatten.using_ints",
        lambda x: x.flatten(),
        lambda x: x.flatten(1),
        lambda x: x.flatten(-3, -2),
    ),
    *along(
        "unflatten.int",
        lambda x: x.unflatten(0, (2, 1)),
        lambda x: x.unflatten(1, (2, -1)),
        lambda x: x.unflatten(-1, (3, 2)),
    ),
    *along("chunk", lambda x: x.chunk(2), lambda x: x.chunk(3, -1), lambda x: x.chunk(2, 1)[1]),
    *along("split.Tensor", lambda x: x.split(1), lambda x: x.split(4, -1)),
    *along("split_with_sizes", lambda x: x.split([1, 3], 1), lambda x: x.split([1, 2, 3], -1)),
    *along(
        "slice.Tensor",
        lambda x: x[1:],
        lambda x: x[:, 1:3],
        lambda x: x[..., ::2],
        lambda x: aten.slice.Tensor(x, -2, 1),
    ),
    *along("select.int", lambda x: x[1], lambda x: x[:, -1], lambda x: x[..., 0]),
    *along(
        "mean.dim",
        lambda x: x.mean(0),
        lambda x: x.mean((1, -1), keepdim=True),
        lambda x: x.mean(None),
        lambda x: x.mean(()),
    ),
    *along(
        "sum.dim_IntList",
        lambda x: x.sum(1),
        lambda x: x.sum((0, -1)),
        lambda x: x.sum(()),
        lambda x: x.sum(-1, dtype=torch.float32),
    ),
    *along("amax", lambda x: x.amax(0), lambda x: x.amax((1, -1)), lambda x: x.amax()),
    *along("softmax.int", lambda x: x.softmax(0), lambda x: x.softmax(-1)),
    *along("cumsum", lambda x: x.cumsum(0), lambda x: x.cumsum(-2)),
    *along("unbind.int", lambda x: x.unbind(), lambda x: x.unbind(-1)),
    *along(
        "repeat_interleave.self_int",
        lambda x: x.repeat_interleave(2, 0),
        lambda x: x.repeat_interleave(3, -2, output_size=12),
    ),
    *along("flip", lambda x: x.flip(0), lambda x: x.flip((1, -1))),
    case("cat", lambda x, y: torch.cat([x, y]), (2, 3), (1, 3)),
    case("cat", lambda x, y: torch.cat([x, y, x], dim=-1), (2, 3), (2, 1)),
    case("cat", lambda x, y: torch.cat([y, x], dim=1), (2, 3, 4), (2, 1, 4)),
    case("stack", lambda x, y: torch.stack([x, y]), (2, 3), (2, 3)),
    case("stack", lambda x, y: torch.stack([x, y], dim=-1), (2, 3), (2, 3)),
    case("stack", lambda x, y: torch.stack([x, y], dim=2), (2, 3), (2, 3)),
    *along("view", lambda x: x.view(8, -1), lambda x: x.view(2, 2, 2, 6)),
    case("view", lambda x, w: (x @ w).view(-1), (2, 3, 4), shared=((4, 5),)),
    *along("reshape", lambda x: x.transpose(0, 1).reshape(4, 12), lambda x: x.reshape(-1)),
    case("expand", lambda x: x.expand(3, -1), (1, 4)),
    case("expand", lambda x: x.expand(2, 3, 4), (4,)),
    case("repeat", lambda x: x.repeat(2, 1, 3), (2, 4)),
    *along("permute", lambda x: x.permute(2, 0, 1), lambda x: x.permute(0, -1, -2)),
    case("conv1d", functional.conv1d, (2, 3, 8), shared=((4, 3, 3), (4,))),
    case(
        "conv2d",
        lambda x, w: functional.conv2d(x, w, stride=2, padding=1),
        (2, 3, 6, 6),
        shared=((4, 3, 3, 3),),
    ),
    case("conv2d", lambda x, w: functional.conv2d(x, w, padding=1), (2, 3, 6, 5), (4, 3, 3, 3)),
    case("conv2d", lambda x, w: functional.conv2d(x, w, None), (2, 3, 6, 5), (4, 3, 3, 1)),
    case("conv3d", functional.conv3d, (1, 2, 3, 4, 4), shared=((2, 2, 3, 3, 3),)),
    case(
        "group_norm",
        lambda x, w, b: functional.group_norm(x, 2, w, b),
        (2, 4, 3, 3),
        shared=((4,), (4,)),
    ),
    case("group_norm", lambda x: functional.group_norm(x, 2), (2, 4)),
    case(
        "upsample_nearest2d.vec",
        lambda x: functional.interpolate(x, scale_factor=2.0),
        (2, 3, 4, 4),
    ),
    case("upsample_nearest2d.vec", lambda x: functional.interpolate(x, size=(5, 6)), (2, 3, 4, 4)),
    case("pad", lambda x: functional.pad(x, (0, 1, 2, 1)), (2, 3, 4)),
    case("avg_pool2d", lambda x: functional.avg_pool2d(x, 2), (2, 3, 4, 4)),
    _attend((2, 1, 3, 4), (2, 1, 5, 4), (2, 1, 5, 4)),
    _attend((2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4), is_causal=True, scale=0.3),
    _attend((2, 3, 4), (2, 5, 4), (2, 5, 4)),
    _attend((3, 4), (5, 4), (5, 4)),
    _attend((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (3, 5)),
    _attend((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 1, 1, 5)),
    _attend((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (1, 2, 3, 5)),
    _attend((2, 3, 4), (2, 5, 4), (2, 5, 4), (1, 5)),
    _attend((3, 4), (5, 4), (5, 4), (3, 5)),
    case("scaled_dot_product_attention", _attend_where, (2, 2, 3, 4), (3, 3)),
    case("einsum", lambda x, y: torch.einsum("bij, bjk -> bik", x, y), (2, 3, 4), (2, 4, 5)),
    case("einsum", lambda x, y: torch.einsum("...ij,jk->...ik", x, y), (2, 3, 4), (4, 5)),
    case("einsum", lambda x, y: torch.einsum("ij,jk", x, y), (3, 4), (4, 5)),
    case("einsum", lambda x: torch.einsum("hwpqc->chpwq", x).reshape(5, -1), (2, 2, 3, 3, 5)),
    case("einsum", lambda x, y: torch.einsum("ij,jk->ik", x, y).view(-1), (3, 4), (4, 5)),
]
