"""Defines `refit`: puts another model's weights, or a LoRA's, into an export and its engines.

Graphs hold no weights and are the same for any (`hidden_weights`); neither plan nor SubNet changes.
So nothing is lowered again: the model is traced only for what else depends on the weights, the
tables and the check of narrow types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dipgo.common.arguments import checks_arguments
from dipgo.common.errors import DipgoError
from dipgo.common.files import check_destination, staged_directory
from dipgo.compiler.compile import Compiled
from dipgo.compiler.request import Prepared, Progress, Schedule, silent
from dipgo.compiler.sampler.probe import public_config
from dipgo.compiler.trace.attributes import path_of
from dipgo.compiler.trace.precision import FP32
from dipgo.compiler.trace.source import trace_source
from dipgo.compiler.trace.trace import Traced
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export.destination import foreign
from dipgo.export.lower.hide_weights import TRANSPOSED
from dipgo.export.lower.weights import MADE_BY_LOWERING, tensor_offsets
from dipgo.export.manifest import warn_of_misfits
from dipgo.export.parts import Part, make_parts
from dipgo.export.precision.compare import Numerics
from dipgo.export.precision.trial import try_out
from dipgo.export.recover import check_same_model, geometry_of, precision_of, scheduler_of
from dipgo.export.refitting.checks import (
    WHERE,
    check_refittable,
    check_same_graph,
    check_same_parts,
    check_same_scheduler,
    check_unchanged,
    unlike,
)
from dipgo.export.refitting.engines import carry_engines, open_built
from dipgo.export.sizes import Variant
from dipgo.export.writer import Writer
from dipgo.ir.manifest.records import WEIGHTS_FILE, constants_file
from dipgo.models.as_found import leaves_as_found
from dipgo.models.gap_functions import GAP_MODULES, GapShape
from dipgo.models.model import Source
from dipgo.models.options import Lora
from dipgo.models.source import load_source

DENOISER = "denoiser"
"""Prefix of the names of the denoiser's weights; those of another part begin with its name."""


