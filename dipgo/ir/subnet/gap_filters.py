"""The gap rule of filters: a small convolution of the latest predictions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.gap_rule import GapRule, Gates, Latest, Operations, V

Array = NDArray[np.float32]

Filters = list[list[list[list[list[float]]]]]


class FiltersRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Filters of one gap in a file, by prediction, output channel and input channel."""

    rows: list[int]
    predictions: Filters
    unconditional: Filters | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GapFilters:
    """The filters by which consecutive rows that are wholly off make their prediction.

    The prediction is the sum of the latest computed predictions, each filtered, with zeros beyond
    the edge.

    Attributes:
        rows: The consecutive rows.
        predictions: f32[T, C, C, k, k], a filter for each of the latest T predictions, the newest
            first: output channel, input channel, k × k latent pixels.
        unconditional: As many filters for the predictions' unconditional halves, or None.
    """

    rows: tuple[int, ...]
    predictions: Array
    unconditional: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(map(int, self.rows)))
        object.__setattr__(self, "predictions", _read_only(self.predictions))
        if self.unconditional is not None:
            object.__setattr__(self, "unconditional", _read_only(self.unconditional))

    @property
    def terms(self) -> int:
        """The number of predictions that are filtered."""
        return len(self.predictions)

    @property
    def channels(self) -> int:
        """The number of channels of the latents."""
        return int(self.predictions.shape[1])

    @property
    def size(self) -> int:
        """The side of a filter in latent pixels."""
        return int(self.predictions.shape[-1])

    def stacked(self, terms: int, halves: bool) -> Array:
        """Returns the filters as one convolution f32[C, K·C, k, k] over K predictions or halves.

        Args:
            terms: The number of predictions; filters of those beyond `self.terms` are 0.
            halves: Whether each prediction is followed by its unconditional half.
        """
        kinds = 2 if halves else 1
        channels, size = self.channels, self.size
        table = np.zeros((terms, kinds, channels, channels, size, size), np.float32)
        table[: self.terms, 0] = self.predictions
        if self.unconditional is not None:
            table[: self.terms, 1] = self.unconditional
        values = table.reshape(terms * kinds, channels, channels, size, size)
        return values.transpose(1, 0, 2, 3, 4).reshape(channels, -1, size, size)


@dataclass(frozen=True)
class FilteredGaps(GapRule):
    """The sum of the latest predictions, each filtered; every gap has its own filters.

    Attributes:
        entries: The filters of each gap.
    """

    key: ClassVar[str] = "reuse_filters"
    keys: ClassVar[Mapping[str, Any]] = {"reuse_filters": list[FiltersRecord]}
    noun: ClassVar[str] = "filters"

    entries: tuple[GapFilters, ...]

    @property
    def rows(self) -> Collection[int]:
        """The rows of all entries."""
        return self._first

    @property
    def halves(self) -> bool:
        """Whether halves have filters."""
        return any(entry.unconditional is not None for entry in self.entries)

    @property
    def terms(self) -> int:
        """The most predictions that a gap filters."""
        return max((entry.terms for entry in self.entries), default=0)

    @cached_property
    def _first(self) -> dict[int, int]:
        """The first row of each row's entry."""
        return {row: entry.rows[0] for entry in self.entries for row in entry.rows}

    def predict(self, row: int, latest: Latest[V], operations: Operations[V]) -> V:
        """Returns the filtered sum; the table has a row a gap, so its rows predict the same."""
        return operations.apply(self._first[row], latest)

    def numbers(self, terms: int, halves: bool) -> Mapping[int, Array]:
        """Returns the filters f32[C, K·C, k, k] of each gap, by the gap's first row."""
        return {entry.rows[0]: entry.stacked(terms, halves) for entry in self.entries}

    def check(self, gates: Gates) -> None:
        """Checks that each row is in one entry, and that filters have one shape.

        Raises:
            DipgoError: An entry names a row that computes or is in another entry, or its filters
                have a wrong shape or number.
        """
        seen: set[int] = set()
        computed = np.cumsum(gates.any(axis=1))
        for index, entry in enumerate(self.entries):
            where = f"{self.key}, entry {index}"
            _check_rows(where, entry.rows, gates, seen)
            seen.update(entry.rows)
            _check_shape(where, entry, self.entries[0], int(computed[entry.rows[0]]))

    def check_model(self, latent_shape: Sequence[int], guided: bool) -> None:
        """Checks that latents are pictures of as many channels, and what all rules check.

        Raises:
            DipgoError: They are not.
        """
        channels = next((entry.channels for entry in self.entries), None)
        if channels and (len(latent_shape) != 4 or latent_shape[1] != channels):
            raise DipgoError(
                f"SubNet, {self.key}",
                found=f"filters of {channels} channels for latents of shape {list(latent_shape)}",
                expected="latents [pictures, channels, height, width] of as many channels",
                remedy="use the model that the SubNet was made for",
            )
        super().check_model(latent_shape, guided)

    def where(self, row: int) -> str:
        """Returns the place of a row, which is in an entry."""
        index = next(index for index, entry in enumerate(self.entries) if row in entry.rows)
        return f"{self.key}, entry {index}, row {row}"

    def cut(self, begin: int) -> FilteredGaps | None:
        """Returns the filters of the gaps from `begin` on, which is in no gap."""
        left = [entry for entry in self.entries if entry.rows[0] >= begin]
        moved = (replace(gap, rows=tuple(row - begin for row in gap.rows)) for gap in left)
        return FilteredGaps(tuple(moved)) if left else None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> FilteredGaps:
        """Returns the filters of a file.

        Raises:
            DipgoError: The lists of an entry do not make an array.
        """
        try:
            return cls(tuple(map(_entry, values[cls.key])))
        except ValueError as error:
            raise DipgoError(
                cls.key,
                found=f"lists of unlike lengths ({error})",
                expected="numbers of shape [predictions, channels, channels, k, k]",
                remedy=f"correct them, or leave {cls.key} out",
            ) from None

    def write(self) -> dict[str, Any]:
        """Returns the filters for a file."""
        return {self.key: list(map(_record, self.entries))}

    def facts(self) -> dict[str, Any]:
        """Returns the rows and numbers of each gap."""
        stacked = [
            [entry.rows, entry.stacked(entry.terms, entry.unconditional is not None).tolist()]
            for entry in self.entries
        ]
        return {self.key: stacked} if stacked else {}

    def describe(self) -> str | None:
        """Returns the filters' size and the number of rows."""
        if not self.entries:
            return None
        size, apart = self.entries[0].size, ", halves apart" if self.halves else ""
        return (
            f"rows made of earlier predictions by {size} × {size} filters {len(self.rows)}{apart}"
        )


