"""Reads, from a SubNet, the gates of whole rows and what they predict when they are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from dipgo.ir.subnet.gap_rule import GapRule, Latest, Operations, arguments
from dipgo.ir.subnet.gap_rules import rule_of_rows, rule_with_function
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.gap_functions import GapShape
from dipgo.search.supernet.gating import Gate, Prediction, choice, combined


@dataclass(frozen=True, slots=True)
class RowGates:
    """Gates of whole rows, and their predictions when they are off.

    Attributes:
        gates: f32[steps].
        of_off: For each row how it predicts when it is off: weights f32[K] of `Walk.latest` (of K
            predictions, or of K/2 predictions and their unconditional halves, interleaved) or a
            SubNet's rule. A tensor f32[steps, K] has weights for all rows; None leaves a row to
            its blocks' gates.
    """

    gates: Tensor
    of_off: Tensor | Sequence[Prediction | None]

    def choices(self) -> list[Gate]:
        """Returns a gate for each row; row 0 is computed."""
        return [True, *map(choice, self.gates[1:])]


def row_gates(subnet: SubNet) -> RowGates | None:
    """Returns a SubNet's row gates with its gap rules, or None if it has no rules.

    If a rule reads unconditional halves, it needs a SuperNet with `halves`.
    """
    if not subnet.gaps:
        return None
    on = torch.tensor(subnet.gates.any(axis=1), dtype=torch.float32)
    rules = rule_of_rows(subnet.gaps)
    operations = TensorOperations(rule_with_function(subnet.gaps))
    return RowGates(
        on,
        [
            RuleOfRow(rules[row], row, operations) if row in rules else None
            for row in range(len(on))
        ],
    )


@dataclass(frozen=True, slots=True)
class RuleOfRow:
    """A gap rule, for one row."""

    rule: GapRule
    row: int
    operations: Operations[Tensor]

    def of(self, latest: Sequence[Tensor], kinds: int) -> Tensor:
        """Returns the row's prediction from the latest ones."""
        wholes = latest[::kinds]
        halves = latest[1::2] if kinds == 2 else [None] * len(wholes)
        pairs = tuple(zip(wholes, halves, strict=True))
        return self.rule.predict(self.row, pairs, self.operations)


@dataclass(frozen=True)
class TensorOperations(Operations[Tensor]):
    """Computes; `rule` is the one that has a function, if there is one."""

    rule: GapRule | None

    def combine(self, terms: tuple[tuple[float, Tensor], ...]) -> Tensor:
        """Returns the sum of coefficient · tensor."""
        return combined(terms)

    def apply(self, table_row: int, past: Latest[Tensor]) -> Tensor:
        """Returns the function of a row of the table and of as many predictions as it reads."""
        shape, function, table = self._function
        tensors = arguments(past, shape.values, shape.halves)
        result: Tensor = function(table[table_row].to(tensors[0]), *tensors)
        return result

    @cached_property
    def _function(self) -> tuple[GapShape, nn.Module, Mapping[int, Tensor]]:
        assert self.rule is not None, "no rule has a function"
        shape = GapShape.of(self.rule)
        return shape, shape.module(), shape.numbers(self.rule)
