"""From coefficients over the whole history to a short recurrence between a denoiser's inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dipgo.ir.sampler import Term

Vector = NDArray[np.float64]

TOLERANCE = 1e-11  # of the largest coefficient: what a recurrence may miss, and what is dropped

MAX_GROWTH = 30.0  # how much larger than their sum the terms may be, lest float32 lose it

MAX_INPUTS = 5  # the most earlier inputs, and the most recent outputs, one update may use

MAX_OUTPUTS = 7


@dataclass(frozen=True, slots=True)
class Basis:
    """What coefficients are over: [noise, output 0, output 1, …, draw 1, draw 2, …].

    `draws` has, for each draw of noise, the evaluation after which it was made.
    """

    evaluations: int
    draws: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Columns: as many as noise, outputs and draws."""
        return 1 + self.evaluations + len(self.draws)

    def column(self, term: Term) -> int:
        """Where the coefficient of a term stands that is no input."""
        first = {"noise": 0, "output": 1, "draw": self.evaluations}
        return first[term.kind] + term.index

    def drawn(self, start: int, stop: int) -> range:
        """The draws made after evaluations start…stop − 1, counted from 1."""
        before, until = (sum(made < one for made in self.draws) for one in (start, stop))
        return range(1 + before, 1 + until)


class _Shape(NamedTuple):
    """How many of the last inputs and outputs an update uses, draws since when, and the noise."""

    inputs: int
    outputs: int
    draws: int
    noise: bool


def find_recurrence(
    coefficients: NDArray[np.float64], *, with_noise: bool = False, draws: Sequence[int] = ()
) -> tuple[tuple[Term, ...], ...]:
    """Terms for each row of f64[evaluations + 1, basis], the last the final latents.

    Row i holds the coefficients of input i over the `Basis`, of which only those of the noise, of
    the outputs before and of what was drawn after them can be other than 0. A solver that looks
    back k steps makes each input a combination of the last few inputs and outputs; the shortest
    such combination is looked for, shortest first, by eliminating the noise and all older outputs
    and draws. Rows are expressed over the rows as already found, so that rounding does not add
    up. `with_noise` lets an update use the initial noise as well, for samplers that add it again.
    """
    basis = Basis(len(coefficients) - 1, tuple(draws))
    found: list[tuple[Term, ...]] = []
    rows: list[Vector] = []
    for row in coefficients:
        found.append(_find_terms(row, rows, basis, with_noise))
        rows.append(expand(found[-1], rows, basis))
    return tuple(found)


def expand(terms: Sequence[Term], inputs: Sequence[Vector], basis: Basis) -> Vector:
    """f64[basis]: the terms written out."""
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
    """The fewest first. What was drawn after the last evaluation may be used always."""
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
    """The row from what the shape has of inputs, outputs and draws, or None if they do not do."""
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
    """Columns of outputs and draws, and of the noise, that are too old for the shape."""
    outputs = range(int(shape.noise), 1 + index - shape.outputs)
    draws = basis.drawn(0, index - shape.draws)
    return [*outputs, *(basis.evaluations + draw for draw in draws)]


def _latest(row: Vector, basis: Basis, index: int, shape: _Shape) -> list[Term]:
    """Terms for the outputs and draws of a shape before evaluation `index`, the latest first."""
    outputs = (Term(0.0, "output", i) for i in range(index - shape.outputs, index))
    draws = (Term(0.0, "draw", i) for i in basis.drawn(index - shape.draws, index))
    empty = (*reversed(tuple(outputs)), *reversed(tuple(draws)))
    return [replace(term, coefficient=float(row[basis.column(term)])) for term in empty]


def _drop_small(
    terms: Sequence[Term], row: Vector, earlier: Sequence[Vector], basis: Basis
) -> tuple[Term, ...]:
    """Without the terms that contribute less than the tolerance to any coefficient."""
    limit = TOLERANCE * np.abs(row).max()
    return tuple(term for term in terms if np.abs(expand([term], earlier, basis)).max() > limit)
