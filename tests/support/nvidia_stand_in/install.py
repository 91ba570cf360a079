"""Puts the stand-ins in the libraries' place, and makes engines that they run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cuda.bindings
import pytest

import dipgo.engines.tensorrt.build as build
import dipgo.engines.tensorrt.refit as refitting
from dipgo.common.errors import DipgoError
from dipgo.engines.tensorrt.build_worker import BuildRequest
from dipgo.engines.tensorrt.refit_worker import RefitRequest, refit
from tests.support.nvidia_stand_in import driver, tensorrt
from tests.support.nvidia_stand_in.machine import Machine, reset

TARGET = "tensorrt"


def install(patch: pytest.MonkeyPatch, **settings: Any) -> Machine:
    """From now on a process with TensorRT and one GPU; `settings` are those of Machine."""
    patch.setitem(sys.modules, "cuda.bindings.driver", driver)
    patch.setattr(cuda.bindings, "driver", driver, raising=False)
    patch.setitem(sys.modules, "tensorrt", tensorrt)
    patch.setattr(build, "_build_in_a_process", build_stand_in)
    patch.setattr(refitting, "_refit_in_a_process", refit_stand_in)
    tensorrt.SAID.clear()
    return reset(**settings)


def build_stand_in(name: str, request: BuildRequest) -> None:
    """In the place of the process that builds one engine."""
    profile = {key: (one.min, one.opt, one.max) for key, one in request.profile.items()}
    described = {"profile": profile, "refittable": request.refittable}
    described |= tensorrt.read_graph(request.graph)
    Path(request.engine).write_bytes(tensorrt.MAGIC + json.dumps(described).encode())


def refit_stand_in(name: str, request: RefitRequest) -> None:
    """In the place of the process that refits one engine: the same code in this process."""
    problem = refit(request, tensorrt)
    if problem:
        raise DipgoError(f"engine {name}", found=problem, expected="", remedy="")


def write_engines(export: Path, *, refittable: bool = False) -> Path:
    """Engines of all graphs of the export, for the machine as it is now."""
    options = build.BuildOptions(jobs=1, refittable=refittable)
    return build.build_engines(export, TARGET, options)
