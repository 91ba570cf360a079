"""Files of an evaluation's cache: whatever happens to one, it is refused or the result as it was.

By the code of 3bfeb0e: files that were cut or of another variant ended in tracebacks or were
taken, and so was a number of which a bit had flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dipgo.common.errors import DipgoError
from dipgo.evaluate.cache import (
    Drawn,
    PlanFacts,
    Times,
    read_drawn,
    read_times,
    write_drawn,
    write_times,
)
from scripts.fuzz.mutants import (
    Mutant,
    damage_bytes,
    damage_json,
    every_cut,
    every_flip,
    every_zeroed_page,
)

FACTS = PlanFacts("DDIMScheduler", 3, 10**9, 10**8, 0.5, 0.25)
TIMES = Times((0.5, 0.25, 1.0), (1.5, 1.25, 2.0))


def drawn(seed: int) -> Drawn:
    random = np.random.default_rng(seed)
    latents = random.standard_normal((3, 4, 6, 6), np.float32)
    return Drawn(latents, random.integers(0, 256, (3, 24, 24, 3), np.uint8), FACTS)


def same(one: Drawn, other: Drawn) -> bool:
    arrays = ((one.latents, other.latents), (one.pictures, other.pictures))
    return one.plan == other.plan and all(
        first.dtype == second.dtype and np.array_equal(first, second) for first, second in arrays
    )


def mutants(data: bytes) -> Iterator[Mutant]:
    pages = every_zeroed_page(data, 200, page=64)
    return chain(every_cut(data, 300), every_flip(data, 1000), pages, damage_bytes(data, 300))


def wrong(
    path: Path, changes: Iterator[Mutant], read: Callable[[Path], Any], whole: Any
) -> list[str]:
    """The changes after which another result is read, or something else than a line raised."""
    names = []
    for mutant in changes:
        path.write_bytes(mutant.data)
        try:
            result = read(path)
        except DipgoError:
            continue
        equal = same(result, whole) if isinstance(whole, Drawn) else result == whole
        if not equal:
            names.append(mutant.name)
    return names


@pytest.mark.slow
def test_any_damage_to_pictures(tmp_path: Path) -> None:
    path, whole = tmp_path / "key.npz", drawn(0)
    write_drawn(path, whole)
    assert same(read_drawn(path), whole)
    assert not wrong(path, mutants(path.read_bytes()), read_drawn, whole)


def test_any_damage_to_times(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_times(path, TIMES)
    assert read_times(path) == TIMES
    data = path.read_bytes()
    document: Any = {
        "times": {"runs": [*TIMES.runs], "dense_runs": [*TIMES.dense_runs]},
        "sha256": data[-67:-3].decode(),
    }
    changes = chain(mutants(data), damage_json(document, 300))
    assert not wrong(path, changes, read_times, TIMES)


@pytest.mark.parametrize("ending", ["npz", "json"])
def test_another_ones_file(ending: str, tmp_path: Path) -> None:
    """A result is read under the name alone that it was written for."""
    for name, seed in (("one", 1), ("other", 2)):
        write_drawn(tmp_path / f"{name}.npz", drawn(seed))
        write_times(tmp_path / f"{name}.json", Times((float(seed),), (1.0,)))
    (tmp_path / f"other.{ending}").replace(tmp_path / f"one.{ending}")
    read: Any = read_drawn if ending == "npz" else read_times
    with pytest.raises(DipgoError, match=r"a damaged file \(another hash than that in it\)"):
        read(tmp_path / f"one.{ending}")


def test_a_file_of_an_earlier_form(tmp_path: Path) -> None:
    whole = drawn(0)
    np.savez_compressed(tmp_path / "a.npz", latents=whole.latents, pictures=whole.pictures)
    (tmp_path / "a.json").write_text('{"runs": [1.0], "dense_runs": [1.0]}')
    with pytest.raises(DipgoError, match="a damaged file"):
        read_drawn(tmp_path / "a.npz")
    with pytest.raises(DipgoError, match="no field"):
        read_times(tmp_path / "a.json")


def test_arrays_of_other_shapes(tmp_path: Path) -> None:
    whole = drawn(0)
    write_drawn(tmp_path / "a.npz", Drawn(whole.latents[:2], whole.pictures, FACTS))
    with pytest.raises(DipgoError, match="arrays of other shapes"):
        read_drawn(tmp_path / "a.npz")


def test_pictures_of_another_number(tmp_path: Path) -> None:
    write_drawn(tmp_path / "a.npz", drawn(0))
    assert same(read_drawn(tmp_path / "a.npz", 3), drawn(0))
    with pytest.raises(DipgoError, match="arrays of other shapes"):
        read_drawn(tmp_path / "a.npz", 4)
