"""Numbers the statements of a plan without making it: nodes' calls, combinations, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.subnet.gap_rule import GapPredictor, Latest, Operations, V
from dipgo.ir.subnet.gap_rules import rule_of_rows
from dipgo.ir.subnet.past import Past

Bools: TypeAlias = NDArray[np.bool_]

NOT_A_CALL = -1


@dataclass(frozen=True, slots=True)
class Numbering:
    """The statements so far.

    Attributes:
        reads: The statements that each statement reads.
        places: The call that each statement is, as evaluation · nodes + node, or NOT_A_CALL.
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
            self.places.append(NOT_A_CALL)
        return known

    def update(self, terms: tuple[tuple[float, int], ...], trajectory: Sequence[int]) -> int:
        """Returns the statement of a combination whose sources are places in `trajectory`."""
        merged: dict[int, float] = {}
        for coefficient, place in terms:
            source = trajectory[place]
            merged[source] = merged.get(source, 0.0) + coefficient
        if len(merged) == 1 and 1.0 in merged.values():
            return next(iter(merged))
        return self.combine(tuple((number, source) for source, number in merged.items()))

    def add(self, sources: tuple[int, ...]) -> int:
        """Returns a new statement, which is no call of a node and reads `sources`."""
        self.reads.append(sources)
        self.places.append(NOT_A_CALL)
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
class Predictions(Operations[int]):
    """The predictions so far, by the rules of `dipgo.compiler.unroll`.

    Attributes:
        numbering: The statements.
        rules: What makes the prediction of each row that is wholly off; others keep the output.
        terms: The most predictions that a call of a rule's function reads.
        halves: Whether unconditional halves are read.
        past: The statements of the predictions, each with its half's.
        calls: The statements of the function's calls by row of the table and what they read.
        of_halves: The statements of unconditional halves by those of the nodes that make them.
        longest: The most predictions that a call read so far.
    """

    numbering: Numbering
    rules: Mapping[int, GapPredictor]
    terms: int
    halves: bool
    past: Past[tuple[int, int | None]] = field(default_factory=Past)
    calls: dict[tuple[int, Latest[int]], int] = field(default_factory=dict)
    of_halves: dict[int, int] = field(default_factory=dict)
    longest: int = 0

    @classmethod
    def of_rules(cls, numbering: Numbering, gaps: Sequence[GapPredictor]) -> Predictions:
        """Returns the predictions before the first evaluation."""
        terms, halves = max(rule.terms for rule in gaps), any(rule.halves for rule in gaps)
        return cls(numbering, rule_of_rows(gaps), terms, halves)

    def add(self, row: int, computes: bool, output: int, half: int) -> int:
        """Returns the statement of an evaluation's prediction.

        Args:
            row: The row that is evaluated.
            computes: Whether any of its gates is on.
            output: The statement of the denoiser's output.
            half: The statement of the node that makes the output's unconditional half.
        """
        before = self.past.before(row)
        if computes:
            pair = output, self._half(half) if self.halves else None
            self.past = self.past.after(row, (pair, *before))
            return output
        self.past = self.past.after(row, before)
        return self.rules[row].predict(row, before, self) if row in self.rules else output

    def _half(self, maker: int) -> int:
        """Returns a statement that differs from that of the node, which makes the whole too."""
        known = self.of_halves.get(maker)
        if known is None:
            known = self.of_halves[maker] = self.numbering.add((maker,))
        return known

    def combine(self, terms: tuple[tuple[float, int], ...]) -> int:
        """Returns the statement of a linear combination."""
        places = tuple((number, place) for place, (number, _) in enumerate(terms))
        return self.numbering.update(places, [source for _, source in terms])

    def apply(self, table_row: int, past: Latest[int]) -> int:
        """Returns the statement of a call of the rule's function."""
        read = past[: self.terms]
        known = self.calls.get((table_row, read))
        if known is None:
            sources = [whole for whole, _ in read]
            sources += [half for _, half in read if half is not None] if self.halves else ()
            known = self.calls[table_row, read] = self.numbering.add(tuple(sources))
            self.longest = max(self.longest, len(read))
        return known

    def count(self, live: Bools) -> int:
        """Returns the number of predictions that live calls of the function read in all.

        Each counts as many as the longest: a function has one number of inputs.
        """
        return int(live[list(self.calls.values())].sum()) * self.longest


@dataclass(frozen=True, slots=True)
class PlannedCalls(GapPredictor):
    """One call of a function for each gap, as a search plans them before it knows the numbers.

    Attributes:
        steps: The number of rows, any of which may be wholly off.
        most: The most predictions that a call reads.
    """

    steps: int
    most: int

    @property
    def rows(self) -> range:
        """All rows."""
        return range(self.steps)

    @property
    def halves(self) -> bool:
        """Whether halves are read: their cost is part of `GapCost.each`."""
        return False

    @property
    def terms(self) -> int:
        """The most predictions that a call reads."""
        return self.most

    def predict(self, row: int, latest: Latest[V], operations: Operations[V]) -> V:
        """Returns the result of the gap's call; each gap comes after more predictions."""
        return operations.apply(len(latest), latest)
