"""The sampler's arithmetic as a graph: sum = a x + b y, of which every combination is a chain."""

from __future__ import annotations

import onnx_ir as ir

from dipgo.export.lower import OPSET

IR_VERSION = 10


def combine_model() -> ir.Model:
    """x, y and sum are f32 of one shape, whichever; x_coefficient and y_coefficient are scalars."""
    dtype = ir.TensorType(ir.DataType.FLOAT)
    tensors = {name: ir.Value(name=name, type=dtype) for name in "xy"}
    scalars = {
        name: ir.Value(name=f"{name}_coefficient", type=dtype, shape=ir.Shape(())) for name in "xy"
    }
    products = [ir.node("Mul", [tensors[name], scalars[name]]) for name in "xy"]
    total = ir.node("Add", [product.outputs[0] for product in products])
    output = total.outputs[0]
    output.name, output.type = "sum", dtype
    for name, product in zip("xy", products, strict=True):
        product.outputs[0].name = f"{name}_product"
    inputs = [value for name in "xy" for value in (tensors[name], scalars[name])]
    graph = ir.Graph(
        inputs, [output], nodes=[*products, total], name="combine", opset_imports={"": OPSET}
    )
    return ir.Model(graph, ir_version=IR_VERSION)
