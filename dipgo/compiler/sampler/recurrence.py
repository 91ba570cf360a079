"""Turns coefficients over the whole history into a short recurrence between inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.sampler import Term

Vector = NDArray[np.float64]

# Relative to the largest coefficient: the error of a recurrence, and the terms that are dropped.
TOLERANCE = 1e-11

MAX_GROWTH = 30.0  # the size of the terms over their sum: with more, float32 would lose the sum

MAX_INPUTS = 5  # earlier inputs that an update may use

MAX_OUTPUTS = 7  # recent outputs that an update may use


@dataclass(frozen=True, slots=True)
class Basis:
    """The vectors that coefficients refer to: [noise, output 0, output 1, …, draw 1, draw 2, …].

    `draws` has, for each draw of noise, the evaluation after which it was made.
    """

    evaluations: int
    draws: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Returns the number of columns: the noise, the outputs and the draws."""
        return 1 + self.evaluations + len(self.draws)

    def column(self, term: Term) -> int:
        """Returns the column of the coefficient of a term that is not an input."""
        first = {"noise": 0, "output": 1, "draw": self.evaluations}
        return first[term.kind] + term.index

    def drawn(self, start: int, stop: int) -> range:
        """Returns the draws made after evaluations start…stop − 1, counted from 1."""
        before, until = (
            sum(made < evaluation for made in self.draws) for evaluation in (start, stop)
        )
        return range(1 + before, 1 + until)


class _Shape(NamedTuple):
    """The form of an update.

    It uses the last `inputs` inputs and the last `outputs` outputs, the draws since `draws`
    evaluations ago, and the initial noise if `noise` is set.
    """

    inputs: int
    outputs: int
    draws: int
    noise: bool


def find_recurrence(
    coefficients: NDArray[np.float64], *, with_noise: bool = False, draws: Sequence[int] = ()
) -> tuple[tuple[Term, ...], ...]:
    """Returns, for each row of coefficients, the terms of the shortest update that yields it.

    A solver that looks back k steps makes each input a combination of the last few inputs and
    outputs. The shortest such combination is looked for, shortest first, by eliminating the noise
    and all older outputs and draws. Rows are expressed over the earlier rows as their terms yield
    them, so that rounding does not add up.

    Args:
        coefficients: f64[evaluations + 1, basis]. Row i holds the coefficients of input i over the
            `Basis`, the last row those of the final latents. Only the coefficients of the noise, of
            earlier outputs, and of draws made after these can be other than 0.
        with_noise: Whether an update may use the initial noise as well, for samplers that add it
            again.
        draws: For each draw of noise, the evaluation after which it was made.
    """
    basis = Basis(len(coefficients) - 1, tuple(draws))
    recurrence: list[tuple[Term, ...]] = []
    rows: list[Vector] = []
    for row in coefficients:
        recurrence.append(_find_terms(row, rows, basis, with_noise))
        rows.append(expand(recurrence[-1], rows, basis))
    return tuple(recurrence)


def expand(terms: Sequence[Term], inputs: Sequence[Vector], basis: Basis) -> Vector:
    """Returns the sum of the terms over the basis, f64[basis].

    Args:
        terms: The terms to add.
        inputs: f64[basis] for each input that a term may name.
        basis: The basis.
    """
    total = np.zeros(basis.size)
    for term in terms:
        if term.kind == "input":
            total += term.coefficient * inputs[term.index]
        else:
            total[basis.column(term)] += term.coefficient
    return total


def _find_terms(
    row: Vector, earlier: Sequence[Vector], basis: Basis, with_noise: bool
) -> tuple[Term, ...]:
    index = len(earlier)
    for shape in _shapes(index, with_noise, bool(basis.draws)):
        terms = _eliminate(row, earlier, basis, shape)
        if terms is not None:
            return terms
    history = _latest(row, basis, index, _Shape(0, index, index, noise=True))
    return _drop_small([Term(float(row[0]), "noise"), *history], row, (), basis)


def _shapes(index: int, with_noise: bool, with_draws: bool) -> Iterator[_Shape]:
    """Yields shapes of updates, the smallest first.

    Draws made after the last evaluation may be used in every shape.
    """
    shapes = [
        _Shape(inputs, outputs, draws, noise)
        for inputs in range(1, min(index, MAX_INPUTS) + 1)
        for outputs in range(min(index, MAX_OUTPUTS) + 1)
        for draws in range(1, (min(index, MAX_OUTPUTS) if with_draws else 1) + 1)
        for noise in ((False, True) if with_noise else (False,))
    ]
    return iter(sorted(shapes, key=lambda shape: (sum(shape), shape)))


def _eliminate(
    row: Vector, earlier: Sequence[Vector], basis: Basis, shape: _Shape
) -> tuple[Term, ...] | None:
    """Expresses the row in the inputs, outputs and draws of the shape; None if it cannot."""
    index = len(earlier)
    used = range(index - shape.inputs, index)
    vectors = np.stack([earlier[i] for i in used], axis=1)
    old = _not_to_be_used(basis, index, shape)
    factors = np.linalg.lstsq(vectors[old], row[old], rcond=None)[0]
    scale = np.abs(row).max()
    rest = row - vectors @ factors
    if np.abs(rest[old]).max(initial=0.0) > TOLERANCE * scale:
        return None
    if (np.abs(factors) * np.abs(vectors).max(axis=0)).sum() > MAX_GROWTH * scale:
        return None
    inputs = [Term(float(f), "input", i) for f, i in zip(factors, used, strict=True)]
    prior = [Term(float(rest[0]), "noise")] if shape.noise else []
    terms = [*reversed(inputs), *_latest(rest, basis, index, shape), *prior]
    return _drop_small(terms, row, earlier, basis)


def _not_to_be_used(basis: Basis, index: int, shape: _Shape) -> list[int]:
    """Returns the columns of the noise, outputs and draws that are too old for the shape."""
    outputs = range(int(shape.noise), 1 + index - shape.outputs)
    draws = basis.drawn(0, index - shape.draws)
    return [*outputs, *(basis.evaluations + draw for draw in draws)]


def _latest(row: Vector, basis: Basis, index: int, shape: _Shape) -> list[Term]:
    """Returns terms for the shape's outputs and draws before evaluation `index`, latest first."""
    outputs = (Term(0.0, "output", i) for i in range(index - shape.outputs, index))
    draws = (Term(0.0, "draw", i) for i in basis.drawn(index - shape.draws, index))
    empty = (*reversed(tuple(outputs)), *reversed(tuple(draws)))
    return [replace(term, coefficient=float(row[basis.column(term)])) for term in empty]


def _drop_small(
    terms: Sequence[Term], row: Vector, earlier: Sequence[Vector], basis: Basis
) -> tuple[Term, ...]:
    """Drops the terms that contribute less than the tolerance to every coefficient."""
    limit = TOLERANCE * np.abs(row).max()
    return tuple(term for term in terms if np.abs(expand([term], earlier, basis)).max() > limit)
