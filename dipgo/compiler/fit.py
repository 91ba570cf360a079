"""Checks that SubNet, sampler and graph fit together."""

from __future__ import annotations

from dipgo.common.errors import DipgoError
from dipgo.ir.graph import BlockGraph, Node
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.backups import BACKUPS
from dipgo.ir.subnet.gap_rule import GapRule
from dipgo.ir.subnet.subnet import SubNet


def check_fit(graph: BlockGraph, subnet: SubNet, sampler: Sampler) -> None:
    """Checks that a SubNet names the graph's blocks, the sampler's timesteps and usable backups.

    Raises:
        DipgoError: SubNet, sampler and graph do not fit together.
    """
    names = [node.name for node in graph.blocks]
    if set(names) != set(subnet.blocks):
        raise DipgoError(
            "SubNet, blocks",
            found=" ".join(subnet.blocks),
            expected=f"the blocks of the traced model: {' '.join(names)}",
            remedy="name every block once",
        )
    check_timesteps(subnet, sampler)
    for rule in subnet.gaps:
        _check_gaps(graph, rule)
    for block, backup in zip(subnet.blocks, subnet.backup, strict=True):
        _check_backup(graph, block, backup)


def _check_gaps(graph: BlockGraph, rule: GapRule) -> None:
    rule.check_model(graph.state.type.shape, graph.unconditional is not None)
    function = graph.gap_function
    if rule.terms and (function is None or function.table.name != rule.key):
        raise DipgoError(
            f"SubNet, {rule.key}",
            found=rule.noun,
            expected="none for a graph that was traced without what applies them",
            remedy="compile the SubNet with the model (dipgo.export), which traces it again",
        )


def check_timesteps(subnet: SubNet, sampler: Sampler) -> None:
    """Checks the SubNet's rows against the sampler's evaluations.

    Raises:
        DipgoError: Their timesteps differ.
    """
    if tuple(map(float, subnet.timesteps)) != tuple(map(float, sampler.timesteps)):
        raise DipgoError(
            "SubNet, timesteps",
            found=_ends(subnet.timesteps),
            expected=f"{_ends(sampler.timesteps)} of {sampler.scheduler_class}",
            remedy="use the scheduler and the number of steps that the SubNet was made for",
        )


def _check_backup(graph: BlockGraph, block: str, backup: str) -> None:
    (node,) = (candidate for candidate in graph.blocks if candidate.name == block)
    if not can_have(graph, node, backup):
        outputs = " ".join(str(value.type) for value in node.outputs)
        raise DipgoError(
            f"SubNet, backup of {block}",
            found=f"{backup} for a block with outputs {outputs}",
            expected="one output, of the type of the hidden state that goes in",
            remedy="use the backup `output` for this block",
        )


def can_have(graph: BlockGraph, node: Node, backup: str) -> bool:
    """Returns whether a block can have the backup of this name."""
    return not BACKUPS[backup].reads_input or graph.carriers[node.name] is not None


def _ends(timesteps: tuple[float, ...]) -> str:
    return f"{len(timesteps)} timesteps from {timesteps[0]:g} to {timesteps[-1]:g}"
