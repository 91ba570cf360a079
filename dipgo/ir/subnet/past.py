"""The predictions that a row which is wholly off may be made of: those of the rows that compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")
"""The type of what stands for a prediction."""


@dataclass(frozen=True, slots=True)
class Past(Generic[V]):
    """The `latest` predictions of rows that compute, the newest first.

    Of two evaluations in a row at one timestep the second counts: it follows the predictions that
    the first followed. `row` is the last that was evaluated, `earlier` what `latest` was before.
    """

    latest: tuple[V, ...] = ()
    row: int | None = None
    earlier: tuple[V, ...] = ()

    def before(self, row: int) -> tuple[V, ...]:
        """Returns the predictions that one of `row`, the next to be evaluated, follows."""
        return self.earlier if row == self.row else self.latest

    def after(self, row: int, latest: tuple[V, ...]) -> Past[V]:
        """Returns the past once `row` is evaluated, with the predictions that are then the latest.

        A row that is off leaves those before it, a row that computes puts its own in front.
        """
        return Past(latest, row, self.before(row))
