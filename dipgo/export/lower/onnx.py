"""Lowers a module to an ONNX graph whose weights are named.

docs/internals/design.md, stage 8.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import fx, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.common.quiet import without_warnings
from dipgo.compiler.trace.torch_private import operators_read_once, registration_logger
from dipgo.export.lower.attention_masks import expand_masks
from dipgo.export.lower.boolean_operators import replace_boolean_operators
from dipgo.export.lower.exact_constants import exact_constants
from dipgo.export.lower.hide_weights import hidden_weights, store_transposed
from dipgo.export.lower.program import program_of

OPSET = 23
"""The first opset with native `Attention`; `GroupNormalization` came with 21."""


@torch.no_grad()
def lower(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    *,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Any = None,
) -> ir.Model:
    """Returns the module as an ONNX graph; initializers still hold the module's own tensors.

    Args:
        module: The module.
        example: An example of each input.
        name: The graph's name.
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.
        dynamic_shapes: The symbolic sizes, in the form that `torch.export` takes; all others are
            static.

    Raises:
        DipgoError: The module has no form in ONNX, or none for all sizes.
    """
    weights = module.state_dict()
    try:
        model = _export(module.eval(), tuple(example), dynamic_shapes, weights)
    except (DipgoError, MemoryError):
        raise
    except Exception as error:  # torch and onnxscript raise what they like
        raise _not_lowered(name, error, dynamic_shapes) from error
    store_transposed(model, weights)
    model.graph.name = name
    expand_masks(model)
    replace_boolean_operators(model)
    _strip_provenance(model)
    _compute_outputs(model.graph)
    _free_names(model.graph, {*inputs, *outputs})
    _name_values(model.graph.inputs, inputs)
    _name_values(model.graph.outputs, outputs)
    return model


def _export(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic_shapes: Any,
    weights: Container[str],
) -> ir.Model:
    """Runs `torch.onnx.export` with weights and delicate constants hidden from its optimiser.

    The capture comes first and by itself: left to the exporter it would be tried in several ways,
    and the last error reported, not the first.
    """
    captured = _capture(module, example, dynamic_shapes)
    with _quiet():
        program = torch.onnx.export(
            captured, dynamo=True, opset_version=OPSET, verbose=False, optimize=False
        )
        assert program is not None
        with hidden_weights(program.model, weights), exact_constants(program.model):
            program.optimize()
    return program.model


def _not_lowered(name: str, error: Exception, dynamic_shapes: Any) -> DipgoError:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    first = f"{type(error).__name__}: {lines[0].strip()}"
    if dynamic_shapes is not None:
        return DipgoError(
            f"graph {name}",
            found=f"what cannot be one graph for several sizes ({first})",
            expected="a graph whose sizes may stay open",
            remedy=f"export each size by itself, or leave batch_calls out of {setting('passes')}",
        )
    return DipgoError(
        f"graph {name}",
        found=f"what cannot be lowered to ONNX ({first})",
        expected=f"operators that torch.onnx has for opset {OPSET}",
        remedy="use others in the model; in Python the error's cause has the place",
    )


def _capture(
    module: nn.Module, example: tuple[torch.Tensor, ...], dynamic_shapes: Any
) -> torch.export.ExportedProgram:
    program = None
    if isinstance(module, fx.GraphModule) and dynamic_shapes is None:
        program = program_of(module, example)
    return program or torch.export.export(
        module, example, dynamic_shapes=dynamic_shapes, strict=False
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's remarks on packages that are not needed, and numpy's on infinity."""
    logger = registration_logger()
    # One thread at a time, also for the logger's level and the exporter's table.
    with without_warnings(), operators_read_once():
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _strip_provenance(model: ir.Model) -> None:
    """Removes stack traces and the like: they differ from machine to machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _compute_outputs(graph: ir.Graph) -> None:
    """Copies outputs that no node computes: a constant, which takes no output's name as well."""
    for index, value in enumerate(list(graph.outputs)):
        if value.producer() is None:
            copy = ir.node("Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]


def _free_names(graph: ir.Graph, names: Container[str]) -> None:
    """Renames inner values whose operator names, such as `embedding`, the graph needs itself."""
    for node in graph:
        for value in node.outputs:
            if value.name in names:
                value.name = f"{value.name} within"


def _name_values(values: Sequence[ir.Value], names: Sequence[str]) -> None:
    for value, name in zip(values, names, strict=True):
        value.name = name
