"""Counts the calls that a SubNet leaves, by the numbering and liveness of a plan, without one.

Statements are integers: the noise is 0, row r of the tables 1 + r, then come the draws of noise,
then calls and linear combinations in order of execution. A node's value is identified by the
statement that made it, or if the node is off, by the one that its backup yields. That suffices to
distinguish values, because a node always reads the same outputs of the same nodes.

Rows that are wholly off predict by the rules of a SubNet, as they do when it is unrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.graph import BlockGraph, Dependence
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.backups import BACKUPS, Backup
from dipgo.ir.subnet.gap_rule import GapPredictor
from dipgo.search.cost.numbering import NOT_A_CALL, Numbering, Predictions

Bools: TypeAlias = NDArray[np.bool_]

_STATE, _ROW, _NODES = 0, 1, 2
"""The places that are bound to statements: the denoiser's input, the row, then every node."""

_Read: TypeAlias = Callable[[Sequence[int]], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one table of gates.

    Attributes:
        executed: bool[evaluations, nodes], the calls that are really made, each at the first
            evaluation that makes it.
        used: bool[evaluations, nodes], whether anything that the result depends on reads the
            node's value at that evaluation, even if the value was made earlier.
        of_gaps: The number of predictions that all calls of a gap rule's function read; each
            counts as many as the longest.
    """

    executed: Bools
    used: Bools
    of_gaps: int = 0


@dataclass(frozen=True)
class CallFlow:
    """A graph, a sampler and backups, prepared for many tables of gates.

    Attributes:
        graph: The graph.
        sampler: The sampler.
        blocks: The gated blocks in the SubNet's order; every block depends on the state.
        backup: A word for each block.
    """

    graph: BlockGraph
    sampler: Sampler
    blocks: tuple[str, ...]
    backup: tuple[str, ...]

    def calls(self, gates: Bools, gaps: Sequence[GapPredictor] = ()) -> Calls:
        """Returns the calls of a plan.

        Args:
            gates: bool[steps, blocks] with row 0 all on.
            gaps: What rows that are wholly off predict; rows that they leave out have the
                denoiser's output by the backups.
        """
        numbering, history, predictions, result = self._number(gates, gaps)
        live = numbering.live(result)
        shape = len(self.sampler.rows), len(self.graph.nodes)
        places = np.array(numbering.places)
        executed = np.zeros(shape, dtype=np.bool_)
        executed.flat[places[live & (places != NOT_A_CALL)]] = True
        readers, reads, first = self._outside_loop
        evaluations, columns = np.nonzero(executed[:, self._loop] @ readers)
        executed[first[evaluations, columns], reads[columns]] = True
        of_gaps = predictions.count(live) if predictions else 0
        return Calls(executed, live[np.array(history)[:, _NODES:]], of_gaps)

    def _number(
        self, gates: Bools, gaps: Sequence[GapPredictor]
    ) -> tuple[Numbering, list[list[int]], Predictions | None, int]:
        """Numbers all statements of a plan.

        Returns:
            The statements; the places' statements at the end of each evaluation; the
            predictions if there are `gaps`; the statement of the result.
        """
        rows = len(self.sampler.timesteps)
        draws = range(1 + rows, 1 + rows + len(self.sampler.draws))
        numbering = Numbering([()] * draws.stop, [NOT_A_CALL] * draws.stop, {})
        reads, places, combine = numbering.reads, numbering.places, numbering.combine
        nodes = len(self.graph.nodes)
        bound, known = [0] * (_NODES + nodes), [dict[tuple[int, ...], int]() for _ in range(nodes)]
        kept: dict[int, tuple[int, ...]] = {}
        trajectory, history, output, half = [0, *draws], [], self._output, self._half
        predictions = Predictions.of_rules(numbering, gaps) if gaps else None
        table = gates.tolist()
        for evaluation, row in enumerate(self.sampler.rows):
            bound[_STATE] = numbering.update(self._updates[evaluation], trajectory)
            bound[_ROW] = 1 + row
            first = evaluation * nodes
            on = table[row]
            for node, column, read, acts, entered in self._program:
                if column is None or on[column]:
                    operands = read(bound)
                    statement = known[node].get(operands)
                    if statement is None:
                        statement = known[node][operands] = len(reads)
                        reads.append(operands)
                        places.append(first + node)
                    bound[_NODES + node] = statement
                    if acts is not None:
                        kept[node] = acts.keep((statement,), bound[entered], combine)
                elif acts is not None:
                    (bound[_NODES + node],) = acts.reuse(kept[node], bound[entered], combine)
            prediction = bound[output]
            if predictions:
                prediction = predictions.add(row, any(on), prediction, bound[half])
            trajectory += (bound[_STATE], prediction)
            history.append(bound.copy())
        result = numbering.update(self._updates[-1], trajectory)
        return numbering, history, predictions, result

    @cached_property
    def folded(self) -> frozenset[str]:
        """The nodes that depend on the timestep alone: they become tables and are never called."""
        return frozenset(
            node.name for node in self.graph.nodes if node.dependence == Dependence.TIMESTEP
        )

    @cached_property
    def once(self) -> frozenset[str]:
        """The nodes that depend on the prompt alone, or on nothing: they are called once a run."""
        fixed = (Dependence.PROMPT, Dependence.CONSTANT)
        return frozenset(node.name for node in self.graph.nodes if node.dependence in fixed)

    @cached_property
    def _made_by(self) -> dict[str, int]:
        nodes = enumerate(self.graph.nodes)
        return {value.name: index for index, node in nodes for value in node.outputs}

    @cached_property
    def _output(self) -> int:
        return _NODES + self._made_by[self.graph.output]

    @cached_property
    def _half(self) -> int:
        """The place of the node that makes the unconditional half, or of any other node."""
        return _NODES + self._made_by[self.graph.unconditional or self.graph.output]

    @cached_property
    def _loop(self) -> list[int]:
        """The indices of the nodes that depend on the state."""
        nodes = enumerate(self.graph.nodes)
        return [index for index, node in nodes if Dependence.STATE in node.dependence]

    @cached_property
    def _updates(self) -> tuple[tuple[tuple[float, int], ...], ...]:
        """The sampler's terms, with places in [noise, draws, input 0, output 0, input 1, …]."""
        draws = self.sampler.draws
        first = 1 + len(draws)

        def place(term: Term) -> int:
            match term.kind:
                case "noise":
                    return 0
                case "draw":
                    return 1 + draws.index(term.index)
                case "input":
                    return first + 2 * term.index
                case "output":
                    return first + 1 + 2 * term.index

        updates = (*self.sampler.inputs, self.sampler.result)
        return tuple(tuple((term.coefficient, place(term)) for term in terms) for terms in updates)

    @cached_property
    def _program(self) -> list[tuple[int, int | None, _Read, Backup | None, int]]:
        """For each node of the loop: its index, gate, reader, backup, and the backup's input.

        A backup that only repeats earlier outputs is None here: there is nothing to be done.
        """
        column = {name: index for index, name in enumerate(self.blocks)}
        program = []
        for index in self._loop:
            node = self.graph.nodes[index]
            gate = column.get(node.name)
            backup = None if gate is None else BACKUPS[self.backup[gate]]
            entered = self.graph.carriers[node.name] if backup else None
            place = _STATE if entered is None else _NODES + self._made_by[entered]
            acts = None if backup is None or backup.repeats else backup
            program.append((index, gate, self._reader(index), acts, place))
        return program

    def _reader(self, index: int) -> _Read:
        """Returns a getter of the statements that a node of the loop reads, its row included."""
        places: dict[int, None] = {}
        for name in self.graph.nodes[index].inputs:
            dependence = self._dependence(name)
            if Dependence.STATE in dependence:
                made = self._made_by.get(name)
                places[_STATE if made is None else _NODES + made] = None
            elif Dependence.TIMESTEP in dependence:
                places[_ROW] = None
        # An itemgetter of one item would give no tuple.
        return itemgetter(*places, next(iter(places)))

    def _dependence(self, name: str) -> Dependence:
        if name in self._made_by:
            return self.graph.nodes[self._made_by[name]].dependence
        return next(entry.role for entry in self.graph.inputs if entry.value.name == name)

    @cached_property
    def _outside_loop(self) -> tuple[Bools, NDArray[np.intp], NDArray[np.intp]]:
        """The n nodes that need the prompt but no state, called if and only if the loop reads them.

        The arrays are bool[loop, n], whether a node of the loop reads one of them, directly or
        through others; i[n], the index of each; and i[evaluations, n], the first evaluation that
        needs the same call, which is the first of its row, or 0.
        """
        nodes, count = self.graph.nodes, len(self.graph.nodes)
        needs = np.zeros((count, count), dtype=np.bool_)
        for index, node in enumerate(nodes):
            for source in {self._made_by[name] for name in node.inputs if name in self._made_by}:
                if Dependence.STATE not in nodes[source].dependence:
                    needs[index] |= needs[source]
                    needs[index, source] = True
        skipped = {*self._loop, *(i for i in range(count) if nodes[i].name in self.folded)}
        outside = np.array([i for i in range(count) if i not in skipped], dtype=np.intp)
        rows = self.sampler.rows
        first = np.array([[rows.index(row)] * len(outside) for row in rows], dtype=np.intp)
        first[:, [nodes[index].name in self.once for index in outside]] = 0
        return (
            needs[np.ix_(np.array(self._loop), outside)],
            outside,
            first.reshape(len(rows), len(outside)),
        )
