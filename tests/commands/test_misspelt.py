"""Misspelt, shortened and renamed options, commands and choices: one line names what was meant.

Failed at 3bfeb0e: no line named a close match, prefixes were taken (`--prec fp16`), and the option
of the guidance scale had two names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dipgo.__main__
from dipgo.__main__ import COMMANDS
from dipgo.common.cli import Parser, run_command
from dipgo.common.errors import DipgoError, close_to


def _parser(command: str) -> Parser:
    parser: Parser = importlib.import_module(COMMANDS[command][0])._parser()
    return parser


def _options(command: str) -> list[str]:
    actions = _parser(command)._actions
    return [flag for action in actions for flag in action.option_strings if flag.startswith("--")]


OPTIONS = [(command, flag) for command in COMMANDS for flag in _options(command)]


def _refusal(command: str, words: list[str]) -> str:
    with pytest.raises(DipgoError) as caught:
        _parser(command).run(lambda options: None, words)
    return str(caught.value)


def _misspelt(flag: str) -> Iterator[str]:
    """A letter left out, doubled, or two that changed places."""
    middle = len(flag) // 2 + 1
    yield flag[:middle] + flag[middle + 1 :]
    yield flag[:middle] + flag[middle - 1 :]
    yield flag[: middle - 1] + flag[middle] + flag[middle - 1] + flag[middle + 1 :]


@pytest.mark.parametrize(("command", "flag"), OPTIONS)
def test_a_misspelt_option(command: str, flag: str) -> None:
    """It is said before what is missing; with its value after it, or after an equals sign."""
    known = _options(command)
    for wrong in set(_misspelt(flag)) - set(known):
        for words in ([wrong, "1"], [f"{wrong}=1"]):
            line = _refusal(command, words)
            assert line.startswith(f"{wrong}: found an option that dipgo.{command} does not have; ")
            assert "did you mean --" in line or len(flag) < 8, line


@pytest.mark.parametrize(("command", "flag"), OPTIONS)
def test_a_prefix_is_no_option(command: str, flag: str) -> None:
    known = _options(command)
    for length in range(4, len(flag)):
        prefix = flag[:length]
        earlier = {old for name, old, *_ in RENAMED if name == command}
        if prefix not in {*known, *earlier, *_parser(command).remedies}:
            line = _refusal(command, [prefix, "1"])
            assert line.startswith(f"{prefix}: found an option that ")
            meant = [one for one in known if one.startswith(prefix)]
            assert any(one in line for one in meant[:3])


CHOICES = [
    ("search", "--method", "deepcahe", "deepcache"),
    ("search", "--backup", "ouput", "output"),
    ("search", "--loss", "logl2", "log-l2"),
    ("search", "--preset", "publised", "published"),
]


@pytest.mark.parametrize(("command", "flag", "wrong", "right"), CHOICES)
def test_a_misspelt_choice(command: str, flag: str, wrong: str, right: str) -> None:
    line = _refusal(command, [flag, wrong])
    assert line.startswith(f"{flag}: found '{wrong}'; expected one of ")
    assert line.endswith(f"did you mean {right}?")


@pytest.mark.parametrize(
    ("wrong", "right"), [("serach", "search"), ("evalute", "evaluate"), ("inspec", "inspect")]
)
def test_a_misspelt_command(
    wrong: str, right: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dipgo", wrong, "--model", "M"])
    assert dipgo.__main__.main() == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: dipgo {wrong}: found a command that is not there; ")
    assert line.endswith(f"did you mean {right}?\n")


RENAMED = [
    ("run", "--guidance", "--guidance-scale", "7.5", 7.5),
    ("run", "--mask", "--mask-image", "m.png", Path("m.png")),
    ("evaluate", "--guidance", "--guidance-scale", "7.5", 7.5),
]
NEEDED = {
    "run": ["OUT"],
    "evaluate": ["--model", "M", "--subnets", "A", "--prompts", "P", "--out", "O"],
}


@pytest.mark.parametrize(("command", "old", "new", "text", "value"), RENAMED)
def test_an_earlier_name_is_taken_with_a_warning(
    command: str, old: str, new: str, text: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once in stderr; and the present name without one."""
    found: list[object] = []
    name = new.removeprefix("--").replace("-", "_")
    for words in ([old, text], [f"{old}={text}"], [new, text]):
        parser = _parser(command)
        parser.run(lambda options: found.append(getattr(options, name)), [*NEEDED[command], *words])
        warning = f"warning: {old} is called {new} now; the next release has no other name\n"
        assert capsys.readouterr().err == (warning if words[0] != new else "")
    assert found == [value] * 3


FIXED = ("--steps", "--num-inference-steps", "--height", "--strength", "--eta")


@pytest.mark.parametrize("flag", FIXED)
def test_run_says_what_an_export_has_decided(flag: str) -> None:
    line = _refusal("run", ["OUT", flag, "20"])
    assert line.startswith(f"{flag}: found an option that dipgo.run does not have; ")
    assert "export again with " in line


def test_a_prompt_may_look_like_an_option() -> None:
    """One with a space is a value, as argparse has it; so is what follows an equals sign."""
    found: list[object] = []
    for words in (["--prompt", "--red circle"], ["--prompt=--red"]):
        _parser("run").run(lambda options: found.append(options.prompt), ["OUT", *words])
    assert found == ["--red circle", "--red"]


@pytest.mark.parametrize(
    ("name", "known", "remedy"),
    [
        ("--stps", ["--steps"], "did you mean --steps?"),
        ("STEPS", ["steps"], "did you mean steps?"),
        ("he", ["height", "held_out", "hem", "heavy"], "did you mean height, held_out or hem?"),
        ("guidance", ["guidance_scale"], "did you mean guidance_scale?"),
        ("num_inference_steps", ["steps"], "did you mean steps?"),
        ("zzz", ["steps"], "leave it out"),
        ("", ["steps"], "leave it out"),
        ("x" * 10**6, ["steps"], "leave it out"),
    ],
    ids=range(8),
)
def test_close_names(name: str, known: list[str], remedy: str) -> None:
    assert close_to(name, known, "leave it out") == remedy


def test_the_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dipgo", "--version"])
    assert dipgo.__main__.main() == 0
    assert capsys.readouterr().out == f"dipgo {dipgo.__version__}\n"


def test_run_command_shows_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda words: _parser("run").run(print, words), ["OUT", "--stps"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
