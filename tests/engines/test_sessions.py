"""Sessions of one process: one arena for all, and each as it was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from numpy.typing import NDArray

from dipgo import engines
from dipgo.common.machine import physical_memory
from dipgo.engines.onnxruntime import session as session_module
from dipgo.engines.onnxruntime.session import SessionSettings, make_session
from dipgo.engines.timing import random_inputs

SIDE = 4096
BETWEEN_NBYTES = SIDE * SIDE * 4
GRAPH = f"""
<ir_version: 10, opset_import: ["": 23]>
small_outside_large_inside (float[{SIDE}, 1] x) => (float y) {{
    row = Transpose <perm = [1, 0]> (x)
    between = Mul (x, row)
    y = ReduceSumSquare <keepdims = 0> (between)
}}
"""
HUGE = """
<ir_version: 10, opset_import: ["": 23]>
of_any_size (float[1] x, int64[2] shape) => (float y) {
    between = Expand (x, shape)
    y = ReduceMax <keepdims = 0> (between)
}
"""


@pytest.fixture(scope="module")
def graph_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of one input and one output of a few KiB, with 64 MiB between them."""
    path = tmp_path_factory.mktemp("graph") / "graph.onnx"
    onnx.save(onnx.parser.parse_model(GRAPH), path)
    return path


def _run(session: onnxruntime.InferenceSession) -> NDArray[np.float32]:
    x = np.random.default_rng(0).standard_normal((SIDE, 1)).astype(np.float32)
    result: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result


def test_a_second_session_works_in_the_memory_of_the_first(graph_path: Path) -> None:
    """With an arena each, it would take as much again."""
    sessions = [make_session(graph_path, SessionSettings(threads=1)) for _ in range(2)]
    _run(sessions[0])
    before = psutil.Process().memory_info().rss
    _run(sessions[1])
    assert psutil.Process().memory_info().rss - before < BETWEEN_NBYTES / 2


def test_results_are_those_of_a_session_with_its_own_arena(graph_path: Path) -> None:
    own = onnxruntime.InferenceSession(graph_path, providers=["CPUExecutionProvider"])
    found = _run(make_session(graph_path, SessionSettings()))
    assert found.tobytes() == _run(own).tobytes()


def test_a_run_takes_no_more_memory_than_the_machine_has(tmp_path: Path) -> None:
    """The arena refuses: the system would be asked for more, and end another process for it."""
    path = tmp_path / "huge.onnx"
    onnx.save(onnx.parser.parse_model(HUGE), path)
    session = make_session(path, SessionSettings(threads=1))
    rows = (physical_memory() or 0) // (4 * SIDE) + 1
    shape = np.array([rows, SIDE], np.int64)
    with pytest.raises(Exception, match=r"Available memory of .* is smaller than requested"):
        session.run(None, {"x": np.ones(1, np.float32), "shape": shape})


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_are_as_many_as_asked_for(graph_path: Path, threads: int) -> None:
    session = make_session(graph_path, SessionSettings(threads=threads))
    assert session.get_session_options().intra_op_num_threads == threads


def test_sessions_come_and_go(graph_path: Path) -> None:
    """Two by turns, then one in the place of another: the same bytes always."""
    first, second = (make_session(graph_path, SessionSettings()) for _ in range(2))
    found = [_run(session).tobytes() for session in (first, second, first)]
    del first
    third = make_session(graph_path, SessionSettings())
    found += [_run(session).tobytes() for session in (second, third)]
    assert len(set(found)) == 1


@pytest.mark.parametrize("refused_by", ["no version", "every version"])
def test_weights_behind_links(
    refused_by: str,
    sample_exports: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in the Hub's cache, where every file is a link out of the folder.

    ONNX Runtime 1.24.0 to 1.24.3 do not follow it: they are handed the weights, as any version can
    be.
    """
    if refused_by == "every version":
        monkeypatch.setattr(session_module, "LINKS_ALLOWED", (1 << 16,))
    export, blobs = sample_exports["batched"], tmp_path / "blobs"
    snapshot = tmp_path / "snapshots" / "0123abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(path for path in export.iterdir() if path.is_file()):
        (blobs / f"{number}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", f"{number}"))
    runner = engines.load(export, threads=1)
    inputs = random_inputs(runner)
    expected = runner.run(inputs)["latents"]
    found = engines.load(snapshot, threads=1).run(inputs)["latents"]
    assert found.tobytes() == expected.tobytes()
