"""Refuses models that keep something from call to call, in modules or in what was done to them.

A trace holds what one call computes. A cache that the first call fills would be filled in every
evaluation, and a hook that counts calls would always be at its first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.held import Held, Snapshot
from dipgo.compiler.trace.torch_private import hook_tables, module_tables

ALIKE = "a model whose every call computes the same"


@contextmanager
def refuse_new_state(module: nn.Module, prefix: str) -> Iterator[None]:
    """Refuses a model of which a call of `module` changes something that stays.

    Attributes of modules are seen, and whatever can be reached from attention processors, hooks and
    functions in place of `forward`: variables, members of objects, globals. All is put back.

    Raises:
        DipgoError: A call within the context changed something; the error names it.
    """
    parts = dict(module.named_modules())
    as_found = _hold(parts)
    changed: dict[str, None] = {}
    called: list[tuple[dict[str, Held], list[Any]]] = []

    def begin(*call: object) -> None:
        called.append((_hold(parts), _random_states()))  # the tracer's tensors are in place by now

    def end(*call: object) -> None:
        held, drawn = called.pop()
        changed.update(dict.fromkeys(_changes(held)))
        if drawn != _random_states():
            changed["its random numbers"] = None

    hooks = [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for held in as_found.values():
            held.put_back()
    if changed:
        name, *_ = changed
        raise DipgoError(
            f"attribute {name.removeprefix(prefix)} of the model",
            found="an attribute that a call of the model changes",
            expected=ALIKE,
            remedy="compute it where the model is made, or in every call",
        )


def _hold(parts: dict[str, nn.Module]) -> dict[str, Held]:
    """Returns the attributes of modules as they are, by the modules' paths."""
    snapshot = Snapshot(frozenset(map(id, parts.values())))
    return {path: snapshot.hold(part.__dict__) for path, part in parts.items()}


def _changes(held: dict[str, Held]) -> Iterator[str]:
    """Yields what has changed: `mid_block.cache`, or `mid_block, forward hook, variable calls`."""
    for path, attributes in held.items():
        for place in attributes.changes():
            yield _words(path, place)


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
