"""Reads pickles of plain data and tensors without running any code.

A pickle is a program: it may call any global it names. Each of the few globals that plain data and
tensors need is answered by a stand-in from this module, and any other is refused by name.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.quiet import without_warnings

REMEDY = "do not load it with pickle: it may run code of its author's choosing"

NUMBERS = "biuf"  # the numpy dtypes admitted, by their `kind`: booleans, integers, floats

STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}


def load_data(data: bytes, *, name: str) -> Any:
    """Returns the object in a pickle of dicts, lists, tuples, texts, numbers, arrays and tensors.

    Arrays and torch tensors are returned as f64 arrays.

    Args:
        data: The content of the pickle.
        name: The file's name, for errors.

    Raises:
        DipgoError: The pickle asks for another global, which the error names, or is incomplete.
    """
    with _whole(name, "pickle", "a pickle of dicts, lists, tuples, texts, numbers and tensors"):
        return _Reader(io.BytesIO(data), name).load()


def load_checkpoint(data: bytes, *, name: str) -> Any:
    """Returns the object that `torch.save` wrote, if made of what `load_data` admits.

    Tensors are returned as f64 arrays. Command-line options saved along with them
    (`argparse.Namespace`) are dropped. No torch is needed.

    Args:
        data: The content of the file.
        name: The file's name, for errors.

    Raises:
        DipgoError: As `load_data` does.
    """
    with (
        _whole(name, "checkpoint", "a file that torch.save wrote"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
    ):
        (listing,) = (member for member in archive.namelist() if member.endswith("/data.pkl"))
        return _CheckpointReader(archive, listing, name).load()


@contextmanager
def _whole(name: str, format_name: str, expected: str) -> Iterator[None]:
    """Reports whatever reading raises for a damaged file in one line.

    Python names some of the exceptions that unpickling raises and says that there are others
    (documentation of `pickle.UnpicklingError`): the opcodes of a damaged pickle may do anything,
    and so may the archive around it.
    """
    try:
        yield
    except DipgoError:
        raise
    except Exception as error:
        raise DipgoError(
            name,
            found=f"something else than a whole {format_name} ({error or type(error).__name__})",
            expected=expected,
            remedy="the file may be cut short or of another kind: fetch it again",
        ) from None


class _Dtype:
    """A stand-in for numpy.dtype while a pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in NUMBERS:
            raise ValueError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A stand-in for numpy.ndarray, which is created empty and then filled."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _read_array(data, dtype, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype)


class _Reader(pickle.Unpickler):
    """An unpickler that answers admitted globals with bound methods: these hold no attributes."""

    def __init__(self, file: io.BytesIO, name: str) -> None:
        super().__init__(file)
        self._name = name
        self._stand_ins: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): self._empty,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("_codecs", "encode"): self._encode,
            ("numpy", "dtype"): self._dtype,
            ("numpy", "ndarray"): "numpy.ndarray",
        }
        for core in ("numpy.core", "numpy._core"):
            self._stand_ins[core + ".multiarray", "_reconstruct"] = self._array
            self._stand_ins[core + ".multiarray", "scalar"] = self._scalar
            self._stand_ins[core + ".numeric", "_frombuffer"] = self._buffer

    def find_class(self, module: str, name: str) -> Any:
        stand_in = self._stand_ins.get((module, name))
        if stand_in is None:
            raise DipgoError(
                self._name,
                found=f"a pickle that asks for {module}.{name}",
                expected="only dicts, lists, tuples, texts, numbers and tensors",
                remedy=REMEDY,
            )
        return stand_in

    def _empty(self) -> dict[Any, Any]:
        """Returns an empty dictionary, the hooks of a pickled tensor."""
        return {}

    def _encode(self, text: str, codec: str) -> bytes:
        """Returns bytes as pickles of protocol 2 and below hold them."""
        if codec != "latin1":
            raise ValueError(f"bytes as {codec}")
        return text.encode("latin1")

    def _dtype(self, code: str, *_: bool) -> _Dtype:
        return _Dtype(code)

    def _array(self, *_: Any) -> _Array:
        return _Array()

    def _scalar(self, dtype: _Dtype, data: bytes) -> float:
        return float(_read_array(data, dtype, (), "C"))

    def _buffer(self, data: Any, dtype: _Dtype, shape: Any, order: str) -> NDArray[np.float64]:
        return _read_array(data, dtype, shape, order)

    def _storage(self, data: bytes) -> NDArray[np.float64]:
        return _read_storage(data)

    def _tensor(
        self, storage: NDArray[np.float64], offset: int, size: Any, stride: Any, *_: Any
    ) -> NDArray[np.float64]:
        return _stride(storage, offset, tuple(size), tuple(stride))


class _Attributeless(dict[Any, Any]):
    """A dictionary that ignores the attributes a pickle sets."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        return


class _CheckpointReader(_Reader):
    """A reader that takes the numbers of tensors from the archive around the pickle."""

    def __init__(self, archive: zipfile.ZipFile, listing: str, name: str) -> None:
        super().__init__(io.BytesIO(archive.read(listing)), name)
        self._archive, self._folder = archive, listing.removesuffix("data.pkl")
        self._stand_ins["argparse", "Namespace"] = _Attributeless
        self._stand_ins["collections", "OrderedDict"] = _Attributeless
        for storage, dtype in STORAGES.items():
            self._stand_ins["torch", storage] = dtype

    def persistent_load(self, pid: Any) -> NDArray[np.float64]:
        """Returns f64[n], the storage that a pickle names as ("storage", type, key, device, n)."""
        _, dtype, key, _, _ = pid
        numbers = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype=dtype)
        return numbers.astype(np.float64)


def _read_array(data: Any, dtype: _Dtype, shape: Any, order: Any) -> NDArray[np.float64]:
    """Returns f64[shape] from raw bytes of `dtype`."""
    flat = np.frombuffer(data, dtype=dtype.dtype).astype(np.float64)
    return flat.reshape(shape, order=order)


def _read_storage(data: bytes) -> NDArray[np.float64]:
    """Returns the numbers of a pickled torch storage, f64[n], read by torch's own safe reader."""
    try:
        import torch
    except ImportError:
        raise DipgoError(
            "gate pickle",
            found="torch tensors, and no torch to read them with",
            expected="an environment with torch",
            remedy="pip install torch, or import the pickle elsewhere and copy the SubNet",
        ) from None
    with without_warnings():  # torch deprecates the storages it still pickles
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return np.array(storage.tolist(), dtype=np.float64)


def _stride(
    storage: NDArray[np.float64], offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> NDArray[np.float64]:
    """Returns f64[size]; each element is looked up in the storage, so none lies outside it."""
    if math.prod(size) > max(storage.size, 2):
        raise ValueError("a tensor larger than its storage")
    index = np.array(offset)
    for count, step in zip(size, stride, strict=True):
        index = np.add.outer(index, np.arange(count) * step)
    if index.size and index.min() < 0:
        raise ValueError("a tensor that begins before its storage")
    elements: NDArray[np.float64] = storage[index]
    return elements
