"""Cache: results that are kept from run to run, each in a file that appears in one step."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.leftovers import remove_leftovers
from dipgo.common.locks import only_one
from dipgo.common.staged import not_writable, staged_file
from dipgo.common.typed_json import decode_json, read_file, write_text

REMEDY = "remove the file: it will be made again"


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


@dataclass(frozen=True, slots=True)
class Drawn:
    """Latents f32[N, C, h, w] and pictures u8[N, H, W, 3] of N pairs, and the plan's facts."""

    latents: NDArray[np.float32]
    pictures: NDArray[np.uint8]
    plan: PlanFacts


def write_drawn(path: Path, drawn: Drawn) -> None:
    """Writes a .npz file, with the facts as JSON in an array of bytes."""
    facts = np.frombuffer(msgspec.json.encode(drawn.plan), np.uint8)
    with staged_file(path) as staging:
        np.savez_compressed(staging, latents=drawn.latents, pictures=drawn.pictures, plan=facts)


def read_drawn(path: Path) -> Drawn:
    """Reads a file of `write_drawn`.

    Raises:
        DipgoError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, pictures, facts = (arrays[name] for name in ("latents", "pictures", "plan"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DipgoError(
            str(path),
            found=f"a damaged file ({type(error).__name__})",
            expected="latents and pictures of an earlier run",
            remedy=REMEDY,
        ) from None
    plan = decode_json(facts.tobytes(), PlanFacts, name=str(path), remedy=REMEDY)
    return Drawn(latents, pictures, plan)


def write_times(path: Path, times: Times) -> None:
    """Writes times as JSON."""
    write_text(path, msgspec.json.encode(times).decode() + "\n")


def read_times(path: Path) -> Times:
    """Reads a file of `write_times`.

    Raises:
        DipgoError: The file is damaged.
    """
    data = read_file(path, expected="times of an earlier run")
    return decode_json(data, Times, name=str(path), remedy=REMEDY)
