"""Filters for rows that are wholly off: a SubNet's data, and what must hold of it. No torch."""

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
    """How consecutive rows that are wholly off make their prediction of the latest computed ones.

    `predictions` f32[T, C, C, k, k] has a filter for each of the latest T predictions, the newest
    first: output channel, input channel, k × k latent pixels, with zeros beyond the edge. The
    prediction is the sum of all, so filtered. `unconditional` has as many for the unconditional
    halves, or is None.
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
        """How many predictions are filtered."""
        return len(self.predictions)

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.predictions.shape[1])

    @property
    def size(self) -> int:
        """Latent pixels of a filter's side."""
        return int(self.predictions.shape[-1])

    def stacked(self, terms: int, halves: bool) -> Array:
        """f32[C, K·C, k, k] over `terms` predictions, each followed by its half with `halves`.

        Filters of predictions beyond `self.terms` are 0.
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
    """Raises DipgoError. `weighted` are the weights that SubNets have for each row, if any."""
    seen: set[int] = set()
    computed = np.cumsum(gates.any(axis=1))
    for index, one in enumerate(filters):
        where = f"reuse_filters, entry {index}"
        _check_rows(where, one.rows, gates, seen)
        seen.update(one.rows)
        _check_shape(where, one, filters[0], int(computed[one.rows[0]]))
        taken = [row for row in one.rows if row < len(weighted) and len(weighted[row])]
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
            remedy="give each run of rows an entry of its own",
        )
    for row in rows:
        if gates[row].any() or row in seen:
            raise DipgoError(
                f"{where}, row {row}",
                found="a row that computes" if gates[row].any() else "a row of an earlier entry",
                expected="rows whose gates are all 0, each in one entry",
                remedy="take it out",
            )


def _check_shape(where: str, one: GapFilters, first: GapFilters, computed: int) -> None:
    arrays: list[Any] = [("predictions", one.predictions)]
    if one.unconditional is not None:
        arrays.append(("unconditional", one.unconditional))
    channels, size = first.predictions.shape[1:2], first.predictions.shape[-1:]
    for key, array in arrays:
        square = array.ndim == 5 and array.shape[1:] == (*channels * 2, *size * 2)
        terms = array.shape[0] if array.ndim else 0
        if not square or not size[0] % 2 or terms != len(one.predictions) or not terms:
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
    if one.terms > computed:
        raise DipgoError(
            f"{where}, predictions",
            found=f"filters of {one.terms}",
            expected=f"at most {computed}, as many as rows before it compute",
            remedy="leave out the last of them",
        )


def _read_only(values: ArrayLike) -> Array:
    array = np.array(values, dtype=np.float32)
    array.setflags(write=False)
    return array
