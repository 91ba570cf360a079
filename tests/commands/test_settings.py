"""Every field of every settings class: programs are told of fields, commands of flags."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import pytest

from dipgo.common.cli import OTHER_FLAGS, Parser
from dipgo.common.errors import DipgoError, setting
from dipgo.common.options import read_settings
from dipgo.compiler.settings import Request, ScheduleSettings
from dipgo.engines.tensorrt.build import BuildOptions
from dipgo.evaluate.settings import EvaluationSettings
from dipgo.export.settings import ExportSettings
from dipgo.run.arguments import check_scale
from dipgo.search.request import SearchRequest
from dipgo.search.settings import SearchSettings

NEEDED: dict[type, dict[str, Any]] = {SearchRequest: {"ratio": 0.5, "steps": 4}}
"""Fields without a default."""

CLASSES = (
    ScheduleSettings,
    Request,
    ExportSettings,
    BuildOptions,
    SearchRequest,
    SearchSettings,
    EvaluationSettings,
)

COMMANDS: dict[str, tuple[type, ...]] = {
    "dipgo.export.__main__": (ExportSettings, BuildOptions),
    "dipgo.inspect": (Request,),
    "dipgo.build": (BuildOptions,),
    "dipgo.search.__main__": (SearchRequest, SearchSettings),
    "dipgo.evaluate.__main__": (EvaluationSettings,),
}
"""By module: the settings that a command reads off its options."""

NOT_OPTIONS = {"build", "weigh", "subnet"}
"""Fields that are no option by themselves."""


class Wrong:
    """Nothing that a setting may be."""

    def __str__(self) -> str:
        return "something else"


def _fields(*classes: type) -> Iterator[tuple[type, str]]:
    for settings in classes:
        for each in fields(settings):
            yield settings, each.name


def _make(settings: type, **values: object) -> object:
    return settings(**NEEDED.get(settings, {}) | values)


@pytest.mark.parametrize(
    ("settings", "name"), list(_fields(*CLASSES)), ids=lambda one: getattr(one, "__name__", one)
)
def test_a_program_is_told_the_field(settings: type, name: str) -> None:
    with pytest.raises(DipgoError, match=rf"^{name}: found a Wrong; expected ") as caught:
        _make(settings, **{name: Wrong()})
    assert "--" not in str(caught.value)
    assert str(caught.value).isprintable()


def _options() -> Iterator[tuple[str, type, str]]:
    for command, classes in COMMANDS.items():
        for settings, name in _fields(*classes):
            if name not in NOT_OPTIONS:
                yield command, settings, name


@pytest.mark.parametrize(
    ("command", "settings", "name"), list(_options()), ids=lambda one: getattr(one, "__name__", one)
)
def test_a_command_is_told_the_flag(command: str, settings: type, name: str) -> None:
    """The flag is one that the command has, and stands for this field."""
    parser: Parser = importlib.import_module(command)._parser()
    (action, *_) = (action for action in parser._actions if action.dest == name)

    def body(options: Namespace) -> None:
        _make(settings, **{name: Wrong()})

    parser.parse_args = lambda arguments: Namespace()  # type: ignore[assignment,misc,method-assign]
    with pytest.raises(DipgoError) as caught:
        parser.run(body, [])
    assert str(caught.value).startswith(f"{action.option_strings[-1]}: found a Wrong")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400, 10**5000], ids=int.bit_length)
@pytest.mark.parametrize(("settings", "name"), list(_fields(*CLASSES)))
def test_numbers_of_more_than_64_bits(settings: type, name: str, value: int) -> None:
    """No float holds them, and Python prints none of more than 4300 digits."""
    with pytest.raises(DipgoError, match=rf"^{name}: found "):
        _make(settings, **{name: value})


WRONG_TEXTS = ("wrong", "-1", "nan")

FREE = ("pass_names", "a file and a finite scale such as style.safetensors:0.8", "Path")
"""What reads any text."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_text_is_refused_by_flag(command: str) -> None:
    """By argparse, or by the settings that are read off what it parsed."""
    parser: Parser = importlib.import_module(command)._parser()
    for action in parser._actions:
        action.required = False
    for settings, name in _fields(*COMMANDS[command]):
        (action, *_) = (*(one for one in parser._actions if one.dest == name), None)
        if action is None or (action.type is None and not action.choices and action.nargs != 0):
            continue
        refused = list(_refused(parser, settings, action.option_strings[-1]))
        assert refused or getattr(action.type, "__name__", "") in FREE
        assert all(action.option_strings[-1] in line for line in refused)


def _refused(parser: Parser, settings: type, flag: str) -> Iterator[str]:
    for text in WRONG_TEXTS:
        try:
            parser.run(
                lambda options: _keep(read_settings(options, settings, _make(settings))),
                [f"{flag}={text}"],
            )
        except DipgoError as error:
            yield str(error)


def _keep(made: object) -> None:
    """Nothing: making it was the test."""


def test_remedies_name_settings_too() -> None:
    """Of another command's settings as well."""
    parser = Parser("dipgo.x", description="X.")
    parser.add_argument("--also-size", dest="also_sizes")

    def body(options: Namespace) -> None:
        raise DipgoError(
            f"{setting('also_sizes')} 8x8",
            found="it",
            expected=f"no {setting('keep_fp32')}",
            remedy=f"leave {setting('also_sizes')} out",
        )

    with pytest.raises(DipgoError) as caught:
        parser.run(body, [])
    line = "--also-size 8x8: found it; expected no --keep-fp32; leave --also-size out"
    assert str(caught.value) == line


def test_flags_of_other_commands_are_those_that_settings_declare() -> None:
    declared = {
        item.name: item.metadata["flag"]
        for settings in CLASSES
        for item in fields(settings)
        if item.metadata.get("flag", "") not in ("", f"--{item.name.replace('_', '-')}")
    }
    assert declared == OTHER_FLAGS


def test_a_run_names_its_own_flags() -> None:
    """Where a setting is called otherwise in Python."""
    parser = importlib.import_module("dipgo.run.__main__")._parser()
    for name, flag in (("guidance_scale", "--guidance-scale"), ("seed", "--seed")):
        assert parser.flag_of(name) == flag


@pytest.mark.parametrize(
    ("scale", "found"),
    [(float("nan"), "nan"), ("7", ".7"), (None, "None"), (10**400, "a number of"), (10**5000, "a")],
    ids=range(5),
)
def test_a_scale_that_is_no_finite_number(scale: Any, found: str) -> None:
    with pytest.raises(DipgoError, match=f"^guidance_scale: found {found}"):
        check_scale(scale)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_has_a_default_of_its_own(command: str) -> None:
    """Those read off settings are None until they are given: defaults stand in one place."""
    parser: Parser = importlib.import_module(command)._parser()
    named = {name for settings in COMMANDS[command] for _, name in _fields(settings)}
    assert {action.dest: action.default for action in parser._actions if action.dest in named} == {
        action.dest: None for action in parser._actions if action.dest in named
    }


def test_needed_fields_are_those_without_a_default() -> None:
    for settings in CLASSES:
        needed = {each.name for each in fields(settings) if each.default is MISSING}
        assert needed == set(NEEDED.get(settings, {}))


def test_text_for_a_number_is_quoted() -> None:
    with pytest.raises(
        DipgoError, match=r"^steps: found '2' \(str\); expected a whole number or None"
    ):
        Request(steps="2")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64,), (0, 64), (-64, 64), (2, 64, -1), (1, 2, 3, 4), "64x64"])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(DipgoError, match=r"^also_sizes: found .* expected sizes above 0"):
        ExportSettings(also_sizes=(size,))
