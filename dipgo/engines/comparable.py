"""Checks that two exports do the same work, so that their times can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.common.tensor_file import read_header
from dipgo.engines.export_directory import ExportDirectory
from dipgo.ir.manifest.records import REMEDY, WEIGHTS_FILE, Manifest, SamplerRecord

DENOISER = "denoiser."
"""Begins the names of the denoiser's weights; the rest is the name in the model."""

SAMPLE = 1 << 14
"""Numbers that are compared of each weight: those of other weights, or with a LoRA, all differ."""

_TYPES: dict[str, tuple[Any, int]] = {
    "F64": (np.float64, 52),
    "F32": (np.float32, 23),
    "F16": (np.float16, 10),
    "BF16": (np.uint16, 7),
}
"""Weights' types as a safetensors file names them: numpy's type, which for bf16 holds bits alone,
and the bits after the point."""

Fact: TypeAlias = tuple[str, str, tuple[str, ...]]
"""A fact's name, its text, and the facts that it follows from: if one of these differs, it may."""


def check_comparable(this: ExportDirectory, other: ExportDirectory) -> None:
    """Checks that both make the same pictures, but for what SubNet and precision change.

    Passes, segments, targets and precisions may differ: times are compared for their sake.

    Raises:
        DipgoError: Model, weights, sizes, batch, guidance, steps or sampler differ; the error names
            all that do, first what the other has.
    """
    differing = list(_different_facts(this, other)) or [
        *_different_options(this.manifest.sampler, other.manifest.sampler),
        *_different_weights(this.path, other.path),
    ]
    if differing:
        raise DipgoError(
            f"{setting('against')} {other.path}",
            found=", ".join(differing),
            expected="an export of the same model, size, batch, guidance, steps and scheduler",
            remedy="export again with the same options, or time each by itself",
        )


def _different_facts(this: ExportDirectory, other: ExportDirectory) -> Iterator[str]:
    """Yields `steps 20 (not 50)` for each fact that differs and follows from no other that does."""
    found: set[str] = set()
    for (name, left, follows), (_, right, _) in zip(_facts(this), _facts(other), strict=True):
        if left != right:
            if found.isdisjoint(follows):
                yield f"{name} {right} (not {left})"
            found.add(name)


def _facts(export: ExportDirectory) -> list[Fact]:
    """Returns what decides the work of a run, the general before what follows from it."""
    manifest = export.manifest
    model, sampler, program = manifest.model, manifest.sampler, manifest.program
    latents = next(record for record in manifest.inputs if record.name == "latents")
    strength = "none" if sampler.strength is None else f"{sampler.strength:g}"
    return [
        ("model", f"{model.class_name} {model.config_sha256[:12]}", ()),
        ("batch", str(manifest.batch), ("model",)),
        ("guidance", "on" if manifest.guidance else "off", ("model",)),
        ("latents", latents.type, ("model", "batch")),
        ("inputs", _conditioning(manifest), ("model", "batch", "guidance", "latents")),
        ("scheduler", sampler.scheduler_class, ()),
        ("steps", str(program.num_inference_steps), ()),
        ("strength", strength, ()),
        ("eta", f"{sampler.eta:g}", ("scheduler",)),
        (
            "timesteps",
            " ".join(f"{step.timestep:g}" for step in program.steps),
            ("scheduler", "steps", "strength"),
        ),
    ]


def _conditioning(manifest: Manifest) -> str:
    """Returns names and shapes of the inputs that describe the picture: not noise, not the scale.

    The noise that a sampler draws follows from scheduler and steps; element types from precision.
    """
    others = {"latents", "guidance_scale", *(draw.value for draw in manifest.program.draws)}
    shapes = {record.name: record.type.partition("[")[2] for record in manifest.inputs}
    described = sorted(f"{name}[{shape}" for name, shape in shapes.items() if name not in others)
    return " ".join(described) or "none"


def _different_options(this: SamplerRecord, other: SamplerRecord) -> Iterator[str]:
    """Yields the options in which the schedulers differ, of those that both have."""
    for name in sorted(this.config.keys() & other.config.keys()):
        left, right = (one.config[name] for one in (this, other))
        if left != right:
            yield f"the scheduler's {name} {right} (not {left})"


def _different_weights(this: Path, other: Path) -> Iterator[str]:
    """Yields the first weight of the denoiser that both have and that is another, in words."""
    left, right = (_weights(path / WEIGHTS_FILE) for path in (this, other))
    for name in sorted(left.keys() & right.keys()):
        one, another = left[name], right[name]
        if one[1] == another[1] and not _same(one, another):
            yield f"other weights, such as {name.removeprefix(DENOISER)}"
            return


Weight: TypeAlias = tuple[str, list[int], NDArray[Any]]
"""Element type and shape as in the file, and the bytes of the first SAMPLE numbers."""


def _weights(path: Path) -> dict[str, Weight]:
    """Reads the beginning of each of the denoiser's weights.

    Raises:
        DipgoError: The file is damaged.
    """
    header = read_header(path, remedy=REMEDY)
    file = np.memmap(path, np.uint8, "r")
    weights = {}
    for name, entry in header.items():
        if name.startswith(DENOISER) and entry.dtype in _TYPES:
            start, end = entry.data_offsets
            size = np.dtype(_TYPES[entry.dtype][0]).itemsize
            weights[name] = (
                entry.dtype,
                entry.shape,
                file[start : min(end, start + SAMPLE * size)],
            )
    return weights


def _same(one: Weight, another: Weight) -> bool:
    """Compares as exactly as the narrower of the two types allows."""
    bits = min(_TYPES[weight[0]][1] for weight in (one, another))
    left, right = _numbers(one), _numbers(another)
    return bool(np.allclose(left, right, rtol=2.0**-bits, atol=1e-7, equal_nan=True))


def _numbers(weight: Weight) -> NDArray[np.float64]:
    """Returns the numbers as f64."""
    dtype, _, held = weight
    numbers: NDArray[Any] = held.view(_TYPES[dtype][0])
    if dtype == "BF16":
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(numbers, np.float64)
