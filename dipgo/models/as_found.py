"""Leaves a caller's model as it was found: modes, weights, hooks and attributes of its modules."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import torch

from dipgo.models.model import Source
from dipgo.models.wrappers import pipeline_modules

PLAIN_TABLES = (dict, OrderedDict)
"""Types of tables whose entries are put back: those of modules' children, weights and hooks."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_lock = Lock()

_held: dict[int, tuple[int, Any, list[Callable[[], None]]]] = {}
"""Models in use: by id, the number of users, the model, and what puts it back."""


@contextmanager
def left_as_found(model: Any) -> Iterator[None]:
    """Puts a model back when its last user is done with it, also after an error.

    Args:
        model: A loaded pipeline. A path, a name and a Source have nothing of the caller's.
    """
    key = id(model)
    with _lock:
        users, _, put_back = _held.get(key, (0, model, []))
        _held[key] = (users + 1, model, put_back if users else list(_restorers(model)))
    try:
        yield
    finally:
        with _lock:
            users, _, put_back = _held.pop(key)
            if users > 1:
                _held[key] = (users - 1, model, put_back)
            else:
                for restore in put_back:
                    restore()


def leaves_as_found(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Wraps a function so that its argument `model` is afterwards as it was found."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with left_as_found(signature.bind(*args, **kwargs).arguments["model"]):
            return function(*args, **kwargs)

    return call


def _restorers(model: Any) -> Iterator[Callable[[], None]]:
    """Yields functions that each put a part of the model back."""
    if isinstance(model, str | Path | Source) or not _is_object(model):
        return
    roots = pipeline_modules(model)
    yield _attributes_of(model)
    for module in dict.fromkeys(part for root in roots.values() for part in root.modules()):
        yield _attributes_of(module)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield _tensor(tensor)
    for value in vars(model).values():
        backend = getattr(value, "backend_tokenizer", None)
        if backend is not None:
            yield _tokenizer(backend)


def _is_object(model: Any) -> bool:
    """Returns whether a value has attributes of its own, as a pipeline has, and is no class."""
    return hasattr(model, "__dict__") and not isinstance(model, type)


def _attributes_of(holder: Any) -> Callable[[], None]:
    """Returns what puts an object's class and attributes back, with the entries of its tables."""
    cls, attributes = type(holder), dict(holder.__dict__)
    tables = [
        (value, type(value)(value)) for value in attributes.values() if type(value) in PLAIN_TABLES
    ]

    def restore() -> None:
        if type(holder) is not cls:
            holder.__class__ = cls
        holder.__dict__.clear()
        holder.__dict__.update(attributes)
        for table, entries in tables:
            table.clear()
            table.update(entries)

    return restore


def _tensor(tensor: torch.Tensor) -> Callable[[], None]:
    """Returns what puts a tensor's numbers back where they were, in the type that they had."""
    data, gradient, wanted = tensor.data, tensor.grad, tensor.requires_grad
    place = (tensor.dtype, tensor.device)

    def restore() -> None:
        if (tensor.dtype, tensor.device) != place or tensor.data_ptr() != data.data_ptr():
            tensor.data = data
        if tensor.requires_grad != wanted:
            tensor.requires_grad_(wanted)
        tensor.grad = gradient

    return restore


def _tokenizer(backend: Any) -> Callable[[], None]:
    """Returns what puts back how a fast tokenizer pads and truncates."""
    padding, truncation = backend.padding, backend.truncation

    def restore() -> None:
        if padding is None:
            backend.no_padding()
        else:
            backend.enable_padding(**padding)
        if truncation is None:
            backend.no_truncation()
        else:
            backend.enable_truncation(**truncation)

    return restore
