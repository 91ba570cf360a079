"""Reads off the files of a saved pipeline how diffusers is to be asked to load it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.common.regular_files import MOST_BYTES, check_file
from dipgo.common.typed_json import decode_json, read_file

INDEX = "model_index.json"

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>[^.]+?))?(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin)"
)
"""Weights as diffusers and transformers call them, whole or one of several files."""


REMEDY = "save the pipeline with diffusers' save_pretrained, or give the loaded object in Python"

LIBRARIES = ("diffusers", "transformers")

_OTHERS_CODE = re.compile(r".*Pipeline|AutoModel|AutoPipeline.*")
"""Classes that may load code, or other pipelines."""


def check_pipeline_files(path: Path) -> None:
    """Checks that a saved pipeline is data: diffusers would import the modules that it names.

    Raises:
        DipgoError: Its index cannot be read or names code besides that of diffusers and
            transformers, or something in it is neither a folder nor a file.
    """
    for file in (*path.glob("*"), *path.glob("*/*")):
        if not file.is_dir():
            most = MOST_BYTES if file.suffix == ".json" else None
            expected = "a file of a saved pipeline"
            check_file(file, expected=expected, most=most, may_be_empty=True)
    index = _read_index(path)
    if not isinstance(index.get("_class_name", ""), str):
        raise _own_code(path, f"the pipeline {json.dumps(index['_class_name']):.80}")
    for name, value in index.items():
        if isinstance(value, list) and value != [None, None] and not _is_data(value):
            raise _own_code(path, f"{name:.80} of {json.dumps(value):.80}")


def _read_index(path: Path) -> dict[str, Any]:
    data = read_file(path / INDEX, expected="the index of a saved pipeline")
    return decode_json(data, dict[str, Any], name=str(path / INDEX), remedy=REMEDY)


def _is_data(value: list[Any]) -> bool:
    """Returns whether an entry names a class of diffusers or transformers, or no class at all."""
    if not any(isinstance(part, str) for part in value):
        return True
    match value:
        case ["transformers", str(name)]:
            return name.isidentifier() and not name.startswith("Auto")
        case ["diffusers", str(name)]:
            return name.isidentifier() and not _OTHERS_CODE.fullmatch(name)
        case [str(library), str(name)]:
            return _is_pipeline_package(library) and not _OTHERS_CODE.fullmatch(name)
    return False


def _is_pipeline_package(name: str) -> bool:
    """Returns whether it is a folder of diffusers' pipelines, such as the safety checker's."""
    from diffusers import pipelines

    module = getattr(pipelines, name, None) if name.isidentifier() else None
    return (
        isinstance(module, ModuleType)
        and module.__name__ == f"{pipelines.__name__}.{name}"
        and hasattr(module, "__path__")
    )


def _own_code(path: Path, found: str) -> DipgoError:
    return DipgoError(
        str(path / INDEX),
        found=found,
        expected=f"classes of {' and '.join(LIBRARIES)}: no code of a model's own is run",
        remedy="load the pipeline yourself if you trust its code, and give the object in Python",
    )


def absent_parts(path: Path) -> dict[str, None]:
    """Returns the parts that the pipeline was saved without, such as T5, each as None.

    diffusers loads such a pipeline only if each of them is passed as None.
    """
    return {name: None for name, classes in _read_index(path).items() if classes == [None, None]}


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
