"""A stand-in for `cuda.bindings.driver`: host memory, and streams that work only when waited for.

It is as unkind as the real one may be: what is queued reads and writes when a stream is
synchronised, what is queued on the default stream comes after everything else, new memory holds
garbage, and functions refuse threads without a context.
"""

# ruff: noqa: N802, N803

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any

from tests.support.nvidia_stand_in.enums import (
    CUdevice_attribute,
    CUevent_flags,
    CUresult,
    CUstream_flags,
    CUstreamCaptureMode,
)
from tests.support.nvidia_stand_in.machine import (
    CONTEXT,
    NULL_STREAM,
    Queue,
    RefusedError,
    allocate,
    find,
    has_context,
    machine,
    new,
    queue,
    thread,
    view,
)

__all__ = ["CUdevice_attribute", "CUevent_flags", "CUresult", "CUstreamCaptureMode"]
__all__ += ["CUstream_flags"]


def _function(work: Callable[..., Any], context: bool = True) -> Callable[..., tuple[Any, ...]]:
    @functools.wraps(work)
    def call(*arguments: Any) -> tuple[Any, ...]:
        machine().calls.append(work.__name__)
        try:
            if context and not has_context():
                raise RefusedError(CUresult.CUDA_ERROR_INVALID_CONTEXT)
            found = work(*arguments)
        except RefusedError as refusal:
            return refusal.args[0], None
        results = () if found is None else found if isinstance(found, tuple) else (found,)
        return CUresult.CUDA_SUCCESS, *results

    return call


_without_context = functools.partial(_function, context=False)


def _not_while_capturing() -> None:
    for one in machine().streams.values():
        if one.captured is not None:
            one.broken = True
            raise RefusedError(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)


def _run_all() -> None:
    """The default stream last: those that do not wait for it may be ahead of it."""
    for stream in reversed(list(machine().streams.values())):
        stream.run()


@_without_context
def cuInit(Flags: int) -> None:
    if not machine().gpus:
        raise RefusedError(CUresult.CUDA_ERROR_NO_DEVICE)


@_without_context
def cuDeviceGetCount() -> int:
    return machine().gpus


@_without_context
def cuDeviceGet(ordinal: int) -> int:
    return ordinal


@_without_context
def cuDevicePrimaryCtxRetain(dev: int) -> int:
    return CONTEXT


@_without_context
def cuCtxSetCurrent(ctx: int) -> None:
    thread.context = ctx


@_without_context
def cuGetErrorString(error: int) -> bytes:
    return CUresult(error).name.encode()


@_without_context
def cuDeviceGetAttribute(attrib: int, dev: int) -> int:
    kind = CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
    return machine().capability[attrib == kind]


@_without_context
def cuDeviceGetName(length: int, dev: int) -> bytes:
    return machine().name.encode().ljust(length, b"\0")


@_function
def cuMemGetInfo() -> tuple[int, int]:
    return machine().total - machine().used, machine().total


@_function
def cuMemAlloc(bytesize: int) -> int:
    _not_while_capturing()
    if bytesize <= 0:
        raise RefusedError(CUresult.CUDA_ERROR_INVALID_VALUE)
    return allocate(bytesize)


@_function
def cuMemFree(dptr: int) -> None:
    _run_all()
    find(machine().held, dptr)
    del machine().held[dptr]


@_function
def cuMemsetD8(dstDevice: int, uc: int, N: int) -> None:
    machine().streams[NULL_STREAM].add(lambda: view(dstDevice, N).fill(uc))


@_function
def cuStreamCreate(Flags: int) -> int:
    assert Flags == CUstream_flags.CU_STREAM_NON_BLOCKING
    return new(machine().streams, Queue())


@_function
def cuStreamDestroy(hStream: int) -> None:
    queue(hStream).run()
    del machine().streams[hStream]


@_function
def cuMemcpyHtoDAsync(dstDevice: int, srcHost: int, ByteCount: int, hStream: int) -> None:
    target = view(dstDevice, ByteCount)
    queue(hStream).add(lambda: _move(target.ctypes.data, srcHost, ByteCount))


@_function
def cuMemcpyDtoHAsync(dstHost: int, srcDevice: int, ByteCount: int, hStream: int) -> None:
    source = view(srcDevice, ByteCount)
    queue(hStream).add(lambda: _move(dstHost, source.ctypes.data, ByteCount))


@_function
def cuMemcpyDtoDAsync(dstDevice: int, srcDevice: int, ByteCount: int, hStream: int) -> None:
    target, source = view(dstDevice, ByteCount), view(srcDevice, ByteCount)
    queue(hStream).add(lambda: _move(target.ctypes.data, source.ctypes.data, ByteCount))


def _move(target: int, source: int, nbytes: int) -> None:
    ctypes.memmove(target, source, nbytes)


@_function
def cuStreamSynchronize(hStream: int) -> None:
    _not_while_capturing()
    queue(hStream).run()
    queue(NULL_STREAM).run()


@_function
def cuStreamBeginCapture(hStream: int, mode: int) -> None:
    if queue(hStream).captured is not None or hStream == NULL_STREAM:
        raise RefusedError(CUresult.CUDA_ERROR_ILLEGAL_STATE)
    queue(hStream).captured = []


@_function
def cuStreamEndCapture(hStream: int) -> int:
    stream = queue(hStream)
    captured, stream.captured = stream.captured, None
    broken, stream.broken = stream.broken, False
    if captured is None or broken:
        raise RefusedError(CUresult.CUDA_ERROR_ILLEGAL_STATE)
    return new(machine().objects, captured)


@_function
def cuGraphInstantiate(hGraph: int, flags: int) -> int:
    return new(machine().objects, tuple(find(machine().objects, hGraph)))


@_function
def cuGraphDestroy(hGraph: int) -> None:
    find(machine().objects, hGraph)
    del machine().objects[hGraph]


@_function
def cuGraphExecDestroy(hGraphExec: int) -> None:
    find(machine().objects, hGraphExec)
    del machine().objects[hGraphExec]


@_function
def cuGraphLaunch(hGraphExec: int, hStream: int) -> None:
    for work in find(machine().objects, hGraphExec):
        queue(hStream).add(work)


@_function
def cuEventCreate(Flags: int) -> int:
    return new(machine().objects, {"time": None})


@_function
def cuEventRecord(hEvent: int, hStream: int) -> None:
    event = find(machine().objects, hEvent)
    queue(hStream).add(lambda: event.update(time=perf_counter()))


@_function
def cuEventSynchronize(hEvent: int) -> None:
    _not_while_capturing()
    find(machine().objects, hEvent)
    _run_all()


@_function
def cuEventElapsedTime(hStart: int, hEnd: int) -> float:
    start, end = (find(machine().objects, one)["time"] for one in (hStart, hEnd))
    if start is None or end is None:
        raise RefusedError(CUresult.CUDA_ERROR_NOT_READY)
    return float(end - start) * 1e3


@_function
def cuEventDestroy(hEvent: int) -> None:
    find(machine().objects, hEvent)
    del machine().objects[hEvent]


@_function
def cuCtxSynchronize() -> None:
    _not_while_capturing()
    _run_all()
