"""Compiles one export for several sizes: each size has its own plan, and all share the graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.compile import Compiled, compile_plan
from dipgo.compiler.passes import Pass
from dipgo.compiler.request import Prepared, Progress
from dipgo.export.parts import Part, make_parts
from dipgo.export.settings import Size
from dipgo.ir.plan.plan import Plan
from dipgo.models.family import Geometry


@dataclass(frozen=True)
class Variant:
    """The export for one size. `name` is "" for the first, else such as `512x768`."""

    name: str
    geometry: Geometry
    compiled: Compiled
    parts: Sequence[Part]


def further_geometries(prepared: Prepared, sizes: Sequence[Size]) -> dict[str, Geometry]:
    """Returns the geometries of further sizes by their names, such as `512x768`.

    Args:
        prepared: The model, schedule and first size.
        sizes: The sizes, each (height, width) or (batch, height, width), in pixels.

    Raises:
        DipgoError: The model cannot have a size.
    """
    geometries = {}
    for size in sizes:
        *batch, height, width = size
        pictures = batch[0] if batch else prepared.geometry.batch
        geometry = replace(prepared.geometry, batch=pictures, height=height, width=width)
        name = "x".join(map(str, size))
        prepared.source.check_geometry(geometry, where=f"{setting('also_sizes')} {name}")
        geometries[name] = geometry
    return geometries


def make_variants(
    prepared: Prepared,
    first: Variant,
    geometries: Mapping[str, Geometry],
    passes: Sequence[Pass],
    progress: Progress,
) -> list[Variant]:
    """Returns the first variant, and a variant for each further size.

    Args:
        prepared: The model, schedule and first size.
        first: The variant of the first size.
        geometries: The geometries of further sizes, by name.
        passes: The passes to run.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The model has another plan in a size.
    """
    variants, precisions = [first], {part.name: part.precision for part in first.parts}
    for name, geometry in geometries.items():
        with progress(f"trace and unroll for {name}"):
            compiled = compile_plan(
                prepared.source,
                prepared.schedule,
                geometry,
                passes,
                precision=first.compiled.traced.precision,
            )
        _check_is_another(variants, compiled.plan, name)
        _check_alike(first.compiled.plan, compiled.plan, name)
        resized = replace(prepared, geometry=geometry)
        parts = make_parts(resized, compiled, lambda part: precisions[part])
        variants.append(Variant(name, geometry, compiled, parts))
    return variants


def _check_is_another(variants: Sequence[Variant], plan: Plan, name: str) -> None:
    """Refuses a size with the inputs of an earlier plan: some models have only one size."""
    for variant in variants:
        if variant.compiled.plan.inputs == plan.inputs:
            raise DipgoError(
                f"{setting('also_sizes')} {name}",
                found=f"the size of {variant.name or 'the export itself'}, as this model has it",
                expected="a further size",
                remedy="leave it out",
            )


def _check_alike(first: Plan, other: Plan, name: str) -> None:
    """Checks that two plans call the same callees in the same order, as graphs are shared."""
    if _outline(first) == _outline(other):
        return
    raise DipgoError(
        f"{setting('also_sizes')} {name}",
        found="a plan with other segments than for the first size",
        expected="plans that differ in sizes only",
        remedy="export this size by itself",
    )


def _outline(plan: Plan) -> list[tuple[object, ...]]:
    return [
        (callee.name, callee.members, *(value.name for value in (*callee.inputs, *callee.outputs)))
        for callee in plan.callees
    ]
