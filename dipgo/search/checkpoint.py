"""Checkpoints of a search: all that it takes to go on to the identical result, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.common.files import not_writable, staged_file

FORMAT = "dipgo.search-checkpoint"

VERSION = "2"
"""Of what the stages store: one of another state of the search is refused before it is read."""

REMEDY = "give the options that it was made with, or remove the file to begin anew"


@dataclass(frozen=True)
class Checkpoint:
    """`iteration` is the next to do; `identity` says what was searched, and with what."""

    iteration: int
    identity: Mapping[str, Any]
    tensors: dict[str, Tensor]


def training_state(parameters: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters and the optimiser's moments, by name; `restore` puts them back."""
    tensors = {f"parameter.{name}": one for name, one in parameters.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, one in state.items():
            if one is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(one)
    return tensors


def save_checkpoint(
    path: Path, iteration: int, identity: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Written beside `path` and renamed: there is always a whole checkpoint. Raises DipgoError."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "iteration": str(iteration),
        "identity": json.dumps(dict(identity)),
    }
    copies = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    try:
        with staged_file(path) as staging:
            save_file(copies, staging, metadata=header)
    except SafetensorError as error:  # which it makes of errors of the disk
        raise not_writable(path, "a place that cannot be written", error) from None


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint at `path`, None where there is no file.

    Raises DipgoError for a file that is none, and for one of another search.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _not_one(path, str(error)) from None
    if header.get("format") != FORMAT:
        raise _not_one(path, "another safetensors file")
    if header.get("version") != VERSION:
        raise _other_version(path, header.get("version", "1"))
    found = json.loads(header["identity"])
    _check_same(path, found, json.loads(json.dumps(dict(identity))))
    return Checkpoint(int(header["iteration"]), found, tensors)


def restore(
    checkpoint: Checkpoint, parameters: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts parameters and the optimiser's moments back."""
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "parameter":
            weights[rest] = tensor
        else:
            index, _, key = rest.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
    parameters.load_state_dict(weights)
    state = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})


def _not_one(path: Path, found: str) -> DipgoError:
    return DipgoError(
        str(path),
        found=f"no checkpoint of a search ({found})",
        expected="a file that a search wrote",
        remedy=f"remove it, or name another with {setting('checkpoint')}",
    )


def _other_version(path: Path, found: str) -> DipgoError:
    return DipgoError(
        f"{path}, version",
        found=found,
        expected=f"{VERSION}, as this dipgo writes it",
        remedy="remove the file to begin anew, or go on with the dipgo that wrote it",
    )


def _check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise DipgoError(
                f"{path}, {name}",
                found=json.dumps(found.get(name)),
                expected=f"{json.dumps(wanted.get(name))}, as this search has",
                remedy=REMEDY,
            )
