"""Runs an export by what docs/reference/manifest.md says, and uses no module of dipgo.

python independent_runner.py names|arena EXPORT INPUTS.npz OUT.npy
"""

import hashlib
import json
import sys
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

NUMPY = {"f64": "f8", "f32": "f4", "f16": "f2", "i64": "i8", "i32": "i4", "u8": "u1", "bool": "?"}


class Names:
    """Every value is an array of its own, found by its name."""

    def __init__(self, program):
        self.values = {}

    def room(self, names, dtype, shape):
        """An array [name, …] for results to be written to."""
        array = np.empty((len(names), *shape), dtype)
        self.values.update(zip(names, array, strict=True))
        return array

    def stack(self, names, dtype, shape):
        """An array [name, …] of values."""
        return np.stack([self.values[name] for name in names])


class Arena:
    """All values but the inputs are where their slots say, in one buffer."""

    def __init__(self, program):
        self.buffer = np.zeros(program["arena_nbytes"] + 64, np.uint8)
        self.start = -self.buffer.ctypes.data % 64
        self.offsets = {slot["value"]: slot["offset"] for slot in program["slots"]}
        self.values = {}

    def room(self, names, dtype, shape):
        """As of Names. Only the first offset is used, for lanes lie side by side."""
        start = self.start + self.offsets[names[0]]
        end = start + len(names) * prod(shape) * dtype.itemsize
        return self.buffer[start:end].view(dtype).reshape(len(names), *shape)

    def stack(self, names, dtype, shape):
        """As of Names, but without a copy."""
        given = self.values.get(names[0])
        return self.room(names, dtype, shape) if given is None else given[None]


class Runner:
    """An export directory, checked, with a session for each segment."""

    def __init__(self, path, store):
        manifest = json.loads((path / "plan.json").read_bytes())
        assert (manifest["format"], manifest["version"]) == ("dipgo.export", 2)
        for name, record in manifest["files"].items():
            assert hashlib.sha256((path / name).read_bytes()).hexdigest() == record["sha256"], name
        self.program, self.store = manifest["program"], store(manifest["program"])
        self.segments = {segment["name"]: segment for segment in manifest["segments"]}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = {
            name: onnxruntime.InferenceSession(path / segment["file"], options)
            for name, segment in self.segments.items()
        }
        self.tables = load_file(path / "constants.safetensors")
        self.rows = {table["name"]: table["rows"] for table in self.program["tables"]}

    def run(self, inputs):
        """The result, by the statements in their order."""
        self.store.values = dict(inputs)
        types = {one["name"]: parse_type(one["type"]) for one in self.program["inputs"]}
        for statement in self.program["statements"]:
            (self.call if statement["op"] == "call" else self.combine)(statement, types)
        result = self.program["result"]
        return self.store.stack([result], *types[result])[0]

    def call(self, call, types):
        """Runs a segment on the memory of its operands and results."""
        segment, session = self.segments[call["segment"]], self.sessions[call["segment"]]
        binding, width = session.io_binding(), len(call["results"]) // len(segment["outputs"])
        bound = []  # keeps arrays alive until the call has ended
        for value, operand in zip(segment["inputs"], call["operands"], strict=True):
            stack = self.operand(operand, *parse_type(value["type"]))
            bound.append(bind(binding.bind_input, value, stack, operand.startswith("{")))
        for index, value in enumerate(segment["outputs"]):
            names = call["results"][index * width : (index + 1) * width]
            types.update(dict.fromkeys(names, parse_type(value["type"])))
            stack = self.store.room(names, *types[names[0]])
            bound.append(bind(binding.bind_output, value, stack, bool(segment["stacked"])))
        session.run_with_iobinding(binding)

    def operand(self, text, dtype, shape):
        """`%value`, `table[row]` or `{lane lane …}` of either, as an array [lane, …]."""
        lanes = text.strip("{}").split()
        if lanes[0].startswith("%"):
            return self.store.stack([lane[1:] for lane in lanes], dtype, shape)
        pairs = [lane[:-1].rsplit("[", 1) for lane in lanes]
        return np.stack([self.tables[name][self.rows[name].index(int(row))] for name, row in pairs])

    def combine(self, combine, types):
        """A linear combination in float32, term after term."""
        names, coefficients = combine["values"], np.float32(combine["coefficients"])
        kind = types[combine["result"]] = types[names[0]]
        total = self.store.room([combine["result"]], *kind)
        total[:] = coefficients[0] * self.store.stack(names[:1], *kind)
        for coefficient, name in zip(coefficients[1:], names[1:], strict=True):
            total += coefficient * self.store.stack([name], *kind)


def parse_type(text):
    """`f32[2,77,768]` as a numpy element type and a shape."""
    dtype, sizes = text.removesuffix("]").split("[")
    return np.dtype(NUMPY[dtype]), tuple(int(size) for size in sizes.split(",") if size)


def bind(bind_one, value, stack, stacked):
    """Binds the memory of an array [lane, …] to an input or output, with or without the axis."""
    array = stack if stacked else stack.reshape(stack.shape[1:])
    assert array.flags.c_contiguous
    bind_one(value["name"], "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return array


if __name__ == "__main__":
    mode, export, given, out = sys.argv[1:]
    runner = Runner(Path(export), {"names": Names, "arena": Arena}[mode])
    np.save(out, runner.run(dict(np.load(given))))
