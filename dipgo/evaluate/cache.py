"""Cache: results that are kept from run to run, each in a file that appears in one step.

A file holds a hash of its results and of its own name, which is a key of all that they depend on:
a damaged file, or another's, is told from a whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dipgo.common.arrays import read_arrays
from dipgo.common.errors import DipgoError
from dipgo.common.leftovers import remove_leftovers
from dipgo.common.locks import only_one
from dipgo.common.regular_files import open_file
from dipgo.common.staged import not_writable, staged_file
from dipgo.common.typed_json import decode_json, read_file, write_text

REMEDY = "remove the file: it will be made again"

SHA256 = "sha256"

PICTURE_AXES, CHANNELS = 4, 3


LOCK_FILE = ".lock"


@contextmanager
def only_evaluation(folder: Path) -> Iterator[None]:
    """Makes the folder, and has no other process evaluate there meanwhile.

    Two in one folder would remove each other's exports. What an evaluation that was killed has left
    is removed.

    Raises:
        DipgoError: Another evaluation is going on there, or nothing can be written there.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(only_one(folder / LOCK_FILE, folder, "an evaluation"))
        except OSError as error:
            raise not_writable(folder, "a folder that cannot be used", error) from None
        remove_leftovers(folder)
        yield


class PlanFacts(msgspec.Struct, frozen=True):
    """Facts about a variant's plan, for a batch; `kept` is relative to the plan's own dense one."""

    scheduler: str
    evaluations: int
    macs: int
    attention_macs: int
    kept: float
    kept_with_attention: float


class Times(msgspec.Struct, frozen=True):
    """Seconds of every run of a variant's engines and of dense's, which were interleaved."""

    runs: tuple[float, ...]
    dense_runs: tuple[float, ...]


class _TimesFile(msgspec.Struct, frozen=True):
    """The content of a file of times."""

    times: Times
    sha256: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """Latents f32[N, C, h, w] and pictures u8[N, H, W, 3] of N pairs, and the plan's facts."""

    latents: NDArray[np.float32]
    pictures: NDArray[np.uint8]
    plan: PlanFacts


def write_drawn(path: Path, drawn: Drawn) -> None:
    """Writes a .npz file, with the facts as JSON in an array of bytes."""
    facts = np.frombuffer(msgspec.json.encode(drawn.plan), np.uint8)
    arrays: dict[str, Any] = {"latents": drawn.latents, "pictures": drawn.pictures, "plan": facts}
    arrays[SHA256] = np.frombuffer(_digest_of_arrays(path, arrays), np.uint8)
    with staged_file(path) as staging:
        np.savez(staging, **arrays)


def read_drawn(path: Path, pairs: int | None = None) -> Drawn:
    """Reads a file of `write_drawn`.

    Args:
        path: The file.
        pairs: The number of pairs that it must be of, if that is known.

    Raises:
        DipgoError: The file is damaged, or another's.
    """
    expected = "latents and pictures of an earlier run"
    with open_file(path, expected=expected, most=None) as file:
        try:  # what is not compressed holds no more than the file
            arrays = read_arrays(file, most=path.stat().st_size, stored=True)
            digest = arrays.pop(SHA256).tobytes()
            drawn = [arrays[name] for name in ("latents", "pictures", "plan")]
        except Exception as error:  # of whatever class, by where numpy meets the damage
            raise _damaged(path, type(error).__name__, expected) from None
    if _digest_of_arrays(path, arrays) != digest:
        raise _damaged(path, "another hash than that in it", expected)
    latents, pictures, facts = drawn
    if not _are_drawn(latents, pictures) or pairs not in (None, len(latents)):
        raise _damaged(path, "arrays of other shapes or types", expected)
    plan = decode_json(facts.tobytes(), PlanFacts, name=str(path), remedy=REMEDY)
    return Drawn(latents, pictures, plan)


def _are_drawn(latents: NDArray[np.generic], pictures: NDArray[np.generic]) -> bool:
    """Returns whether they are latents f32[N, C, h, w] and pictures u8[N, H, W, 3]."""
    return (
        latents.dtype == np.float32
        and pictures.dtype == np.uint8
        and latents.ndim == pictures.ndim == PICTURE_AXES
        and pictures.shape[-1] == CHANNELS
        and 0 < len(latents) == len(pictures)
    )


def write_times(path: Path, times: Times) -> None:
    """Writes times as JSON."""
    content = msgspec.json.encode(_TimesFile(times, _digest_of_times(path, times)))
    write_text(path, content.decode() + "\n")


def read_times(path: Path) -> Times:
    """Reads a file of `write_times`.

    Raises:
        DipgoError: The file is damaged, or another's.
    """
    expected = "times of an earlier run"
    data = read_file(path, expected=expected)
    content = decode_json(data, _TimesFile, name=str(path), remedy=REMEDY)
    if _digest_of_times(path, content.times) != content.sha256:
        raise _damaged(path, "another hash than that in it", expected)
    return content.times


def _digest_of_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Returns the sha256 of a file's name, and of names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256(path.name.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _digest_of_times(path: Path, times: Times) -> str:
    return hashlib.sha256(path.name.encode() + msgspec.json.encode(times)).hexdigest()


def _damaged(path: Path, problem: str, expected: str) -> DipgoError:
    return DipgoError(
        str(path), found=f"a damaged file ({problem})", expected=expected, remedy=REMEDY
    )
