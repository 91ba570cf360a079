"""Saves and loads checkpoints, from which a search goes on to the identical result; no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.common.regular_files import check_file
from dipgo.common.staged import not_writable, staged_file

SHA256 = "sha256"

FORMAT = "dipgo.search-checkpoint"

VERSION = "3"
"""The version of what the stages store; a checkpoint of another version is refused unread."""

REMEDY = "give the options that it was made with, or remove the file to start over"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a search between two iterations.

    Attributes:
        iteration: The next iteration to do.
        identity: What is searched, and with which settings.
        tensors: The state by name.
        path: The file that it was read from.
    """

    iteration: int
    identity: Mapping[str, Any]
    tensors: dict[str, Tensor]
    path: Path

    def tensor(self, name: str, shape: tuple[int | None, ...], dtype: torch.dtype) -> Tensor:
        """Returns a tensor of the state.

        Args:
            name: Its name.
            shape: Its shape, with None for an axis of any length.
            dtype: Its type.

        Raises:
            DipgoError: There is none of that name, type and shape.
        """
        tensor = self.tensors.get(name)
        fits = tensor is not None and tensor.dtype == dtype and len(tensor.shape) == len(shape)
        if (
            tensor is None
            or not fits
            or any(
                wanted not in (None, count)
                for wanted, count in zip(shape, tensor.shape, strict=True)
            )
        ):
            raise _no_checkpoint(self.path, f"without {name} of shape {list(shape)}")
        return tensor


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
    header[SHA256] = _digest(header, copies)
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
    if not os.path.lexists(path):
        return None
    check_file(path, expected="a checkpoint of a search", most=None, may_be_empty=True)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise _no_checkpoint(path, "another safetensors file")
            if header.get("version") != VERSION:
                raise _other_version(path, header.get("version", "1"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except DipgoError:
        raise
    except Exception as error:  # of whatever class, by where the library meets the damage
        raise _no_checkpoint(path, str(error)) from None
    written = header.pop(SHA256, "")
    if _digest(header, tensors) != written:
        raise _no_checkpoint(path, "damaged: another hash than that in it")
    saved, iteration = _read_header(path, header)
    _check_same(path, saved, json.loads(json.dumps(dict(identity))))
    return Checkpoint(iteration, saved, tensors, path)


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of a header, and of names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_header(path: Path, header: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Returns the identity and the iteration of a checkpoint.

    Raises:
        DipgoError: They are not there.
    """
    try:
        saved, iteration = json.loads(header["identity"]), header["iteration"]
    except (KeyError, ValueError, RecursionError) as error:
        raise _no_checkpoint(path, f"without an identity: {type(error).__name__}") from None
    if not isinstance(saved, dict) or not re.fullmatch(r"[0-9]{1,9}", iteration):
        raise _no_checkpoint(path, "without an identity or an iteration")
    return saved, int(iteration)


def restore(
    checkpoint: Checkpoint, parameters: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Puts the parameters and the optimiser's moments of `checkpoint` back.

    Raises:
        DipgoError: It has others.
    """
    weights = {
        name: checkpoint.tensor(f"parameter.{name}", tuple(value.shape), value.dtype)
        for name, value in parameters.state_dict().items()
    }
    moments: dict[int, dict[str, Tensor]] = {}
    shapes = [tuple(value.shape) for value in parameters.parameters()]
    for name, moment in checkpoint.tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix == "optimizer":
            index, _, key = rest.partition(".")
            if index not in map(str, range(len(shapes))):
                raise _no_checkpoint(checkpoint.path, f"with {name}")
            shape = () if key == "step" else shapes[int(index)]
            moments.setdefault(int(index), {})[key] = checkpoint.tensor(name, shape, moment.dtype)
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
