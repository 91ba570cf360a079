"""SubNets that `python -m dipgo.export` refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dipgo.inspect
from dipgo.export import __main__ as export_command
from tests.support.refusals import (
    BLOCKS,
    SUBNET,
    Refused,
)

SUBNETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "format": ({"format": "other"}, ("subnet.json, format", '"other"', '"dipgo.subnet"')),
    "version": ({"version": 2}, ("subnet.json, version", "2", "1")),
    "rows": ({"gates": ["11111", "00000"]}, ("subnet.json, gates", "2 rows", "3, one a timestep")),
    "characters": (
        {"gates": ["11111", "0000", "11111"]},
        ("subnet.json, gates row 1", "4 characters", "5, one a block"),
    ),
    "row 0": (
        {"gates": ["11011", "00000", "11111"]},
        ("subnet.json, gates row 0, block down_blocks.2", "0", "1, because", "row 0 to all 1"),
    ),
    "neither 0 nor 1": (
        {"gates": ["11111", "0002x", "11111"]},
        ("gates row 1, block down_blocks.3", "'2'", "0 or 1", "1 to compute"),
    ),
    "unknown block": (
        {"blocks": [*BLOCKS[:4], "middle"]},
        ("SubNet, block middle", "no module of that path", "UNet2DConditionModel", "fix its name"),
    ),
    "a pattern for a block": (
        {"blocks": [*BLOCKS[:4], "up_blocks.*"]},
        ("SubNet, block up_blocks.*", "no module", "the path of a module"),
    ),
    "overlapping blocks": (
        {"blocks": [*BLOCKS[:4], "down_blocks.0.resnets.0"]},
        ("down_blocks.0.resnets.0", "inside the block down_blocks.0", "do not overlap"),
    ),
    "model class": (
        {"model": {"class": "DiTTransformer2DModel"}},
        ("SubNet, model.class", "DiTTransformer2DModel", "UNet2DConditionModel", "use the model"),
    ),
    "model hash": (
        {"model": {"class": "UNet2DConditionModel", "config_sha256": "ab12"}},
        ("SubNet, model.config_sha256", "ab12", "as pipeline has", "use the model"),
    ),
    "scheduler class": (
        {"scheduler": {"class": "FlowMatchEulerDiscreteScheduler"}},
        ("scheduler FlowMatch", "for a pipeline of PNDMScheduler", "exchanged", "choose one of"),
    ),
    "scheduler without a class": (
        {"scheduler": {"class": "MyScheduler"}},
        ("scheduler MyScheduler", "no scheduler of", "one of ddim"),
    ),
    "scheduler config": (
        {"scheduler": {"class": "EulerDiscreteScheduler", "config": {"beta_end": 0.5}}},
        ("SubNet, scheduler.config.beta_end", "0.5", "0.012", "use the scheduler"),
    ),
    "timesteps": (
        {"timesteps": [600, 300, 0]},
        ("SubNet, timesteps", "from 600 to 0", "3 timesteps from 667 to 1", "use the scheduler"),
    ),
}


@pytest.mark.parametrize("name", SUBNETS)
def test_a_subnet_that_is_wrong_or_of_something_else(
    name: str, pipeline: Path, tmp_path: Path, refused: Refused
) -> None:
    changes, fragments = SUBNETS[name]
    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(SUBNET | changes))
    arguments = ["--model", pipeline, "--subnet", subnet, "--out", tmp_path / "out"]
    refused(export_command.main, arguments, *fragments)


@pytest.mark.parametrize("keep", [1, 100])
def test_a_truncated_subnet(keep: int, tmp_path: Path, refused: Refused) -> None:
    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(SUBNET)[:keep])
    arguments = ["--model", "arch:sd15", "--subnet", subnet, "--out", tmp_path / "out"]
    refused(export_command.main, arguments, "subnet.json", "not JSON", "a whole JSON document")
    refused(dipgo.inspect.main, [subnet], "subnet.json", "not JSON", "a whole JSON document")


SUBNET_OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "other steps": (["--steps", "4"], ("--steps", "4", "3, as the SubNet has", "leave --steps")),
    "blocks too": (["--blocks", "mid_block"], ("--blocks", "as well as a SubNet", "none", "leave")),
    "other scheduler": (
        ["--scheduler", "pndm"],
        ("--scheduler", "PNDMScheduler", "EulerDiscreteScheduler, as the SubNet has", "leave"),
    ),
}


@pytest.mark.parametrize("name", SUBNET_OPTIONS)
def test_options_that_contradict_the_subnet(
    name: str, pipeline: Path, tmp_path: Path, refused: Refused
) -> None:
    options, fragments = SUBNET_OPTIONS[name]
    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(SUBNET))
    arguments = ["--model", pipeline, "--subnet", subnet, "--out", tmp_path / "out", *options]
    refused(export_command.main, arguments, *fragments)
