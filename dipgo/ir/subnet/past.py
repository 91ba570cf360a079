"""Tracks the predictions of computing rows, of which rows that are wholly off make their own."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")
"""The type of a prediction's stand-in."""


class Past(NamedTuple, Generic[V]):
    """The latest predictions of rows that compute.

    If one timestep is evaluated twice in succession, the second evaluation counts: it follows the
    predictions that the first followed.

    Attributes:
        latest: The predictions, the newest first.
        row: The row that was evaluated last.
        earlier: The value of `latest` before that row.
    """

    latest: tuple[V, ...] = ()
    row: int | None = None
    earlier: tuple[V, ...] = ()

    def before(self, row: int) -> tuple[V, ...]:
        """Returns the predictions before that of `row`, the next row to be evaluated."""
        return self.earlier if row == self.row else self.latest

    def after(self, row: int, latest: tuple[V, ...]) -> Past[V]:
        """Returns the past after `row` is evaluated.

        Args:
            row: The row.
            latest: The latest predictions from then on: for a row that is off, those before it;
                for a row that computes, its own followed by those.
        """
        return Past(latest, row, self.before(row))
