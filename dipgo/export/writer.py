"""Writes a compiled model into a directory, with the manifest last."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import onnx_ir as ir
import torch

from dipgo.common.hashes import sha256_of
from dipgo.common.lazy import import_name
from dipgo.common.version import __version__
from dipgo.compiler.oracle import fill_tables
from dipgo.compiler.request import Progress
from dipgo.compiler.trace.precision import Precision, kept_in_fp32
from dipgo.engines.targets import DEFAULT_TARGET, TARGETS, Target
from dipgo.export.lower.callee import Lowering, callee_lowering, lower_as_onnx, sized_lowering
from dipgo.export.lower.combine import combine_model
from dipgo.export.lower.onnx import OPSET
from dipgo.export.lower.weights import WeightStore, save_tensors
from dipgo.export.manifest import pipeline_record
from dipgo.export.parts import TEXT_ENCODER
from dipgo.export.precision.compare import Numerics
from dipgo.export.sizes import Variant
from dipgo.export.tokenizer_files import save_tokenizers
from dipgo.ir.manifest import records
from dipgo.ir.manifest.convert import program_record, segment_records, tensor_records
from dipgo.ir.manifest.file import encode
from dipgo.ir.plan.plan import combined_dtypes
from dipgo.ir.types import COMBINE_FILES, Value
from dipgo.models.finite_weights import check_no_nan
from dipgo.models.model import Source


class Programs(Protocol):
    """Programs that a target runs in place of the graphs, with the export's own weights."""

    def add(self, name: str, lowering: Lowering, prefix: str, store: WeightStore) -> None:
        """Captures a segment or part; its weights are in the store, under names with `prefix`."""

    def write(self, directory: Path) -> None:
        """Writes the programs into an export whose manifest has been written."""


