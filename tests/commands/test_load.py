"""Damage that shows when an export is loaded, and inputs that a runner refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dipgo.engines
from dipgo.common.errors import DipgoError
from dipgo.ir.manifest.records import MANIFEST_FILE
from tests.support.refusals import (
    edit_manifest,
    flip_a_byte,
)


def _more_rows_than_stored(manifest: dict[str, Any]) -> None:
    manifest["program"]["tables"][0]["rows"].append(3)


def test_damage_that_hashes_do_not_show(damaged: Path) -> None:
    edit_manifest(_more_rows_than_stored)(damaged)
    with pytest.raises(DipgoError, match=r"constants\.safetensors: found .+; expected f32\[3, 2, "):
        dipgo.engines.load(damaged, threads=1)
    flip_a_byte("seg0.onnx")(damaged)
    os.truncate(damaged / "seg0.onnx", 5000)
    manifest = json.loads((damaged / MANIFEST_FILE).read_text())
    manifest["files"]["seg0.onnx"]["nbytes"] = 5000
    (damaged / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(DipgoError, match=r"seg0\.onnx: found no ONNX graph .+; .+ export again"):
        dipgo.engines.load(damaged, threads=1, check_hashes=False)


LATENTS, PROMPT_SHAPE = (1, 4, 16, 16), (2, 16, 32)

INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "a name too many": ({"noise": 0}, "input noise: found a name that the export does not have; "),
    "shape": (
        {"latents": np.zeros((1, 4, 8, 8), np.float32)},
        r"input latents: found float32\[1, 4, 8, 8\]; expected float32\[1, 4, 16, 16\]; ",
    ),
    "dtype": (
        {"latents": np.zeros(LATENTS)},
        r"input latents: found float64\[.+; expected float32\[.+\]; convert it",
    ),
    "NaN": (
        {"latents": np.full(LATENTS, np.nan, np.float32)},
        "input latents: found NaN or infinity; expected finite numbers; ",
    ),
    "infinity": ({"guidance_scale": np.inf}, "input guidance_scale: found NaN or infinity; "),
    "a text": ({"guidance_scale": "7.5"}, r"input guidance_scale: found .+; expected float32\[\]"),
    "lists of unequal lengths": ({"latents": [[1], [1, 2]]}, "input latents: found a list; "),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_a_run(name: str, runner: dipgo.engines.Runner) -> None:
    changes, message = INPUTS[name]
    good = {
        "latents": np.zeros(LATENTS, np.float32),
        "encoder_hidden_states": np.zeros(PROMPT_SHAPE, np.float32),
        "guidance_scale": 7.5,
    }
    with pytest.raises(DipgoError, match=f"^{message}"):
        runner.run(good | changes)


def test_an_input_that_is_missing(runner: dipgo.engines.Runner) -> None:
    with pytest.raises(DipgoError, match=r"^input latents: found missing; expected inputs latents"):
        runner.run({"guidance_scale": 7.5})


@pytest.fixture(scope="session")
def runner(exported: Path) -> dipgo.engines.Runner:
    """Of the good export."""
    return dipgo.engines.load(exported, threads=1)
