"""Types the traced graph strongly: fp16 or bf16 is in the graph, never a builder flag.

These stay in fp32: everything outside the denoiser itself (guidance, and with it the prediction
that the sampler reads), what depends on the timestep alone (computed once, when exporting), the
angles of sinusoidal embeddings, and the modules that are named. Normalisation, attention and
products have operands and results of the narrow type; their sums are in fp32 on every engine (ONNX
`stash_type`; tensor cores).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.trace.torch_private import (
    conversion,
    fake_mode,
    keep_module_stack_alone,
    module_stack,
    operator_name,
)
from dipgo.ir.block_patterns import is_within
from dipgo.ir.graph import Dependence
from dipgo.ir.types import PRECISIONS, PrecisionName

aten = torch.ops.aten

GUIDANCE, TIMESTEP_TABLES, ANGLES = "guidance", "timestep tables", "angles"

ALWAYS_KEPT = ("sampler", GUIDANCE, TIMESTEP_TABLES, ANGLES)

_CASTS = {aten.to.dtype, aten.to.dtype_layout, conversion()}


@dataclass(frozen=True, slots=True)
class Precision:
    """The types of a graph: `name` is a key of PRECISIONS; `keep_fp32` matches modules in fp32.

    A pattern stands for a module and all within it: `mid_block`, `up_blocks.*.resnets.0`. The other
    fields were chosen by measuring (docs/results/results.md, "Half precision"): `keep_operators`
    are operators of aten, such as `group_norm`; `keep_always` is of ALWAYS_KEPT.
    """

    name: PrecisionName = "fp32"
    keep_fp32: tuple[str, ...] = ()
    keep_operators: tuple[str, ...] = ()
    keep_always: tuple[str, ...] = (GUIDANCE, TIMESTEP_TABLES, ANGLES)

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise DipgoError(
                setting("precision"),
                found=self.name,
                expected=f"one of {', '.join(PRECISIONS)}",
                remedy="correct it",
            )
        if self.keep_fp32 and self.name == "fp32":
            raise DipgoError(
                setting("keep_fp32"),
                found="modules to keep in fp32, in an export that is fp32 throughout",
                expected=f"a {setting('precision')} of fp16 or bf16 with it",
                remedy=f"leave {setting('keep_fp32')} out, or choose a precision",
            )

    @property
    def dtype(self) -> torch.dtype:
        """Returns the element type of all that is not kept in fp32."""
        dtype: torch.dtype = getattr(torch, PRECISIONS[self.name].torch)
        return dtype


FP32 = Precision()


def apply_precision(
    program: torch.export.ExportedProgram,
    roles: Mapping[str, Dependence],
    precision: Precision,
    prefix: str,
) -> None:
    """Retypes the program's graph in place.

    Parameters keep their tensors: the type to store each in is that of its placeholder's metadata.

    Args:
        program: The traced program.
        roles: By placeholder, what each input depends on, as in `partition`.
        precision: The types.
        prefix: The prefix of the denoiser's modules in the trace.
    """
    if precision.dtype == torch.float32:
        return
    rewrite = _Rewrite(program, roles, precision, prefix)
    for node in list(program.graph.nodes):
        if node.op == "call_function":
            rewrite.retype(node)
    rewrite.widen_outputs()
    program.graph.lint()


class _Rewrite:
    """Retypes the nodes in order: every node's inputs are final when it is reached."""

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        roles: Mapping[str, Dependence],
        precision: Precision,
        prefix: str,
    ) -> None:
        self.graph, self.prefix = program.graph, prefix
        self.dtype, self.precision = precision.dtype, precision
        self.dependence: dict[fx.Node, Dependence] = {}
        for node in self.graph.nodes:
            dependence = roles.get(node.name, Dependence.CONSTANT)
            for source in node.all_input_nodes:
                dependence |= self.dependence[source]
            self.dependence[node] = dependence
        self.angles = self._find_angles() if ANGLES in precision.keep_always else frozenset()
        self.narrowed: dict[fx.Node, fx.Node] = {}
        user_inputs = set(program.graph_signature.user_inputs)
        for node in self.graph.nodes:
            if node.op == "placeholder" and node.name not in user_inputs and _is_f32(node):
                self._choose_storage(node)

    def retype(self, node: fx.Node) -> None:
        """Gives a node operands of its type, and infers the type of its result."""
        wanted = self._type_of(node)
        if node.target in _CASTS:
            if self._retype_cast(node, wanted):
                return
        else:
            for source in node.all_input_nodes:
                if _is_float(source) and _dtype(source) != wanted:
                    node.replace_input_with(source, self._cast(source, wanted, node))
        _infer(node)

    def widen_outputs(self) -> None:
        """Converts the graph's outputs to the types that they had."""
        output = self.graph.output_node()
        for source in output.all_input_nodes:
            if _dtype(source) == self.dtype:
                output.replace_input_with(source, self._cast(source, torch.float32, output))

    def _retype_cast(self, node: fx.Node, wanted: torch.dtype) -> bool:
        """Makes a conversion to fp32 one to the node's own type; returns True if it fell away."""
        if not _is_f32(node):
            return False
        (source,) = node.all_input_nodes
        if _dtype(source) == wanted:
            node.replace_all_uses_with(source)
            self.graph.erase_node(node)
            return True
        node.target, node.args, node.kwargs = aten.to.dtype, (source, wanted), {}
        return False

    def _type_of(self, node: fx.Node) -> torch.dtype:
        """Returns the type in which a node computes."""
        if not self.dependence[node]:
            return torch.float32
        if self.dependence[node] == Dependence.TIMESTEP:
            return torch.float32 if TIMESTEP_TABLES in self.precision.keep_always else self.dtype
        if node in self.angles:
            return torch.float32
        stack = module_stack(node)
        paths = [f"{path}.".split("@")[0] for _, path in stack]
        inside = [path.removeprefix(self.prefix) for path in paths if path.startswith(self.prefix)]
        kept = operator_name(node.target) in self.precision.keep_operators or any(
            is_within(path, pattern) for pattern in self.precision.keep_fp32 for path in inside
        )
        outside = not inside and GUIDANCE in self.precision.keep_always
        return torch.float32 if outside or kept else self.dtype

    def _find_angles(self) -> frozenset[fx.Node]:
        """Returns sines and cosines that do not depend on the state, and all that they are made of.

        Sizes in pixels and scales are embedded by the sine of up to thousands of radians, which
        fp16 holds to half a radian (diffusers' `get_timestep_embedding` computes in fp32, too).
        """
        angles: set[fx.Node] = set()
        for node in reversed(self.graph.nodes):
            if node.op != "call_function" or Dependence.STATE in self.dependence[node]:
                continue
            if operator_name(node.target) in ("sin", "cos") or angles.intersection(node.users):
                angles.add(node)
        return frozenset(angles)

    def _choose_storage(self, node: fx.Node) -> None:
        """Stores a weight narrow if every reader computes narrow, otherwise in fp32."""
        if all(self._type_of(user) == self.dtype for user in node.users):
            node.meta["val"] = node.meta["val"].to(self.dtype)

    def _cast(self, source: fx.Node, wanted: torch.dtype, user: fx.Node) -> fx.Node:
        """Narrows a value next to its maker, and widens it next to its reader.

        So a value that passes from block to block, and may be cached, is narrow.
        """
        if wanted == torch.float32:
            with self.graph.inserting_before(user):
                return self._insert_cast(source, wanted, user)
        if source not in self.narrowed:
            with self.graph.inserting_after(_last_placeholder(source)):
                self.narrowed[source] = self._insert_cast(source, wanted, source)
        return self.narrowed[source]

    def _insert_cast(self, source: fx.Node, wanted: torch.dtype, home: fx.Node) -> fx.Node:
        cast: fx.Node = self.graph.call_function(aten.to.dtype, (source, wanted))
        keep_module_stack_alone(cast, home)
        _infer(cast)
        self.dependence[cast] = self.dependence[source]
        return cast


