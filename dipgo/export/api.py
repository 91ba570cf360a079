"""Defines `export`, which writes a model and a SubNet as a directory that engines run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dipgo.common.arguments import check_names, checks_arguments
from dipgo.common.errors import DipgoError, close_to, setting
from dipgo.common.files import check_destination, staged_directory
from dipgo.common.lazy import import_name
from dipgo.common.warn import warn
from dipgo.compiler.compile import compile_plan
from dipgo.compiler.passes import Pass, find_passes
from dipgo.compiler.request import Progress, prepare, silent
from dipgo.compiler.settings import DENSE
from dipgo.compiler.trace.precision import Precision
from dipgo.engines.targets import TARGETS, Target, any_of, build_targets, find_builder
from dipgo.engines.tensorrt.build import DEFAULT_BUILD, BuildOptions
from dipgo.export.destination import foreign
from dipgo.export.left_out import left_out
from dipgo.export.manifest import warn_of_misfits
from dipgo.export.parts import make_parts
from dipgo.export.precision.compare import Numerics
from dipgo.export.precision.trial import choose_parts
from dipgo.export.settings import ExportSettings, Size
from dipgo.export.sizes import Variant, further_geometries, make_variants
from dipgo.export.writer import Writer
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.as_found import leaves_as_found


@checks_arguments
def export(
    model: Any,
    subnet: SubNet | str | Path = DENSE,
    out: str | Path = "out",
    *,
    progress: Progress = silent,
    **settings: Any,
) -> Path:
    """Writes an export directory and returns its path; on any error nothing is written.

    Args:
        model: A path, a Hub id, an `arch:` name or a loaded diffusers pipeline, which stays as it
            is.
        subnet: A SubNet, its path or "dense".
        out: The directory to write.
        progress: Called with what is about to happen.
        **settings: Fields of `ExportSettings`, such as `steps`, `batch` or `target`.

    Raises:
        DipgoError: The model cannot be exported with these settings.
    """
    names = [item.name for item in fields(ExportSettings) if item.name != "subnet"]
    check_names(settings, names, "export")
    return write_export(model, ExportSettings(subnet, **settings), Path(out), progress)


@leaves_as_found
def write_export(model: Any, settings: ExportSettings, out: Path, progress: Progress) -> Path:
    """Writes an export directory as `export` does, with the settings in one object.

    Args:
        model: A path, a Hub id, an `arch:` name or a loaded diffusers pipeline.
        settings: What to compile the model for, and how to write it.
        out: The directory to write.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The model, the settings and the target do not fit together.
    """
    target, also_sizes = settings.target, settings.also_sizes
    row = _check_target(target, settings.build)
    typed = Precision(settings.precision, settings.keep_fp32)
    chosen = _passes_for(settings.passes, also_sizes)
    _check_slots_are_allocated(chosen)
    check_destination(out, settings.force, foreign)
    prepared = prepare(model, settings, progress)
    further = further_geometries(prepared, also_sizes)
    with progress("trace, unroll, optimise the plan"):
        compiled = compile_plan(
            prepared.source, prepared.schedule, prepared.geometry, chosen, precision=typed
        )
    parts = make_parts(prepared, compiled, lambda name: typed)
    numerics: dict[str, Numerics] = {}
    if settings.check_numerics:
        parts, numerics = choose_parts(prepared, compiled, parts, progress)
    for name, reason in left_out(prepared.source.at(prepared.geometry), parts).items():
        warn(f"the {name} of {prepared.source.name} is not in the export: {reason}")
    first = Variant("", prepared.geometry, compiled, parts)
    variants = make_variants(prepared, first, further, chosen, progress)
    warn_of_misfits(prepared.source, variants)
    with staged_directory(out, settings.force, foreign) as staging:
        writer = Writer(prepared.source, variants, numerics, staging, progress)
        writer.write(row)
        if row.builder:
            with progress(f"build the engines for {target}"):
                find_builder(target).build(staging, settings.build, lambda name: None)
        if row.finish:
            import_name(row.finish)(staging)
    return out


def _passes_for(names: Sequence[str], also_sizes: Sequence[Size]) -> Sequence[Pass]:
    """Returns the passes to run, for several sizes only those that allow symbolic sizes.

    Lanes and sizes cannot both be symbolic: for several sizes nothing is batched.
    """
    chosen = find_passes(names)
    return [each for each in chosen if not each.needs_one_size] if also_sizes else chosen


def _check_target(target: str, build: BuildOptions) -> Target:
    """Returns the target's row; checks before hours of work that its engines can be built."""
    if target not in TARGETS:
        raise DipgoError(
            setting("target"),
            found=target,
            expected=any_of(TARGETS),
            remedy=close_to(target, TARGETS, f"leave {setting('target')} out"),
        )
    if TARGETS[target].builder:
        find_builder(target).check(build)
    elif build != DEFAULT_BUILD:
        raise DipgoError(
            setting("build"),
            found=f"options for engines, on {TARGETS[target].title}, which has none",
            expected=f"none, or {setting('target')} {any_of(build_targets())}",
            remedy=f"leave {setting('build')} out",
        )
    return TARGETS[target]


def _check_slots_are_allocated(passes: Sequence[Pass]) -> None:
    """Raises DipgoError unless `allocate_slots` is the last pass: engines write to slots."""
    if not passes or not passes[-1].makes_slots:
        raise DipgoError(
            setting("passes"),
            found=f"{passes[-1].name if passes else 'no pass'} as the last",
            expected="allocate_slots as the last: engines write to slots",
            remedy="add allocate_slots to the end",
        )
