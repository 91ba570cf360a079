"""Tries a draw: diffusers' pictures against those of the export."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import extract_tb
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.warn import DipgoWarning
from dipgo.export import export
from dipgo.ir.subnet.subnet import SubNet
from dipgo.run.arguments import EMBEDDED_SCALES
from dipgo.run.pipeline import Pipeline
from scripts.fuzz.draws import Draw
from scripts.fuzz.pipelines import LORA_SCALE, build_pipeline, write_lora
from scripts.fuzz.reference import (
    Run,
    draw_media,
    labels_of,
    prompts_of,
    random_subnet,
    run_diffusers,
)

TOLERANCE = {"fp32": 1e-4, "fp16": 0.03}
"""Relative L2 of latents by precision: float32 kernels of another library; half precision."""

NUDGE = {"fp32": 1e-6, "fp16": 2e-3}
"""What rounding adds to a prediction, for a run whose result depends on it."""

AMPLIFIED = 10.0
"""Times what nudged predictions change the result: within it, a difference is rounding's."""

OTHER_THAN = "other than those of the pipeline"
"""What a warning of an export says whose pictures are meant to differ from diffusers'."""

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Verdict(Enum):
    """How a draw went."""

    AGREES = "agrees"
    REFUSED = "refused clearly"
    DIFFUSERS = "diffusers itself fails, or is not finite"
    ROUNDING = "rounding decides in diffusers, too"
    SAID = "differs, and export says why"
    WRONG = "wrong"
    CRASH = "crash"

    @property
    def bad(self) -> bool:
        """Whether it is a fault of dipgo."""
        return self in (Verdict.WRONG, Verdict.CRASH)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, why, and the relative L2 of the latents where there are any."""

    verdict: Verdict
    reason: str = ""
    error: float | None = None


def try_draw(draw: Draw) -> Outcome:
    """Returns the outcome of a draw. Nothing that the libraries print or warn of is shown."""
    with TemporaryDirectory() as folder, _quiet():
        return _try(draw, Path(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    levels = [
        (module, module.get_verbosity()) for module in (diffusers.logging, transformers.logging)
    ]
    for module, _ in levels:
        module.set_verbosity(50)
        module.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, level in levels:
            module.set_verbosity(level)
            module.enable_progress_bar()


def _try(draw: Draw, folder: Path) -> Outcome:
    try:
        pipeline = build_pipeline(draw, folder)
        given = pipeline if draw.weights == "fp32" else _in_type(pipeline, TYPES[draw.weights])
        if draw.saved:
            given.save_pretrained(folder / "pipeline")
            reference = _load(given, folder / "pipeline")
        else:
            reference = _in_type(given, torch.float32)
        lora = write_lora(pipeline, draw, folder) if draw.lora else None
        if lora:
            reference.load_lora_weights(str(lora), adapter_name="style")
            reference.fuse_lora(lora_scale=LORA_SCALE)
            reference.unload_lora_weights()
        dense = run_diffusers(reference, draw)
    except Exception as error:  # diffusers may fail in any way
        return Outcome(Verdict.DIFFUSERS, _in_words(error))
    try:
        subnet = random_subnet(draw, reference, dense)
    except DipgoError as error:  # of a SubNet with these rows
        return Outcome(Verdict.REFUSED, str(error))
    except Exception as error:  # what is dipgo's own is its fault
        return Outcome(Verdict.CRASH, _in_words(error))
    try:
        wanted = run_diffusers(reference, draw, subnet, dense.timesteps) if subnet else dense
    except Exception as error:  # as above
        return Outcome(Verdict.DIFFUSERS, _in_words(error))
    if not (np.isfinite(wanted.latents).all() and np.isfinite(wanted.pictures).all()):
        return Outcome(Verdict.DIFFUSERS, "not finite")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", DipgoWarning)
            latents, pictures = _run_export(draw, given, subnet, lora, folder)
    except DipgoError as error:
        return Outcome(Verdict.REFUSED, str(error))
    except Exception as error:
        return Outcome(Verdict.CRASH, _in_words(error))
    outcome = _compare(draw, reference, subnet, dense, wanted, latents, pictures)
    differs = [str(each.message) for each in said if OTHER_THAN in str(each.message)]
    if outcome.verdict is Verdict.WRONG and differs:
        return replace(outcome, verdict=Verdict.SAID, reason=differs[0])
    return outcome


def _in_type(pipeline: Any, dtype: torch.dtype) -> Any:
    """Returns a copy of the pipeline in another type."""
    return copy.deepcopy(pipeline).to(dtype)


def _load(given: Any, folder: Path) -> Any:
    """Returns what diffusers loads: it may change a scheduler's options or a tokenizer."""
    nothing = {name: None for name, part in given.components.items() if part is None}
    pipeline = type(given).from_pretrained(folder, **nothing).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _in_words(error: Exception) -> str:
    """Returns the error's class, message and place."""
    frame = extract_tb(error.__traceback__)[-1]
    place = "/".join(Path(frame.filename).parts[-3:])
    message = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {message[:200]} ({place}:{frame.lineno})"


