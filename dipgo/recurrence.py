"""From coefficients over the whole history to a short recurrence between a denoiser's inputs."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dipgo.sampler import Term

Vector = NDArray[np.float64]

TOLERANCE = 1e-11  # of the largest coefficient: what a recurrence may miss, and what is dropped
MAX_GROWTH = 30.0  # how much larger than their sum the terms may be, lest float32 lose it
MAX_INPUTS = 5  # the most earlier inputs, and the most recent outputs, one update may use
MAX_OUTPUTS = 7


def find_recurrence(
    coefficients: NDArray[np.float64], *, with_noise: bool = False
) -> tuple[tuple[Term, ...], ...]:
    """Terms for each row of f64[evaluations + 1, 1 + evaluations], the last the final latents.

    Row i holds the coefficients of input i over the basis [noise, output 0, output 1, …], of
    which only the first 1 + i can be other than 0. A solver that looks back k steps makes each
    input a combination of the last few inputs and outputs; the shortest such combination is
    looked for, shortest first, by eliminating the noise and all older outputs. Rows are
    expressed over the rows as already found, so that rounding does not add up. `with_noise` lets
    an update use the initial noise as well, for samplers that add it again.
    """
    found: list[tuple[Term, ...]] = []
    rows: list[Vector] = []
    for index, row in enumerate(coefficients):
        found.append(_find_terms(row, rows, index, with_noise))
        rows.append(expand(found[-1], rows, len(row)))
    return tuple(found)


def expand(terms: Sequence[Term], inputs: Sequence[Vector], size: int) -> Vector:
    """f64[size]: the terms written out over the basis [noise, output 0, …]."""
    total = np.zeros(size)
    for term in terms:
        if term.kind == "input":
            total += term.coefficient * inputs[term.index]
        else:
            total[0 if term.kind == "noise" else 1 + term.index] += term.coefficient
    return total


def _find_terms(
    row: Vector, earlier: Sequence[Vector], index: int, with_noise: bool
) -> tuple[Term, ...]:
    for back, recent, noise in _shapes(index, with_noise):
        terms = _eliminate(row, earlier, index, back, recent, noise)
        if terms is not None:
            return terms
    return _drop_small([Term(float(row[0]), "noise"), *_outputs(row, 0, index)], row)


def _shapes(index: int, with_noise: bool) -> Iterator[tuple[int, int, bool]]:
    """How many of the last inputs and outputs to use, and whether the noise: fewest first."""
    shapes = [
        (back, recent, noise)
        for back in range(1, min(index, MAX_INPUTS) + 1)
        for recent in range(min(index, MAX_OUTPUTS) + 1)
        for noise in ((False, True) if with_noise else (False,))
    ]
    return iter(sorted(shapes, key=lambda shape: (sum(shape), shape)))


def _eliminate(
    row: Vector, earlier: Sequence[Vector], index: int, back: int, recent: int, noise: bool
) -> tuple[Term, ...] | None:
    """The row from its last `back` inputs and `recent` outputs, or None where they do not do."""
    used = range(index - back, index)
    basis = np.stack([earlier[i] for i in used], axis=1)
    old = slice(int(noise), 1 + index - recent)  # the outputs, and the noise, not to be used
    factors = np.linalg.lstsq(basis[old], row[old], rcond=None)[0]
    scale = np.abs(row).max()
    rest = row - basis @ factors
    if np.abs(rest[old]).max(initial=0.0) > TOLERANCE * scale:
        return None
    if (np.abs(factors) * np.abs(basis).max(axis=0)).sum() > MAX_GROWTH * scale:
        return None
    inputs = [Term(float(f), "input", i) for f, i in zip(factors, used, strict=True)]
    prior = [Term(float(rest[0]), "noise")] if noise else []
    outputs = _outputs(rest, index - recent, index)
    return _drop_small([*reversed(inputs), *outputs, *prior], row, earlier)


def _outputs(row: Vector, start: int, stop: int) -> list[Term]:
    """Terms for outputs start…stop − 1, the latest first."""
    return [Term(float(row[1 + i]), "output", i) for i in reversed(range(start, stop))]


def _drop_small(
    terms: Sequence[Term], row: Vector, earlier: Sequence[Vector] = ()
) -> tuple[Term, ...]:
    """Without the terms that contribute less than the tolerance to any coefficient."""
    limit = TOLERANCE * np.abs(row).max()
    return tuple(term for term in terms if np.abs(expand([term], earlier, len(row))).max() > limit)
