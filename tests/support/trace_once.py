"""Traces equal models once: tests load the same few pipelines from disk again and again."""

from __future__ import annotations

import hashlib
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict

from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.trace import Traced
from dipgo.models.family import Geometry
from dipgo.models.gap_functions import GapShape
from dipgo.models.model import Source

Trace = Callable[..., Traced]
"""`dipgo.compiler.trace.source.trace_source`."""

MOST = 64
"""Traces that are kept."""
LARGEST = 16 << 20
"""Bytes of a model's weights; larger ones are traced anew."""
LOOKED_INTO = ("diffusers", "dipgo", "peft", "tests", "torch.nn", "transformers")
"""Where classes are from whose attributes are all that their objects hold."""


class TraceOnce:
    """Keeps what a function returned, by its arguments.

    Models are equal if all that can be reached from them is: classes, attributes and weights, bit
    for bit. The code of their classes is not looked at: a test that replaces a method of a class
    sets `anew`.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.traces: OrderedDict[str, tuple[str, Traced]] = OrderedDict()
        self.anew = False
        """Whether every model is traced anew."""

    def __call__(
        self,
        source: Source,
        geometry: Geometry,
        blocks: tuple[str, ...],
        precision: Precision = FP32,
        gap: GapShape | None = None,
    ) -> Traced:
        """Returns a trace that others may have, too."""
        geometry = source.at(geometry).geometry
        key = None if self.anew else self._key(source, geometry, blocks, precision, gap)
        if key is None:
            return self.trace(source, geometry, blocks, precision, gap)
        if key in self.traces:
            before, traced = self.traces[key]
            if before != _content(traced):  # its model's weights were changed in place
                del self.traces[key]
        if key not in self.traces:
            traced = self.trace(source, geometry, blocks, precision, gap)
            self.traces[key] = _content(traced), traced
            if len(self.traces) > MOST:
                self.traces.popitem(last=False)
        self.traces.move_to_end(key)
        return self.traces[key][1]

    def _key(self, source: Source, *settings: object) -> str | None:
        """Returns equal keys for equal arguments; None where it cannot tell."""
        if sum(tensor.nbytes for tensor in source.denoiser.state_dict().values()) > LARGEST:
            return None
        try:
            return describe(source.denoiser, source.family, source.tokens, *settings)
        except TypeError:
            return None


def describe(*values: object) -> str:
    """Returns the hash of all that can be reached from the values.

    Raises:
        TypeError: A function without a name of its own, or an object that cannot be looked into.
    """
    content = hashlib.sha256()
    _describe(values, content.update, {})
    return content.hexdigest()


def _content(traced: Traced) -> str:
    return describe(traced.program.graph_module.code, traced.exact_tensors)


def _describe(value: Any, write: Callable[[bytes], None], seen: dict[int, tuple[int, Any]]) -> None:
    if value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
    ):
        write(f"{type(value).__name__} {value!r};".encode())
        return
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        if "<" in value.__qualname__:  # <lambda>, <locals>
            raise TypeError(f"{value.__qualname__} is no name")
        write(f"{value.__module__}.{value.__qualname__};".encode())
        return
    if id(value) in seen:
        write(f"again {seen[id(value)][0]};".encode())
        return
    seen[id(value)] = len(seen), value  # which keeps it alive: no other gets its id
    write(f"{type(value).__module__}.{type(value).__qualname__}(".encode())
    if isinstance(value, torch.Tensor):
        write(f"{value.dtype} {tuple(value.shape)} {value.stride()} {value.device}".encode())
        if value.device.type == "meta":
            raise TypeError("a tensor without numbers")
        write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif type(value) in (tuple, list, dict, OrderedDict, FrozenDict, types.MappingProxyType):
        for item in value:
            _describe(item, write, seen)
            if isinstance(value, Mapping):
                _describe(value[item], write, seen)
    elif type(value) in (set, frozenset):
        for item in sorted(value, key=repr):
            _describe(item, write, seen)
    else:
        of = type(value)
        if "<" in of.__qualname__ or not f"{of.__module__}.".startswith(
            tuple(f"{name}." for name in LOOKED_INTO)
        ):
            raise TypeError(f"{of.__module__}.{of.__qualname__} cannot be looked into")
        slots = {name for base in of.__mro__ for name in getattr(base, "__slots__", ())}
        for name in sorted({*getattr(value, "__dict__", {}), *slots}):
            write(f"{name}=".encode())
            _describe(getattr(value, name, None), write, seen)
    write(b");")
