"""Checks that SubNet, sampler and graph fit together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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
        raise _other_blocks(subnet.blocks, names)
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
    given, own = tuple(map(float, subnet.timesteps)), tuple(map(float, sampler.timesteps))
    if given != own:
        row = _first_difference(given, own)
        raise DipgoError(
            f"SubNet, timesteps, row {row}",
            found=f"{_at(given, row)} ({_ends(given)})",
            expected=f"{_at(own, row)}, as {sampler.scheduler_class} has it ({_ends(own)})",
            remedy="use the scheduler, its spacing and the number of steps that the SubNet was "
            "made for",
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


def _other_blocks(given: Sequence[str], own: Sequence[str]) -> DipgoError:
    """Returns the error for a SubNet with other blocks than the model's; it names those."""
    unknown = [name for name in given if name not in own]
    missing = [name for name in own if name not in given]
    found = [f"{' '.join(unknown)}, which the traced model does not have"] if unknown else []
    found += [f"none of {' '.join(missing)}"] if missing else []
    return DipgoError(
        "SubNet, blocks",
        found=", and ".join(found),
        expected=f"the blocks of the traced model: {' '.join(own)}",
        remedy="name every block once",
    )


def _first_difference(given: Sequence[float], own: Sequence[float]) -> int:
    pairs = zip(given, own, strict=False)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return len(list(same))


def _at(timesteps: Sequence[float], row: int) -> str:
    return f"{timesteps[row]:g}" if row < len(timesteps) else "no such row"


def _ends(timesteps: Sequence[float]) -> str:
    """Returns number, ends and spacing of timesteps."""
    ends = f"{len(timesteps)} timesteps from {timesteps[0]:g} to {timesteps[-1]:g}"
    gaps = {round(before - after, 3) for before, after in itertools.pairwise(timesteps)}
    if not gaps:
        return ends
    spacing = f"{min(gaps):g} to {max(gaps):g}" if len(gaps) > 1 else f"{min(gaps):g}"
    return f"{ends}, {spacing} apart"