def _entry(record: FiltersRecord) -> GapFilters:
    halves = record.unconditional
    with np.errstate(over="ignore"):  # numbers beyond float32 are refused with infinite ones
        return GapFilters(
            tuple(record.rows),
            np.asarray(record.predictions, np.float32),
            None if halves is None else np.asarray(halves, np.float32),
        )


def _record(entry: GapFilters) -> FiltersRecord:
    halves = entry.unconditional
    return FiltersRecord(
        list(entry.rows),
        shortest(entry.predictions),
        None if halves is None else shortest(halves),
    )


def shortest(array: Array) -> Any:
    """Returns lists of the shortest decimal numbers that round to these in float32."""
    flat = np.array([float(str(number)) for number in array.ravel()])
    return flat.reshape(array.shape).tolist()


def _check_rows(where: str, rows: Sequence[int], gates: NDArray[np.bool_], seen: set[int]) -> None:
    wrong = not rows or any(after != before + 1 for before, after in pairwise(rows))
    if wrong or not 0 < rows[0] <= rows[-1] < len(gates):
        raise DipgoError(
            f"{where}, rows",
            found=" ".join(map(str, rows)) or "none",
            expected=f"consecutive rows from 1 to {len(gates) - 1}",
            remedy="give each run of rows its own entry",
        )
    for row in rows:
        if gates[row].any() or row in seen:
            raise DipgoError(
                f"{where}, row {row}",
                found="a row that computes" if gates[row].any() else "a row of an earlier entry",
                expected="rows whose gates are all 0, each in one entry",
                remedy="take it out",
            )


def _check_shape(where: str, entry: GapFilters, first: GapFilters, computed: int) -> None:
    arrays: list[Any] = [("predictions", entry.predictions)]
    if entry.unconditional is not None:
        arrays.append(("unconditional", entry.unconditional))
    channels, size = first.predictions.shape[1:2], first.predictions.shape[-1:]
    for key, array in arrays:
        square = array.ndim == 5 and array.shape[1:] == (*channels * 2, *size * 2)
        terms = array.shape[0] if array.ndim else 0
        if not square or not size[0] % 2 or terms != len(entry.predictions) or not terms:
            raise DipgoError(
                f"{where}, {key}",
                found=f"numbers of shape {list(array.shape)}",
                expected="[predictions, channels, channels, k, k] with an odd k, alike in all "
                "entries, and as many unconditional ones",
                remedy="correct it",
            )
        if not np.isfinite(array).all():
            raise DipgoError(
                f"{where}, {key}",
                found="NaN or infinity",
                expected="finite numbers",
                remedy="correct it",
            )
    if entry.terms > computed:
        raise DipgoError(
            f"{where}, predictions",
            found=f"filters of {entry.terms}",
            expected=f"at most {computed}, as many as rows before it compute",
            remedy="leave out the last of them",
        )


def _read_only(values: ArrayLike) -> Array:
    array = np.array(values, dtype=np.float32)
    array.setflags(write=False)
    return array
