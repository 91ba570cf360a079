"""Shared by all tests: one thread, since tiny models gain nothing from more, and golden files."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from onnxscript.rewriter import RewriteRule
from torch.onnx._internal.exporter import _registration

from dipgo.compiler import front
from dipgo.export.lower import onnx
from dipgo.search.problem import Problem
from tests.support.build_once import build_once
from tests.support.golden import GOLDEN
from tests.support.lower_once import LowerOnce
from tests.support.sample_exports import NAMES, write_sample_exports
from tests.support.tiny_pipeline import save_tiny_pipeline
from tests.support.tiny_search import tiny_problem
from tests.support.trace_once import TraceOnce

torch.set_num_threads(1)
gc.set_threshold(100_000, 50, 100)
"""A trace makes millions of objects that live on: collecting as often as usual takes a tenth."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden from what is found"
    )


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_operators() -> Iterator[None]:
    """Lets all exports of a worker share PyTorch's table of ONNX operators.

    `torch.onnx.export` makes it anew for every graph, from the sources of 480 functions: a tenth of
    an export of a tiny model. Nothing that dipgo calls changes it.
    """
    with pytest.MonkeyPatch.context() as patch:
        shared = functools.cache(_registration.ONNXRegistry.from_torchlib)
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(shared))
        yield


@pytest.fixture(scope="session", autouse=True)
def _rules_of_the_right_operator() -> Iterator[None]:
    """Tries a rewriting rule of ONNX Script's optimiser only at nodes of its operator.

    The optimiser tries every rule at every node, and one rule reads the whole graph each time: a
    tenth of an export of a tiny model. A rule whose last operator is another never matches.
    """
    try_rewrite = RewriteRule.try_rewrite

    def try_where_it_may_match(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        operator = self._target_pattern.output_nodes[0].op_identifier()
        if operator not in (None, node.op_identifier()):
            return None
        return try_rewrite(self, model, graph, node, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewriteRule, "try_rewrite", try_where_it_may_match)
        yield


@pytest.fixture(scope="session", autouse=True)
def lower_once() -> Iterator[LowerOnce]:
    """Lowers a graph once in a worker, however many tests export it."""
    with pytest.MonkeyPatch.context() as patch:
        store = LowerOnce(onnx._export)
        patch.setattr(onnx, "_export", store)
        yield store


@pytest.fixture(scope="session", autouse=True)
def trace_once() -> Iterator[TraceOnce]:
    """Traces a model once in a worker, however many tests load it."""
    with pytest.MonkeyPatch.context() as patch:
        store = TraceOnce(front.trace_source)
        patch.setattr(front, "trace_source", store)
        yield store


@pytest.fixture
def lower_anew(lower_once: LowerOnce, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of lowering itself: does not share graphs with other exports."""
    monkeypatch.setattr(lower_once, "anew", True)


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares text with the golden file of that name."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        assert text + "\n" == path.read_text(), f"{path.name}: see --update-golden"

    return check


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of toy size, saved to disk."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="session")
def sample_exports(
    tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Export directories by the names in `tests.support.sample_exports.NAMES`."""
    folder = build_once(
        tmp_path_factory, "exports", lambda folder: write_sample_exports(tiny_pipeline, folder)
    )
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="session")
def problem(tiny_pipeline: Path) -> Problem:
    """Six steps of DDIM."""
    return tiny_problem(tiny_pipeline)


@pytest.fixture(scope="session")
def repeating(tiny_pipeline: Path) -> Problem:
    """Five steps of PNDM: row 1 is evaluated twice."""
    return tiny_problem(tiny_pipeline, "pndm", 5)