def _last_placeholder(node: fx.Node) -> fx.Node:
    """Returns the node after which a reader of `node` may stand: after all placeholders too."""
    while node.op == "placeholder" and node.next.op == "placeholder":
        node = node.next
    return node


def _infer(node: fx.Node) -> None:
    """Infers the node's metadata from its operands'; nothing is computed."""
    assert callable(node.target)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
    modes = (fake_mode(source.meta["val"]) for source in node.all_input_nodes)
    mode = next((mode for mode in modes if mode is not None), None)
    if mode is None:  # a node without operands has its type in its arguments
        return
    with mode, torch.no_grad():
        node.meta["val"] = node.target(*args, **kwargs)


def _dtype(node: fx.Node) -> torch.dtype | None:
    """Returns the element type, or None for other values, such as the list that `chunk` yields."""
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_float(node: fx.Node) -> bool:
    dtype = _dtype(node)
    return dtype is not None and bool(dtype.is_floating_point)


def _is_f32(node: fx.Node) -> bool:
    return _dtype(node) == torch.float32


def kept_in_fp32(precision: Precision) -> tuple[str, ...]:
    """Returns the entries of the manifest's list of what is kept in fp32."""
    if precision.dtype == torch.float32:
        return ()
    return ("sampler", *precision.keep_always, *precision.keep_fp32)


def kept_modules(kept: Iterable[str], parts: Container[str]) -> list[str]:
    """Returns the denoiser's modules in the manifest's list of what is kept in fp32."""
    return [name for name in kept if name not in ALWAYS_KEPT and name not in parts]
