"""Defines a Triton model repository of an export: its layout, its model's inputs and output.

Source: Triton's pages "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dipgo.engines.contents import export_contents
from dipgo.engines.onnxruntime.session import DEVICES
from dipgo.ir.manifest.records import Manifest, TensorRecord
from dipgo.ir.types import ELEMENT_TYPES, TensorType

MODEL_NAME = "dipgo"
"""The same for every export, so that clients need not change when an export is replaced."""

CONFIG_FILE = "config.pbtxt"

VERSION_FOLDER = "1"

MODEL_FILE = Path(VERSION_FOLDER, "model.py")

EXPORT_FOLDER = Path(VERSION_FOLDER, "export")

INSTANCE_KINDS = {
    provider: {"cpu": "CPU", "cuda": "GPU"}[device] for provider, device in DEVICES.items()
}
"""The place where Triton must put a model, for each provider."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a Triton model."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs of requests and the outputs of responses."""

    inputs: tuple[Port, ...]
    output: Port


def signature_of(manifest: Manifest) -> Signature:
    """Returns prompts to pictures if the export has the parts for it, else its runner's types."""
    return _of_prompts(manifest) if takes_prompts(manifest) else _of_plan(manifest)


def takes_prompts(manifest: Manifest) -> bool:
    """Returns whether the export can be run from text to picture.

    A text encoder comes with a tokenizer.
    """
    return {"text_encoder", "vae_decoder"} <= set(manifest.parts)


def _of_prompts(manifest: Manifest) -> Signature:
    """Returns the signature for prompts: an export for B pictures answers u8[B, H, W, 3]."""
    batch = manifest.batch
    _, channels, *size = TensorType.parse(manifest.parts["vae_decoder"].outputs[0].type).shape
    image = (*size, channels)
    inputs = [Port("prompt", "TYPE_STRING", (batch,)), Port("seed", "TYPE_INT64", (1,), True)]
    if manifest.guidance:
        inputs.append(Port("negative_prompt", "TYPE_STRING", (batch,), True))
        inputs.append(Port("guidance_scale", "TYPE_FP32", (1,), True))
    dims = image if batch == 1 else (batch, *image)
    return Signature(tuple(inputs), Port("image", "TYPE_UINT8", dims))


def _of_plan(manifest: Manifest) -> Signature:
    (output,) = manifest.outputs
    return Signature(tuple(map(_port, manifest.inputs)), _port(output))


def _port(record: TensorRecord) -> Port:
    """Returns a port; Triton has no scalars, so a number is a vector of length 1."""
    tensor_type = TensorType.parse(record.type)
    return Port(record.name, ELEMENT_TYPES[tensor_type.dtype].triton, tensor_type.shape or (1,))


def repository_contents(out: Path) -> set[str] | None:
    """Returns the relative paths of the files of a repository of one model, an export.

    None if `out` is not one. Other models or versions belong to the user. What Python compiles of
    the model when a server loads it belongs to the model.
    """
    for model in sorted(out.iterdir()) if out.is_dir() else ():
        export = export_contents(model / EXPORT_FOLDER)
        if export is not None:
            files = {CONFIG_FILE, MODEL_FILE.as_posix()}
            files |= {f"{EXPORT_FOLDER.as_posix()}/{name}" for name in export}
            compiled = (model / MODEL_FILE).parent.glob(f"__pycache__/{MODEL_FILE.stem}.*.pyc")
            files |= {path.relative_to(model).as_posix() for path in compiled}
            return {f"{model.name}/{name}" for name in files}
    return None
