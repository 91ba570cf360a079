"""Copies a module, and refuses one whose code would go on using the module that was copied.

`copy.deepcopy` copies weights, modules and plain objects, but functions stay as they are: what a
closure, a default or a global variable holds is the original, with the original's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.models.members import DEPTH, members_of


def own_copy(module: nn.Module, where: str, made: Mapping[int, Any] | None = None) -> nn.Module:
    """Returns a deep copy of a module.

    Args:
        module: The module.
        where: What it is, for errors.
        made: Copies that are there already, by the ids of what they are copies of.

    Raises:
        DipgoError: Code in the copy holds modules or weights of the original.
    """
    copied = copy.deepcopy(module, dict(made or {}))
    originals = _parts(module) - _parts(copied)
    looked: dict[int, tuple[int, Any]] = {}
    for path, part in copied.named_modules():
        for name, value in vars(part).items():
            if _reaches(value, originals, looked):
                raise DipgoError(
                    f"{where}, {path or 'the model'}",
                    found=f"{_name(name, value)}, which holds modules of the loaded pipeline",
                    expected="code that reaches modules through the one that it belongs to: "
                    "a copy is exported, with LoRAs or with weights in float32",
                    remedy="make it a method (types.MethodType), or load the pipeline in float32 "
                    "and fuse its LoRAs before you change it",
                )
    return copied


def _parts(module: nn.Module) -> set[int]:
    """Returns the ids of the modules, parameters and buffers."""
    tensors: Iterable[Tensor] = (*module.parameters(), *module.buffers())
    return {id(part) for part in (*module.modules(), *tensors)}


def _reaches(
    value: Any, wanted: set[int], looked: dict[int, tuple[int, Any]], depth: int = DEPTH
) -> bool:
    """Returns whether what a value holds is among the objects with these ids.

    `looked` has the values that were looked into before, by their ids, and how deep.
    """
    if id(value) in wanted:
        return True
    if isinstance(value, nn.Module) or looked.get(id(value), (0, None))[0] >= depth:
        return False
    looked[id(value)] = (depth, value)
    members = (members_of(value) or {}).values()
    return any(_reaches(member, wanted, looked, depth - 1) for member in members)


def _name(name: str, value: Any) -> str:
    return f"{name} {getattr(value, '__qualname__', type(value).__qualname__)}"
