"""The base of gap rules: how rows whose gates are all 0 make their prediction of earlier ones.

A rule is written once for all stand-ins of a prediction: its name when a SubNet is unrolled, the
tensor itself in the SuperNet, the number of a statement when calls are counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError

V = TypeVar("V")
"""The type of a prediction's stand-in."""

Latest: TypeAlias = Sequence[tuple[V, V | None]]
"""The latest predictions, the newest first, each with its unconditional half if it is known."""

Gates: TypeAlias = NDArray[np.bool_]


class Operations(ABC, Generic[V]):
    """What a rule may do with predictions."""

    @abstractmethod
    def combine(self, terms: tuple[tuple[float, V], ...]) -> V:
        """Returns the sum of coefficient · value over its terms."""

    @abstractmethod
    def apply(self, table_row: int, past: Latest[V]) -> V:
        """Returns the result of the rule's function.

        Args:
            table_row: The row of the function's table that it reads.
            past: The predictions that it reads; `arguments` makes them as many as it takes.
        """


class GapPredictor(ABC):
    """What some rows that are wholly off predict, as far as a run or its cost depends on it."""

    @property
    @abstractmethod
    def rows(self) -> Collection[int]:
        """The rows whose predictions are made."""

    @property
    @abstractmethod
    def halves(self) -> bool:
        """Whether unconditional halves of predictions are read."""

    @property
    def terms(self) -> int:
        """The most predictions that the function of `Operations.apply` reads; 0 without one."""
        return 0

    @abstractmethod
    def predict(self, row: int, latest: Latest[V], operations: Operations[V]) -> V:
        """Returns the prediction of one of `rows`."""


class GapRule(GapPredictor):
    """A rule as SubNets have it; `GAP_RULES` has all rules.

    A rule that needs more than linear combinations has a function of the latest predictions and of
    a row of a table: `dipgo.models.gap_functions` has the function under the rule's `key`,
    `numbers` the table.
    """

    key: ClassVar[str]
    """The JSON key that errors name; also the name of the table."""

    keys: ClassVar[Mapping[str, Any]]
    """All JSON keys of a SubNet file that the rule reads, and their types."""

    noun: ClassVar[str]
    """What the rule's numbers are called."""

    def numbers(self, terms: int, halves: bool) -> Mapping[int, NDArray[np.float32]]:
        """Returns the table of the rule's function by row; empty for a rule without a function.

        Args:
            terms: The number of predictions that the function reads.
            halves: Whether each prediction is followed by its unconditional half.
        """
        return {}

    @abstractmethod
    def check(self, gates: Gates) -> None:
        """Checks the rule's numbers against gates bool[steps, blocks].

        Raises:
            DipgoError: They do not fit together.
        """

    def check_model(self, latent_shape: Sequence[int], guided: bool) -> None:
        """Checks that the rule can be applied to a model's predictions.

        Args:
            latent_shape: The shape of the latents.
            guided: Whether the denoiser is guided, so that predictions have unconditional halves.

        Raises:
            DipgoError: It cannot.
        """
        if self.halves and not guided:
            raise DipgoError(
                f"SubNet, {self.halves_key}",
                found=f"{self.noun} of unconditional predictions",
                expected="none for a denoiser without guidance: it makes no such predictions",
                remedy="export with guidance, or use a SubNet that was searched without it",
            )

    @property
    def halves_key(self) -> str:
        """The JSON key that makes the rule read unconditional halves."""
        return self.key

    def where(self, row: int) -> str:
        """Returns the place of a row in the file, for errors."""
        return f"{self.key} row {row}"

    @abstractmethod
    def cut(self, begin: int) -> GapRule | None:
        """Returns the rule for the rows from `begin` on, numbered from 0; None if it has none."""

    @classmethod
    @abstractmethod
    def read(cls, values: Mapping[str, Any]) -> GapRule:
        """Returns the rule of a SubNet file.

        Args:
            values: The value of each of `keys`, of its type or None; not all are None.

        Raises:
            DipgoError: The values make no rule.
        """

    @abstractmethod
    def write(self) -> dict[str, Any]:
        """Returns the value of each of `keys` for a SubNet file, None for a key to leave out."""

    def facts(self) -> dict[str, Any]:
        """Returns plain data that pictures depend on, for the keys of cached results."""
        return self.write()

    @abstractmethod
    def describe(self) -> str | None:
        """Returns a line for `dipgo.inspect`, if there is anything to say."""


def arguments(past: Latest[V], values: int, halves: bool) -> tuple[V, ...]:
    """Returns `values` arguments of a rule's function.

    If there are fewer, the last is repeated: the table has zeros for those.

    Args:
        past: The predictions, the newest first.
        values: The number of arguments.
        halves: Whether each prediction is followed by its unconditional half.
    """
    pairs = (pair if halves else pair[:1] for pair in past)
    flat = [value for pair in pairs for value in pair if value is not None][:values]
    return (*flat, *flat[-1:] * (values - len(flat)))