@checks_arguments
@leaves_as_found
def refit(
    export_dir: str | Path,
    model: Any,
    out: str | Path,
    *,
    loras: Sequence[Lora] = (),
    check_numerics: bool = True,
    without_engines: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes a copy of an export with the weights of `model`, and returns its path.

    Engines that hold weights are refitted too, on the available GPU. The directory is the one that
    `export` would write for this model, byte for byte; on any error nothing is written.

    Args:
        export_dir: The export directory.
        model: A path, a Hub id, an `arch:` name or a loaded diffusers pipeline, of the architecture
            that was exported.
        out: The directory to write; with `force` it may be `export_dir` itself.
        loras: LoRAs to fuse into the weights, as `export` does.
        check_numerics: Whether to compare narrow types with fp32.
        without_engines: Whether to leave engines out.
        force: Whether to replace an export at `out`.
        progress: Called with what is about to happen.

    Raises:
        DipgoError: The model does not fit the export, or its engines cannot be refitted here.
    """
    out, old = Path(out), ExportDirectory.open(export_dir, check_hashes=False)
    _check_not_within(out, old.path)
    check_destination(out, force, foreign)
    check_refittable(old)
    built = {} if without_engines else open_built(old)
    check_unchanged(old, _kept_files(old))
    with progress("load the model"):
        source = load_source(model, loras)
    check_same_model(old.manifest, source, WHERE)
    check_same_scheduler(old.manifest, source)
    source = replace(source, scheduler=scheduler_of(old.manifest, source))
    with progress("trace"):
        sizes = [_Size(size, source) for size in _all_sizes(old)]
        variants = [size.variant for size in sizes]
    warn_of_misfits(source, variants)
    numerics = _numerics(sizes[0], progress) if check_numerics else {}
    with staged_directory(out, force, foreign) as staging:
        writer = Writer(source, variants, numerics, staging, progress)
        writer.write_around([old.path / file for file in _graphs(old)], _weights(old, variants[0]))
        if tensor_offsets(staging / WEIGHTS_FILE) != tensor_offsets(old.path / WEIGHTS_FILE):
            raise unlike(f"{WHERE}, {WEIGHTS_FILE}", "weights in another order")
        carry_engines(built, old, staging, progress)
    return out


def _check_not_within(out: Path, old: Path) -> None:
    """Refuses to write into the export that is read: it would hold what no export holds."""
    if out.resolve() != old.resolve() and out.resolve().is_relative_to(old.resolve()):
        raise DipgoError(
            str(out),
            found="a place within the export that is read",
            expected="one outside",
            remedy="choose another name",
        )


def _all_sizes(old: ExportDirectory) -> Iterable[ExportDirectory]:
    further = old.manifest.sizes
    return (
        old,
        *(ExportDirectory.open(old.path, size=size, check_hashes=False) for size in further),
    )


@dataclass(frozen=True)
class _Size:
    """A size of the export, with what belongs to its plan now."""

    old: ExportDirectory
    source: Source

    @cached_property
    def prepared(self) -> Prepared:
        """Returns the request as for an export: the schedule's steps are in the plan."""
        manifest = self.old.manifest
        program, sampler = manifest.program, manifest.sampler
        schedule = Schedule(
            None,
            program.num_inference_steps,
            None,
            tuple(program.blocks),
            sampler.eta,
            sampler.strength,
        )
        return Prepared(self.source, schedule, geometry_of(manifest, self.source, WHERE))

    @cached_property
    def compiled(self) -> Compiled:
        """Returns the plan of the manifest over a new trace."""
        config = public_config(self.source.scheduler)
        sampler = msgspec.structs.replace(self.old.manifest.sampler, config=config)
        traced = _trace(self.old, self.prepared)
        check_same_graph(self.old.plan, traced)
        return Compiled(self.old.plan, traced, sampler, self.old.manifest.fitted)

    @cached_property
    def variant(self) -> Variant:
        """Returns the variant for the writer."""
        return Variant(self.old.size, self.prepared.geometry, self.compiled, self._parts())

    def _parts(self) -> list[Part]:
        """Returns the parts in the precisions that their graphs have."""
        manifest = self.old.manifest
        narrow = replace(precision_of(manifest), keep_fp32=())
        parts = make_parts(
            self.prepared,
            self.compiled,
            lambda name: FP32 if name in manifest.kept_fp32 else narrow,
        )
        check_same_parts(manifest, self.source, parts)
        return parts


def _trace(old: ExportDirectory, prepared: Prepared) -> Traced:
    """Traces the denoiser with the function of a gap rule, if any: its table is the SubNet's."""
    plan, blocks = old.plan, prepared.schedule.blocks
    table = next((candidate for candidate in plan.tables if candidate.name in GAP_MODULES), None)
    precision = precision_of(old.manifest)
    if table is None:
        return trace_source(prepared.source, prepared.geometry, blocks, precision)
    read = (value.name for callee in plan.callees for value in callee.inputs)
    shape = GapShape.of_table(table.name, table.type.shape, read)
    traced = trace_source(prepared.source, prepared.geometry, blocks, precision, shape)
    stored = load_file(old.path / constants_file(old.size))[table.name]
    return replace(traced, given_tables={table.name: dict(zip(table.rows, stored, strict=True))})


def _numerics(first: _Size, progress: Progress) -> dict[str, Numerics]:
    """Returns the figures of the new weights in narrow types; raises DipgoError if they fail."""
    variant = first.variant
    if variant.compiled.traced.precision == FP32:
        return {}
    figures, unfit = try_out(first.prepared, variant.compiled, variant.parts, progress)
    for name in sorted(unfit):
        raise DipgoError(
            f"{WHERE}, {name.replace('_', ' ')}",
            found=f"weights that {variant.compiled.traced.precision.name} does not hold",
            expected="such as its graph, which is in that type, can take",
            remedy="export this model again: the part is then kept in fp32",
        )
    return figures


def _graphs(old: ExportDirectory) -> list[str]:
    manifest = old.manifest
    parts = (part.file for part in manifest.parts.values())
    return [*(segment.file for segment in manifest.segments), *parts]


def _kept_files(old: ExportDirectory) -> list[str]:
    """Returns the files that a refit copies whole or in part."""
    kept = _graphs(old)
    if any(table.name in GAP_MODULES for table in old.plan.tables):
        kept += map(constants_file, ("", *old.manifest.sizes))
    if any(MADE_BY_LOWERING in name for name in tensor_offsets(old.path / WEIGHTS_FILE)):
        kept.append(WEIGHTS_FILE)
    return kept


def _weights(old: ExportDirectory, variant: Variant) -> dict[str, torch.Tensor]:
    """Returns the new model's tensors under the names of all tensors in the old file.

    Raises:
        DipgoError: The new model lacks a tensor, has it in another shape or type, or has a weight
            that the old graphs do not read.
    """
    traced = variant.compiled.traced
    states = {
        part.name: {path_of(name): tensor for name, tensor in part.module.state_dict().items()}
        for part in variant.parts
    }
    parts = dict(states)
    states[DENOISER] = {name: traced.tensors[key] for key, name in traced.tensor_names.items()}
    weights: dict[str, torch.Tensor] = {}
    with safe_open(old.path / WEIGHTS_FILE, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118  # the file is no mapping
            is_weight = MADE_BY_LOWERING not in name
            weights[name] = _weight(name, states) if is_weight else stored.get_tensor(name)
            before, now = stored.get_slice(name).get_shape(), list(weights[name].shape)
            if before != now:
                raise unlike(f"{WHERE}, weight {name}", f"a shape of {now}, other")
    for part, state in parts.items():
        for path, tensor in state.items():
            name = f"{part}.{path}"
            if tensor.is_floating_point() and weights.keys().isdisjoint({name, name + TRANSPOSED}):
                raise unlike(
                    f"{WHERE}, weight {name}", "a weight that the graph does not read, other"
                )
    return weights


def _weight(name: str, states: Mapping[str, Mapping[str, torch.Tensor]]) -> torch.Tensor:
    part, _, path = name.partition(".")
    try:
        if path.endswith(TRANSPOSED):
            return states[part][path.removesuffix(TRANSPOSED)].T
        return states[part][path]
    except KeyError:
        raise unlike(f"{WHERE}, weight {name}", "no such weight, other") from None
