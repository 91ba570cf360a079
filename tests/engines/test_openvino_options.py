"""What can be told of the OpenVINO provider without its package: options, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from dipgo.common.errors import DipgoError
from dipgo.engines import load
from dipgo.engines.onnxruntime import openvino
from dipgo.engines.onnxruntime.session import (
    DEVICES,
    EXTRAS,
    PROVIDERS,
    SessionSettings,
    check_provider,
)
from dipgo.run.triton.layout import INSTANCE_KINDS

HERE = openvino.PROVIDER in onnxruntime.get_available_providers()


def _properties(provider: str, threads: int) -> dict[str, str]:
    options = openvino.provider_options(provider, threads)
    assert options["device_type"] == "CPU"
    properties: dict[str, str] = json.loads(options["load_config"])["CPU"]
    return properties


def test_precision_is_always_told() -> None:
    """Left to itself OpenVINO takes bf16 where the processor has it."""
    assert _properties("openvino", 0) == {"INFERENCE_PRECISION_HINT": "f32"}
    assert _properties("openvino-bf16", 0)["INFERENCE_PRECISION_HINT"] == "bf16"


def test_threads_are_told_where_asked_for() -> None:
    assert _properties("openvino", 3)["INFERENCE_NUM_THREADS"] == "3"


def test_tables_know_the_same_providers() -> None:
    assert set(PROVIDERS) == set(DEVICES) == set(EXTRAS)
    assert set(INSTANCE_KINDS) <= set(PROVIDERS)
    assert {DEVICES[name] for name in openvino.PRECISIONS} == {"cpu"}


@pytest.mark.skipif(HERE, reason="the provider is installed")
@pytest.mark.parametrize("provider", openvino.PRECISIONS)
def test_missing_provider(sample_exports: dict[str, Path], provider: str) -> None:
    with pytest.raises(DipgoError, match=r"pip install '\.\[openvino\]'") as caught:
        load(sample_exports["pruned"], provider=provider)
    assert "\n" not in str(caught.value)


def test_missing_cuda_names_its_own_extra() -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(DipgoError, match=r"pip install '\.\[gpu\]'"):
            check_provider("cuda")


@pytest.mark.parametrize(
    ("flags", "good"), [("fpu avx512f", False), ("fpu amx_bf16", True), ("avx512_bf16", True)]
)
def test_bf16_needs_a_processor_that_has_it(tmp_path: Path, flags: str, good: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: any\nflags\t\t: {flags}\nbugs\t\t:\n")
    openvino.check_processor("openvino", cpuinfo)
    if good:
        openvino.check_processor("openvino-bf16", cpuinfo)
        return
    with pytest.raises(DipgoError, match="a processor without bf16"):
        openvino.check_processor("openvino-bf16", cpuinfo)


class _Session:
    """What ONNX Runtime tells of a session: (provider, operators) by turns."""

    def __init__(self, *assigned: tuple[str, list[str]]) -> None:
        self._assigned = assigned

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda names=names: [SimpleNamespace(op_type=name) for name in names],
            )
            for provider, names in self._assigned
        ]


def test_nodes_on_another_provider_are_named() -> None:
    whole: Any = _Session((openvino.PROVIDER, ["Conv", "Add"]))
    openvino.check_nodes(Path("seg0.onnx"), whole)
    parted: Any = _Session(
        (openvino.PROVIDER, ["Conv"]), ("CPUExecutionProvider", ["Mod", "Gelu", "Mod"])
    )
    with pytest.raises(DipgoError, match="does not take: Gelu, Mod; expected") as caught:
        openvino.check_nodes(Path("seg0.onnx"), parted)
    assert "target openvino" in str(caught.value)


def test_openvinos_own_words_are_understood() -> None:
    message = (
        "[ONNXRuntimeError] : 1 : FAIL : FrontEnd API failed with GeneralFailure:\n"
        "OpenVINO does not support the following ONNX operations: RotaryEmbedding, Attention\n\n"
    )
    found = openvino.explain(Path("seg0.onnx"), message)
    assert found is not None
    assert "does not take: Attention, RotaryEmbedding; expected" in str(found)
    assert openvino.explain(Path("seg0.onnx"), "no such file") is None


def test_settings_take_both_names() -> None:
    for provider in openvino.PRECISIONS:
        assert SessionSettings(provider, 1).provider == provider
