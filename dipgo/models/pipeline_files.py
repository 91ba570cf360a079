"""Reads off the files of a saved pipeline how diffusers is to be asked to load it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dipgo.common.errors import DipgoError

INDEX = "model_index.json"

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>[^.]+?))?(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin)"
)
"""Weights as diffusers and transformers call them, whole or one of several files."""


def absent_parts(path: Path) -> dict[str, None]:
    """Returns the parts that the pipeline was saved without, such as T5, each as None.

    diffusers loads such a pipeline only if each of them is passed as None.
    """
    try:
        index = json.loads((path / INDEX).read_bytes())
        return {name: None for name, classes in index.items() if classes == [None, None]}
    except (ValueError, AttributeError):
        return {}  # diffusers reports what is wrong with the file


def files_of(path: Path) -> list[str]:
    """Returns the paths of a saved pipeline's files within its directory, with `/`."""
    return [file.relative_to(path).as_posix() for file in path.glob("*/*")]


def find_variant(name: str, files: Iterable[str]) -> str | None:
    """Returns the variant to load, None for the weights without one.

    It is a variant only where a part has no other weights: `save_pretrained(variant="fp16")`
    writes such directories.

    Args:
        name: The model's name, for errors.
        files: Paths of the files within the pipeline, with `/`.

    Raises:
        DipgoError: No one variant has the weights of all such parts.
    """
    by_part: dict[str, set[str | None]] = defaultdict(set)
    for file in map(PurePosixPath, files):
        weights = _WEIGHTS.fullmatch(file.name)
        if weights and len(file.parts) == 2:
            by_part[file.parts[0]].add(weights["variant"])
    without = {part: variants for part, variants in by_part.items() if None not in variants}
    if not without:
        return None
    common = set.intersection(*without.values())
    if len(common) == 1:
        return common.pop()
    raise DipgoError(
        f"model {name}",
        found="weights of variants only: "
        + ", ".join(f"{part} {' '.join(sorted(map(str, of)))}" for part, of in without.items()),
        expected="weights without a variant, or one variant that all these parts have",
        remedy="load the pipeline with diffusers, and give the object in Python",
    )
