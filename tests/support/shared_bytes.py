"""An export from a store of the tests has the bytes of one that shares nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from dipgo.export import export


class Store(Protocol):
    """`LowerOnce` or `TraceOnce`."""

    anew: bool


def check_shared_bytes(
    store: Store, pipeline: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports what the store may have, what it has, and what it is not asked for."""
    outs = []
    for anew in (False, False, True):
        monkeypatch.setattr(store, "anew", anew)
        outs.append(export(pipeline, "dense", folder / str(len(outs)), steps=1))
    stored, shared, made_anew = (
        {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} for out in outs
    )
    assert stored == shared == made_anew
