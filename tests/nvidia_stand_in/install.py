"""Puts the stand-ins in the libraries' place, and makes engines that they run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cuda.bindings
import pytest

import dipgo.engines.tensorrt.build as build
from dipgo.engines.tensorrt.build_engine import BuildRequest
from tests.nvidia_stand_in import driver, tensorrt
from tests.nvidia_stand_in.machine import Machine, reset

TARGET = "tensorrt"


def install(patch: pytest.MonkeyPatch, **settings: Any) -> Machine:
    """From now on a process with TensorRT and one GPU; `settings` are those of Machine."""
    patch.setitem(sys.modules, "cuda.bindings.driver", driver)
    patch.setattr(cuda.bindings, "driver", driver, raising=False)
    patch.setitem(sys.modules, "tensorrt", tensorrt)
    patch.setattr(build, "_build_in_a_process", build_stand_in)
    tensorrt.SAID.clear()
    return reset(**settings)


def build_stand_in(name: str, request: BuildRequest) -> None:
    """In the place of the process that builds one engine."""
    profile = {key: (one.min, one.opt, one.max) for key, one in request.profile.items()}
    described = {"graph": request.graph, "profile": profile}
    Path(request.engine).write_bytes(tensorrt.MAGIC + json.dumps(described).encode())


def write_engines(export: Path) -> Path:
    """Engines of all graphs of the export, for the machine as it is now."""
    return build.build_engines(export, TARGET, build.BuildOptions(jobs=1))
