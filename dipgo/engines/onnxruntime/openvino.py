"""Sets ONNX Runtime's OpenVINO provider up, and checks which nodes it has really taken."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dipgo.common.errors import DipgoError, setting

if TYPE_CHECKING:
    import onnxruntime


PROVIDER = "OpenVINOExecutionProvider"

PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16"}
"""The type in which OpenVINO computes, whatever the graph has, by the provider's name here."""

SESSION_ENTRIES = {"session.record_ep_graph_assignment_info": "1"}
"""Makes the session report which provider has which nodes (ONNX Runtime 1.24)."""

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert"}

UNSUPPORTED = re.compile(r"does not support the following ONNX operations: ([\w ,]+)")


def provider_options(provider: str, threads: int) -> dict[str, str]:
    """Returns processor, precision, and threads unless 0: every core.

    The precision is always set: OpenVINO's own choice is bf16 wherever the processor has it. Its
    fused attention is left out in bf16: OpenVINO 2025.4, which onnxruntime-openvino 1.24 brings,
    fails to compile it on processors with AMX ("BrgemmCopyB expression is not found").
    """
    properties = {"INFERENCE_PRECISION_HINT": PRECISIONS[provider]}
    if PRECISIONS[provider] == "bf16":
        properties["SNIPPETS_MODE"] = "DISABLE"
    if threads:
        properties["INFERENCE_NUM_THREADS"] = str(threads)
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


def check_processor(provider: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Checks for bf16: OpenVINO silently computes in f32 on a processor without it.

    Raises:
        DipgoError: The provider needs bf16, and the processor lacks it.
    """
    if PRECISIONS[provider] != "bf16" or not cpuinfo.exists():
        return
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    if flags and not BF16_FLAGS & set(flags[1].split()):
        raise DipgoError(
            f"provider {provider}",
            found="a processor without bf16",
            expected=f"one of the instruction sets {', '.join(sorted(BF16_FLAGS))}",
            remedy="use the provider openvino",
        )


def check_nodes(path: Path, session: onnxruntime.InferenceSession) -> None:
    """Checks that OpenVINO took every node of the graph.

    Raises:
        DipgoError: A node was left to ONNX Runtime's CPU provider.
    """
    left = Counter(
        node.op_type
        for assignment in session.get_provider_graph_assignment_info()
        if assignment.ep_name != PROVIDER
        for node in assignment.get_nodes()
    )
    if left:
        raise _lacks_operators(path, left)


def explain(path: Path, message: str) -> DipgoError | None:
    """Returns the error for operators that OpenVINO lacks, or None for other failures to load."""
    match = UNSUPPORTED.search(message)
    return _lacks_operators(path, dict.fromkeys(match[1].split(", "), 1)) if match else None


def _lacks_operators(path: Path, operators: Mapping[str, int]) -> DipgoError:
    names = ", ".join(name.strip() for name in sorted(operators))
    return DipgoError(
        str(path),
        found=f"operators that OpenVINO does not take: {names}",
        expected="a graph that it runs as a whole",
        remedy=f"export with {setting('target')} openvino, or use {setting('provider')} cpu",
    )
