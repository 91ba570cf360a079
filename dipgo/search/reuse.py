"""Weights for rows that are wholly off: of which earlier predictions their prediction is made.

A row that computes nothing repeats the latest prediction, which is one long Euler step. Made of
the latest few instead it follows the curve of the dense trajectory, and costs nothing at run
time: the plan adds linear combinations up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dipgo.sampler import Sampler

RIDGE = 1e-4
"""Pull towards the latest prediction, relative to the mean square of the predictions."""

FITTED_TERMS = 2
"""More terms fit the dense predictions better, and the pruned ones, which differ, worse."""


def fit_reuse(
    predictions: NDArray[np.float64], sampler: Sampler, gates: NDArray[np.bool_], terms: int
) -> NDArray[np.float64]:
    """Weights f64[steps, terms] of the latest predictions, by least squares.

    `predictions` f64[evaluations, n] are those of dense trajectories. Rows that compute have
    zeros. With one term, or before a second row computes, the latest prediction is repeated.
    """
    weights = np.zeros((len(gates), terms))
    products = predictions @ predictions.T
    computed: list[int] = []
    done: set[int] = set()
    for evaluation, row in enumerate(sampler.rows):
        if gates[row].any():
            computed.append(evaluation)
        elif row not in done:
            done.add(row)
            latest = computed[::-1][: min(terms, FITTED_TERMS)]
            weights[row, : len(latest)] = _fit(products, evaluation, latest)
    return weights


def _fit(
    products: NDArray[np.float64], evaluation: int, latest: Sequence[int]
) -> NDArray[np.float64]:
    """Ridge regression of one prediction on others, around repeating the newest."""
    start = np.zeros(len(latest))
    start[0] = 1.0
    if len(latest) == 1:
        return start
    normal = products[np.ix_(latest, latest)]
    slope = products[latest, evaluation] - normal @ start
    ridge = RIDGE * float(np.trace(normal)) / len(latest)
    solution = np.linalg.solve(normal + ridge * np.eye(len(latest)), slope)
    return np.asarray(start + solution, np.float64)


def as_rows(
    weights: NDArray[np.float64], gates: NDArray[np.bool_]
) -> tuple[tuple[float, ...], ...]:
    """As SubNets have it: no weights for rows that compute, none beyond the rows computed."""
    computed = np.cumsum(gates.any(axis=1))
    return tuple(
        () if row.any() else tuple(map(float, weights[index, : computed[index]]))
        for index, row in enumerate(gates)
    )
