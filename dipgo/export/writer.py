"""The writer: puts a compiled model into a directory, with the manifest last."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from safetensors.torch import save_file

import dipgo
from dipgo import manifest as records
from dipgo.export.combine import combine_model
from dipgo.export.compile import Compiled
from dipgo.export.lower import OPSET, lower
from dipgo.export.lower_lanes import callee_lowering, lower_callee
from dipgo.export.numerics import Numerics
from dipgo.export.parts import Part, save_tokenizer
from dipgo.export.prepare import Prepared, Progress
from dipgo.export.torch_programs import Programs, collect_programs, write_programs
from dipgo.export.weights import WeightStore
from dipgo.manifest_file import encode
from dipgo.manifest_plan import program_record, segment_records, tensor_records
from dipgo.plan import Callee, combined_dtypes
from dipgo.precision import Precision, kept_in_fp32
from dipgo.samplers import init_noise_sigma
from dipgo.tables import fill_tables


class Writer:
    """Writes one export into a directory that is nobody's yet."""

    def __init__(
        self,
        prepared: Prepared,
        compiled: Compiled,
        parts: Sequence[Part],
        numerics: Mapping[str, Numerics],
        directory: Path,
        progress: Progress,
    ) -> None:
        self.source, self.geometry = prepared.source, prepared.geometry
        self.compiled, self.parts, self.numerics = compiled, parts, numerics
        self.directory, self.progress = directory, progress
        self.models: dict[str, ir.Model] = {}
        self.weights = WeightStore()
        self.programs: Programs = {}

    def write(self, *, with_programs: bool = False) -> None:
        """The manifest comes last: without it the directory is no export.

        `with_programs` adds those of the target `torch`, whose own manifest names the first.
        """
        for callee in self.compiled.plan.callees:
            with self.progress(f"lower {callee.name} to ONNX"):
                self._add_segment(callee)
        for part in self.parts:
            with self.progress(f"lower the {part.name.replace('_', ' ')} to ONNX"):
                self._add_part(part)
        if with_programs:
            with self.progress("capture the segments for PyTorch"):
                self.programs = collect_programs(self.compiled, self.parts, self.weights)
        with self.progress(f"write {self.weights.nbytes / 1e9:.2f} GB of weights"):
            self._write_tensors()
        tokenizer = None
        if any(part.name == "text_encoder" for part in self.parts):
            with _disk_errors():
                tokenizer = save_tokenizer(self.source.pipeline, self.directory)
        with self.progress("hash the files"):
            content = encode(self._manifest(tokenizer))
        (self.directory / records.MANIFEST_FILE).write_bytes(content)
        if with_programs:
            write_programs(self.programs, self.directory)

    def _add_segment(self, callee: Callee) -> None:
        lowering = callee_lowering(self.compiled.plan, self.compiled.traced, callee)
        model, own = lower_callee(lowering, callee)
        self.weights.collect(model, own, "denoiser")
        self.models[f"{callee.name}.onnx"] = model

    def _add_part(self, part: Part) -> None:
        model = lower(
            part.module,
            [part.example],
            name=part.name,
            inputs=[part.input.name],
            outputs=[part.output.name],
        )
        self.weights.collect(model, dict(part.module.state_dict()), part.name)
        self.models[_part_file(part)] = model

    def _write_tensors(self) -> None:
        tables = fill_tables(self.compiled.plan, self.compiled.traced)
        with _disk_errors():
            self.weights.write(self.directory / records.WEIGHTS_FILE)
            save_file(tables, self.directory / records.CONSTANTS_FILE)
        for dtype in combined_dtypes(self.compiled.plan):
            self.models[records.COMBINE_FILES[dtype]] = combine_model(dtype)
        for file, model in self.models.items():
            ir.save(model, self.directory / file)
        for path in self.directory.iterdir():
            path.chmod(0o644)

    def _manifest(self, tokenizer: records.TokenizerRecord | None) -> records.Manifest:
        plan, scheduler = self.compiled.plan, self.compiled.scheduler
        precision = self.compiled.traced.precision
        (result,) = (value for value in plan.inputs if value.name == "latents")
        return records.Manifest(
            format=records.FORMAT,
            version=records.VERSION,
            dipgo=dipgo.__version__,
            model=records.ModelRecord(
                class_name=self.source.model_class,
                config_sha256=self.source.config_sha256,
                source=self.source.name,
            ),
            sampler=records.SamplerRecord(
                scheduler_class=type(scheduler).__name__,
                config=_public(scheduler.config),
                init_noise_sigma=init_noise_sigma(scheduler, plan.num_inference_steps),
            ),
            precision=precision.name,
            kept_fp32=[*kept_in_fp32(precision), *self._parts_in_fp32(precision)],
            numerics={
                name: records.NumericsRecord(found.error, found.calls)
                for name, found in self.numerics.items()
            },
            opset=OPSET,
            batch=self.geometry.batch,
            guidance=self.geometry.guidance,
            inputs=tensor_records(plan.inputs),
            outputs=tensor_records((replace(result, name="latents"),)),
            segments=segment_records(plan),
            program=program_record(plan),
            parts={
                part.name: records.PartRecord(
                    _part_file(part), tensor_records((part.input,)), tensor_records((part.output,))
                )
                for part in self.parts
            },
            tokenizer=tokenizer,
            files={path.name: _file_record(path) for path in sorted(self.directory.iterdir())},
        )

    def _parts_in_fp32(self, precision: Precision) -> list[str]:
        return [part.name for part in self.parts if part.precision != precision]


def _part_file(part: Part) -> str:
    return f"{part.name}.onnx"


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Libraries in Rust have no OSError: they tell of a full disk in words."""
    try:
        yield
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1]))) from error


def _public(config: Any) -> dict[str, Any]:
    """A scheduler's configuration without diffusers' private entries, sorted."""
    return {key: config[key] for key in sorted(config) if not key.startswith("_")}


def _file_record(path: Path) -> records.FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return records.FileRecord(digest, path.stat().st_size)
