"""Programs of the target torch are data: no file of one makes PyTorch do anything but compute.

Failed at 3bfeb0e: programs were files of `torch.export.save`, whose loading runs what they hold.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.timing import random_inputs
from dipgo.engines.torch.program import load_program
from dipgo.engines.torch.program_file import OPERATORS, SIZE_OPERATORS, find_operator
from dipgo.export import export
from dipgo.ir.manifest.engines import ENGINES_FILE

PROGRAMS = Path("engines") / "torch"
PROGRAM = {"format": "dipgo.torch-program", "version": 1, "inputs": 1, "weights": 0}
X = {"is": "result", "index": 0}


@pytest.fixture(scope="module")
def exported(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("programs") / "out"
    return export(tiny_pipeline, "dense", out, steps=2, target="torch")


def program(*nodes: dict[str, Any], outputs: list[int] | None = None, **changes: Any) -> bytes:
    results = [{"is": "result", "index": index} for index in outputs or [len(nodes)]]
    document = {**PROGRAM, "nodes": list(nodes), "outputs": results, **changes}
    return json.dumps(document).encode()


def node(operator: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    return {"operator": operator, "arguments": list(arguments), "options": options}


def run(content: bytes, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    loaded = load_program(content, "cpu", name="program", remedy="export again")
    return tuple(loaded.module(*tensors))


def test_operators_sizes_and_constants() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    (found,) = run(
        program(
            node("aten.sym_size.int", X, 0),
            node("mul", {"is": "result", "index": 1}, 3),
            node("aten.view.default", X, {"is": "items", "items": [{"is": "result", "index": 2}]}),
            node("aten._to_copy.default", {"is": "result", "index": 3}, dtype=DTYPE),
            node("aten.split.Tensor", {"is": "result", "index": 4}, 2),
            node("item", {"is": "result", "index": 5}, 1),
        ),
        x,
    )
    assert torch.equal(found, torch.tensor([2.0, 3.0], dtype=torch.float64))


DTYPE = {"is": "constant", "kind": "dtype", "name": "float64"}


def test_infinities_are_constants() -> None:
    infinity = {"is": "constant", "kind": "float", "name": "-inf"}
    (found,) = run(program(node("aten.full_like.default", X, infinity)), torch.zeros(2))
    assert found.tolist() == [-np.inf, -np.inf]


REFUSED_OPERATORS = (
    *("aten.from_file.default", "aten.resize_.default", "aten.set_.source_Storage"),
    *("aten.add.out", "aten.add_.Tensor", "aten._fused_adam_.default", "aten.__class__.default"),
    *("prims.add.default", "os.system", "builtins.eval", "aten.add", "aten.add.Tensor.x", ""),
    *("aten.add.__call__", "aten.Tensor.default", "profiler._record_function_enter.default"),
    *("aten.add.Tensor\n", "higher_order.wrap", "operator.attrgetter", "print"),
    *("aten.max_pool2d_with_indices_backward.default", "aten.ctc_loss.Tensor"),
    *("aten.sparse_coo_tensor.indices_size", "aten.grid_sampler_2d_backward.default"),
    *("aten.embedding_dense_backward.default", "aten.empty.memory_format", "aten.data.default"),
)


@pytest.mark.parametrize("operator", REFUSED_OPERATORS)
def test_operators_that_a_program_may_not_call(operator: str) -> None:
    """A file's name is the only way to a file: an operator that takes one gets no text."""
    content = program(node(operator, X, "/etc/passwd"))
    with pytest.raises(DipgoError, match=r"found the (operator|text)"):
        run(content, torch.zeros(2))


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_an_operator_of_the_list_is_there_and_writes_nothing(name: str) -> None:
    """By the schemas of all its forms."""
    overloads = getattr(torch.ops.aten, name).overloads()
    found: list[Any] = [find_operator(f"aten.{name}.{overload}") for overload in overloads]
    assert any(found)
    for operator in filter(None, found):
        assert not any(each.is_write for each in operator._schema.arguments), operator


def test_no_operator_of_the_list_is_of_gradients_or_sparse() -> None:
    """Such operators trust places that a tensor names: of 2,000 some write where they say."""
    assert not [name for name in OPERATORS if "backward" in name or "sparse" in name]


def _in_lists(depth: int) -> dict[str, Any]:
    return {"is": "items", "items": [_in_lists(depth - 1)] if depth else []}


BAD_ARGUMENTS: dict[str, Any] = {
    "a value that is not there yet": {"is": "result", "index": 1},
    "a value of a huge number": {"is": "result", "index": 2**62},
    "a type that is none": {"is": "constant", "kind": "dtype", "name": "load"},
    "a path": "/etc/passwd",
    "lists in lists": _in_lists(9),
    "a number of 32 bits": 2**31,
    "a number of 63 bits": -(2**62),
    "the end of a slice, elsewhere": 2**63 - 1,
}


