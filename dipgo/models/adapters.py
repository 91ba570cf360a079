"""Adapters that a pipeline has been loaded with: their record, and their fusing into the weights.

Without further LoRAs they are traced as the modules that they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from dipgo.ir.fitted import LoraRecord


def adapter_records(parts: Iterable[nn.Module]) -> tuple[LoraRecord, ...]:
    """Returns a record of each adapter that takes part in what the parts compute.

    Its hash is that of its tensors, in the order of their names; its scale that in its first layer.
    """
    digests: dict[str, Any] = {}
    scales: dict[str, float] = {}
    for part in parts:
        for path, layer in _layers(part):
            for name in _acting(layer):
                scales.setdefault(name, _scale(layer, name))
                digest = digests.setdefault(name, hashlib.sha256())
                for key, tensor in sorted(layer.named_parameters()):
                    if name in key.split("."):
                        digest.update(f"{path}.{key} {tuple(tensor.shape)}".encode())
                        flat = tensor.detach().cpu().contiguous().reshape(-1)
                        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return tuple(
        LoraRecord(name, digest.hexdigest(), scales[name]) for name, digest in digests.items()
    )


def has_adapters(parts: Iterable[nn.Module]) -> bool:
    """Returns whether an adapter is loaded into one of the parts, in use or not."""
    return any(True for part in parts for _ in _layers(part))


def fuse_loaded(parts: Iterable[nn.Module]) -> None:
    """Fuses the adapters of the parts into their weights, as they take part in what is computed."""
    for part in parts:
        for _, layer in _layers(part):
            if layer.disable_adapters:
                if layer.merged:
                    layer.unmerge()
            elif not layer.merged:  # a layer with some of them merged reads no others
                layer.merge()


def _acting(layer: Any) -> list[str]:
    """Returns the names of a layer's adapters that take part."""
    if layer.disable_adapters:
        return []
    names = layer.merged_adapters if layer.merged else layer.active_adapters
    return [name for name in names if name in layer.scaling]


def _scale(layer: Any, name: str) -> float:
    return round(float(layer.scaling[name] * layer.r[name] / layer.lora_alpha[name]), 6)


def _layers(part: nn.Module) -> Iterator[tuple[str, Any]]:
    if find_spec("peft") is None:
        return
    from peft.tuners.lora import LoraLayer

    yield from (
        (path, module) for path, module in part.named_modules() if isinstance(module, LoraLayer)
    )
