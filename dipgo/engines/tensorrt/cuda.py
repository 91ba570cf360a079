"""CUDA device memory, a stream, events and graphs, by NVIDIA's own bindings of the driver.

No torch. One device is used, the first that `CUDA_VISIBLE_DEVICES` leaves. The context is the
device's primary one, which other libraries of the process use too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dipgo.common.errors import DipgoError

EXPECTED = "an NVIDIA GPU with its driver"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: its name, its compute capability such as `8.9`, and its memory in bytes."""

    name: str
    compute_capability: str
    free_nbytes: int
    total_nbytes: int


class Driver:
    """The driver with a context; what the driver refuses becomes a DipgoError."""

    def __init__(self, api: Any, where: str) -> None:
        self._api, self._where = api, where
        self._device: Any = None
        self._context: Any = None

    @classmethod
    def open(cls, where: str, remedy: str) -> Driver:
        """Opens the driver on the first GPU.

        Args:
            where: The place that errors of this driver name.
            remedy: What the user can do about a missing driver or GPU.

        Raises:
            DipgoError: The bindings, the driver or a GPU is missing.
        """
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise DipgoError(
                where,
                found=f"no package cuda-bindings ({error})",
                expected="NVIDIA's bindings of the CUDA driver",
                remedy="pip install cuda-bindings",
            ) from None
        opened = cls(driver, where)
        try:
            opened._call("cuInit", 0)
            count = opened._call("cuDeviceGetCount")
        except (DipgoError, RuntimeError) as error:
            # Without a driver the bindings raise their own error, a RuntimeError.
            problem = error.found if isinstance(error, DipgoError) else "no CUDA driver"
            raise DipgoError(where, found=problem, expected=EXPECTED, remedy=remedy) from None
        if not count:
            raise DipgoError(where, found="no GPU", expected=EXPECTED, remedy=remedy)
        opened._device = opened._call("cuDeviceGet", 0)
        opened._context = opened._call("cuDevicePrimaryCtxRetain", opened._device)
        opened.enter()
        return opened

    def enter(self) -> None:
        """Makes the device's primary context that of this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of the driver and returns its results without the error code."""
        code, *results = getattr(self._api, function)(*arguments)
        if code != self._api.CUresult.CUDA_SUCCESS:
            _, text = self._api.cuGetErrorString(code)
            said = text.decode() if text else f"error {int(code)}"
            raise DipgoError(
                self._where,
                found=f"{function}: {said}",
                expected="a GPU that does what it is asked",
                remedy="see nvidia-smi for its state, and the driver's log",
            )
        return results[0] if len(results) == 1 else tuple(results)

    def device(self) -> Device:
        """Returns the GPU's facts, with the memory that is free now."""
        attributes = self._api.CUdevice_attribute
        major, minor = (
            self._call("cuDeviceGetAttribute", attribute, self._device)
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name = self._call("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode()
        free, total = self._call("cuMemGetInfo")
        return Device(name, f"{major}.{minor}", int(free), int(total))

    def check_free(self, nbytes: int, purpose: str) -> None:
        """Checks that enough device memory is free, before any of it is taken.

        Raises:
            DipgoError: Less than `nbytes` is free.
        """
        free = self.device().free_nbytes
        if free < nbytes:
            raise DipgoError(
                self._where,
                found=f"{free / 2**20:.0f} MiB of free device memory",
                expected=f"{nbytes / 2**20:.0f} MiB for {purpose}",
                remedy="end what else uses the GPU, or export for a smaller batch or size",
            )

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Allocates `nbytes` bytes on the device, all zero."""
        memory = DeviceMemory(self, int(self._call("cuMemAlloc", nbytes)), nbytes)
        self._call("cuMemsetD8", memory.address, 0, nbytes)
        # The memset is queued on the default stream, which other streams do not wait for.
        self._call("cuCtxSynchronize")
        return memory

    def release(self, function: str, handle: Any) -> None:
        """Gives a resource back from whichever thread drops it, and ignores failures."""
        self._api.cuCtxSetCurrent(self._context)
        getattr(self._api, function)(handle)

    def stream(self) -> Stream:
        """Returns a stream that does not wait for the default one."""
        flag = self._api.CUstream_flags.CU_STREAM_NON_BLOCKING
        return Stream(self, self._call("cuStreamCreate", flag))


class DeviceMemory:
    """Bytes on the device, given back when this object is dropped."""

    def __init__(self, driver: Driver, address: int, nbytes: int) -> None:
        self._driver, self.address, self.nbytes = driver, address, nbytes

    def __del__(self) -> None:
        self._driver.release("cuMemFree", self.address)


class Stream:
    """A queue of work on the device. No method waits except `synchronize`."""

    def __init__(self, driver: Driver, handle: Any) -> None:
        self._driver, self._handle = driver, handle

    def __del__(self) -> None:
        self._driver.release("cuStreamDestroy", self._handle)

    def __int__(self) -> int:
        """Returns the handle, as other libraries take it."""
        return int(self._handle)

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Copies an array to the device; it may be changed only after `synchronize`."""
        assert array.flags.c_contiguous
        self._driver._call(
            "cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self._handle
        )

    def read(self, array: NDArray[Any], address: int) -> None:
        """Fills an array from the device; it is full after `synchronize`."""
        assert array.flags.c_contiguous
        self._driver._call(
            "cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self._handle
        )

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copies bytes from one address of the device to another."""
        self._driver._call("cuMemcpyDtoDAsync", target, source, nbytes, self._handle)

    def synchronize(self) -> None:
        """Waits until all that was queued is done."""
        self._driver._call("cuStreamSynchronize", self._handle)

    def capture(self, work: Callable[[], object]) -> Graph:
        """Returns what `work` queues on this stream as one graph; none of it runs."""
        mode = self._driver._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._driver._call("cuStreamBeginCapture", self._handle, mode)
        try:
            work()
        except BaseException:
            self._abandon_capture()
            raise
        return Graph(self._driver, self._driver._call("cuStreamEndCapture", self._handle))

    def _abandon_capture(self) -> None:
        """Ends a failed capture, so that work can be queued again; its own failures are ignored."""
        code, captured = self._driver._api.cuStreamEndCapture(self._handle)
        if code == self._driver._api.CUresult.CUDA_SUCCESS:
            self._driver.release("cuGraphDestroy", captured)

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Yields a function that returns the seconds between begin and end, on the device's clock.

        It must be called after `synchronize`.
        """
        begin, end = Event(self._driver), Event(self._driver)
        begin.record(self._handle)
        yield lambda: end.seconds_since(begin)
        end.record(self._handle)


class Event:
    """A point in a stream's work, with its time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handle = driver._call("cuEventCreate", driver._api.CUevent_flags.CU_EVENT_DEFAULT)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._driver.release("cuEventDestroy", self._handle)

    def record(self, stream: Any) -> None:
        """Queues the event on the stream of this handle."""
        self._driver._call("cuEventRecord", self._handle, stream)

    def seconds_since(self, earlier: Event) -> float:
        """Returns the seconds between two events that have happened."""
        return float(self._driver._call("cuEventElapsedTime", earlier._handle, self._handle)) / 1e3


class Graph:
    """A graph of captured work, run as often as wanted with one call."""

    def __init__(self, driver: Driver, captured: Any) -> None:
        self._driver = driver
        try:
            self._instance = driver._call("cuGraphInstantiate", captured, 0)
        finally:
            driver.release("cuGraphDestroy", captured)

    def __del__(self) -> None:
        if hasattr(self, "_instance"):
            self._driver.release("cuGraphExecDestroy", self._instance)

    def launch(self, stream: Stream) -> None:
        """Queues the whole graph."""
        self._driver._call("cuGraphLaunch", self._instance, stream._handle)