class Writer:
    """Writes one export into a new directory."""

    def __init__(
        self,
        source: Source,
        variants: Sequence[Variant],
        numerics: Mapping[str, Numerics],
        directory: Path,
        progress: Progress,
    ) -> None:
        """Makes a writer; all `variants` share the graphs, and the first is the default size."""
        self.source, self.variants, self.numerics = source, variants, numerics
        self.compiled, self.parts = variants[0].compiled, variants[0].parts
        self.directory, self.progress = directory, progress
        self.models: dict[str, ir.Model] = {}
        self.weights = WeightStore()
        self.target = TARGETS[DEFAULT_TARGET]
        self.programs: Programs | None = None

    def write(self, target: Target) -> None:
        """Lowers all graphs and writes the directory, with the programs that the target has."""
        self.target = target
        self.programs = import_name(target.programs)() if target.programs else None
        for index in range(len(self.compiled.plan.callees)):
            self._add_segment(index)
        for index in range(len(self.parts)):
            self._add_part(index)
        self._finish()
        if self.programs:
            self.programs.write(self.directory)

    def write_around(self, graphs: Iterable[Path], weights: Mapping[str, torch.Tensor]) -> None:
        """Writes the directory around existing graphs, to which these weights belong."""
        for path in graphs:
            shutil.copyfile(path, self.directory / path.name)
        for name, tensor in weights.items():
            self.weights.add(name, tensor)
        self._finish()

    def _finish(self) -> None:
        """Writes the rest, the manifest last: without it the directory is not an export."""
        with self.progress(f"write {self.weights.nbytes / 1e9:.2f} GB of weights"):
            self._write_tensors()
        tokenizers = self._save_tokenizers()
        with self.progress("hash the files"):
            files = {path.name: _file_record(path) for path in sorted(self.directory.iterdir())}
        *others, first = (*self.variants[1:], self.variants[0])
        for variant in (*others, first):
            path = self.directory / records.manifest_file(variant.name)
            path.write_bytes(encode(self._manifest(variant, tokenizers, files)))
            path.chmod(0o644)
            files = files | {path.name: _file_record(path)}

    def _add_segment(self, index: int) -> None:
        callee = self.compiled.plan.callees[index]
        compiled = [each.compiled for each in self.variants]
        lowerings = [
            callee_lowering(each.plan, each.traced, each.plan.callees[index]) for each in compiled
        ]
        self._add(lowerings, callee.name, "denoiser", (callee.inputs, callee.outputs))

    def _add_part(self, index: int) -> None:
        part = self.parts[index]
        lowerings = [
            Lowering(variant.parts[index].module, variant.parts[index].examples, None)
            for variant in self.variants
        ]
        self._add(lowerings, part.name, part.name, (part.inputs, part.outputs))

    def _add(
        self,
        lowerings: Sequence[Lowering],
        name: str,
        prefix: str,
        values: tuple[Sequence[Value], Sequence[Value]],
    ) -> None:
        """Adds a graph and, if the target has any, a program, for all sizes.

        `lowerings` has one of each size; `prefix` begins the names of the weights.
        """
        lowering = sized_lowering(lowerings)
        with self.progress(f"lower {name.replace('_', ' ')} to ONNX"):
            model = lower_as_onnx(lowering, name, *values)
        if self.target.change_graph:
            import_name(self.target.change_graph)(model)
        self.weights.collect(model, lowering.weights, prefix)
        self.models[f"{name}.onnx"] = model
        if self.programs:
            with self.progress(f"capture {name.replace('_', ' ')} for {self.target.title}"):
                self.programs.add(name, lowering, prefix, self.weights)

    def _save_tokenizers(self) -> list[records.TokenizerRecord]:
        encoding = self.source.at(self.variants[0].geometry).text_encoding
        if encoding is None or all(part.name != TEXT_ENCODER for part in self.parts):
            return []
        with _disk_errors():
            return save_tokenizers(encoding, self.directory)

    def _write_tensors(self) -> None:
        with _disk_errors():
            self.weights.write(self.directory / records.WEIGHTS_FILE)
            for variant in self.variants:
                tables = fill_tables(variant.compiled.plan, variant.compiled.traced)
                for name, table in tables.items():
                    check_no_nan(f"table {name}", table)
                save_tensors(tables, self.directory / records.constants_file(variant.name))
        for dtype in combined_dtypes(self.compiled.plan):
            self.models[COMBINE_FILES[dtype]] = combine_model(dtype)
        for file, model in self.models.items():
            ir.save(model, self.directory / file)
        for path in self.directory.iterdir():
            path.chmod(0o644)

    def _manifest(
        self,
        variant: Variant,
        tokenizers: list[records.TokenizerRecord],
        files: dict[str, records.FileRecord],
    ) -> records.Manifest:
        plan = variant.compiled.plan
        precision = self.compiled.traced.precision
        (result,) = (value for value in plan.inputs if value.name == "latents")
        return records.Manifest(
            format=records.FORMAT,
            version=records.VERSION,
            dipgo=__version__,
            model=records.ModelRecord(
                class_name=self.source.model_class,
                config_sha256=self.source.config_sha256,
                source=self.source.name,
                loras=list(self.source.loras),
            ),
            sampler=variant.compiled.sampler,
            precision=precision.name,
            kept_fp32=[*kept_in_fp32(precision), *self._parts_in_fp32(precision)],
            numerics={
                name: records.NumericsRecord(figures.error, figures.calls)
                for name, figures in self.numerics.items()
            },
            opset=OPSET,
            batch=variant.geometry.batch,
            guidance=variant.geometry.guidance,
            sizes=[each.name for each in self.variants[1:]],
            inputs=tensor_records(plan.inputs),
            outputs=tensor_records((replace(result, name="latents"),)),
            segments=segment_records(plan),
            program=program_record(plan),
            parts={
                part.name: records.PartRecord(
                    f"{part.name}.onnx",
                    tensor_records(part.inputs),
                    tensor_records(part.outputs),
                )
                for part in variant.parts
            },
            tokenizers=tokenizers,
            pipeline=pipeline_record(self.source, variant),
            files=files,
            refittable=True,
            fitted=variant.compiled.fitted,
        )

    def _parts_in_fp32(self, precision: Precision) -> list[str]:
        return [part.name for part in self.parts if part.precision.name != precision.name]


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raises OSError for a full disk, which libraries in Rust report only in their text."""
    try:
        yield
    except Exception as error:
        match = re.search(r"\(os error (\d+)\)", str(error))
        if match is None:
            raise
        raise OSError(int(match[1]), os.strerror(int(match[1]))) from error


def _file_record(path: Path) -> records.FileRecord:
    return records.FileRecord(sha256_of(path), path.stat().st_size)
