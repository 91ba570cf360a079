"""Sizes: a part of the denoiser that takes pictures of several sizes, made of one trace a size.

Tracing fixes every size. Traced once for each, the same part has the same operators, and differs
in numbers that stand for sizes only. Such a number is replaced by the size of a tensor that is at
hand and has it in every trace, so that one graph serves all of them; nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from dipgo.common.errors import DipgoError, setting

Sizes: TypeAlias = tuple[int, ...]
"""What an axis, or a number, is in each of the traces."""


class SizedModule(nn.Module):
    """The first of `traces`, computing for the sizes of all of them.

    Raises DipgoError where the traces differ in more than numbers.
    """

    def __init__(self, traces: Sequence[fx.GraphModule]) -> None:
        super().__init__()
        self.module = traces[0]
        graphs = [list(trace.graph.nodes) for trace in traces]
        alike = len({tuple(str(node.target) for node in graph) for graph in graphs}) == 1
        stored = [{n: t.shape for n, t in trace.state_dict().items()} for trace in traces]
        if not alike or any(one != stored[0] for one in stored):
            raise _unlike("other operators, or other weights, for another size")
        self._variants: dict[fx.Node, Sequence[fx.Node]] = {
            nodes[0]: nodes for nodes in zip(*graphs, strict=True)
        }

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Tensors of one of the sizes, or while exporting of symbolic ones."""
        outputs: tuple[Tensor, ...] = _Interpreter(self.module, self._variants).run(*inputs)
        return outputs


class _Interpreter(fx.Interpreter):
    """Runs the first trace, with the numbers that differ read off the tensors so far."""

    def __init__(self, module: fx.GraphModule, variants: dict[fx.Node, Sequence[fx.Node]]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.variants = variants
        self.sizes: dict[Sizes, Any] = {}
        self.extra_traceback = False  # which would add lines to the errors that are raised here

    def run_node(self, node: fx.Node) -> Any:
        """As the trace has it; what it yields is looked at for sizes."""
        result = super().run_node(node)
        if isinstance(result, Tensor) and node.op != "get_attr":
            self._note(result, [one.meta["val"].shape for one in self.variants[node]])
        return result

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        """The operator's arguments, sized."""
        flat, spec = tree_flatten((n.args, n.kwargs))
        others = [tree_flatten((one.args, one.kwargs))[0] for one in self.variants[n]]
        sized = [
            self.env[given] if isinstance(given, fx.Node) else self._sized(given, numbers, n)
            for given, numbers in zip(flat, zip(*others, strict=True), strict=True)
        ]
        return tree_unflatten(sized, spec)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A chunk of a symbolic axis is taken by its share; by its size it would be fixed."""
        if target is torch.ops.aten.chunk.default:
            value, count, *rest = args
            axis = rest[0] if rest else kwargs.get("dim", 0)
            if isinstance(value.shape[axis], torch.SymInt):
                return value.unflatten(axis, (count, -1)).unbind(axis)
        return super().call_function(target, args, kwargs)

    def _note(self, result: Tensor, shapes: Sequence[torch.Size]) -> None:
        """Axes that differ between the traces, and products of two of them."""
        axes = list(zip(*shapes, strict=True))
        differing = [index for index, sizes in enumerate(axes) if len(set(sizes)) > 1]
        for index in differing:
            self.sizes[axes[index]] = result.shape[index]
        for one, two in itertools.combinations(differing, 2):
            product = tuple(a * b for a, b in zip(axes[one], axes[two], strict=True))
            self.sizes.setdefault(product, result.shape[one] * result.shape[two])

    def _sized(self, given: Any, numbers: Sequence[Any], node: fx.Node) -> Any:
        """`given`, or where the traces have different numbers, the size that they stand for."""
        if not all(isinstance(one, int) for one in numbers) or len(set(numbers)) == 1:
            return given
        for found in self._multiples(tuple(numbers)):
            return found
        raise _unlike(f"{node.target} with {', '.join(map(str, numbers))}, the size of no tensor")

    def _multiples(self, wanted: Sizes) -> Iterator[Any]:
        """A size that is known, or a whole multiple of one, the smallest first."""
        if wanted in self.sizes:
            yield self.sizes[wanted]
        for sizes, symbol in self.sizes.items():
            factors = {divmod(number, size) for number, size in zip(wanted, sizes, strict=True)}
            if len(factors) == 1 and (factor := next(iter(factors)))[1] == 0:
                yield symbol * factor[0]


def _unlike(found: str) -> DipgoError:
    return DipgoError(
        setting("also_sizes"),
        found=found,
        expected="a model that computes the same for every size, but for the sizes",
        remedy="export each size by itself",
    )