@pytest.mark.parametrize("argument", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_arguments_that_a_program_may_not_have(argument: Any) -> None:
    with pytest.raises(DipgoError, match="operators and arguments that a program may have"):
        run(program(node("aten.add.Tensor", X, argument)), torch.zeros(2))


@pytest.mark.parametrize(
    "name", ["__import__", "x); import os; (x", "Other", "x\n", "", "if", "lambda"]
)
def test_names_of_options_are_names(name: str) -> None:
    """PyTorch writes a program as Python and compiles it."""
    with pytest.raises(DipgoError, match="the options"):
        run(program(node("aten.add.Tensor", X, X, **{name: 1})), torch.zeros(2))


def test_the_end_of_a_slice_may_be_none() -> None:
    (found,) = run(program(node("aten.slice.Tensor", X, 0, 1, 2**63 - 1)), torch.arange(4.0))
    assert found.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "nodes",
    [
        [
            node("aten.sym_numel.default", X),
            *[node("mul", *[{"is": "result", "index": 1 + i}] * 2) for i in range(60)],
        ],
        [node("mul", "reflect", 3)],
        [node("add", {"is": "items", "items": [1]}, {"is": "items", "items": [1]})],
    ],
    ids=["a number that grows", "a text", "lists"],
)
def test_arithmetic_on_sizes_is_of_numbers(nodes: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"of sizes gives|of what is no number"):
        run(program(*nodes), torch.zeros(2))


def test_inputs_are_counted_before_they_are_made() -> None:
    document = json.loads(program(node("aten.neg.default", X)))
    for name in ("inputs", "weights"):
        with pytest.raises(DipgoError, match=name):
            run(json.dumps(document | {name: 10**9}).encode(), torch.zeros(2))


def _pickled() -> bytes:
    return pickle.dumps(print)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", _pickled())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, _pickled(), _archive(), b"null", b'{"format": "x"}']
)
def test_what_is_no_program_is_refused(content: bytes) -> None:
    with pytest.raises(DipgoError) as caught:
        run(content)
    assert "\n" not in str(caught.value)


def damaged(exported: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of an export with another program for its segment, and its hash."""
    out = shutil.copytree(exported, folder / "out")
    path, engines = out / PROGRAMS / "seg0.json", out / PROGRAMS / ENGINES_FILE
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    content, manifest = path.read_bytes(), json.loads(engines.read_bytes())
    record = {"sha256": hashlib.sha256(content).hexdigest(), "nbytes": len(content)}
    manifest["engines"]["seg0"] |= record
    engines.write_text(json.dumps(manifest))
    return out


def _fewer_weights(document: dict[str, Any]) -> None:
    document["weights"] -= 1


def _one_result_less(document: dict[str, Any]) -> None:
    document["outputs"] = []


def _a_row_for_all(document: dict[str, Any]) -> None:
    """A result that could be repeated to the size of the slot."""
    last = document["outputs"][0]
    count = document["inputs"] + document["weights"] + len(document["nodes"])
    document["nodes"].append(node("aten.select.int", last, 0, 0))
    document["outputs"][0] = {"is": "result", "index": count}


def _another_type(document: dict[str, Any]) -> None:
    last = document["outputs"][0]
    count = document["inputs"] + document["weights"] + len(document["nodes"])
    document["nodes"].append(node("aten._to_copy.default", last, dtype=DTYPE))
    document["outputs"][0] = {"is": "result", "index": count}


def _terabytes(document: dict[str, Any]) -> None:
    document["nodes"][0] = node("aten.full.default", {"is": "items", "items": [2**40]}, 1.0)


@pytest.mark.parametrize(
    "change", [_fewer_weights, _one_result_less, _a_row_for_all, _another_type, _terabytes]
)
def test_a_program_that_is_not_the_segments_is_refused(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Before it runs, or instead of a result: PyTorch would repeat and convert what is copied."""
    out = damaged(exported, tmp_path, change)
    with pytest.raises(DipgoError) as caught:
        _load_and_run(out)
    assert "\n" not in str(caught.value)


def _load_and_run(out: Path) -> None:
    runner = load(out, target="torch", provider="cpu")
    runner.run(random_inputs(runner))


def test_a_program_holds_names_and_numbers_alone(exported: Path) -> None:
    for path in (exported / PROGRAMS).glob("*.json"):
        if path.name != ENGINES_FILE:
            document = json.loads(path.read_bytes())
            for each in document["nodes"]:
                assert each["operator"] in SIZE_OPERATORS or find_operator(each["operator"])
