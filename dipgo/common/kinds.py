"""Recognises what a path leads to where another kind of file or directory was meant."""

from __future__ import annotations

import shlex
from pathlib import Path

from dipgo.common.errors import DipgoError, setting

EXPORT, PIPELINE, SUBNET = "an export directory", "a diffusers pipeline", "a SubNet file"

FORMATS = {EXPORT: "dipgo.export", SUBNET: "dipgo.subnet"}
"""What the files of dipgo's formats say that they are, near their beginning."""

FILES = {EXPORT: "plan.json", PIPELINE: "model_index.json"}
"""The file by which a directory is known."""

HEAD = 1000
"""Bytes of a file in which its format is looked for."""

REMEDIES = {
    (EXPORT, PIPELINE): "export it first: "
    "python -m dipgo.export --model {path} --subnet dense --steps 50 --out OUT",
    (EXPORT, SUBNET): "export it first: python -m dipgo.export --model M --subnet {path} --out OUT",
    (SUBNET, EXPORT): "its gates are fixed: python -m dipgo.inspect {path} shows them; give the "
    "SubNet that it was made of",
    (SUBNET, PIPELINE): f"give it as {setting('model')}, and a SubNet file or dense as "
    f"{setting('subnet')}",
    (PIPELINE, EXPORT): "give the pipeline that it was made of; python -m dipgo.inspect {path} "
    "says which",
    (PIPELINE, SUBNET): f"give it as {setting('subnet')}, and its pipeline as {setting('model')}",
}
"""What to do, by the kind that is wanted and the kind that was found."""


def kind_of(path: Path) -> str:
    """Returns the kind of what is at a path, or "" for what dipgo does not know."""
    try:
        if path.is_dir():
            return next((kind for kind, name in FILES.items() if (path / name).is_file()), "")
        if path.is_file():
            return SUBNET if _says(path, SUBNET) else ""
    except (OSError, ValueError):  # not readable, or a name that no file can have
        pass
    return ""


def _says(path: Path, kind: str) -> bool:
    """Returns whether a file says near its beginning that it is of a kind."""
    with path.open("rb") as file:
        return f'"{FORMATS[kind]}"'.encode() in file.read(HEAD)


def check_kind(path: Path, wanted: str) -> None:
    """Refuses what is of another kind than the one that is wanted, and says where it belongs.

    What is of no known kind passes: reading it says what is wrong.

    Raises:
        DipgoError: The path leads to another kind.
    """
    if path.name.startswith("plan") and path.is_file() and _says(path, EXPORT):
        folder = shlex.quote(str(path.parent))
        raise DipgoError(
            str(path),
            found=f"the manifest of {EXPORT}",
            expected=wanted,
            remedy=f"give the directory: {folder}" if wanted == EXPORT else "give another file",
        )
    found = kind_of(path)
    if found in ("", wanted):
        return
    raise DipgoError(
        str(path),
        found=found,
        expected=wanted,
        remedy=REMEDIES[wanted, found].format(path=shlex.quote(str(path))),
    )
