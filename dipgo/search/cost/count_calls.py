"""Counts the calls that a SubNet leaves, by the numbering and liveness of a plan, without one.

Statements are integers: the noise is 0, row r of the tables 1 + r, then come the draws of noise,
then calls and linear combinations in order of execution. A node's value is identified by the
statement that made it, or if the node is off, by the one that its backup yields. That suffices to
distinguish values, because a node always reads the same outputs of the same nodes.

If rows that are wholly off filter the latest predictions, a gap of them is one more call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.graph import BlockGraph, Dependence
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.backups import BACKUPS, Backup
from dipgo.ir.subnet.past import Past

Bools: TypeAlias = NDArray[np.bool_]

_STATE, _ROW, _NODES = 0, 1, 2
"""The places that are bound to statements: the denoiser's input, the row, then every node."""

_NOT_A_CALL = -1

_Read: TypeAlias = Callable[[Sequence[int]], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one table of gates.

    Attributes:
        executed: bool[evaluations, nodes], the calls that are really made, each at the first
            evaluation that makes it.
        used: bool[evaluations, nodes], whether anything that the result depends on reads the
            node's value at that evaluation, even if the value was made earlier.
        filtered: The number of predictions that all applied filters read; every gap counts as
            many as the longest.
    """

    executed: Bools
    used: Bools
    filtered: int = 0


@dataclass(frozen=True, slots=True)
class _Numbering:
    """The statements so far.

    Attributes:
        reads: The statements that each statement reads.
        places: The call that each statement is, as evaluation · nodes + node, or _NOT_A_CALL.
        combinations: The statements of linear combinations by their terms.
    """

    reads: list[tuple[int, ...]]
    places: list[int]
    combinations: dict[tuple[tuple[float, int], ...], int]

    def combine(self, terms: tuple[tuple[float, int], ...]) -> int:
        """Returns the statement of a linear combination, an earlier one if it is the same."""
        known = self.combinations.get(terms)
        if known is None:
            known = self.combinations[terms] = len(self.reads)
            self.reads.append(tuple(source for _, source in terms))
            self.places.append(_NOT_A_CALL)
        return known

    def update(self, terms: tuple[tuple[float, int], ...], trajectory: Sequence[int]) -> int:
        """Returns the statement of a sampler's update, whose sources are places in `trajectory`."""
        merged: dict[int, float] = {}
        for coefficient, place in terms:
            source = trajectory[place]
            merged[source] = merged.get(source, 0.0) + coefficient
        if len(merged) == 1 and 1.0 in merged.values():
            return next(iter(merged))
        return self.combine(tuple((number, source) for source, number in merged.items()))

    def filter(self, past: Sequence[int]) -> int:
        """Returns a new statement for a gap's filters over earlier predictions.

        No two gaps have the same filters.
        """
        self.reads.append(tuple(past))
        self.places.append(_NOT_A_CALL)
        return len(self.reads) - 1

    def live(self, result: int) -> Bools:
        """Returns bool[statements], those that the result depends on."""
        reads = self.reads
        live = bytearray(len(reads))
        live[result] = True
        for statement in range(len(reads) - 1, 0, -1):
            if live[statement]:
                for source in reads[statement]:
                    live[source] = True
        return np.frombuffer(live, dtype=np.bool_)


@dataclass(slots=True)
class _Predictions:
    """The predictions so far, by the rules of `dipgo.compiler.unroll`.

    Attributes:
        terms: The most predictions that a gap's filters read; 0 for no filters.
        past: The statements of the predictions.
        filters: The statements of the gaps' filters.
        longest: The most predictions that a gap's filters read so far.
        in_gap: Whether the last evaluation was in a gap.
    """

    terms: int
    past: Past[int] = field(default_factory=Past)
    filters: list[int] = field(default_factory=list)
    longest: int = 0
    in_gap: bool = False

    def add(self, numbering: _Numbering, row: int, computes: bool, output: int) -> int:
        """Returns the statement of an evaluation's prediction; `output` is the denoiser's."""
        if not self.terms:
            return output
        before = self.past.before(row)
        latest = (output, *before)[: self.terms] if computes else before
        self.past = self.past.after(row, latest)
        if not computes and not self.in_gap:
            self.filters.append(numbering.filter(latest))
            self.longest = max(self.longest, len(latest))
        self.in_gap = not computes
        return self.filters[-1] if self.in_gap else output


@dataclass(frozen=True)
class CallFlow:
    """A graph, a sampler and backups, prepared for many tables of gates.

    Attributes:
        graph: The graph.
        sampler: The sampler.
        blocks: The gated blocks in the SubNet's order; every block depends on the state.
        backup: A word for each block.
        filtered: The number of the latest predictions that rows which are wholly off filter.
    """

    graph: BlockGraph
    sampler: Sampler
    blocks: tuple[str, ...]
    backup: tuple[str, ...]
    filtered: int = 0

    def calls(self, gates: Bools) -> Calls:
        """Returns the calls of a plan for `gates`, bool[steps, blocks] with row 0 all on."""
        numbering, history, predictions, result = self._number(gates)
        live = numbering.live(result)
        shape = len(self.sampler.rows), len(self.graph.nodes)
        places = np.array(numbering.places)
        executed = np.zeros(shape, dtype=np.bool_)
        executed.flat[places[live & (places != _NOT_A_CALL)]] = True
        readers, reads, first = self._outside_loop
        evaluations, columns = np.nonzero(executed[:, self._loop] @ readers)
        executed[first[evaluations, columns], reads[columns]] = True
        filtered = int(live[predictions.filters].sum()) * predictions.longest
        return Calls(executed, live[np.array(history)[:, _NODES:]], filtered)

    def _number(self, gates: Bools) -> tuple[_Numbering, list[list[int]], _Predictions, int]:
        """Numbers all statements of a plan for `gates`.

        Returns:
            The statements; the places' statements at the end of each evaluation; the
            predictions; the statement of the result.
        """
        rows = len(self.sampler.timesteps)
        draws = range(1 + rows, 1 + rows + len(self.sampler.draws))
        numbering = _Numbering([()] * draws.stop, [_NOT_A_CALL] * draws.stop, {})
        reads, places, combine = numbering.reads, numbering.places, numbering.combine
        nodes = len(self.graph.nodes)
        bound, known = [0] * (_NODES + nodes), [dict[tuple[int, ...], int]() for _ in range(nodes)]
        kept: dict[int, tuple[int, ...]] = {}
        trajectory, history, predictions = [0, *draws], [], _Predictions(self.filtered)
        table, output = gates.tolist(), self._output
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
            prediction = predictions.add(numbering, row, any(on), bound[output])
            trajectory += (bound[_STATE], prediction)
            history.append(bound.copy())
        return numbering, history, predictions, numbering.update(self._updates[-1], trajectory)

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
