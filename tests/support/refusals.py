"""Bad input of the commands: a good SubNet, ways to damage files, and the message's form."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dipgo.ir.manifest.records import MANIFEST_FILE

BLOCKS = [*(f"down_blocks.{i}" for i in range(4)), "mid_block"]

SUBNET: dict[str, Any] = {
    "format": "dipgo.subnet",
    "version": 1,
    "model": {"class": "UNet2DConditionModel"},
    "scheduler": {"class": "EulerDiscreteScheduler"},
    "num_inference_steps": 3,
    "timesteps": [667, 334, 1],
    "blocks": BLOCKS,
    "gates": ["11111", "00000", "10110"],
}

PROMPT = ["--prompt", "a red circle"]

Refused = Callable[..., None]
"""Takes a command's `main`, its arguments, and fragments of the message in order: of where, of
what was found, of what follows it."""


def check_message(stderr: str, fragments: tuple[str, ...]) -> None:
    """Checks that the last line is the error, with the fragments in their places."""
    *stages, message = stderr.splitlines()
    assert message.startswith("error: ")
    assert not [line for line in stages if "rror" in line or "arning" in line or "usage" in line]
    rest = message
    for fragment in (*fragments[:1], ": found ", *fragments[1:2], "; expected ", *fragments[2:]):
        assert fragment in rest, f"{fragment!r} is not in its place in {message!r}"
        rest = rest[rest.index(fragment) + len(fragment) :]


def file_tree(folder: Path) -> dict[Path, bytes | None]:
    """Every file below, hidden ones too, with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    """Python ignores the signal, so that a write beyond the limit fails as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def edit_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage to the manifest."""

    def damage(path: Path) -> None:
        manifest = json.loads((path / MANIFEST_FILE).read_text())
        change(manifest)
        (path / MANIFEST_FILE).write_text(json.dumps(manifest))

    return damage


def truncate(name: str, nbytes: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, nbytes)


def flip_a_byte(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    return damage
