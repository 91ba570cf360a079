"""Fuses LoRAs into a pipeline's weights before it is traced, or refuses them whole.

diffusers loads the file. It would only warn of a tensor for which the pipeline has no place; that
is an error here.

Source: Hu et al. 2021 (arXiv 2106.09685).
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dipgo.common.errors import DipgoError, setting
from dipgo.common.hashes import sha256_of
from dipgo.common.packages import install
from dipgo.common.regular_files import check_file
from dipgo.ir.fitted import LoraRecord
from dipgo.models.adapters import adapter_records, fuse_loaded, has_adapters
from dipgo.models.diffusers_private import lora_modules
from dipgo.models.options import Lora
from dipgo.models.own_copy import own_copy
from dipgo.models.wrappers import pipeline_modules

ADAPTER = "dipgo"
"""The name of a LoRA while it is being fused."""

NOT_LOADED = ("dora_scale",)
"""Parts of key names that diffusers drops."""

FOREIGN = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)
"""Errors that loading raises for another model's file; none of them is the environment's."""


def fuse_loras(pipeline: Any, loras: Sequence[Lora]) -> tuple[LoraRecord, ...]:
    """Fuses the LoRAs into the pipeline's weights, in place and one after another.

    Adapters that the pipeline has been loaded with are fused first.

    Args:
        pipeline: The loaded pipeline of diffusers, of float32.
        loras: Files, each with its scale.

    Returns:
        A record of each LoRA, those that it was loaded with first.

    Raises:
        DipgoError: The package peft is missing, the pipeline takes no LoRA, or a file does not
            fit the model.
    """
    loaded = adapter_records(pipeline_modules(pipeline).values())
    if not loras:
        return loaded
    _check_possible(pipeline)
    if has_adapters(_parts(pipeline).values()):
        fuse_loaded(_parts(pipeline).values())
        pipeline.unload_lora_weights()
    return (*loaded, *(_fuse(pipeline, *_path_and_scale(lora)) for lora in loras))


def _path_and_scale(lora: Lora) -> tuple[Path, float]:
    path, scale = lora if isinstance(lora, tuple) else (lora, 1.0)
    return Path(path), float(scale)


def _check_possible(pipeline: Any) -> None:
    if find_spec("peft") is None:
        raise DipgoError(
            setting("loras"),
            found="no package peft",
            expected="the package with which diffusers loads LoRAs",
            remedy=install("lora"),
        )
    if not hasattr(pipeline, "load_lora_weights"):
        raise DipgoError(
            setting("loras"),
            found=f"{type(pipeline).__name__}, which takes no LoRA",
            expected="a pipeline of which diffusers can load LoRAs",
            remedy=f"leave {setting('loras')} out, or use another pipeline",
        )


def with_own_parts(pipeline: Any) -> Any:
    """Returns a copy of the pipeline, with copies of the parts that LoRAs may change.

    Raises:
        DipgoError: As of `fuse_loras`, if the pipeline takes no LoRA.
    """
    _check_possible(pipeline)
    own = copy.copy(pipeline)
    for name, module in _parts(pipeline).items():
        setattr(own, name, own_copy(module, name))
    return own


def _parts(pipeline: Any) -> dict[str, nn.Module]:
    """Returns the parts that LoRAs may change, by their names in the pipeline and in keys."""
    parts = {name: getattr(pipeline, name, None) for name in lora_modules(pipeline)}
    return {name: module for name, module in parts.items() if module is not None}


def _fuse(pipeline: Any, path: Path, scale: float) -> LoraRecord:
    keys = _keys_of_file(path)
    for key in keys:
        if any(part in key for part in NOT_LOADED):
            raise _foreign(path, key, "a weight-decomposed LoRA (DoRA)")
    parts = _parts(pipeline)
    state: dict[str, torch.Tensor] = {}
    try:
        state = _converted(pipeline, path)
        # Biases that only some modules have would be left without numbers in the others.
        pipeline.load_lora_weights(adapter_name=ADAPTER, low_cpu_mem_usage=False, **_where(path))
        _check_all_loaded(path, state, parts)
        for part in parts.values():
            _add_biases(part)
        pipeline.fuse_lora(components=list(parts), lora_scale=scale)
    except FOREIGN as error:  # of peft, transformers or diffusers, whichever meets it first
        raise _foreign(path, _first_foreign(state, parts) or keys[0], str(error)) from error
    pipeline.unload_lora_weights()
    return LoraRecord(path.name, sha256_of(path), scale)


def _keys_of_file(path: Path) -> list[str]:
    """Returns the keys of a safetensors file; no other format, since a pickle could run code."""
    from safetensors import SafetensorError, safe_open

    where = f"{setting('loras')} {path}"
    check_file(path, expected="a file in the safetensors format", most=None, where=where)
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
    except (OSError, UnicodeError, SafetensorError) as error:
        raise DipgoError(
            where,
            found=str(error).splitlines()[0],
            expected="a file in the safetensors format",
            remedy="check the path, or convert the file",
        ) from error
    if not keys:
        raise DipgoError(
            where,
            found="a file without tensors",
            expected="the weights of a LoRA",
            remedy="check the file",
        )
    return keys


def _converted(pipeline: Any, path: Path) -> dict[str, torch.Tensor]:
    """Returns the file's tensors by keys of diffusers' own form: `unet.…`, `text_encoder.…`."""
    config = getattr(pipeline, "unet", None) and pipeline.unet.config
    options = {"unet_config": config} if config else {}
    state = type(pipeline).lora_state_dict(**_where(path), **options)
    return dict(state[0] if isinstance(state, tuple) else state)


def _where(path: Path) -> dict[str, Any]:
    """Returns the arguments that name a file to diffusers, so that it looks nowhere else."""
    return {
        "pretrained_model_name_or_path_or_dict": str(path.parent),
        "weight_name": path.name,
        "local_files_only": True,
    }


def _first_foreign(state: dict[str, torch.Tensor], parts: dict[str, nn.Module]) -> str | None:
    """Returns the first key that names no module of a part, or a module of another shape."""
    return next((key for key, tensor in state.items() if not _has_place(key, tensor, parts)), None)


def _has_place(key: str, tensor: torch.Tensor, parts: dict[str, nn.Module]) -> bool:
    part, _, rest = key.partition(".")
    modules = dict(parts[part].named_modules()) if part in parts else {}
    module = modules.get(rest.split(".lora")[0].removesuffix(".processor"))
    weight = getattr(module, "weight", None)
    if weight is None:
        return False
    if tensor.ndim < 2 or weight.ndim < 2:  # a bias, or a single number; or the weight of a norm
        return weight.ndim >= 2 and (tensor.ndim == 0 or len(tensor) == len(weight))
    goes_in = "lora_A" in key or "down" in key.split("lora")[-1]
    return bool(tensor.shape[1] == weight.shape[1] if goes_in else len(tensor) == len(weight))


def _add_biases(part: nn.Module) -> None:
    """Adds biases of zeros to layers without one whose LoRA has a bias, which is fused into it."""
    for module in part.modules():
        base = getattr(module, "base_layer", None)
        adapters = getattr(module, "lora_B", {})
        if base is None or ADAPTER not in adapters or getattr(base, "bias", ...) is not None:
            continue
        if (bias := getattr(adapters[ADAPTER], "bias", None)) is not None:
            base.bias = nn.Parameter(torch.zeros_like(bias), requires_grad=False)


def _check_all_loaded(
    path: Path, state: dict[str, torch.Tensor], parts: dict[str, nn.Module]
) -> None:
    """Checks that every tensor of the file is now in a part, and that none is missing in the file.

    None was left out with a warning, and none has the random numbers that it was made with; biases
    that the file lacks are zeros.
    """
    digests = {
        name: _digest(tensor)
        for part in parts.values()
        for name, tensor in part.named_parameters()
        if ".lora_" in name
    }
    left = Counter(digests.values())
    for key, tensor in state.items():
        digest = _digest(tensor)
        if not left[digest]:
            raise _foreign(path, key, "a tensor for which the model has no place")
        left[digest] -= 1
    for name, digest in digests.items():
        if left[digest] and not name.endswith(".bias"):
            raise _foreign(path, next(iter(state)), f"no tensor for {name}")


def _digest(tensor: torch.Tensor) -> tuple[tuple[int, ...], bytes]:
    """Returns shape and hash of a tensor, equal for equal numbers whatever their float type."""
    flat = tensor.detach().float().cpu().contiguous()
    return tuple(flat.shape), hashlib.sha256(flat.numpy().tobytes()).digest()


def _foreign(path: Path, key: str, problem: str) -> DipgoError:
    return DipgoError(
        f"{setting('loras')} {path.name}, {key}",
        found=(problem.splitlines() or ["nothing"])[0],
        expected="a LoRA for this model, every tensor of which fits one of its modules",
        remedy="use a LoRA that was made for this model",
    )
