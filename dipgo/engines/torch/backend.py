"""The torch backend: programs that `torch.export` saved, with the export's own weights."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from threading import Lock
from typing import Any

import torch
from safetensors import safe_open
from torch.export.passes import move_to_device_pass

from dipgo.common.errors import DipgoError, setting
from dipgo.engines.engine_directory import EngineDirectory
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import LaunchList, list_launches, list_part_launches
from dipgo.engines.runner import BackendSettings
from dipgo.engines.torch.executor import Executor, Function
from dipgo.ir.manifest.records import WEIGHTS_FILE


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
        content = self._programs.read(name, self._check_hashes)
        record = self._programs.manifest.engines[name]
        weights = tuple(map(self._weight, record.weights))
        try:
            program = torch.export.load(BytesIO(content))
        except Exception as error:  # a file of another version may fail in any way
            raise DipgoError(
                str(self._programs.path / record.file),
                found=f"what PyTorch {torch.__version__} cannot load "
                f"({type(error).__name__}), written by {self._programs.manifest.library_version}",
                expected="a program that torch.export saved",
                remedy=self._programs.remedy,
            ) from error
        if self._device != "cpu":
            program = move_to_device_pass(program, self._device)
        module: Any = program.module()
        return lambda *inputs: module(inputs, weights)

    def _weight(self, name: str) -> torch.Tensor:
        """Loads a weight when it is first needed, straight to the device."""
        if name not in self._weights:
            path = self._export.path / WEIGHTS_FILE
            with safe_open(path, framework="pt", device=self._device) as file:
                self._weights[name] = file.get_tensor(name)
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
