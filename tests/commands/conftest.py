"""Good inputs for every command, to be damaged, and the check of how it refuses them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline

from dipgo.common.cli import run_command
from dipgo.export import export
from tests.support.build_once import build_once
from tests.support.refusals import (
    SUBNET,
    Refused,
    check_message,
    file_tree,
)
from tests.support.tiny_pipeline import save_tiny_pipeline
from tests.support.zoo import ZOO


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good pipeline."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("bad_input") / "pipeline")


@pytest.fixture(scope="session")
def tiny_dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline around another denoiser."""
    path = tmp_path_factory.mktemp("dit") / "pipeline"
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    pipeline = DiTPipeline(ZOO["dit"].build(), vae, DDIMScheduler(clip_sample=False))
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def exported(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good export of it, of the good SubNet."""
    subnet = pipeline.with_name("subnet.json")
    subnet.write_text(json.dumps(SUBNET))
    return build_once(tmp_path_factory, "exported", lambda folder: export(pipeline, subnet, folder))


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "damaged"))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command and checks how it refuses: `fragments` stand in its message, in order."""

    def run(main: Callable[[list[str]], None], arguments: list[Any], *fragments: str) -> None:
        before = file_tree(tmp_path)
        code = run_command(main, list(map(str, arguments)))
        printed = capsys.readouterr()
        assert code == 2, printed.err
        check_message(printed.err, fragments)
        assert printed.out == ""
        assert file_tree(tmp_path) == before

    return run
