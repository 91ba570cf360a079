"""scripts/gpu_check.py as far as it can be tested without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dipgo.engines.launches import list_launches
from dipgo.engines.torch.executor import Executor
from dipgo.ir.plan.nodes import Table
from dipgo.ir.types import numpy_dtype
from scripts.benchmarks.gpu_checks import speed
from scripts.benchmarks.gpu_checks.cases import SMALL
from scripts.benchmarks.gpu_checks.in_memory import callee_functions
from scripts.benchmarks.gpu_checks.parity import FP16_TOLERANCE, parity_cases
from scripts.benchmarks.gpu_checks.settings import Settings, failures

ROOT = Path(__file__).parents[2]
ABSENT = ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "tensorrt", "tensorrt_rtx", "polygraphy")
BLOCKED_NAMES = (*ABSENT, "transformers", "peft")
BLOCKED = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({BLOCKED_NAMES!r}))  # None: as if not installed
runpy.run_path("scripts/gpu_check.py", run_name="__main__")
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the whole command, with nothing but PyTorch and diffusers."""
    path = tmp_path_factory.mktemp("gpu") / "report.json"
    result = _run("-c", BLOCKED, "--device", "cpu", "--repeats", "1", "--json", str(path))
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_the_report_says_that_it_is_no_measurement(report: dict[str, Any]) -> None:
    assert report["machine"]["device"] == "cpu, a test of the script, not a measurement"


@pytest.mark.slow
def test_what_is_not_installed_is_left_out_and_named(report: dict[str, Any]) -> None:
    assert report["left_out"].keys() == {"onnxruntime", "tensorrt", "tensorrt-rtx"}
    assert all("not installed: onnx, onnx_ir" in one for one in report["left_out"].values())


@pytest.mark.slow
def test_parity_in_memory(report: dict[str, Any]) -> None:
    cases = report["parity"]["cases"]
    for name, case in cases.items():
        figures = case["paths"]["torch"]
        errors = [value for key, value in figures.items() if key.startswith("error")]
        print(f"{name}: relative L2 {errors}")
        assert len(errors) == 2
        assert max(errors) < FP16_TOLERANCE
    assert cases["tiny-unet, batched calls"]["most_lanes_of_a_call"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("model", SMALL)
def test_every_path_is_measured(report: dict[str, Any], model: str) -> None:
    found = report["models"][model]
    assert list(found["measurements"]) == [
        "torch, dense",
        "torch, SubNet",
        "diffusers eager, dense",
        "diffusers torch.compile, dense",
    ]
    for figures in found["measurements"].values():
        assert 0 < figures["device_seconds"] <= figures["wall_seconds"]
    # The plan's dense trajectory is that of diffusers' loop, each in its own fp16.
    eager = found["measurements"]["diffusers eager, dense"]
    assert eager["relative_l2_to_torch_dense"] < FP16_TOLERANCE
    speedup = found["speedups"]["torch"]
    assert found["speedups"]["ideal"] > 1
    assert speedup["retention"] == pytest.approx(speedup["measured"] / found["speedups"]["ideal"])


def test_time_limit_begins_nothing_and_writes_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    result = _run(
        *("scripts/gpu_check.py", "--device", "cpu", "--time-limit", "0", "--json", str(path))
    )
    assert result.returncode == 0, result.stderr
    models = json.loads(path.read_text())["models"]
    assert all("time limit" in found["skipped"] for found in models.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_one_line_and_exit_code_2() -> None:
    result = _run("scripts/gpu_check.py")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--device cuda: found PyTorch" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in parity_cases()])
def test_nothing_stays_on_the_cpu(name: str) -> None:
    """On the device `meta`, where a tensor of the CPU would be refused as beside one of CUDA."""
    case = dict(parity_cases())[name]()
    compiled = case.compile(case.subnet)
    tables = {table.name: _zeros(table) for table in compiled.plan.tables}
    launches = list_launches(compiled.plan, tables)
    executor = Executor(launches, callee_functions(compiled, "meta"), "meta")
    with torch.no_grad():
        executor._launch_all(lambda step: None)
    assert all(one.device.type == "cpu" for one in compiled.traced.tensors.values())


def _zeros(table: Table) -> NDArray[Any]:
    return np.zeros((len(table.rows), *table.type.shape), numpy_dtype(table.type.dtype))


@pytest.mark.slow
def test_a_failure_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(speed, "open_torch", fail)
    monkeypatch.setattr(speed, "ENGINES", ())
    settings = Settings("cpu", repeats=1, steps=2, compile=False)
    found = speed.ModelCheck("tiny-dit", settings, {}).run()
    assert len(failures(found)) == 2
    assert found["measurements"]["torch, dense"]["failed"].startswith("RuntimeError: out of memory")
    assert found["measurements"]["diffusers eager, dense"]["device_seconds"] > 0
