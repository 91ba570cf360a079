"""Makes a part of the denoiser that computes several independent calls at once, in lanes.

Values that differ from call to call carry a leading axis, with an entry for each lane; values that
all calls share carry none, and are computed once. The number of lanes stays symbolic, so that one
graph serves every width. (The same idea as `torch.vmap`, which fixes the number of lanes while
exporting and takes attention apart.)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.lane_operators import Laned, with_lanes
from dipgo.compiler.trace.lane_rules import find_rule
from dipgo.compiler.trace.torch_private import tree_leaves, tree_map


def can_have_lanes(module: fx.GraphModule, stacked: Sequence[bool]) -> bool:
    """Returns whether a rule computes every operator that lanes reach.

    Args:
        module: A module that computes one lane.
        stacked: A flag for each input: whether it differs from lane to lane.
    """
    return _without_rule(module.graph, stacked) is None


def _without_rule(graph: fx.Graph, stacked: Sequence[bool]) -> Any:
    """Returns the first operator that lanes reach and no rule computes, or None."""
    placeholders = graph.find_nodes(op="placeholder")
    laned = {node for node, flag in zip(placeholders, stacked, strict=True) if flag}
    for node in graph.nodes:
        if node.op == "call_function" and not laned.isdisjoint(node.all_input_nodes):
            laned.add(node)
            of_lanes = laned.__contains__
            if node.target is not operator.getitem and not find_rule(
                node.target, node.args, node.kwargs, of_lanes
            ):
                return node.target
    return None


class LanedModule(nn.Module):
    """A module over lanes: inputs whose flag in `stacked` is set have a leading axis of lanes.

    Every output has that axis.

    Args:
        module: A module that computes one lane.
        stacked: A flag for each input; at least one is set.

    Raises:
        DipgoError: Lanes reach an operator without a rule, see `can_have_lanes`.
    """

    def __init__(self, module: fx.GraphModule, stacked: Sequence[bool]) -> None:
        super().__init__()
        assert any(stacked), "lanes of which none differs"
        missing = _without_rule(module.graph, stacked)
        if missing is not None:
            raise DipgoError(
                "pass batch_calls",
                found=f"the operator {missing}, which has no rule for lanes",
                expected="operators with a rule in dipgo/compiler/trace/lane_rules.py",
                remedy=f"leave batch_calls out of {setting('passes')}",
            )
        self.module, self.stacked = module, tuple(stacked)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Computes all lanes."""
        lanes = inputs[self.stacked.index(True)].shape[0]
        arguments = [
            Laned(tensor) if flag else tensor
            for tensor, flag in zip(inputs, self.stacked, strict=True)
        ]
        outputs = _Interpreter(self.module, lanes).run(*arguments)
        return tuple(with_lanes(output, lanes) for output in outputs)


class _Interpreter(fx.Interpreter):
    """An interpreter that runs operators on lanes by their rules.

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
        rule = find_rule(target, args, kwargs, lambda value: isinstance(value, Laned))
        assert rule is not None, f"{target} has no rule"
        return tree_map(Laned, rule.compute(self.lanes, target, args, dict(kwargs)))
