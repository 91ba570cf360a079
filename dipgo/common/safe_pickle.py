"""A reader of pickles that can build plain data and tensors, and cannot run code.

A pickle is a program: it may call any global it names. Here each of the few globals that plain
data and tensors need is answered by a stand-in of ours, and any other is refused by name.
"""

import io
import math
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError

REMEDY = "do not load it with pickle: it may run code of its author's choosing"

NUMBERS = "biuf"  # the kinds of numpy dtype admitted: truth values, integers, floats

STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}


def load_data(data: bytes, *, name: str) -> Any:
    """The object in a pickle of dicts, lists, tuples, texts, numbers, arrays and torch tensors.

    Arrays and tensors come back as f64 arrays. Raises DipgoError, naming the global, where the
    pickle asks for anything else, and where it is not a whole pickle.
    """
    with _whole(name, "pickle", "a pickle of dicts, lists, tuples, texts, numbers and tensors"):
        return _Reader(io.BytesIO(data), name).load()


def load_checkpoint(data: bytes, *, name: str) -> Any:
    """The object that `torch.save` wrote, of what `load_data` admits; tensors as f64 arrays.

    Command-line options saved beside it (`argparse.Namespace`) are dropped. No torch is needed.
    Raises DipgoError as `load_data` does.
    """
    with (
        _whole(name, "checkpoint", "a file that torch.save wrote"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
    ):
        (listing,) = (one for one in archive.namelist() if one.endswith("/data.pkl"))
        return _CheckpointReader(archive, listing, name).load()


@contextmanager
def _whole(name: str, kind: str, expected: str) -> Iterator[None]:
    """Whatever reading meets in a damaged file becomes one line.

    Python names some of the exceptions that unpickling raises and says that there are others
    (documentation of `pickle.UnpicklingError`): what the opcodes of a damaged pickle do is anyone's
    guess, and it is the same with the archive around it.
    """
    try:
        yield
    except DipgoError:
        raise
    except Exception as error:
        raise DipgoError(
            name,
            found=f"something else than a whole {kind} ({error or type(error).__name__})",
            expected=expected,
            remedy="the file may be cut short or of another kind: fetch it again",
        ) from None


class _Dtype:
    """Stands in for numpy.dtype while a pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in NUMBERS:
            raise ValueError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for numpy.ndarray: created empty, then given its contents."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _read_array(data, dtype, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype)


class _Reader(pickle.Unpickler):
    """Answers the admitted globals with bound methods, to which a pickle can attach nothing."""

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
        """The hooks of a pickled tensor: an empty dictionary."""
        return {}

    def _encode(self, text: str, codec: str) -> bytes:
        """How pickles of protocol 2 and below hold bytes."""
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
    """A dictionary that takes what attributes a pickle gives it, and keeps none."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        return


class _CheckpointReader(_Reader):
    """Finds the numbers of tensors in the archive that the pickle lies in."""

    def __init__(self, archive: zipfile.ZipFile, listing: str, name: str) -> None:
        super().__init__(io.BytesIO(archive.read(listing)), name)
        self._archive, self._folder = archive, listing.removesuffix("data.pkl")
        self._stand_ins["argparse", "Namespace"] = _Attributeless
        self._stand_ins["collections", "OrderedDict"] = _Attributeless
        for storage, dtype in STORAGES.items():
            self._stand_ins["torch", storage] = dtype

    def persistent_load(self, pid: Any) -> NDArray[np.float64]:
        """f64[n] of what a pickle calls ("storage", type, key, device, n)."""
        _, dtype, key, _, _ = pid
        numbers = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype=dtype)
        return numbers.astype(np.float64)


def _read_array(data: Any, dtype: _Dtype, shape: Any, order: Any) -> NDArray[np.float64]:
    """f64[shape] from raw bytes of `dtype`."""
    flat = np.frombuffer(data, dtype=dtype.dtype).astype(np.float64)
    return flat.reshape(shape, order=order)


def _read_storage(data: bytes) -> NDArray[np.float64]:
    """The numbers of a pickled torch storage, through torch's own safe reader; f64[n]."""
    try:
        import torch
    except ImportError:
        raise DipgoError(
            "gate pickle",
            found="torch tensors, and no torch to read them with",
            expected="an environment with torch",
            remedy="pip install torch, or import the pickle elsewhere and copy the SubNet",
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the storages it still pickles
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return np.array(storage.tolist(), dtype=np.float64)


def _stride(
    storage: NDArray[np.float64], offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> NDArray[np.float64]:
    """f64[size], each element looked up in the storage, and so within its bounds."""
    if math.prod(size) > max(storage.size, 2):
        raise ValueError("a tensor larger than its storage")
    index = np.array(offset)
    for count, step in zip(size, stride, strict=True):
        index = np.add.outer(index, np.arange(count) * step)
    if index.size and index.min() < 0:
        raise ValueError("a tensor that begins before its storage")
    elements: NDArray[np.float64] = storage[index]
    return elements
