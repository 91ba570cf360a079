"""Reads pickles of plain data and tensors without running any code.

A pickle is a program: it may call any global it names. Each of the few globals that plain data and
tensors need is answered by a stand-in from this module, and any other is refused by name. What is
built is bounded in size.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from dipgo.common.archives import members, open_archive, read_member
from dipgo.common.errors import DipgoError
from dipgo.common.pickle_machine import Machine
from dipgo.common.pickled_arrays import (
    STORAGES,
    Dtype,
    empty_array,
    from_buffer,
    scalar,
    storage_numbers,
    strided,
)

REMEDY = "do not load it with pickle: it may run code of its author's choosing"

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What a storage that was pickled on its own begins with. Source: torch/serialization.py."""


def load_data(data: bytes, *, name: str) -> Any:
    """Returns the object in a pickle of dicts, lists, tuples, texts, numbers, arrays and tensors.

    Arrays and torch tensors are returned as f64 arrays. No torch is needed.

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
        open_archive(io.BytesIO(data)) as archive,
    ):
        infos = {info.filename: info for info in members(archive, most=len(data), stored=True)}
        (listing,) = (member for member in infos if member.endswith("/data.pkl"))
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


class _Attributeless(dict[Any, Any]):
    """A dictionary that ignores the attributes a pickle sets."""

    __slots__ = ()

    def set_state(self, state: object) -> None:
        """Drops them."""


class _Reader:
    """A reader that answers admitted globals with functions of this module."""

    def __init__(self, file: io.BytesIO, name: str) -> None:
        self._name = name
        self._machine = Machine(file, self._find, self._persistent)
        self._stand_ins: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Attributeless,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("_codecs", "encode"): _encode,
            ("numpy", "dtype"): Dtype,
            ("numpy", "ndarray"): "numpy.ndarray",
        }
        for core in ("numpy.core", "numpy._core"):
            self._stand_ins[core + ".multiarray", "_reconstruct"] = empty_array
            self._stand_ins[core + ".multiarray", "scalar"] = scalar
            self._stand_ins[core + ".numeric", "_frombuffer"] = from_buffer

    def load(self) -> Any:
        """Returns the object."""
        return self._machine.load()

    def _find(self, module: str, name: str) -> Any:
        stand_in = self._stand_ins.get((module, name))
        if stand_in is None:
            raise DipgoError(
                self._name,
                found=f"a pickle that asks for {module}.{name}",
                expected="only dicts, lists, tuples, texts, numbers and tensors",
                remedy=REMEDY,
            )
        return stand_in

    def _persistent(self, pid: Any) -> Any:
        raise ValueError("an object outside the pickle")

    def _storage(self, data: bytes) -> NDArray[np.float64]:
        return _StorageReader(data, self._name).load()

    def _tensor(
        self, storage: NDArray[np.float64], offset: int, size: Any, stride: Any, *_: Any
    ) -> NDArray[np.float64]:
        return strided(storage, offset, tuple(size), tuple(stride))


class _CheckpointReader(_Reader):
    """A reader that takes the numbers of tensors from the archive around the pickle."""

    def __init__(self, archive: ZipFile, listing: str, name: str) -> None:
        super().__init__(io.BytesIO(read_member(archive, archive.getinfo(listing))), name)
        self._archive, self._folder = archive, listing.removesuffix("data.pkl")
        self._stand_ins["argparse", "Namespace"] = _Attributeless
        for storage, dtype in STORAGES.items():
            self._stand_ins["torch", storage] = dtype

    def _persistent(self, pid: Any) -> NDArray[np.float64]:
        """Returns f64[n], the storage that a pickle names as ("storage", type, key, device, n)."""
        _, dtype, key, _, _ = pid
        info = self._archive.getinfo(f"{self._folder}data/{key}")
        return storage_numbers(read_member(self._archive, info), dtype)


class _StorageReader:
    """Reads a storage that torch has pickled on its own.

    These are five pickles, of which the fourth names the storage and the fifth has its key, and
    then its length and numbers. Source: `_legacy_save` in torch/serialization.py.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._file, self._name = io.BytesIO(data), name
        self._dtype = ""

    def load(self) -> NDArray[np.float64]:
        """Returns its numbers, f64[n].

        Raises:
            ValueError: They are not all there.
        """
        magic, protocol, _, _, keys = (self._next() for _ in range(5))
        if (magic, protocol) != (MAGIC, PROTOCOL) or len(keys) != 1 or not self._dtype:
            raise ValueError("a storage of another form")
        count = int.from_bytes(self._file.read(8), "little")
        numbers = storage_numbers(self._file.read(), self._dtype)
        if len(numbers) != count:
            raise ValueError("a storage of another length than it says")
        return numbers

    def _next(self) -> Any:
        return Machine(self._file, self._find, self._persistent).load()

    def _find(self, module: str, name: str) -> str:
        if module != "torch" or name not in STORAGES:
            raise DipgoError(
                self._name,
                found=f"a tensor that asks for {module}.{name}",
                expected=f"one of {' '.join(STORAGES)}",
                remedy=REMEDY,
            )
        return STORAGES[name]

    def _persistent(self, pid: Any) -> None:
        _, self._dtype, *_ = pid


def _encode(text: str, codec: str) -> bytes:
    """Returns bytes as pickles of protocol 2 and below hold them."""
    if codec != "latin1":
        raise ValueError(f"bytes as {codec}")
    return text.encode("latin1")
