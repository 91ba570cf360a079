"""`export`: from a model and a SubNet to a directory from which engines run."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from dipgo.export.compile import DENSE, Compiled, compile_plan
from dipgo.export.lower import OPSET, lower
from dipgo.export.lower_lanes import lower_lanes
from dipgo.export.parts import Part, parts_of, save_tokenizer
from dipgo.export.prepare import Prepared, Progress, Request, prepare, silent
from dipgo.export.weights import WeightStore
from dipgo.manifest_file import encode
from dipgo.manifest_plan import program_record, segment_records, tensor_records
from dipgo.passes import OPTIMISE, Pass, find_passes
from dipgo.plan import Callee
from dipgo.staging import check_destination, staged_directory
from dipgo.subnet import SubNet
from dipgo.tables import fill_tables
from dipgo.torch_types import TORCH_DTYPES

PASS_NAMES = tuple(one.name for one in OPTIMISE)


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
    passes: Sequence[str] = PASS_NAMES,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes an export directory and returns its path; on any error nothing is written.

    `model` is a path, a Hub id, an `arch:` name or a loaded diffusers pipeline; `subnet` a
    SubNet, its path or "dense". `height` and `width` are in pixels, 0 for the model's own.
    `passes` are names, to run in this order.
    Raises DipgoError.
    """
    out = Path(out)
    _check_target(target, precision)
    chosen = find_passes(passes)
    _check_slots_are_allocated(chosen)
    check_destination(out, force)
    request = Request(subnet, steps, scheduler, blocks, batch, height, width, guidance)
    prepared = prepare(model, request, progress)
    with progress("trace, unroll, optimise the plan"):
        compiled = compile_plan(prepared.source, prepared.schedule, prepared.geometry, chosen)
    with staged_directory(out, force) as staging:
        _Export(prepared, compiled, staging, progress).write()
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


def _check_slots_are_allocated(passes: Sequence[Pass]) -> None:
    """Engines write to slots, and no other pass may come after these are allocated."""
    if not passes or passes[-1].name != "allocate_slots":
        raise DipgoError(
            "--passes",
            found=f"{passes[-1].name if passes else 'no pass'} as the last",
            expected="allocate_slots as the last: engines write to slots",
            remedy="add allocate_slots to the end",
        )


class _Export:
    """Writes one export into a directory that is nobody's yet."""

    def __init__(
        self,
        prepared: Prepared,
        compiled: Compiled,
        directory: Path,
        progress: Progress,
    ) -> None:
        self.source, self.geometry = prepared.source, prepared.geometry
        self.compiled = compiled
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
        members = callee.members or (callee.name,)
        module = self.compiled.traced.module(members, inputs, outputs)
        own = dict(module.state_dict())
        if callee.stacked:
            widths = {c.width for c in self.compiled.plan.calls if c.callee == callee.name}
            model = lower_lanes(module, callee, widths)
        else:
            example = [
                torch.zeros(value.type.shape, dtype=TORCH_DTYPES[value.type.dtype])
                for value in callee.inputs
            ]
            model = lower(module, example, name=callee.name, inputs=inputs, outputs=outputs)
        self.weights.collect(model, own, "denoiser")
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
