"""Private names of diffusers and torch that the package uses, each behind a function.

Each function says which name it relies on. tests/models/test_diffusers_private.py fails with the
name that a new version of diffusers has dropped.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def lora_modules(pipeline: Any) -> list[str]:
    """Returns the names of the parts that LoRAs may change.

    Relies on `_lora_loadable_modules` of the pipelines that load LoRAs, since diffusers 0.30.
    """
    return list(pipeline._lora_loadable_modules)


def compatible_classes(scheduler_class: Any) -> list[str]:
    """Returns the names of the schedulers that can take the place of this class.

    Relies on `SchedulerMixin._compatibles`. The public `compatibles` needs an instance, and
    leaves out the names that diffusers itself does not define.
    """
    return list(scheduler_class._compatibles)


def missing_packages(cls: Any) -> list[str]:
    """Returns the packages that a placeholder class of diffusers lacks; none for a real class.

    Relies on `_backends` of the classes of `diffusers.utils.dummy_*`.
    """
    return list(getattr(cls, "_backends", ()))


def with_own_children(module: nn.Module) -> nn.Module:
    """Returns a copy that shares all modules and weights, and to which modules can be added.

    Relies on `torch.nn.Module._modules`, since torch 0.1: diffusers' models cannot be built again
    around modules that exist.
    """
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def compiled_from(module: nn.Module) -> nn.Module:
    """Returns the module that `torch.compile` wraps, or the module itself.

    Relies on `_orig_mod` of torch's `OptimizedModule`, since torch 2.0.
    """
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")
    return inner if isinstance(inner, nn.Module) else module


def drop_compiled_call(module: nn.Module) -> None:
    """Undoes `module.compile()`.

    Relies on `torch.nn.Module._compiled_call_impl`, since torch 2.2.
    """
    if module.__dict__.get("_compiled_call_impl") is not None:
        module._compiled_call_impl = None


def accelerate_hook(module: nn.Module) -> Any | None:
    """Returns accelerate's hook of a module, None if it has none.

    Relies on `_hf_hook`, which `accelerate.hooks.add_hook_to_module` sets, since accelerate 0.10.
    """
    return getattr(module, "_hf_hook", None)


def diffusers_hooks(module: nn.Module) -> list[str]:
    """Returns the names of diffusers' hooks of a module.

    Relies on `_diffusers_hook`, the registry that `diffusers.hooks` sets, since diffusers 0.33.
    """
    registry = getattr(module, "_diffusers_hook", None)
    return [] if registry is None else list(registry.hooks)
