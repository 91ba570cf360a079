"""An option that would have no effect is refused by name: every option of every command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Set
from dataclasses import Field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dipgo.common.cli import Parser
from dipgo.common.settings import unmet_need
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.targets import TARGETS
from dipgo.engines.tensorrt.build import BuildOptions
from dipgo.export import export
from dipgo.ir.plan.parse import is_plan_file
from dipgo.models.source import load_source
from dipgo.schedules import RULES
from dipgo.search.options import search_settings
from dipgo.search.settings import SearchSettings
from tests.support.refusals import Refused

VALUES: dict[Any, str] = {int: "3", float: "0.5", Path: "file", None: "word"}
"""A value for an option by its type; others are described by the type's name."""


def _words(action: argparse.Action) -> list[str]:
    """Returns an option and a value that is not its default."""
    flag = action.option_strings[0]
    if action.nargs == 0:
        return [flag]
    if action.choices:
        return [flag, next(word for word in map(str, action.choices) if word != action.default)]
    described = getattr(action.type, "__name__", "")
    if action.type in VALUES:
        return [flag, VALUES[action.type]]
    return [flag, "512x768" if "512x768" in described else "7"]


def _options(command: str) -> Iterator[argparse.Action]:
    parser: Parser = import_module(f"dipgo.{command}")._parser()
    for action in parser._actions:
        if action.option_strings and action.dest != "help":
            yield action


@pytest.fixture
def plan_text(exported: Path, tmp_path: Path) -> Path:
    """A plan in a file of its own."""
    path = tmp_path / "plan.txt"
    path.write_text(str(ExportDirectory.open(exported).plan))
    assert is_plan_file(path)
    return path


SUBNET_FILE = str(Path(__file__).parents[2] / "examples" / "subnets" / "demo-deepcache-5.json")


def test_inspect(exported: Path, plan_text: Path, refused: Refused) -> None:
    _check_all("inspect", [SUBNET_FILE], {"no_plan", "model"}, refused)
    _check_all("inspect", [str(exported)], {"no_plan"}, refused)
    passes = {"passes", "print_between_passes"}
    _check_all("inspect", [str(plan_text)], {"no_plan", *passes}, refused)


def _check_all(command: str, arguments: list[str], used: Set[str], refused: Refused) -> None:
    main = import_module(f"dipgo.{command}").main
    tried = 0
    for action in _options(command):
        if action.dest not in used:
            flag = action.option_strings[-1]
            refused(main, [*arguments, *_words(action)], flag, "without effect ", "leave it out")
            tried += 1
    assert tried >= 1


def test_dense_is_inspected_with_a_model(refused: Refused) -> None:
    main = import_module("dipgo.inspect").main
    refused(main, ["dense"], "--model", "no model for dense", "--steps N")


def test_bench(exported: Path, refused: Refused) -> None:
    main = import_module("dipgo.bench").main
    for against in ([], ["--against", str(exported)]):
        arguments = [str(exported), *against, "--model", "arch:sd15"]
        refused(main, arguments, "--model", "no dense twin is made", "--against dense")


ENGINES = {"compute_capabilities", "jobs", "cache", "refittable", "no_build_cache"}


@pytest.mark.parametrize("target", [row.name for row in TARGETS.values() if not row.builder])
def test_a_target_without_engines(target: str, tmp_path: Path, refused: Refused) -> None:
    main = import_module("dipgo.export.__main__").main
    arguments = ["--model", "arch:sd15", "--subnet", "dense", "--steps", "2", "--target", target]
    arguments += ["--out", str(tmp_path / "out")]
    actions = [action for action in _options("export.__main__") if action.dest in ENGINES]
    assert {action.dest for action in actions} == ENGINES
    for action in actions:
        flag = action.option_strings[-1]
        title = TARGETS[target].title
        refused(main, [*arguments, *_words(action)], flag, f"without effect on {title}")


def test_build_options_without_engines_in_python(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"^build: found options for engines, on ONNX Runtime"):
        export("arch:sd15", out=tmp_path / "out", steps=2, build=BuildOptions(jobs=2))


PROMPTS = {"prompts", "guidance_scale", "seed"}
"""What all methods may get."""


@pytest.mark.parametrize("method", ["dipgo", *RULES])
def test_search(method: str, tmp_path: Path, refused: Refused) -> None:
    main = import_module("dipgo.search.__main__").main
    (tmp_path / "prompts.txt").write_text("a circle")
    arguments = ["--model", "arch:sd15", "--steps", "4", "--ratio", "0.5", "--method", method]
    arguments += ["--out", str(tmp_path / "subnet.json")]
    arguments += ["--prompts", str(tmp_path / "prompts.txt")]
    idle = [action for action in _options("search.__main__") if action.dest in _idle(method)]
    assert len(idle) == 3 if method == "dipgo" else len(idle) > 30
    for action in idle:
        flag = action.option_strings[-1]
        refused(main, [*arguments, *_words(action)], flag, "without effect on ")


def _idle(method: str) -> Set[str]:
    rivals = {"of", "router", "calibration"}
    if method == "dipgo":
        return rivals
    own = {item.name for item in fields(SearchSettings)} - PROMPTS
    own |= {"preset", "checkpoint", "checkpointing", "log", "mixed_precision"}
    options = RULES[method].options
    return own | rivals - {*options, *(("calibration",) if "prompts" in options else ())}


