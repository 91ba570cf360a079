"""Reads of an ONNX graph what an export's manifest must agree with, and what no export needs.

Numbers of fields are those of `onnx.proto`, of which fields keep their numbers for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dipgo.engines.protobuf import fields, integers, message, text

STANDARD_DOMAINS = ("", "ai.onnx")

WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators that run a graph within the graph."""

SPLIT_INTO = "num_outputs"

LOCATION, OFFSET, LENGTH = "location", "offset", "length"
"""Keys of a tensor's external data."""


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or output: `element` as in `TensorProto.DataType`; None where nothing is said.

    `shape` has None for each axis whose size is symbolic.
    """

    name: str
    element: int | None
    shape: tuple[int | None, ...] | None


@dataclass(slots=True)
class GraphFile:
    """Facts of a graph. `external` has the key-value pairs of each tensor that is elsewhere.

    `unusual` names what could run code of others or for ever, and that no export has: functions,
    graphs within the graph (loops), operators outside the standard, and training.
    """

    inputs: list[GraphValue] = field(default_factory=list)
    outputs: list[GraphValue] = field(default_factory=list)
    external: list[dict[str, str]] = field(default_factory=list)
    unusual: dict[str, None] = field(default_factory=dict)


def read_graph(content: bytes) -> GraphFile:
    """Returns the facts of a graph.

    Raises:
        ValueError: The bytes are not an ONNX model, or a field is not what it must be.
    """
    facts = GraphFile()
    graphs = []
    for number, value in fields(memoryview(content)):
        if number == 7:
            graphs.append(message(value))
        elif number == 20:
            facts.unusual["training"] = None
        elif number == 25:
            facts.unusual["functions"] = None
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs")
    _read_graph(graphs[0], facts)
    return facts


def _read_graph(graph: memoryview, facts: GraphFile) -> None:
    for number, value in fields(graph):
        if number == 1:
            _read_node(message(value), facts)
        elif number == 5:
            _read_tensor(message(value), facts)
        elif number == 11:
            facts.inputs.append(_value_of(message(value)))
        elif number == 12:
            facts.outputs.append(_value_of(message(value)))
        elif number == 15:
            facts.unusual["sparse tensors"] = None


def _read_node(node: memoryview, facts: GraphFile) -> None:
    operator = domain = ""
    outputs, numbers = 0, {}
    for number, value in fields(node):
        if number == 2:
            outputs += 1
        elif number == 4:
            operator = text(value)
        elif number == 5:
            name, held = _read_attribute(message(value), facts)
            numbers[name] = held
        elif number == 7:
            domain = text(value)
    if domain not in STANDARD_DOMAINS:
        facts.unusual[f"the operator {domain}.{operator}"] = None
    if operator in WITH_GRAPHS:
        facts.unusual[f"the operator {operator}"] = None
    if operator == "Split" and numbers.get(SPLIT_INTO, outputs) != outputs:
        # ONNX Runtime counts on it, and ends the process.
        facts.unusual[f"a Split into {numbers[SPLIT_INTO]} with {outputs} outputs"] = None


def _read_attribute(attribute: memoryview, facts: GraphFile) -> tuple[str, int]:
    """Returns the attribute's name, and its number if it is one."""
    name, held = "", 0
    for number, value in fields(attribute):
        if number == 1:
            name = text(value)
        elif number == 3:
            (held,) = integers(value)
        elif number in (5, 10):
            _read_tensor(message(value), facts)
        elif number in (6, 11):
            facts.unusual["a graph within the graph"] = None
        elif number in (22, 23):
            facts.unusual["sparse tensors"] = None
    return name, held


def _read_tensor(tensor: memoryview, facts: GraphFile) -> None:
    """Notes where the numbers are, if they are not in the graph."""
    pairs = [message(value) for number, value in fields(tensor) if number == 13]
    if pairs:
        facts.external.append(dict(map(_pair, pairs)))


def _pair(entry: memoryview) -> tuple[str, str]:
    by_number = {number: text(value) for number, value in fields(entry)}
    return by_number.get(1, ""), by_number.get(2, "")


def _value_of(value_info: memoryview) -> GraphValue:
    name, tensor_types = "", []
    for number, value in fields(value_info):
        if number == 1:
            name = text(value)
        elif number == 2:
            tensor_types += [message(held) for kind, held in fields(message(value)) if kind == 1]
    if len(tensor_types) != 1:
        raise ValueError(f"a value {name} that is no tensor")
    element, shapes = None, []
    for number, value in fields(tensor_types[0]):
        if number == 1:
            (element,) = integers(value)
        elif number == 2:
            shapes.append(message(value))
    if len(shapes) > 1:
        raise ValueError(f"a value {name} with two shapes")
    return GraphValue(name, element, _shape(shapes[0]) if shapes else None)


def _shape(shape: memoryview) -> tuple[int | None, ...]:
    return tuple(_axis(message(value)) for number, value in fields(shape) if number == 1)


def _axis(dimension: memoryview) -> int | None:
    sizes = [value for number, value in fields(dimension) if number == 1]
    return sizes[-1] if sizes and isinstance(sizes[-1], int) else None
