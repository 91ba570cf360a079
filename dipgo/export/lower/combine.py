"""Makes the graph of a linear combination, sum = a x + b y; longer ones are chains of it."""

from __future__ import annotations

import onnx_ir as ir

from dipgo.export.lower.onnx import OPSET
from dipgo.ir.types import ELEMENT_TYPES

IR_VERSION = 10


def combine_model(dtype: str) -> ir.Model:
    """Returns the graph for one element type.

    x, y and sum are of the same shape, any shape, and of the element type `dtype` (`f32`, `f16` …).
    x_coefficient and y_coefficient are f32 scalars; products and sum are in f32.
    """
    narrow = ir.TensorType(ir.DataType(ELEMENT_TYPES[dtype].onnx))
    wide = ir.TensorType(ir.DataType.FLOAT)
    tensors = {name: ir.Value(name=name, type=narrow, shape=ir.Shape(["n"])) for name in "xy"}
    scalars = {
        name: ir.Value(name=f"{name}_coefficient", type=wide, shape=ir.Shape(())) for name in "xy"
    }
    nodes: list[ir.Node] = []

    def apply(operator: str, *operands: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(operator, operands, attributes))
        nodes[-1].outputs[0].name = f"{operator.lower()}_{len(nodes)}"
        return nodes[-1].outputs[0]

    def cast(value: ir.Value, to: ir.TensorType) -> ir.Value:
        return value if narrow == wide else apply("Cast", value, to=to.dtype)

    products = [apply("Mul", cast(tensors[name], wide), scalars[name]) for name in "xy"]
    output = cast(apply("Add", *products), narrow)
    output.name, output.type, output.shape = "sum", narrow, ir.Shape(["n"])
    inputs = [value for name in "xy" for value in (tensors[name], scalars[name])]
    graph = ir.Graph(inputs, [output], nodes=nodes, name="combine", opset_imports={"": OPSET})
    return ir.Model(graph, ir_version=IR_VERSION)
