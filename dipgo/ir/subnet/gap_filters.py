"""Filters for rows that are wholly off: a SubNet's data and its checks, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dipgo.common.errors import DipgoError

Array = NDArray[np.float32]


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


def check_filters(
    filters: Sequence[GapFilters], gates: NDArray[np.bool_], weighted: Sequence[Sequence[float]]
) -> None:
    """Checks a SubNet's filters against its gates and weights.

    Args:
        filters: The entries.
        gates: bool[steps, blocks].
        weighted: The SubNet's weights for each row, if it has any.

    Raises:
        DipgoError: An entry names a row that computes, is weighted or is in another entry, or
            its filters have a wrong shape or number.
    """
    seen: set[int] = set()
    computed = np.cumsum(gates.any(axis=1))
    for index, entry in enumerate(filters):
        where = f"reuse_filters, entry {index}"
        _check_rows(where, entry.rows, gates, seen)
        seen.update(entry.rows)
        _check_shape(where, entry, filters[0], int(computed[entry.rows[0]]))
        taken = [row for row in entry.rows if row < len(weighted) and len(weighted[row])]
        if taken:
            raise DipgoError(
                f"{where}, row {taken[0]}",
                found="filters beside weights of reuse",
                expected="one or the other for a row",
                remedy="write [] for this row in reuse, or leave the filters out",
            )


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
