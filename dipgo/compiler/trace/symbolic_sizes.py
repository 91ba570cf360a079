"""Makes a part of the denoiser that takes pictures of several sizes, from a trace for each size.

Tracing fixes every size. Traces of one part for several sizes have the same operators, and differ
only in numbers that stand for sizes. Each such number is replaced by the size of an available
tensor that has it in every trace, so that one graph serves all of them; nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.torch_private import tree_flatten, tree_unflatten

Sizes: TypeAlias = tuple[int, ...]
"""The value of an axis, or of a number, in each of the traces."""


RESIZE = tuple(
    getattr(torch.ops.aten, f"upsample_{mode}").vec
    for mode in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d")
)
"""Operators that resize their first argument to a size, or else by the factors that come last."""


class SizedModule(nn.Module):
    """The first of `traces`, computing for the sizes of all of them.

    Args:
        traces: A trace of the same part for each size.

    Raises:
        DipgoError: The traces differ in more than numbers.
    """

    def __init__(self, traces: Sequence[fx.GraphModule]) -> None:
        super().__init__()
        self.module = traces[0]
        graphs = [list(trace.graph.nodes) for trace in traces]
        alike = len({tuple(str(node.target) for node in graph) for graph in graphs}) == 1
        stored = [{n: t.shape for n, t in trace.state_dict().items()} for trace in traces]
        if not alike or any(shapes != stored[0] for shapes in stored):
            raise _unlike("other operators, or other weights, for another size")
        self.variants: dict[fx.Node, Sequence[fx.Node]] = {
            nodes[0]: nodes for nodes in zip(*graphs, strict=True)
        }
        """By node of the first trace, that of every trace."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Computes for tensors of one of the sizes, or of symbolic sizes while exporting."""
        outputs: tuple[Tensor, ...] = _Interpreter(self.module, self.variants).run(*inputs)
        return outputs


class _Interpreter(fx.Interpreter):
    """An interpreter of the first trace that reads differing numbers off the tensors so far."""

    def __init__(self, module: fx.GraphModule, variants: dict[fx.Node, Sequence[fx.Node]]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.variants = variants
        self.sizes: dict[Sizes, Any] = {}
        self.extra_traceback = False  # it would add lines to the errors that are raised here

    def run_node(self, node: fx.Node) -> Any:
        """Runs the node as traced, and notes the sizes of the tensor that it yields."""
        result = super().run_node(node)
        if isinstance(result, Tensor) and node.op != "get_attr":
            self._note(result, [variant.meta["val"].shape for variant in self.variants[node]])
        return result

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        """Returns the operator's arguments, with differing numbers replaced by sizes."""
        variants = self.variants[n]
        flat = [tree_flatten((variant.args, variant.kwargs)) for variant in variants]
        if any(spec != flat[0][1] for _, spec in flat):
            flat = [tree_flatten((_args_by_size(variant), variant.kwargs)) for variant in variants]
        if any(spec != flat[0][1] for _, spec in flat):
            raise _unlike(f"{n.target} with other arguments for another size")
        values = zip(*(leaves for leaves, _ in flat), strict=True)
        return tree_unflatten([self._argument(each, n) for each in values], flat[0][1])

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Runs the operator; a chunk of a symbolic axis is taken by its share of the axis.

        Taken by its size, the chunk would be fixed.
        """
        if target is torch.ops.aten.chunk.default:
            value, count, *rest = args
            axis = rest[0] if rest else kwargs.get("dim", 0)
            if isinstance(value.shape[axis], torch.SymInt):
                return value.unflatten(axis, (count, -1)).unbind(axis)
        return super().call_function(target, args, kwargs)

    def _note(self, result: Tensor, shapes: Sequence[torch.Size]) -> None:
        """Notes the axes that differ between the traces, and the products of two of them."""
        axes = list(zip(*shapes, strict=True))
        differing = [index for index, sizes in enumerate(axes) if len(set(sizes)) > 1]
        for index in differing:
            self.sizes[axes[index]] = result.shape[index]
        for left, right in itertools.combinations(differing, 2):
            product = tuple(a * b for a, b in zip(axes[left], axes[right], strict=True))
            self.sizes.setdefault(product, result.shape[left] * result.shape[right])

    def _argument(self, values: Sequence[Any], node: fx.Node) -> Any:
        """Returns what a node is called with for the `values` in the traces."""
        first = values[0]
        if isinstance(first, fx.Node):
            if tuple(values) != tuple(self.variants[first]):
                raise _unlike(f"{node.target} of other values for another size")
            return self.env[first]
        if all(type(value) is type(first) and value == first for value in values):
            return first
        numbers = [value for value in values if type(value) is int]
        if len(numbers) == len(values):
            for size in self._multiples(tuple(numbers)):
                return size
        words = ", ".join(map(str, values))
        raise _unlike(f"{node.target} with {words}, which are the sizes of no tensor")

    def _multiples(self, wanted: Sizes) -> Iterator[Any]:
        """Yields the size that equals `wanted`, then sizes of which it is a whole multiple."""
        if wanted in self.sizes:
            yield self.sizes[wanted]
        for sizes, symbol in self.sizes.items():
            factors = {divmod(number, size) for number, size in zip(wanted, sizes, strict=True)}
            if len(factors) == 1 and (factor := next(iter(factors)))[1] == 0:
                yield symbol * factor[0]


def _args_by_size(node: fx.Node) -> Sequence[Any]:
    """Returns a node's arguments, those of a resizing operator with the size of its result.

    U-Nets resize by a factor, but to the size of the skip connection where a size is odd.
    """
    if node.target not in RESIZE or node.kwargs:
        return node.args
    source, _, *rest, factors = node.args
    assert isinstance(source, fx.Node)
    axes, size = source.meta["val"].shape[2:], list(node.meta["val"].shape[2:])
    exact = isinstance(factors, Sequence) and size == [
        axis * factor for axis, factor in zip(axes, factors, strict=True)
    ]
    return (source, size, *rest, None) if factors is None or exact else node.args


def _unlike(problem: str) -> DipgoError:
    return DipgoError(
        setting("also_sizes"),
        found=problem,
        expected="a model that computes the same for every size, but for the sizes",
        remedy="export each size by itself",
    )
