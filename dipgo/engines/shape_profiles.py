"""Reads optimisation profiles off the launches: which shapes an engine must take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dipgo.engines.launches import Launch

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Shapes of one input, from `least` to `most`; `usual` is that of the most launches."""

    least: Shape
    usual: Shape
    most: Shape

    def holds(self, shape: Shape) -> bool:
        """Returns whether an engine with this profile takes the shape."""
        if not len(self.least) == len(shape) == len(self.most):
            return False
        sizes = zip(self.least, shape, self.most, strict=True)
        return all(low <= size <= high for low, size, high in sizes)


Profile: TypeAlias = Mapping[str, ShapeRange]


def profiles_of(launches: Iterable[Launch]) -> dict[str, Profile]:
    """Returns for every engine the ranges of its inputs whose shapes may differ between launches.

    An engine that all launches give the same shapes has an empty profile if its graph fixes them;
    the graphs of linear combinations do not.
    """
    shapes: dict[str, dict[str, Counter[Shape]]] = {}
    free: set[str] = set()
    for launch in launches:
        seen = shapes.setdefault(launch.engine, {})
        for binding in launch.inputs:
            seen.setdefault(binding.tensor, Counter())[binding.type.shape] += 1
        if launch.segment is None:
            free.add(launch.engine)
    return {
        engine: {
            tensor: _range(counted)
            for tensor, counted in seen.items()
            if len(counted) > 1 or (engine in free and any(next(iter(counted))))
        }
        for engine, seen in shapes.items()
    }


def _range(counted: Counter[Shape]) -> ShapeRange:
    axes = list(zip(*counted, strict=True))
    ((usual, _),) = counted.most_common(1)
    return ShapeRange(tuple(map(min, axes)), usual, tuple(map(max, axes)))
