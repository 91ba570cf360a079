"""The torch backend: programs of PyTorch's operators, with the export's own weights."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dipgo.common.errors import DipgoError, setting
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import LaunchList, list_launches, list_part_launches
from dipgo.engines.runner import BackendSettings
from dipgo.engines.torch.executor import Executor, Function
from dipgo.engines.torch.program import load_program
from dipgo.ir.manifest.engines import ENGINES_FILE
from dipgo.ir.manifest.records import WEIGHTS_FILE

MOST_BYTES = 256 << 20
"""Bytes of a program: a node takes some hundred, and MOST_NODES bounds them."""


class TorchBackend:
    """Makes executors in PyTorch; the provider is the device, `cpu` or `cuda`."""

    def __init__(self, export: ExportDirectory, settings: BackendSettings) -> None:
        check_device(settings.provider)
        self._export, self._device = export, settings.provider
        self._check_hashes = settings.check_hashes
        segments = [segment.name for segment in export.manifest.segments]
        self._segments = segments
        remedy = f"export again with {setting('target')} torch"
        self._programs = EngineDirectory.open(
            export, "torch", [*segments, *export.manifest.parts], remedy
        )
        self._weights: dict[str, torch.Tensor] = {}
        self._file: Any = None  # opened once: each opening maps the whole file into memory
        self._functions: dict[str, Function] = {}
        self._lock = Lock()

    def plan(self) -> Executor:
        """Returns an executor of the plan."""
        launches = list_launches(self._export.plan, self._export.tables)
        return self._executor(launches, self._segments)

    def part(self, name: str) -> Executor:
        """Returns an executor of a graph around the plan."""
        return self._executor(list_part_launches(name, self._export.manifest.parts[name]), [name])

    def _executor(self, launches: LaunchList, names: Iterable[str]) -> Executor:
        with self._lock:  # all executors run the same programs
            missing = [name for name in names if name not in self._functions]
            self._functions |= {name: self._load(name) for name in missing}
        return Executor(launches, self._functions, self._device)

    def _load(self, name: str) -> Function:
        """Returns the program, which takes its weights after its inputs."""
        content = self._programs.read(name, self._check_hashes, MOST_BYTES)
        record = self._programs.manifest.engines[name]
        path, remedy = self._programs.path / record.file, self._programs.remedy
        program = load_program(content, self._device, name=str(path), remedy=remedy)
        if program.weights != len(record.weights):
            raise DipgoError(
                str(path),
                found=f"a program of {program.weights} weights",
                expected=f"one of the {len(record.weights)} that {ENGINES_FILE} names",
                remedy=remedy,
            )
        weights = tuple(map(self._weight, record.weights))
        return lambda *inputs: program.module(*inputs, *weights)

    def _weight(self, name: str) -> torch.Tensor:
        """Loads a weight when it is first needed, straight to the device.

        Raises:
            DipgoError: The file has no such weight, or cannot be mapped into memory.
        """
        if name not in self._weights:
            path = self._export.path / WEIGHTS_FILE
            try:
                if self._file is None:
                    self._file = safe_open(path, framework="pt", device=self._device)
                self._weights[name] = self._file.get_tensor(name)
            except (SafetensorError, RuntimeError, OSError) as error:
                raise DipgoError(
                    str(path),
                    found=f"no weight {name} that can be loaded ({error})",
                    expected=f"the weights that {ENGINES_FILE} names, and memory for them",
                    remedy=self._programs.remedy,
                ) from error
        return self._weights[name]


def check_device(device: str) -> None:
    """Checks the device.

    Raises:
        DipgoError: The device is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DipgoError(
            "target torch",
            found=f"PyTorch {torch.__version__} without a CUDA device",
            expected="an NVIDIA GPU, and a PyTorch built for CUDA",
            remedy=f"use a machine with a GPU, or {setting('provider')} cpu",
        )
