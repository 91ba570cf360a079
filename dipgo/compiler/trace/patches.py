"""Finds what has been done to a model's modules: functions in place of their own, and hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.torch_private import hook_tables
from dipgo.models.members import is_foreign


def find_patches(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Yields where a module or one within it has foreign code, and what it is, in words."""
    for path, part in module.named_modules():
        place = path.removeprefix(prefix) or "the model"
        for name, value in part.__dict__.items():
            if callable(value) and not isinstance(value, nn.Module) and _is_patch(part, name):
                yield f"{place}, {name} {_name(value)}"
        for table in hook_tables():
            for hook in part.__dict__[table].values():
                yield f"{place}, hook {_name(hook)}"


@contextmanager
def name_patches(module: nn.Module, prefix: str) -> Iterator[None]:
    """Names what has been done to a module if it cannot be traced.

    Raises:
        DipgoError: There was an error within the context, and the module has been changed.
    """
    try:
        yield
    except DipgoError:
        raise
    except Exception as error:  # whatever torch or the foreign code raises
        patches = list(find_patches(module, prefix))
        if not patches:
            raise
        problem = (str(error).strip().splitlines() or ["no reason"])[0]
        raise DipgoError(
            f"model, {patches[0]}",
            found=f"code that cannot be traced ({type(error).__name__}: {problem})",
            expected="operators on tensors, the same in every call",
            remedy="take it off, as the pipeline was loaded",
        ) from error


def _is_patch(part: nn.Module, name: str) -> bool:
    """Returns whether an attribute stands in place of a method, or is foreign code."""
    value = part.__dict__[name]
    return hasattr(type(part), name) or is_foreign(type(value).__module__)


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)
