"""A graph that was cut out of a program is lowered without another capture, to the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.compile import compile_plan
from dipgo.compiler.request import Prepared, prepare
from dipgo.compiler.settings import Request
from dipgo.compiler.trace.precision import Precision
from dipgo.export.lower import onnx
from dipgo.export.lower.callee import Lowering, callee_lowering, lower_as_onnx
from dipgo.export.lower.program import program_of
from dipgo.ir.types import PrecisionName, TensorType, Value
from dipgo.models.model import Source
from tests.support.filtered import with_a_filter
from tests.support.rare import rare_unless
from tests.support.schedulers import ddim_for
from tests.support.zoo import EVERY_WAY, UNGUIDED, ZOO, case


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    rare_unless(
        lambda name, precision: (name, precision) in zip(EVERY_WAY, ("fp32", "fp16"), strict=True),
        [(name, precision) for name in ZOO for precision in ("fp32", "fp16")],
    ),
)
def test_the_same_bytes(
    name: str, precision: PrecisionName, lower_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of the module captured once more, for every segment, part of a step and table."""
    check_bytes(prepared_case(name), Precision(precision), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_WAY)
def test_the_same_bytes_of_a_gap_rules_function(
    name: str, lower_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs have other names once they are decomposed."""
    check_bytes(with_a_filter(prepared_case(name, steps=4)), Precision(), monkeypatch)


def prepared_case(name: str, steps: int = 2) -> Prepared:
    scheduler = ddim_for(name)
    source = Source("zoo", case(name, "block").denoiser, ZOO[name].family, scheduler, 8, tokens=7)
    return prepare(source, Request("dense", steps=steps, guidance=name not in UNGUIDED))


def check_bytes(prepared: Prepared, precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every callee of the plan is lowered from its own graph, as it is from a capture."""
    compiled = compile_plan(
        prepared.source, prepared.schedule, prepared.geometry, precision=precision
    )
    programs: list[torch.export.ExportedProgram | None] = []

    def record(*arguments: Any) -> torch.export.ExportedProgram | None:
        programs.append(program_of(*arguments))
        return programs[-1]

    def lowered(make: Any) -> list[bytes]:
        monkeypatch.setattr(onnx, "program_of", make)
        found = []
        for callee in compiled.plan.callees:
            lowering = callee_lowering(compiled.plan, compiled.traced, callee)
            model = lower_as_onnx(lowering, callee.name, callee.inputs, callee.outputs)
            found.append(ir.to_proto(model).SerializeToString(deterministic=True))
        return found

    assert lowered(record) == lowered(lambda *_: None)
    assert programs
    assert all(programs)


def _module(x: torch.Tensor, weight: nn.Parameter | torch.Tensor) -> fx.GraphModule:
    """x + weight, of a program."""
    return _cut(_Sum(weight), x)


def _cut(module: nn.Module, x: torch.Tensor) -> fx.GraphModule:
    """All of the module's program, as `Traced.module` gives it."""
    program = torch.export.export(module, (x,), strict=False)
    names = {
        **program.graph_signature.inputs_to_parameters,
        **program.graph_signature.inputs_to_buffers,
    }
    graph, copies = fx.Graph(), {}
    for node in program.graph.nodes:
        copies[node] = (
            graph.get_attr(names[node.name])
            if node.name in names
            else graph.node_copy(node, lambda source: copies[source])
        )
        copies[node].meta = dict(node.meta)
    return fx.GraphModule({name: program.state_dict[name] for name in names.values()}, graph)


class _Sum(nn.Module):
    def __init__(self, weight: nn.Parameter | torch.Tensor) -> None:
        super().__init__()
        if isinstance(weight, nn.Parameter):
            self.weight = weight
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight


class _Named(nn.Module):
    """Adds weights of these names, each of another value."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        for index, name in enumerate(names):
            *path, last = name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in dict(owner.named_children()):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(last, nn.Parameter(torch.full((3,), 4.0**index)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.parameters():
            x = x + weight
        return x


@pytest.mark.parametrize(
    "names",
    [
        ("norm.weight", "norm_weight"),
        ("w.x_y", "w_x.y"),
        ("enter_weight", "enter.weight", "p.enter.weight"),
        ("a-b.weight", "a_b.weight"),
        ("a b.weight", "x/y.weight", "\u00fc-\u00e9.weight"),
        ("x", "x_1", "add", "p_x"),
        ("0.0", "0_0", "1.0"),
    ],
)
def test_weights_whose_names_differ_in_signs_alone(names: tuple[str, ...]) -> None:
    x = torch.zeros(2, 3)
    module = _cut(_Named(names), x)
    program = program_of(module, (x,))
    assert program is not None
    (found,) = program.module()(x)
    assert torch.equal(found, x + sum(4.0**index for index in range(len(names))))
    assert set(program.state_dict) == set(names)
    model = onnx.lower(module, (x,), name="sum", inputs=["x of the plan"], outputs=["sum"])
    written = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    for index, name in enumerate(names):
        assert (written[name] == 4.0**index).all()


@pytest.mark.parametrize("weight", [nn.Parameter(torch.ones(3)), torch.ones(3)])
def test_a_program_computes_what_the_module_does(weight: nn.Parameter | torch.Tensor) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    module = _module(x, weight)
    program = program_of(module, (x,))
    assert program is not None
    (found,) = program.module()(x)
    assert torch.equal(found, x + 1)
    assert list(program.state_dict) == ["weight"]


def test_weights_that_are_one_tensor_or_unused() -> None:
    x, weight = torch.zeros(2, 3), nn.Parameter(torch.ones(3))
    module = _cut(_Named(("one", "other")), x)
    module.one = module.other = weight
    module.idle = nn.Parameter(torch.ones(3))
    program = program_of(module, (x,))
    assert program is not None
    (found,) = program.module()(x)
    assert torch.equal(found, x + 2)
    assert set(program.state_dict) == {"one", "other"}


def test_values_that_do_not_fit_are_no_program() -> None:
    """Another shape or type, or a value that the graph does not tell of: they are captured."""
    x = torch.zeros(2, 3)
    module = _module(x, torch.ones(3))
    assert program_of(module, (x,)) is not None
    for example in ((torch.zeros(4, 3),), (x.double(),), (x, x), ()):
        assert program_of(module, example) is None
    for op in ("placeholder", "get_attr", "call_function"):
        silent = fx.GraphModule(module, fx.Graph())
        silent.graph.output(silent.graph.graph_copy(module.graph, {}))
        (node, *_) = (
            silent.graph.find_nodes(op=op)
            if op != "call_function"
            else [node for node in silent.graph.nodes if node.op == op]
        )
        del node.meta["val"]
        assert program_of(silent, (x,)) is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("picture", "other"), "weight picture: found the name of an input or output"),
        (("other", "next"), "weight next: found the name of an input or output"),
        (("p_enter_weight", "enter.weight"), "weight p_enter_weight: found a name that PyTorch"),
    ],
)
def test_weights_that_would_be_confused_are_refused(
    names: tuple[str, ...], found: str, lower_anew: None
) -> None:
    """They gave other pictures, or a graph that no engine loads."""
    x = torch.zeros(2, 3)
    lowering = Lowering(_cut(_Named(names), x), (x,), None)
    values = [[Value(name, TensorType("f32", (2, 3)))] for name in ("picture", "next")]
    with pytest.raises(DipgoError, match=f"^{found}"):
        lower_as_onnx(lowering, "seg0", *values)
