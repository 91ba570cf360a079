"""Refuses models that keep something from call to call, in modules or in what was done to them.

A trace holds what one call computes. A cache that the first call fills would be filled in every
evaluation, and a hook that counts calls would always be at its first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.held import Held, Snapshot
from dipgo.compiler.trace.torch_private import hook_tables, module_tables
from dipgo.models.members import DEPTH

ALIKE = "a model whose every call computes the same"

RANDOM = "its random numbers"


def capture(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], prefix: str
) -> torch.export.ExportedProgram:
    """Exports `module(*inputs)`, and refuses a model of which a call changes something that stays.

    Attributes of modules are seen, and whatever can be reached from attention processors, hooks and
    functions in place of `forward`: variables, members of objects, globals. All is put back.

    What a first call sets up without changing what is computed is admitted, as the hooks by which
    transformers 5 collects hidden states: then a second call changes nothing more and gives the
    same graph.

    Args:
        module: The module.
        inputs: An example of each of its inputs.
        prefix: The path of the denoiser in `module`, with its dot.

    Raises:
        DipgoError: A call changed something; the error names it.
    """
    as_found = _hold(dict(module.named_modules()))
    try:
        first = _export(module, inputs)
        if first.changed and not _is_set_up(module, inputs, first):
            name, *_ = first.changed
            raise DipgoError(
                f"attribute {name.removeprefix(prefix)} of the model",
                found="an attribute that a call of the model changes",
                expected=ALIKE,
                remedy="compute it where the model is made, or in every call",
            )
    finally:
        for held in as_found.values():
            held.put_back()
    return first.program


@dataclass(frozen=True, slots=True)
class _Exported:
    """A program, and what the call that it was captured from changed, by its name in words.

    `values` are the attributes that changed, by module and name, as the call left them.
    """

    program: torch.export.ExportedProgram
    changed: tuple[str, ...]
    values: Mapping[tuple[str, str], Any]


def _export(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> _Exported:
    parts = dict(module.named_modules())
    changed: dict[str, None] = {}
    values: dict[tuple[str, str], Any] = {}
    called: list[tuple[dict[str, Held], list[Any]]] = []

    def begin(*call: object) -> None:
        called.append((_hold(parts), _random_states()))  # the tracer's tensors are in place by now

    def end(*call: object) -> None:
        held, drawn = called.pop()
        for path, attributes in held.items():
            for place in attributes.changes():
                changed[_words(path, place)] = None
                if place and place[0] in parts[path].__dict__:
                    values[path, place[0]] = parts[path].__dict__[place[0]]
        if drawn != _random_states():
            changed[RANDOM] = None

    hooks = [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        program = torch.export.export(module, inputs, strict=False)
    finally:
        for hook in hooks:
            hook.remove()
    return _Exported(program, tuple(changed), values)


def _is_set_up(module: nn.Module, inputs: tuple[torch.Tensor, ...], first: _Exported) -> bool:
    """Returns whether a call after the first changes nothing more and has the same graph."""
    if RANDOM in first.changed or any(map(_holds_tensor, first.values.values())):
        return False  # a tensor belongs to the tracer of the call before
    for (path, name), value in first.values.items():
        setattr(module.get_submodule(path), name, value)  # torch.export takes some back itself
    again, constants = _export(module, inputs), first.program.constants
    return (
        not again.changed
        and str(again.program.graph) == str(first.program.graph)
        and again.program.constants.keys() == constants.keys()
        and all(
            torch.equal(constants[name], value) for name, value in again.program.constants.items()
        )
    )


def _holds_tensor(value: Any, depth: int = DEPTH) -> bool:
    members = (value.values() if isinstance(value, dict) else value) if depth else ()
    if isinstance(value, dict | list | tuple):
        return any(_holds_tensor(member, depth - 1) for member in members)
    return isinstance(value, torch.Tensor)


def _hold(parts: dict[str, nn.Module]) -> dict[str, Held]:
    """Returns the attributes of modules as they are, by the modules' paths."""
    snapshot = Snapshot(frozenset(map(id, parts.values())))
    return {path: snapshot.hold(part.__dict__) for path, part in parts.items()}


def _words(path: str, place: tuple[Any, ...]) -> str:
    first, *rest = place or ("",)
    if first in module_tables():
        first, *rest = rest or (first,)
    elif first in hook_tables():
        first, rest = "hook", rest[1:]
    name = ".".join(filter(None, (path, str(first))))
    kept = [str(step) for step in rest if not isinstance(step, int) and step != "variable"]
    return ", ".join([name, *kept[-1:]])


def _random_states() -> list[Any]:
    """Returns the states of the generators that Python's code draws from."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return [random.getstate(), kind, np.asarray(keys).tobytes(), rest]
