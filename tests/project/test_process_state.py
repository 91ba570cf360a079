"""The library's calls leave the state of the process as they found it: it is the caller's."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

import dipgo
from dipgo.evaluate.api import evaluate
from dipgo.export import export, refit
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.api import search
from dipgo.search.settings import SearchSettings
from tests.support.tiny_search import PROMPTS, small, tiny_request

LIBRARIES = (diffusers_logging, transformers_logging)


def _process_state() -> dict[str, Any]:
    """Everything global that a call could change for its caller, in a form that compares."""
    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": repr(np.random.get_state()),
        "python's generator": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": dict(os.environ),
        "working directory": Path.cwd(),
        "warnings": list(warnings.filters),
        "verbosity": [library.get_verbosity() for library in LIBRARIES],
        "progress bars": [library.is_progress_bar_enabled() for library in LIBRARIES],
        "loggers": {
            name: logging.getLogger(name).level
            for name in ("", "torch", "torch.onnx", "diffusers", "transformers", "accelerate")
        },
    }


def _search(settings: SearchSettings) -> Callable[[Path, Path], object]:
    return lambda model, _: search(model, tiny_request(0.6), PROMPTS, settings)


def _export(model: Path, folder: Path) -> Path:
    out = folder / "export"
    export(model, "dense", out, steps=3, scheduler="ddim")
    return out


def _run(model: Path, folder: Path) -> None:
    dipgo.Pipeline.from_export(_export(model, folder))("a red circle", seed=0)


def _refit(model: Path, folder: Path) -> None:
    refit(_export(model, folder), model, folder / "refitted")


def _evaluate(model: Path, folder: Path) -> None:
    timesteps = (667.0, 334.0, 1.0)
    subnet = SubNet.dense(timesteps, ("mid_block",), num_inference_steps=3)
    evaluate(model, {"all": subnet}, (3, "ddim"), PROMPTS, cache=folder, pairs=2, time_repeats=0)


CALLS: dict[str, Callable[[Path, Path], object]] = {
    "search by gradient": _search(small(exchanges=0, reuse_terms=0)),
    "search by gradient, pruner": _search(
        small(exchanges=0, reuse_terms=0, parameters="pruner", iterations=1)
    ),
    "search by exchange": _search(small(iterations=0)),
    "export": _export,
    "run": _run,
    "refit": _refit,
    "evaluate": _evaluate,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_process_is_left_as_it_was(name: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    torch.manual_seed(2410)
    for library in LIBRARIES:
        library.set_verbosity_info()
        library.enable_progress_bar()
    before = _process_state()
    try:
        CALLS[name](tiny_pipeline, tmp_path)
        after = _process_state()
    finally:
        for library in LIBRARIES:
            library.set_verbosity_warning()
    assert not [key for key in before if before[key] != after[key]]
