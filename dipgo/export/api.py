"""`export`: from a model and a SubNet to a directory from which engines run."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import torch
from safetensors.torch import save_file

import dipgo
from dipgo import manifest as records
from dipgo.errors import DipgoError
from dipgo.export.combine import combine_model
from dipgo.export.compile import DENSE, Compiled, compile_plan, read_schedule
from dipgo.export.lower import OPSET, lower
from dipgo.export.parts import Part, parts_of, save_tokenizer
from dipgo.export.weights import WeightStore
from dipgo.manifest_file import encode
from dipgo.manifest_plan import program_record, segment_records, tensor_records
from dipgo.models.family import Geometry
from dipgo.models.source import Source, load_source
from dipgo.plan import Callee
from dipgo.staging import check_destination, staged_directory
from dipgo.subnet import SubNet
from dipgo.tables import fill_tables
from dipgo.torch_types import TORCH_DTYPES

Progress = Callable[[str], AbstractContextManager[object]]
"""Called with what is about to happen; the context lasts as long as that does."""


def _silent(stage: str) -> AbstractContextManager[object]:
    return nullcontext()


def export(
    model: Any,
    subnet: SubNet | str | Path = DENSE,
    out: str | Path = "out",
    *,
    steps: int | None = None,
    scheduler: str | None = None,
    blocks: tuple[str, ...] = (),
    batch: int = 1,
    height: int = 0,
    width: int = 0,
    guidance: bool = True,
    target: str = "onnxruntime",
    precision: Literal["fp32"] = "fp32",
    force: bool = False,
    progress: Progress = _silent,
) -> Path:
    """Writes an export directory and returns its path; on any error nothing is written.

    `model` is a path, a Hub id, an `arch:` name or a loaded diffusers pipeline; `subnet` a
    SubNet, its path or "dense". `height` and `width` are in pixels, 0 for the model's own.
    Raises DipgoError.
    """
    out = Path(out)
    _check_target(target, precision)
    _check_sizes(batch=batch, steps=steps, height=height, width=width)
    check_destination(out, force)
    schedule = read_schedule(subnet, steps, scheduler, blocks)
    with progress("load the model"):
        source = load_source(model)
    geometry = Geometry(batch, height, width, guidance, source.tokens)
    _check_pixels(geometry, source)
    with progress("trace, unroll, optimise the plan"):
        compiled = compile_plan(source, schedule, geometry)
    with staged_directory(out, force) as staging:
        _Export(source, compiled, geometry, staging, progress).write()
    return out


def _check_target(target: str, precision: str) -> None:
    if target != "onnxruntime":
        raise DipgoError(
            "--target", found=target, expected="onnxruntime", remedy="leave --target out"
        )
    if precision != "fp32":
        raise DipgoError(
            "--precision", found=precision, expected="fp32", remedy="leave --precision out"
        )


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        least = 0 if name in ("height", "width") else 1
        if size is not None and size < least:
            raise DipgoError(
                f"--{name}",
                found=str(size),
                expected=f"a number of at least {least}",
                remedy="correct it",
            )


def _check_pixels(geometry: Geometry, source: Source) -> None:
    scale = source.pixels_per_latent
    for name, size in (("height", geometry.height), ("width", geometry.width)):
        if size % scale:
            raise DipgoError(
                f"--{name}",
                found=str(size),
                expected=f"a multiple of {scale}, the pixels of one latent",
                remedy=f"use {max(scale, round(size / scale) * scale)}",
            )


class _Export:
    """Writes one export into a directory that is nobody's yet."""

    def __init__(
        self,
        source: Source,
        compiled: Compiled,
        geometry: Geometry,
        directory: Path,
        progress: Progress,
    ) -> None:
        self.source, self.compiled, self.geometry = source, compiled, geometry
        self.directory, self.progress = directory, progress
        self.models: dict[str, ir.Model] = {}
        self.parts: dict[str, records.PartRecord] = {}
        self.weights = WeightStore()

    def write(self) -> None:
        """The manifest comes last: without it the directory is no export."""
        for callee in self.compiled.plan.callees:
            with self.progress(f"lower {callee.name} to ONNX"):
                self._add_segment(callee)
        for part in self._parts():
            with self.progress(f"lower the {part.name.replace('_', ' ')} to ONNX"):
                self._add_part(part)
        with self.progress(f"write {self.weights.nbytes / 1e9:.2f} GB of weights"):
            self._write_tensors()
        with _disk_errors():
            tokenizer = save_tokenizer(self.source.pipeline, self.directory)
        with self.progress("hash the files"):
            content = encode(self._manifest(tokenizer))
        (self.directory / records.MANIFEST_FILE).write_bytes(content)

    def _add_segment(self, callee: Callee) -> None:
        inputs = [value.name for value in callee.inputs]
        outputs = [value.name for value in callee.outputs]
        module = self.compiled.traced.module(callee.members, inputs, outputs)
        example = [
            torch.zeros(value.type.shape, dtype=TORCH_DTYPES[value.type.dtype])
            for value in callee.inputs
        ]
        model = lower(module, example, name=callee.name, inputs=inputs, outputs=outputs)
        self.weights.collect(model, dict(module.state_dict()), "denoiser")
        self.models[f"{callee.name}.onnx"] = model

    def _parts(self) -> Iterator[Part]:
        if self.source.pipeline is None:
            return
        state = next(value for value in self.compiled.plan.inputs if value.name == "latents")
        yield from parts_of(self.source.pipeline, self.geometry, torch.zeros(state.type.shape))

    def _add_part(self, part: Part) -> None:
        model = lower(
            part.module,
            [part.example],
            name=part.name,
            inputs=[part.input_name],
            outputs=[part.output.name],
        )
        self.weights.collect(model, dict(part.module.state_dict()), part.name)
        file = f"{part.name}.onnx"
        self.models[file] = model
        self.parts[part.name] = records.PartRecord(
            file, tensor_records((part.input,)), tensor_records((part.output,))
        )

    def _write_tensors(self) -> None:
        tables = fill_tables(self.compiled.plan, self.compiled.traced)
        with _disk_errors():
            self.weights.write(self.directory / records.WEIGHTS_FILE)
            save_file(tables, self.directory / records.CONSTANTS_FILE)
        self.models[records.COMBINE_FILE] = combine_model()
        for file, model in self.models.items():
            ir.save(model, self.directory / file)
        for path in self.directory.iterdir():
            path.chmod(0o644)

    def _manifest(self, tokenizer: records.TokenizerRecord | None) -> records.Manifest:
        plan, scheduler = self.compiled.plan, self.compiled.scheduler
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
                init_noise_sigma=_init_noise_sigma(scheduler, plan.num_inference_steps),
            ),
            precision="fp32",
            opset=OPSET,
            batch=self.geometry.batch,
            guidance=self.geometry.guidance,
            inputs=tensor_records(plan.inputs),
            outputs=tensor_records((replace(result, name="latents"),)),
            segments=segment_records(plan),
            program=program_record(plan),
            parts=self.parts,
            tokenizer=tokenizer,
            files={path.name: _file_record(path) for path in sorted(self.directory.iterdir())},
        )


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


def _init_noise_sigma(scheduler: Any, steps: int) -> float:
    """Some schedulers know it only with their timesteps set; flow matching has none."""
    started = copy.deepcopy(scheduler)
    started.set_timesteps(steps)
    return float(getattr(started, "init_noise_sigma", 1.0))


def _public(config: Any) -> dict[str, Any]:
    """A scheduler's configuration without diffusers' private entries, sorted."""
    return {key: config[key] for key in sorted(config) if not key.startswith("_")}


def _file_record(path: Path) -> records.FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return records.FileRecord(digest, path.stat().st_size)
