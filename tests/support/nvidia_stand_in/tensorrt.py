"""A stand-in for `tensorrt`: an engine is text that holds an ONNX graph, run by ONNX Runtime.

It refuses what TensorRT refuses, and what is undefined there: shapes out of profile, addresses
that are not set, not aligned or not of the device, too little memory to execute in, capturing a
context that has not been run before. Weights and contexts' own memory are taken of the device.
"""

from __future__ import annotations

import base64
import hashlib
import json
from enum import IntEnum
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.support.nvidia_stand_in.machine import (
    ALIGNMENT,
    RefusedError,
    allocate,
    has_context,
    machine,
    queue,
    view,
)

__version__ = "11.0.0"
MAGIC = b"stand-in engine\n"
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
DTYPES |= {"tensor(int32)": np.int32, "tensor(double)": np.float64}
SAID: list[str] = []
"""What the library has logged."""


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class Logger:
    """Keeps what it is told."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self, min_severity: int = WARNING) -> None:
        self.min_severity = min_severity


def read_graph(path: str) -> dict[str, str]:
    """What an engine has of a graph: what it is without weights, and all of it with them."""
    structure = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    model = onnx.load(path).SerializeToString()
    return {"structure": structure, "model": base64.b64encode(model).decode()}


def _refuse(why: str) -> bool:
    SAID.append(why)
    return False


class Runtime:
    """Makes engines of bytes."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """None for bytes that are no engine, and without a context."""
        machine().calls.append("deserialize_cuda_engine")
        if not serialized_engine.startswith(MAGIC) or not has_context():
            _refuse("not an engine, or no CUDA context")
            return None
        return ICudaEngine(json.loads(serialized_engine[len(MAGIC) :]), len(serialized_engine))


class _Memory:
    """Device memory of the library's own."""

    def __init__(self, nbytes: int) -> None:
        self.machine, self.address = machine(), allocate(nbytes)

    def __del__(self) -> None:
        self.machine.held.pop(getattr(self, "address", None), None)


class ICudaEngine:
    """A graph with its session, a profile, and memory for weights."""

    def __init__(self, described: dict[str, Any], nbytes: int) -> None:
        self.refittable = described["refittable"]
        self._read(described)
        self.profile, self.weights = described["profile"], _Memory(nbytes)
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        self.outputs = {one.name: one for one in self.session.get_outputs()}
        self.tensors = self.inputs | self.outputs

    def _read(self, described: dict[str, Any]) -> None:
        """Takes a graph with its weights."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        model = base64.b64decode(described["model"])
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.described = described

    def create_serialization_config(self) -> ISerializationConfig:
        return ISerializationConfig()

    def serialize_with_config(self, arg0: ISerializationConfig) -> bytes:
        stays = self.refittable and SerializationFlag.INCLUDE_REFIT in arg0.flags
        return MAGIC + json.dumps(self.described | {"refittable": stays}).encode()

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext:
        return IExecutionContext(self, runtime_config.strategy)


class IRuntimeConfig:
    """How contexts are made."""

    strategy = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy


class IExecutionContext:
    """An engine with shapes and addresses."""

    def __init__(self, engine: ICudaEngine, strategy: int) -> None:
        self.engine, self.addresses, self.warm = engine, dict[str, int](), False
        self.own = None
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            self.own = _Memory(1 << 20)
        self.memory = (self.own.address, 1 << 20) if self.own else (0, 0)
        self.shapes = {
            name: tuple(one.shape)
            for name, one in engine.inputs.items()
            if all(isinstance(size, int) for size in one.shape)
        }

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        one = self.engine.inputs.get(name)
        if one is None or len(one.shape) != len(shape):
            return _refuse(f"no input {name} of rank {len(shape)}")
        fixed = [size if isinstance(size, int) else None for size in one.shape]
        least, _, most = self.engine.profile.get(name, (fixed, fixed, fixed))
        bounds = zip(least, shape, most, strict=True)
        if None in least or not all(low <= size <= high for low, size, high in bounds):
            return _refuse(f"{name}: {shape} is not within {least} to {most}")
        self.shapes[name] = tuple(shape)
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        """The inputs' bytes, for something that grows with them; 0 before they are known."""
        if self.shapes.keys() != self.engine.inputs.keys():
            return 0
        return sum(self._nbytes(name, shape) for name, shape in self.shapes.items())

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        self.memory = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.tensors:
            return _refuse(f"no tensor {name}")
        if memory % ALIGNMENT:
            return _refuse(f"{name} at an address that is not aligned")
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Addresses and shapes are those of now; what they hold is that of when the work runs."""
        machine().calls.append("execute_async_v3")
        stream, need = queue(stream_handle), self.update_device_memory_size_for_shapes()
        if not has_context() or not need or need > self.memory[1]:
            return _refuse("no context, shapes, or memory to execute in")
        if self.addresses.keys() != self.engine.tensors.keys():
            return _refuse("addresses that are not set")
        if stream.captured is not None and not self.warm:
            return _refuse("a context that is captured before it has run")
        try:
            stream.add(self._work(dict(self.addresses), dict(self.shapes)))
        except RefusedError:
            return _refuse("an address that is not of the device")
        self.warm = True
        return True

    def _nbytes(self, name: str, shape: tuple[int, ...]) -> int:
        return prod(shape) * np.dtype(DTYPES[self.engine.tensors[name].type]).itemsize

    def _work(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> Any:
        scratch, engine = view(*self.memory), self.engine
        given = {name: view(addresses[name], self._nbytes(name, s)) for name, s in shapes.items()}

        def work() -> None:
            feeds = {
                name: given[name].view(DTYPES[engine.inputs[name].type]).reshape(shape).copy()
                for name, shape in shapes.items()
            }
            scratch[:] = 0x5A
            results = engine.session.run(list(engine.outputs), feeds)
            for name, result in zip(engine.outputs, results, strict=True):
                content = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
                view(addresses[name], content.size)[:] = content

        return work


class Refitter:
    """Gives an engine other weights when it is told to, of a graph that a parser has read."""

    def __init__(self, engine: ICudaEngine, logger: Logger) -> None:
        self.engine, self.graph = engine, dict[str, str]()

    def get_missing_weights(self) -> list[str]:
        """None: a graph has them all."""
        return []

    def refit_cuda_engine(self) -> bool:
        self.engine._read(self.engine.described | self.graph)
        return True


class _ParserError:
    def desc(self) -> str:
        return "weights of another network"


class OnnxParserRefitter:
    """Reads a graph; one that differs in more than weights is refused."""

    def __init__(self, refitter: Refitter, logger: Logger) -> None:
        self.refitter, self.num_errors = refitter, 0

    def refit_from_file(self, model: str) -> bool:
        graph = read_graph(model)
        if graph["structure"] != self.refitter.engine.described["structure"]:
            self.num_errors = 1
            return False
        self.refitter.graph = graph
        return True

    def get_error(self, index: int) -> _ParserError:
        return _ParserError()


class SerializationFlag(IntEnum):
    EXCLUDE_WEIGHTS = 0
    EXCLUDE_LEAN_RUNTIME = 1
    INCLUDE_REFIT = 2


class ISerializationConfig:
    """Flags that are set."""

    def __init__(self) -> None:
        self.flags: set[int] = set()

    def set_flag(self, flag: SerializationFlag) -> bool:
        self.flags.add(flag)
        return True
