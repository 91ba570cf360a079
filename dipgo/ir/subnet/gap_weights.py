"""The gap rule of weights: a linear combination of the latest predictions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.gap_rule import GapRule, Gates, Latest, Operations, V
from dipgo.ir.types import LARGEST

RowWeights: TypeAlias = tuple[tuple[float, ...], ...]
"""Weights of the latest predictions for each row, the newest first."""

Weights: TypeAlias = Sequence[Sequence[float]]


@dataclass(frozen=True)
class WeightedGaps(GapRule):
    """The weighted sum of the latest predictions and of their unconditional halves.

    Attributes:
        weights: Weights of predictions for each row, none for a row that the rule does not cover.
        unconditional: Weights of the same predictions' unconditional halves.
    """

    key: ClassVar[str] = "reuse"
    keys: ClassVar[Mapping[str, Any]] = {
        "reuse": list[list[float]],
        "reuse_unconditional": list[list[float]],
    }
    noun: ClassVar[str] = "weights"

    weights: RowWeights | None
    unconditional: RowWeights | None = None

    @property
    def rows(self) -> Collection[int]:
        """The rows that have weights."""
        return [row for row, weights in enumerate(self.weights or ()) if weights]

    @property
    def halves(self) -> bool:
        """Whether halves have weights."""
        return bool(self.unconditional)

    @property
    def halves_key(self) -> str:
        """The JSON key of the halves' weights."""
        return "reuse_unconditional"

    def predict(self, row: int, latest: Latest[V], operations: Operations[V]) -> V:
        """Returns a combination of predictions, then of halves."""
        weights, halves = _row(self.weights, row), _row(self.unconditional, row)
        terms = [(weight, whole) for weight, (whole, _) in zip(weights, latest, strict=False)]
        terms += [
            (weight, half)
            for weight, (_, half) in zip(halves, latest, strict=False)
            if half is not None
        ]
        return operations.combine(tuple(terms))

    def check(self, gates: Gates) -> None:
        """Checks both lists, and that no row has more weights of halves than of predictions.

        Raises:
            DipgoError: A row breaks a rule.
        """
        check_weights(self.weights, self.unconditional, gates)

    def cut(self, begin: int) -> WeightedGaps:
        """Returns the weights of the rows from `begin` on."""
        return WeightedGaps(*(rows and rows[begin:] for rows in (self.weights, self.unconditional)))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> WeightedGaps:
        """Returns the weights of a file."""
        return cls(as_floats(values["reuse"]), as_floats(values["reuse_unconditional"]))

    def write(self) -> dict[str, Any]:
        """Returns the weights for a file."""
        return {
            "reuse": _as_lists(self.weights),
            "reuse_unconditional": _as_lists(self.unconditional),
        }

    def facts(self) -> dict[str, Any]:
        """Returns the weights, with those of halves if there are any."""
        halves = self.unconditional
        return {"reuse": (self.weights, halves) if halves else self.weights}

    def describe(self) -> str | None:
        """Returns the number of rows."""
        apart = ", halves apart" if self.unconditional else ""
        rows = len(self.rows)
        return f"rows made of weighted earlier predictions {rows}{apart}" if rows else None


def _row(rows: RowWeights | None, row: int) -> tuple[float, ...]:
    return rows[row] if rows else ()


def as_floats(rows: Weights | None) -> RowWeights | None:
    """Returns rows of numbers as tuples of floats."""
    return None if rows is None else tuple(tuple(map(float, row)) for row in rows)


def _as_lists(rows: Weights | None) -> list[list[float]] | None:
    return None if rows is None else list(map(list, rows))


def check_weights(
    weights: Weights | None, unconditional: Weights | None, gates: NDArray[np.bool_]
) -> None:
    """Checks weights of predictions and of their unconditional halves.

    Each row has a list of finite weights, empty if the row computes and no longer than the number
    of rows before it that compute. No row has more weights of halves than of predictions.

    Raises:
        DipgoError: A row breaks a rule.
    """
    for key, rows in (("reuse", weights), ("reuse_unconditional", unconditional)):
        if rows is not None:
            _check_rows(key, rows, gates)
    for row, halves in enumerate(unconditional or ()):
        whole = len(weights[row]) if weights else 0
        if len(halves) > whole:
            raise DipgoError(
                f"reuse_unconditional row {row}",
                found=f"{len(halves)} weights",
                expected=f"at most {whole}, as many as reuse has in this row",
                remedy="give reuse a weight for each of these, which may be 0",
            )


def _check_rows(key: str, rows: Weights, gates: NDArray[np.bool_]) -> None:
    if len(rows) != len(gates):
        raise DipgoError(
            key,
            found=f"{len(rows)} rows",
            expected=f"{len(gates)}, one a timestep",
            remedy=f"give {key} one row for every entry of timesteps, or leave it out",
        )
    computed = np.cumsum(gates.any(axis=1))
    for row, weights in enumerate(rows):
        if weights and gates[row].any():
            raise DipgoError(
                f"{key} row {row}",
                found=f"{len(weights)} weights for a row that computes",
                expected="weights only where all gates are 0",
                remedy="write [] for this row",
            )
        if len(weights) > computed[row]:
            raise DipgoError(
                f"{key} row {row}",
                found=f"{len(weights)} weights",
                expected=f"at most {computed[row]}, as many as rows before it compute",
                remedy="leave out the last of them",
            )
        if not all(abs(weight) <= LARGEST for weight in weights):
            raise DipgoError(
                f"{key} row {row}",
                found=" ".join(map(str, weights)),
                expected="finite numbers",
                remedy=f"correct them, or leave {key} out",
            )
