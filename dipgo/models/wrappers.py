"""Takes off what wraps a pipeline's models without changing what they compute, or refuses it.

`torch.compile` and accelerate's offloading change how fast a model runs and where its weights
are. diffusers' own hooks skip blocks or cast weights from call to call.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.models.diffusers_private import (
    accelerate_hook,
    compiled_from,
    diffusers_hooks,
    drop_compiled_call,
)

OFFLOADING = ("AlignDevicesHook", "CpuOffload", "SequentialHook")
"""Hooks of accelerate that move weights and inputs, and change no number."""


def unwrapped(pipeline: Any, name: str) -> None:
    """Takes off what wraps the modules of a pipeline; the pipeline itself is changed.

    Args:
        pipeline: The loaded pipeline of diffusers.
        name: Its name, for errors.

    Raises:
        DipgoError: A hook does more than move weights.
    """
    for part, module in pipeline_modules(pipeline).items():
        inner = compiled_from(module)
        if inner is not module:
            setattr(pipeline, part, inner)
        for path, each in inner.named_modules(prefix=part):
            drop_compiled_call(each)
            _check_hooks(each, f"model {name}, {path}")
        _take_off_offloading(inner, f"model {name}, {part}")


def pipeline_modules(pipeline: Any) -> dict[str, nn.Module]:
    """Returns the models of a pipeline by their names in it."""
    values = getattr(pipeline, "__dict__", {})
    return {name: value for name, value in values.items() if isinstance(value, nn.Module)}


def _check_hooks(module: nn.Module, where: str) -> None:
    hooks = diffusers_hooks(module)
    if hooks:
        raise DipgoError(
            where,
            found=f"diffusers' hook {', '.join(hooks)}",
            expected="modules that compute all of every call from their own weights",
            remedy="load the pipeline again without it (disable_cache() takes off a cache)",
        )


def _take_off_offloading(module: nn.Module, where: str) -> None:
    hooks = [hook for part in module.modules() if (hook := accelerate_hook(part)) is not None]
    if not hooks:
        return
    classes = {type(one).__name__ for hook in hooks for one in getattr(hook, "hooks", [hook])}
    others = sorted(classes - set(OFFLOADING))
    if others:
        raise DipgoError(
            where,
            found=f"accelerate's hook {', '.join(others)}",
            expected="hooks that move weights, or none",
            remedy="take it off: pipeline.remove_all_hooks()",
        )
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(module, recurse=True)
