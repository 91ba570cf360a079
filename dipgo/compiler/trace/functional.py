"""Makes a traced program free of writes, and refuses models that keep state between calls.

The partition reads edges off the users of values: an operator that writes into a tensor changes
values that are not its own, also those of views, which no edge shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.export.graph_signature import OutputKind

from dipgo.common.errors import DipgoError
from dipgo.common.quiet import without_warnings
from dipgo.compiler.trace.torch_private import is_mutating, module_stack, module_tables

DEPTH = 4
"""The lists and dicts within each other whose members are compared."""

_ALIKE = "a model whose every call computes the same"


def make_functional(
    program: torch.export.ExportedProgram, prefix: str
) -> torch.export.ExportedProgram:
    """Returns the program without operators that write into a tensor.

    What is written into the program's own inputs is left out: every evaluation has new ones.

    Args:
        program: The program as it was captured; it is returned if there is no such operator.
        prefix: The path of the denoiser in the exported module, with its dot.

    Raises:
        DipgoError: A buffer or weight is written, or an operator has no form that does not write.
    """
    if not any(map(_writes, program.graph.nodes)):
        return program
    with without_warnings(FutureWarning):  # torch's own, of trees of arguments
        program = program.run_decompositions({})
    for spec in program.graph_signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            raise DipgoError(
                f"tensor {str(spec.target).removeprefix(prefix)} of the model",
                found="a tensor that calls of the model write",
                expected=_ALIKE,
                remedy="leave out what keeps it",
            )
    for node in program.graph.nodes:
        if _writes(node):
            *_, (_, path) = [("", ""), *module_stack(node)]
            raise DipgoError(
                f"module {path.removeprefix(prefix) or 'denoiser'}",
                found=f"{node.target}, which writes into a tensor",
                expected="operators that have a form which does not",
                remedy="compute a new tensor there",
            )
    _keep_user_outputs(program)
    return program


def _writes(node: fx.Node) -> bool:
    """Returns whether the node writes into a tensor; `torch.tensor(…)` only detaches a new one."""
    return is_mutating(node.target) and node.target is not torch.ops.aten.detach_.default


def _keep_user_outputs(program: torch.export.ExportedProgram) -> None:
    """Drops outputs that stand for what is written into inputs."""
    specs = program.graph_signature.output_specs
    kept = [index for index, spec in enumerate(specs) if spec.kind == OutputKind.USER_OUTPUT]
    output = program.graph.output_node()
    (outputs,) = output.args
    assert isinstance(outputs, tuple)
    output.args = (tuple(outputs[index] for index in kept),)
    specs[:] = [specs[index] for index in kept]
    program.graph.eliminate_dead_code()


@contextmanager
def refuse_new_state(module: nn.Module, prefix: str) -> Iterator[None]:
    """Refuses a model whose modules have other attributes after a call of `module` than before it.

    A cache that the first call fills would be filled in every evaluation of a trace. The attributes
    are put back as they were, lists and dicts among them with the members that they had.

    Raises:
        DipgoError: A call within the context set, removed or replaced an attribute; the error names
            it.
    """
    parts = dict(module.named_modules())
    as_found = {path: _Held.of(part.__dict__, DEPTH + 1) for path, part in parts.items()}
    changed: dict[str, None] = {}
    called: list[_Attributes] = []

    def begin(*call: object) -> None:
        called.append(_attributes(parts))  # the tracer has its own tensors in place by now

    def end(*call: object) -> None:
        changed.update(dict.fromkeys(_differing(parts, called.pop())))

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
            expected=_ALIKE,
            remedy="compute it where the model is made, or in every call",
        )


@dataclass(frozen=True, slots=True)
class _Held:
    """A value as it was: if it is a list or dict, with what it held."""

    value: Any
    members: Mapping[Any, _Held] | None

    @classmethod
    def of(cls, value: Any, depth: int = DEPTH) -> _Held:
        """Holds a value; lists and dicts deeper than `depth` are taken for single objects."""
        if not depth or not isinstance(value, dict | list):
            return cls(value, None)
        return cls(value, {key: cls.of(member, depth - 1) for key, member in _items(value)})

    def equals(self, now: Any) -> bool:
        """Returns whether `now` is the same object, an equal number or text, or holds the same."""
        if self.members is None:
            plain = isinstance(now, int | float | str) and type(now) is type(self.value)
            return now is self.value or (plain and bool(now == self.value))
        if type(now) is not type(self.value):
            return False
        members = dict(_items(now))
        return members.keys() == self.members.keys() and all(
            held.equals(members[key]) for key, held in self.members.items()
        )

    def put_back(self) -> Any:
        """Returns the value, with what it held."""
        if self.members is not None:
            members = {key: held.put_back() for key, held in self.members.items()}
            if not self.equals(self.value):
                self.value.clear()
                if isinstance(self.value, dict):
                    self.value.update(members)
                else:
                    self.value.extend(members.values())
        return self.value


def _items(holder: Any) -> Iterable[tuple[Any, Any]]:
    return holder.items() if isinstance(holder, dict) else enumerate(holder)


_Attributes: TypeAlias = dict[str, dict[str, _Held]]
"""The attributes of modules by path and name."""


def _attributes(parts: Mapping[str, nn.Module]) -> _Attributes:
    return {
        path: {name: _Held.of(value) for name, value in _named(part)}
        for path, part in parts.items()
    }


def _named(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields parameters, buffers and submodules by their own names, and all other attributes."""
    for name, value in part.__dict__.items():
        if name in module_tables():
            yield from value.items()
        else:
            yield name, value


def _differing(parts: Mapping[str, nn.Module], before: _Attributes) -> Iterator[str]:
    for path, part in parts.items():
        now = dict(_named(part))
        for name in dict.fromkeys([*before[path], *now]):
            held = before[path].get(name)
            if held is None or name not in now or not held.equals(now[name]):
                yield ".".join(filter(None, (path, name)))
