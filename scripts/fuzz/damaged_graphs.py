"""Damages ONNX graphs: attributes, operators, places of weights, inputs and outputs."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

import onnx
from onnx import TensorProto, helper

HOSTILE_NAMES = (
    *("../outside", "/etc/passwd", "..", ".", "", "a/../../outside", "a\\..\\outside", "C:outside"),
    *("nul", "CON.onnx", "a\nb", "a\0b", "\x1b[2J", "x" * 300, "PLAN.JSON", "engines", "-rf"),
    *("seg0\n", "plan.json", "weights.safetensors", "／outside", "a:b", "…"),
)
"""Names that lead out of a folder, are no file's on some system, or are another file's."""

HOSTILE_NUMBERS = (0, -1, 1, 2, 7, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))


def _change_attribute(model: onnx.ModelProto, draw: random.Random) -> str:
    """Puts another number into an attribute."""
    attributes = [
        attribute for node in model.graph.node for attribute in node.attribute if attribute.type
    ]
    if not attributes:
        return _change_operator(model, draw)
    attribute = draw.choice(attributes)
    number = draw.choice(HOSTILE_NUMBERS)
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = number
    else:
        attribute.i = number
    return f"attribute {attribute.name}: {number}"


def _change_operator(model: onnx.ModelProto, draw: random.Random) -> str:
    node = draw.choice(model.graph.node)
    node.op_type = draw.choice(("Loop", "If", "Add", "Expand", "Range", "Foo", "Tile", "Reshape"))
    node.domain = draw.choice(("", "", "com.microsoft", "evil"))
    return f"operator {node.domain}.{node.op_type}"


def _add_loop(model: onnx.ModelProto, draw: random.Random) -> str:
    """Puts a loop of 2**62 rounds in front."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["condition"], ["again"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]))
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    loop = helper.make_node("Loop", ["rounds", "yes"], [], body=body)
    model.graph.node.insert(0, loop)
    return "a loop of 2**62 rounds"


def _change_external(model: onnx.ModelProto, draw: random.Random) -> str:
    """Points a weight at another file, or place in it."""
    external = [tensor for tensor in model.graph.initializer if tensor.external_data]
    if not external:
        return _change_value(model, draw)
    tensor = draw.choice(external)
    entry = draw.choice(tensor.external_data)
    entry.value = draw.choice(
        (
            *HOSTILE_NAMES,
            *map(str, HOSTILE_NUMBERS),
            "../canary",
            "*/_ORT_MEM_ADDR_/*",
            "1e3",
            "0x10",
        )
    )
    return f"{entry.key} of {tensor.name}: {entry.value!r}"


def _change_value(model: onnx.ModelProto, draw: random.Random) -> str:
    """Changes an input or output: its name, type or shape."""
    value = draw.choice([*model.graph.input, *model.graph.output])
    tensor_type = value.type.tensor_type
    match draw.randrange(4):
        case 0:
            value.name = draw.choice(("x", *HOSTILE_NAMES[:3]))
        case 1:
            tensor_type.elem_type = draw.choice((1, 7, 9, 10, 8, 0))
        case 2 if tensor_type.shape.dim:
            draw.choice(tensor_type.shape.dim).dim_value = draw.choice(HOSTILE_NUMBERS[:-1])
        case _:
            del model.graph.output[:]
    return f"value {value.name!r} changed"


def _change_initializer(model: onnx.ModelProto, draw: random.Random) -> str:
    """Changes a small tensor, such as the shape that a reshape takes."""
    inline = [tensor for tensor in model.graph.initializer if not tensor.external_data]
    if not inline:
        return _change_value(model, draw)
    tensor = draw.choice(inline)
    if draw.random() < 0.3:
        tensor.dims.append(draw.choice(HOSTILE_NUMBERS))
    elif tensor.data_type == TensorProto.INT64 and tensor.raw_data:
        count = len(tensor.raw_data) // 8
        numbers = [draw.choice(HOSTILE_NUMBERS) for _ in range(count)]
        tensor.raw_data = struct.pack(f"<{count}q", *numbers)
    else:
        tensor.raw_data = draw.randbytes(len(tensor.raw_data))
    return f"initializer {tensor.name}"


GRAPH_CHANGES: Sequence[Callable[[onnx.ModelProto, random.Random], str]] = (
    _change_attribute,
    _change_operator,
    _add_loop,
    _change_external,
    _change_external,
    _change_value,
    _change_value,
    _change_initializer,
)
