"""Saves and loads checkpoints, from which a search goes on to the identical result; no pickle."""

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
from dipgo.common.staged import not_writable, staged_file

FORMAT = "dipgo.search-checkpoint"

VERSION = "2"
"""The version of what the stages store; a checkpoint of another version is refused unread."""

REMEDY = "give the options that it was made with, or remove the file to start over"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a search between two iterations.

    Attributes:
        iteration: The next iteration to do.
        identity: What is searched, and with which settings.
        tensors: The state by name.
    """

    iteration: int
    identity: Mapping[str, Any]
    tensors: dict[str, Tensor]


def training_state(parameters: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns parameters and the optimiser's moments by name; `restore` puts them back."""
    tensors = {f"parameter.{name}": value for name, value in parameters.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, moment in state.items():
            if moment is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(moment)
    return tensors


def save_checkpoint(
    path: Path, iteration: int, identity: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Saves a checkpoint: writes it next to `path`, then renames it, so that one is always whole.

    Args:
        path: The file to replace.
        iteration: The next iteration to do.
        identity: What is searched, and with which settings; as JSON has it.
        tensors: The state by name.

    Raises:
        DipgoError: The file cannot be written.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "iteration": str(iteration),
        "identity": json.dumps(dict(identity)),
    }
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with staged_file(path) as staging:
            save_file(copies, staging, metadata=header)
    except SafetensorError as error:  # safetensors raises this for errors of the disk
        raise not_writable(path, "a place that cannot be written", error) from None


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Returns the checkpoint at `path`, or None if there is no file.

    Raises:
        DipgoError: The file is not a checkpoint, or is one of another search.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _no_checkpoint(path, str(error)) from None
    if header.get("format") != FORMAT:
        raise _no_checkpoint(path, "another safetensors file")
    if header.get("version") != VERSION:
        raise _other_version(path, header.get("version", "1"))
    saved = json.loads(header["identity"])
    _check_same(path, saved, json.loads(json.dumps(dict(identity))))
    return Checkpoint(int(header["iteration"]), saved, tensors)


def restore(
    checkpoint: Checkpoint, parameters: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts the parameters and the optimiser's moments of `checkpoint` back."""
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix == "parameter":
            weights[rest] = tensor
        else:
            index, _, key = rest.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
    parameters.load_state_dict(weights)
    state = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})


def _no_checkpoint(path: Path, content: str) -> DipgoError:
    return DipgoError(
        str(path),
        found=f"no checkpoint of a search ({content})",
        expected="a file that a search wrote",
        remedy=f"remove it, or name another with {setting('checkpoint')}",
    )


def _other_version(path: Path, version: str) -> DipgoError:
    return DipgoError(
        f"{path}, version",
        found=version,
        expected=f"{VERSION}, as this dipgo writes it",
        remedy="remove the file to start over, or go on with the dipgo that wrote it",
    )


def _check_same(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in sorted({*saved, *wanted}):
        if saved.get(name) != wanted.get(name):
            raise DipgoError(
                f"{path}, {name}",
                found=json.dumps(saved.get(name)),
                expected=f"{json.dumps(wanted.get(name))}, as this search has",
                remedy=REMEDY,
            )