def _run_export(
    draw: Draw, given: Any, subnet: SubNet | None, lora: Path | None, folder: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Exports the pipeline and runs the export: latents, and pictures in [0, 1]."""
    model = folder / "pipeline" if draw.saved else given
    settings: dict[str, Any] = {"batch": draw.batch, "precision": draw.precision}
    if draw.family not in ("dit", "unconditional"):
        settings |= {"height": draw.height, "width": draw.width}
    if not draw.guidance:
        settings["guidance"] = False
    takes_eta = "eta" in inspect.signature(type(given).__call__).parameters
    if draw.eta and takes_eta and draw.scheduler in ("DDIMScheduler", "TCDScheduler"):
        settings["eta"] = draw.eta
    if draw.task == "image":
        settings["strength"] = draw.strength
    if lora:
        settings["loras"] = [(lora, LORA_SCALE)]
    if subnet is None:
        settings["steps"] = draw.steps
    out = export(model, subnet or "dense", folder / "out", **settings)
    pipeline = Pipeline.from_export(out, threads=1)
    latents = pipeline(**_arguments(draw, pipeline), output_type="latent").images
    return latents, pipeline.decode(latents)


def _arguments(draw: Draw, pipeline: Pipeline) -> dict[str, Any]:
    """Returns the arguments of dipgo's pipeline."""
    media, count = draw_media(draw), len(draw.prompts)
    arguments: dict[str, Any] = {
        "prompt": {"class": labels_of(draw), "none": [None] * count}.get(
            draw.task, prompts_of(draw)
        ),
        "num_images_per_prompt": draw.pictures_each,
        "seed": draw.seeds if isinstance(draw.seeds, int) else list(draw.seeds),
    }
    embedded = not EMBEDDED_SCALES.keys().isdisjoint(pipeline.runner.inputs)
    if pipeline.manifest.guidance or embedded:
        arguments["guidance_scale"] = draw.guidance_scale
    if draw.negative is not None and pipeline.manifest.guidance:
        arguments["negative_prompt"] = list(draw.negative * (count // len(draw.negative)))
    if draw.task in ("image", "inpaint"):
        arguments["image"] = media.picture.numpy()
    if draw.task == "inpaint":
        arguments["mask_image"] = media.mask.numpy()
    if draw.task == "controlnet":
        arguments["inputs"] = {
            "controlnet_cond": media.control.numpy(),
            "conditioning_scale": np.float32(0.7),
        }
    if "resolution" in pipeline.runner.inputs:
        arguments["inputs"] = {
            "resolution": np.array([[draw.height, draw.width]], np.float32),
            "aspect_ratio": np.array([[draw.height / draw.width]], np.float32),
        }
    if "image_embeds" in pipeline.runner.inputs:  # a saved directory has no IP-Adapter
        halves = media.embeds.numpy()[:, None]
        arguments["inputs"] = {
            "image_embeds": tuple(halves) if pipeline.manifest.guidance else halves[1]
        }
    return arguments


def _compare(
    draw: Draw,
    reference: Any,
    subnet: SubNet | None,
    dense: Run,
    wanted: Run,
    latents: NDArray[np.float32],
    pictures: NDArray[np.float32],
) -> Outcome:
    expected = wanted.latents[: len(latents)]  # a DiT's scheduler steps both halves of guidance
    if draw.family == "flux":
        return _by_error(draw, _relative(pictures, wanted.pictures), 0.0)
    if latents.shape != expected.shape:
        return Outcome(Verdict.WRONG, f"latents {latents.shape} for {expected.shape}")
    error = _relative(latents, expected)
    if error > TOLERANCE[draw.precision]:
        nudged = run_diffusers(
            reference, draw, subnet, dense.timesteps, nudge=NUDGE[draw.precision]
        )
        rounding = _relative(nudged.latents[: len(latents)], expected)
        if error <= AMPLIFIED * rounding:
            return Outcome(Verdict.ROUNDING, f"nudged {rounding:.1e}", error)
        return Outcome(Verdict.WRONG, f"latents, relative L2 {error:.1e}", error)
    return _by_error(draw, _relative(pictures, wanted.pictures), error)


def _by_error(draw: Draw, pictured: float, error: float) -> Outcome:
    """Judges the pictures, of which a byte of the latents' tolerance is allowed."""
    if pictured > 10 * TOLERANCE[draw.precision]:
        return Outcome(Verdict.WRONG, f"pictures, relative L2 {pictured:.1e}", error)
    return Outcome(Verdict.AGREES, error=max(error, pictured))


def _relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Returns the relative L2 of the picture that differs most, infinity if one is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    difference = (found - expected).reshape(len(found), -1).astype(np.float64)
    size = np.linalg.norm(expected.reshape(len(found), -1).astype(np.float64), axis=1)
    errors = np.linalg.norm(difference, axis=1) / np.maximum(size, 1e-12)
    return float(errors.max())
