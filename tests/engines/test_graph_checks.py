"""An export's graphs are checked before they run: inputs, outputs, weights, and what they may call.

Failed at 3bfeb0e: graphs with a further input or output were run, one without outputs ended in a
traceback, and weights were read from any file in the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.graph_file import read_graph
from dipgo.engines.protobuf import fields
from dipgo.ir.manifest.records import MANIFEST_FILE

Change = Callable[[onnx.ModelProto], Any]


@pytest.fixture
def copied(sample_exports: dict[str, Path], tmp_path: Path) -> Path:
    """An export of a whole pipeline, which a test may damage."""
    return shutil.copytree(sample_exports["dense"], tmp_path / "out")


def edit(out: Path, file: str, change: Change) -> None:
    """Changes a graph and puts its hash into the manifest."""
    path = out / file
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    manifest = json.loads((out / MANIFEST_FILE).read_bytes())
    content = path.read_bytes()
    record = {"sha256": hashlib.sha256(content).hexdigest(), "nbytes": len(content)}
    manifest["files"][file] = record
    (out / MANIFEST_FILE).write_text(json.dumps(manifest))


def graph_files(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*.onnx"))


def refusal(out: Path) -> str:
    """The line with which the export is refused, by all that opens it."""
    with pytest.raises(DipgoError) as caught:
        ExportDirectory.open(out)
    with pytest.raises(DipgoError):
        load(out, threads=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_export_writes_is_accepted(sample_exports: dict[str, Path]) -> None:
    for path in sample_exports.values():
        ExportDirectory.open(path)


def _rename(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "another"


def _add_output(model: onnx.ModelProto) -> None:
    extra = helper.make_tensor_value_info("further", TensorProto.FLOAT, [1])
    model.graph.output.append(extra)


def _add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("further", TensorProto.FLOAT, [1]))


def _retype(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _reshape(model: onnx.ModelProto) -> None:
    shape = model.graph.output[0].type.tensor_type.shape
    shape.dim.add().dim_value = 7


def _no_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


@pytest.mark.parametrize(
    "change", [_rename, _add_output, _add_input, _retype, _reshape, _no_outputs]
)
def test_inputs_and_outputs_are_the_manifests(copied: Path, change: Change) -> None:
    for file in graph_files(copied):
        damaged = shutil.copytree(copied, copied.with_name(f"{file}-damaged"))
        edit(damaged, file, change)
        assert f"{file}: found" in refusal(damaged)


def _loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["", ""], [], body=body))


def _other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "elsewhere"


def _function(model: onnx.ModelProto) -> None:
    model.functions.add().name = "function"


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _named_loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def _split(model: onnx.ModelProto) -> None:
    """Of another number of outputs than it has; ONNX Runtime 1.32 ends the process."""
    split = helper.make_node("Split", ["x"], ["a", "b"], num_outputs=1)
    model.graph.node.insert(0, split)


@pytest.mark.parametrize(
    "change", [_loop, _named_loop, _split, _other_domain, _function, _training, _sparse]
)
def test_what_no_export_has_is_refused(copied: Path, change: Change) -> None:
    edit(copied, "seg0.onnx", change)
    assert "standard operators" in refusal(copied)


LOCATIONS = {
    "location": ["other.bin", "../outside", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "", "plan.json"],
    "offset": ["-1", "99999999999999999999999", "1e3", "0x10", " 8", "１", str(2**63)],
    "length": ["-1", str(2**62), "8 ", "1.0"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in LOCATIONS.items() for value in values]
)
@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_weights_are_in_the_file_that_a_hash_covers(
    copied: Path, key: str, value: str, where: str
) -> None:
    """Also where the weights are those of a constant, not of an initializer."""

    def change(model: onnx.ModelProto) -> None:
        external = next(tensor for tensor in model.graph.initializer if tensor.external_data)
        if where == "attribute":
            constant = helper.make_node("Constant", [], ["constant"])
            constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
                external
            )
            model.graph.node.insert(0, constant)
            external = model.graph.node[0].attribute[0].t
        entries = {entry.key: entry for entry in external.external_data}
        entries[key].value = value

    edit(copied, "seg0.onnx", change)
    assert "expected weights in weights.safetensors" in refusal(copied)


def cut_and_flipped(content: bytes) -> Iterator[bytes]:
    step = max(1, len(content) // 150)
    for place in range(0, len(content), step):
        yield content[:place]
        yield content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def test_a_damaged_graph_is_refused_or_read(sample_exports: dict[str, Path]) -> None:
    """Reading raises nothing but ValueError, and ends."""
    content = (sample_exports["dense"] / "vae_decoder.onnx").read_bytes()
    refused = 0
    for damaged in cut_and_flipped(content):
        try:
            read_graph(damaged)
        except ValueError:
            refused += 1
    assert refused > 100


NO_MESSAGES = {
    "no length": b"\x0a",
    "a length of 2**63": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "an endless number": b"\x80" * 20,
    "a group": b"\x0b",
    "the end of a group": b"\x0c",
    "half a number": b"\x09\0",
    "field 1, with a bit that 32 do not hold": b"\x8a\x80\x80\x80\x10\0",
    "field 1, in six bytes": b"\x8a\x80\x80\x80\x80\0\0",
    "field 0": b"\x02\0",
    "no bytes, of 2**32": b"\x0a\x80\x80\x80\x80\x10",
    "a number of 65 bits": b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x03",
}


@pytest.mark.parametrize("content", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # its words are those of the caller's
        list(fields(memoryview(content)))


def test_facts_are_those_of_the_package_onnx(sample_exports: dict[str, Path]) -> None:
    for path in sorted((sample_exports["dense"]).glob("*.onnx")):
        model, facts = onnx.load(path, load_external_data=False), read_graph(path.read_bytes())
        for values, expected in (
            (facts.inputs, model.graph.input),
            (facts.outputs, model.graph.output),
        ):
            assert [value.name for value in values] == [value.name for value in expected]
            for value, other in zip(values, expected, strict=True):
                tensor = other.type.tensor_type
                shape = tuple(dim.dim_value or None for dim in tensor.shape.dim)
                assert (value.element, value.shape) == (tensor.elem_type, shape)
        external = [
            {entry.key: entry.value for entry in tensor.external_data}
            for tensor in model.graph.initializer
            if tensor.external_data
        ]
        assert facts.external == external
        assert not facts.unusual
