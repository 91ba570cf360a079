"""The folder that all tests of `evaluate` read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_evaluation import write_inputs


@pytest.fixture(scope="session")
def inputs(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the command reads; it is built in a second, and exports nothing."""
    return write_inputs(tiny_pipeline, tmp_path_factory.mktemp("evaluation"))
