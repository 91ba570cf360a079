"""Computes the cascade: the blocks that die with a block, and γ, their share of the work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.graph import BlockGraph, Dependence, Node
from dipgo.ir.subnet.backups import BACKUPS


def dying_with(graph: BlockGraph, backup: Sequence[str] | None = None) -> dict[str, frozenset[str]]:
    """Returns for every block the blocks that die in one evaluation when it is taken out.

    The block itself is one of them. All other gates are on. A block dies when all that reads it,
    through glue, is dead.

    Args:
        graph: The graph.
        backup: A word for each block in the order of `graph.blocks`; all `output` if None. A
            backup that reads the input that its block adds to needs this input to be computed,
            even though the block is out.

    Source:
        DiP-GO (arXiv 2410.16942), section 3.2.
    """
    names = frozenset(node.name for node in graph.blocks)
    return {block: names - live for block, live in _live_without(graph, backup).items()}


def cascade_shares(graph: BlockGraph, backup: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Returns γ, f64[blocks]: the share of an evaluation's MACs of each block and its cascade.

    An evaluation's MACs are those of all nodes that depend on the state, glue included. The other
    nodes leave the loop, and their MACs are missing from the blocks whose modules they belong to
    (0.4 % of SD-1.5). Blocks are in the order of `graph.blocks`.

    Source:
        DiP-GO (arXiv 2410.16942), section 3.3: the factor γ of the sparsity loss.
    """
    macs = {node.name: node.macs for node in graph.nodes if Dependence.STATE in node.dependence}
    total = sum(macs.values())
    left = [
        sum(count for name, count in macs.items() if name in live)
        for live in _live_without(graph, backup).values()
    ]
    return 1.0 - np.array(left, dtype=np.float64) / max(total, 1)


def _live_without(graph: BlockGraph, backup: Sequence[str] | None) -> dict[str, frozenset[str]]:
    """Returns for every block the nodes that are still called when it is not."""
    words = backup or ("output",) * len(graph.blocks)
    return {
        block.name: _live(graph, block, word)
        for block, word in zip(graph.blocks, words, strict=True)
    }


def _live(graph: BlockGraph, taken_out: Node, word: str) -> frozenset[str]:
    """Returns the nodes that are called, found backward from the prediction.

    The node that is taken out needs at most the input that it adds to.
    """
    reads = (graph.carriers[taken_out.name],) if BACKUPS[word].reads_input else ()
    needed = {graph.output}
    live: set[str] = set()
    for node in reversed(graph.nodes):
        if needed.isdisjoint(value.name for value in node.outputs):
            continue
        if node is taken_out:
            needed.update(name for name in reads if name is not None)
        else:
            needed.update(node.inputs)
            live.add(node.name)
    return frozenset(live)
