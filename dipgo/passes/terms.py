"""Arithmetic on the terms of a linear combination."""

from __future__ import annotations

from dipgo.plan import Combine

Terms = tuple[tuple[float, str], ...]


def merge_terms(terms: Terms) -> Terms:
    """Adds the coefficients of equal values, in order of first appearance (float64)."""
    merged: dict[str, float] = {}
    for coefficient, name in terms:
        merged[name] = merged.get(name, 0.0) + coefficient
    return tuple((coefficient, name) for name, coefficient in merged.items())


def substitute(combine: Combine, definitions: dict[str, Terms]) -> Terms:
    """The terms of `combine` with each defined name replaced by what it stands for."""
    expanded: list[tuple[float, str]] = []
    for coefficient, name in combine.terms:
        inner = definitions.get(name, ((1.0, name),))
        expanded.extend((coefficient * factor, source) for factor, source in inner)
    return merge_terms(tuple(expanded))