NEEDY = [item for item in fields(SearchSettings) if "needs" in item.metadata]

MET: dict[Any, str] = {True: "5", False: "0"}
MET |= {word: word for word in ("annealed", "penalty", "relaxed")}
UNMET: dict[Any, str] = {True: "0", False: "5", "annealed": "penalty", "penalty": "annealed"}
UNMET |= {"relaxed": "straight-through"}
"""The value of an option by what another needs of it, and one with which that has no effect."""


@pytest.mark.parametrize(
    ("item", "lacking"),
    [
        pytest.param(item, lacking, id=f"{item.name}-{lacking}")
        for item in NEEDY
        for lacking in item.metadata["needs"]
    ],
)
def test_a_search_without_what_an_option_needs(
    item: Field[Any], lacking: str, tmp_path: Path, refused: Refused
) -> None:
    """The line names the option and the value of the other one that leaves it without effect."""
    main = import_module("dipgo.search.__main__").main
    (tmp_path / "prompts.txt").write_text("a circle")
    arguments = ["--model", "arch:sd15", "--steps", "4", "--ratio", "0.5"]
    arguments += ["--out", str(tmp_path / "subnet.json")]
    arguments += ["--prompts", str(tmp_path / "prompts.txt")]
    for name, wanted in item.metadata["needs"].items():
        if name == lacking or lacking != "iterations":  # without which no other has an effect
            value = (UNMET if name == lacking else MET)[wanted]
            arguments += [f"--{name.replace('_', '-')}", value]
    action = next(each for each in _options("search.__main__") if each.dest == item.name)
    words = f"without effect with --{lacking.replace('_', '-')}"
    refused(main, [*arguments, *_words(action)], action.option_strings[0], words)
    settings = search_settings(_parsed([*arguments, *_words(action)]))
    assert unmet_need(settings, item.name) == (lacking, getattr(settings, lacking))
    needs = item.metadata["needs"].items()
    met = {name: int(MET[value]) if isinstance(value, bool) else value for name, value in needs}
    assert unmet_need(replace(settings, **met), item.name) is None


def _parsed(arguments: list[str]) -> argparse.Namespace:
    return import_module("dipgo.search.__main__")._parser().parse_args(arguments)


def test_a_search_without_gradients(tmp_path: Path, refused: Refused) -> None:
    """What is for training alone has no effect where nothing is trained."""
    main = import_module("dipgo.search.__main__").main
    (tmp_path / "prompts.txt").write_text("a circle")
    arguments = ["--model", "arch:sd15", "--steps", "4", "--ratio", "0.5"]
    arguments += ["--out", str(tmp_path / "subnet.json")]
    arguments += ["--prompts", str(tmp_path / "prompts.txt")]
    for words in (["--mixed-precision", "bf16"], ["--no-checkpointing"]):
        refused(main, [*arguments, *words], words[0], "without effect with --iterations 0")
        published = [*arguments, "--preset", "published", "--iterations", "0", *words]
        refused(main, published, words[0], "without effect with --iterations 0")


def test_an_export_in_fp32_has_no_numerics_to_check(tmp_path: Path, refused: Refused) -> None:
    main = import_module("dipgo.export.__main__").main
    arguments = ["--model", "arch:sd15", "--subnet", "dense", "--steps", "2"]
    arguments += ["--out", str(tmp_path / "out"), "--no-numerics-check"]
    refused(main, arguments, "--no-numerics-check", "without effect with --precision fp32")


@pytest.mark.parametrize("option", ["--height", "--width"])
def test_sizes_of_a_model_of_one_size(
    option: str, tiny_dit: Path, tmp_path: Path, refused: Refused
) -> None:
    """A DiT's positions are those of its own size, which may be said."""
    source = load_source(tiny_dit)
    own = source.at(source.geometry()).latent_shape[-1] * source.pixels_per_latent
    source.check_geometry(source.geometry(1, own, own))
    model = ["--model", str(tiny_dit), "--steps", "2", "--out", str(tmp_path / "out")]
    words = f"{2 * own} for a DiTTransformer2DModel, whose pictures have one size"
    export_dit = [*model, "--subnet", "dense", option, str(2 * own)]
    refused(import_module("dipgo.export.__main__").main, export_dit, option, words, str(own))
    also = [*model, "--subnet", "dense", "--also-size", f"{2 * own}x{2 * own}"]
    refused(import_module("dipgo.export.__main__").main, also, "--also-size", words, str(own))
    searching = [*model, "--ratio", "0.5", "--method", "fora", option, str(2 * own)]
    refused(import_module("dipgo.search.__main__").main, searching, option, words, str(own))


def test_evaluate(tmp_path: Path, refused: Refused) -> None:
    main = import_module("dipgo.evaluate.__main__").main
    (tmp_path / "prompts.txt").write_text("a circle")
    arguments = ["--model", "arch:sd15", "--subnets", SUBNET_FILE, "--out", str(tmp_path / "out")]
    arguments += ["--prompts", str(tmp_path / "prompts.txt"), "--no-time"]
    for option in ("--time-repeats", "--time-batch"):
        refused(main, [*arguments, option, "3"], option, "with --no-time")
