"""Which exports may be timed against each other: drawn changes of a manifest, and of weights."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from safetensors.torch import load_file, save_file

from dipgo.common.errors import DipgoError
from dipgo.engines.comparable import check_comparable
from dipgo.engines.export_directory import ExportDirectory
from dipgo.ir.manifest.records import WEIGHTS_FILE, Manifest

Change = Callable[[Manifest], Manifest]


def _program(**changes: Any) -> Change:
    return lambda manifest: structs.replace(
        manifest, program=structs.replace(manifest.program, **changes)
    )


def _sampler(**changes: Any) -> Change:
    return lambda manifest: structs.replace(
        manifest, sampler=structs.replace(manifest.sampler, **changes)
    )


def _model(**changes: Any) -> Change:
    return lambda manifest: structs.replace(
        manifest, model=structs.replace(manifest.model, **changes)
    )


def _input(name: str, type_: str) -> Change:
    def change(manifest: Manifest) -> Manifest:
        inputs = [
            structs.replace(record, type=type_) if record.name == name else record
            for record in manifest.inputs
        ]
        return structs.replace(manifest, inputs=inputs)

    return change


def _timesteps(manifest: Manifest) -> Manifest:
    first, *rest = manifest.program.steps
    moved = structs.replace(first, timestep=first.timestep + 1)
    return _program(steps=[moved, *rest])(manifest)


CHANGES: dict[str, Change] = {
    "model": _model(class_name="DiTTransformer2DModel"),
    "model of another configuration": _model(config_sha256="0" * 64),
    "batch": lambda manifest: structs.replace(manifest, batch=7),
    "guidance": lambda manifest: structs.replace(manifest, guidance=not manifest.guidance),
    "latents": _input("latents", "f32[1,4,64,64]"),
    "inputs": _input("encoder_hidden_states", "f32[2,99,32]"),
    "scheduler": _sampler(scheduler_class="HeunDiscreteScheduler"),
    "steps": _program(num_inference_steps=99),
    "strength": _sampler(strength=0.3),
    "eta": _sampler(eta=0.7),
    "timesteps": _timesteps,
}
"""Changes of the work, by the first word of what the error calls them."""

NO_CHANGES: dict[str, Change] = {
    "precision": lambda manifest: structs.replace(manifest, precision="fp16"),
    "name": _model(source="another name"),
    "version": lambda manifest: structs.replace(manifest, dipgo="9.9"),
    "option of another scheduler": lambda manifest: _sampler(
        config=manifest.sampler.config | {"unknown_option": 1}
    )(manifest),
}
"""What does not change the work, or is what times are compared for."""


@pytest.fixture(scope="module")
def export(sample_exports: dict[str, Path]) -> ExportDirectory:
    return ExportDirectory.open(sample_exports["dense"], check_hashes=False)


def _changed(export: ExportDirectory, *changes: Change) -> ExportDirectory:
    manifest = export.manifest
    for change in changes:
        manifest = change(manifest)
    return replace(export, manifest=manifest)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    wrong=st.sets(st.sampled_from(sorted(CHANGES))),
    harmless=st.sets(st.sampled_from(sorted(NO_CHANGES))),
)
def test_what_changes_the_work_is_refused_and_named(
    export: ExportDirectory, wrong: set[str], harmless: set[str]
) -> None:
    changes = [*(CHANGES[name] for name in wrong), *(NO_CHANGES[name] for name in harmless)]
    other = _changed(export, *changes)
    if not wrong:
        check_comparable(export, other)
        return
    for this, against in ((export, other), (other, export)):
        with pytest.raises(DipgoError) as caught:
            check_comparable(this, against)
        found = caught.value.found
        named = {part.split()[0] for part in found.split(", ")}
        assert named <= {name.split()[0] for name in wrong}
        assert len(wrong) != 1 or named
        assert "\n" not in str(caught.value)


def test_an_option_of_the_scheduler_is_named(export: ExportDirectory) -> None:
    name, value = next(
        (name, value)
        for name, value in export.manifest.sampler.config.items()
        if isinstance(value, float)
    )
    config = export.manifest.sampler.config | {name: value * 2}
    with pytest.raises(DipgoError, match=f"the scheduler's {name} {value * 2} \\(not {value}\\)"):
        check_comparable(export, _changed(export, _sampler(config=config)))


DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtypes", [*itertools.product(DTYPES, DTYPES)], ids=str)
def test_weights_of_another_model_are_found_in_any_precision(
    export: ExportDirectory, dtypes: tuple[torch.dtype, torch.dtype], tmp_path: Path
) -> None:
    """One weight of many is another, by a hundredth; or all are the same but for rounding."""
    paths = [shutil.copytree(export.path, tmp_path / name) for name in ("this", "same", "other")]
    weights = load_file(export.path / WEIGHTS_FILE)
    name = sorted(name for name in weights if name.startswith("denoiser."))[5]
    changed = weights | {name: weights[name] + 0.02 * weights[name].std().clamp_min(0.1)}
    left, right = dtypes
    written = ((weights, left), (weights, right), (changed, right))
    for path, (tensors, dtype) in zip(paths, written, strict=True):
        narrow = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        save_file(narrow, path / WEIGHTS_FILE)
    this, same, other = (replace(export, path=path) for path in paths)
    check_comparable(this, same)
    with pytest.raises(DipgoError, match=f"other weights, such as {name.partition('.')[2]}"):
        check_comparable(this, other)


def test_a_damaged_file_of_weights_is_named(export: ExportDirectory, tmp_path: Path) -> None:
    path = shutil.copytree(export.path, tmp_path / "damaged")
    (path / WEIGHTS_FILE).write_bytes(b"no weights")
    with pytest.raises(DipgoError, match=WEIGHTS_FILE):
        check_comparable(export, replace(export, path=path))
