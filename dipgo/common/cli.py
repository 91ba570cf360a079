"""Parses arguments and runs commands: a user's error is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from dipgo.common.early_interrupts import LINE
from dipgo.common.errors import DipgoError, close_to, setting
from dipgo.common.output import (
    BROKEN_PIPE,
    OUTPUT_ERRORS,
    drop_output,
    flush_output,
    output_is_full,
    say,
    show_any_text,
)
from dipgo.common.signals import Signals, orderly_end
from dipgo.common.warn import shown_warnings, warn

USER_ERROR = 2

HELP_WIDTH = 78


OTHER_FLAGS = {
    "also_sizes": "--also-size",
    "cache": "--build-cache",
    "check_numerics": "--no-numerics-check",
    "compute_capabilities": "--compute-capability",
    "guidance": "--no-guidance",
    "loras": "--lora",
}
"""Flags that are not spelt as their settings, for commands that have them not."""


class OptionGroup(Protocol):
    """The options under one heading of a command's help."""

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Adds an option as `argparse.ArgumentParser.add_argument` does."""
        ...


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A group that hands on, with each option that is added, what it is called."""

    group: OptionGroup
    record: Callable[[argparse.Action], None]

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        action = self.group.add_argument(*args, **kwargs)
        self.record(action)
        return action


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong argument in one line, and has options in groups.

    Options are written in full: what an abbreviation means may change with any new option.
    """

    def __init__(self, prog: str, *, description: str, examples: Sequence[str] = ()) -> None:
        """Makes a parser.

        Args:
            prog: The command after `python -m`.
            description: The text at the beginning of the help.
            examples: Whole command lines, shown at the end of the help.
        """
        self._flags: dict[str, str] = {}
        self._options: list[str] = []
        self.remedies: dict[str, str] = {}
        """What to do about options that the command has not, and other programs have."""
        self._new_names: dict[str, str] = {}
        self._by_title: dict[str, OptionGroup] = {}
        super().__init__(
            prog=prog,
            description=textwrap.fill(description, HELP_WIDTH),
            epilog="\n  ".join(["examples:", *examples]) if examples else "",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def group(self, title: str) -> OptionGroup:
        """Returns the group of options under a heading of the help, made when first asked for."""
        if title not in self._by_title:
            self._by_title[title] = _Recorded(self.add_argument_group(title), self._record)
        return self._by_title[title]

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Adds an argument as argparse does, and keeps what it is called on the command line."""
        action = super().add_argument(*args, **kwargs)
        self._record(action)
        return action

    def rename(self, old: str, new: str) -> None:
        """Takes `old` for the option `new` for one more release, with a warning."""
        self._new_names[old] = new

    def _record(self, action: argparse.Action) -> None:
        name = (action.option_strings or [str(action.metavar or action.dest)])[-1]
        self._flags.setdefault(action.dest, name)
        self._options += action.option_strings
        if action.const is False:
            self._flags[f"{action.dest}=False"] = name

    def run(self, body: Callable[[argparse.Namespace], None], arguments: Sequence[str]) -> None:
        """Parses `arguments` and calls `body`; errors and warnings name flags, not fields.

        The namespace that `body` gets also holds `changed`: the names of options whose values are
        not the defaults.

        Raises:
            DipgoError: An argument is wrong, or `body` raises it.
        """
        try:
            with shown_warnings(self.flag_of):
                options = self.parse_args(self._renamed(arguments))
            values = vars(options)
            options.changed = {
                name for name, value in values.items() if value != self.get_default(name)
            }
            with shown_warnings(self.flag_of):
                body(options)
        except DipgoError as error:
            error.reword(self.flag_of)
            raise

    def _renamed(self, arguments: Sequence[str]) -> list[str]:
        """Returns the arguments with the new names of options, of which it warns.

        Raises:
            DipgoError: An option is not known; argparse would first miss those that are required.
        """
        renamed = []
        for word in arguments:
            name, equals, value = word.partition("=")
            if name in self._new_names:
                old, name = name, self._new_names[name]
                warn(f"{old} is called {name} now; the next release has no other name")
            if name.startswith("--") and " " not in name and name != "--":
                self._check_option(name)
            renamed.append(f"{name}{equals}{value}")
        return renamed

    def _check_option(self, name: str) -> None:
        if name not in self._options:
            raise DipgoError(
                name,
                found=f"an option that {self.prog} does not have",
                expected="an option in full, as the help lists it",
                remedy=self.remedies.get(name) or close_to(name, self._options, self._see_help),
            )

    @property
    def _see_help(self) -> str:
        return f"see python -m {self.prog} --help"

    def flag_of(self, name: str) -> str:
        """Returns the flag of the setting `name`, of this command or another.

        The flag of `checkpointing=False` is `--no-checkpointing`, if the command has that option.
        """
        exact, name = self._flags.get(name), name.partition("=")[0]
        return (
            exact or self._flags.get(name) or OTHER_FLAGS.get(name, f"--{name.replace('_', '-')}")
        )

    def print_help(self, file: Any = None) -> None:
        """Prints the help; argparse would say nothing where it cannot be printed.

        Raises:
            OSError: The output takes no more.
        """
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Reports argparse's problem as an error of the user's.

        Raises:
            DipgoError: Always.
        """
        where, found, expected = _explain(message)
        _, is_choice, choices = expected.partition("one of ")
        words = re.findall(r"[^\s,']+", choices) if is_choice else []
        if words:  # whether argparse quotes them depends on Python's version
            expected = f"one of {', '.join(words)}"
        raise DipgoError(
            where or self.prog,
            found=found,
            expected=expected,
            remedy=close_to(found.strip("'"), words, self._see_help),
        )


# Argparse's messages, and the same as where, found and expected; the last form takes anything.
_PROBLEMS = (
    (r"argument (.+?): invalid int value: (.+)", (r"\1", r"\2", "a whole number")),
    (r"argument (.+?): invalid float value: (.+)", (r"\1", r"\2", "a number")),
    (r"argument (.+?): invalid (.+) value: (.+)", (r"\1", r"\3", r"\2")),
    (r"argument (.+?): invalid choice: (.+) \(choose from (.+)\)", (r"\1", r"\2", r"one of \3")),
    (r"argument (.+?): ignored explicit argument (.+)", (r"\1", r"\2", "no value")),
    (r"argument (.+?): expected (.+)", (r"\1", "another number of values", r"\2")),
    (r"the following arguments are required: (.+)", ("", r"no \1", "every required argument")),
    (r"unrecognized arguments: (.+)", ("", r"\1", "the arguments that the help lists")),
    (r"(?s)(.+)", ("", r"\1", "the arguments that the help lists")),
)


def _explain(message: str) -> tuple[str, ...]:
    matches = ((re.fullmatch(form, message), words) for form, words in _PROBLEMS)
    return next(tuple(map(match.expand, words)) for match, words in matches if match)


def refuse_idle(
    options: argparse.Namespace, names: Iterable[str], where: str, remedy: str = "leave it out"
) -> None:
    """Refuses options that are set and would have no effect.

    Args:
        options: The options that `Parser.run` has parsed.
        names: The names of options that have no effect.
        where: The condition under which they have none, as in "on an export".
        remedy: The action that the user can take.

    Raises:
        DipgoError: One of `names` is not at its default.
    """
    for name in sorted(options.changed.intersection(names)):
        is_off = getattr(options, name) is False
        raise DipgoError(
            setting(f"{name}=False" if is_off else name),
            found=f"an option without effect {where}",
            expected="only options that have one",
            remedy=remedy,
        )


def whole_number(least: int) -> Callable[[str], int]:
    """Returns the type of an argument that is a whole number of at least `least`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError
        return number

    # argparse shows the type's name when it refuses a value.
    parse.__name__ = f"a whole number of at least {least}"
    return parse


def run_command(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; shows dipgo's warnings, and hides libraries'.

    A signal ends it in order: it removes what it has half-written, says so in a line, and the
    exit code is 128 and the signal's number.

    Args:
        main: The command, called with its arguments.
        arguments: The arguments; those of the process if None.
    """
    for stream in (sys.stdout, sys.stderr):
        show_any_text(stream)
    with orderly_end() as signals:
        try:
            with warnings.catch_warnings():
                if not sys.warnoptions:
                    warnings.simplefilter("ignore")
                with shown_warnings(str):
                    main(sys.argv[1:] if arguments is None else arguments)
            flush_output()
        except BaseException as error:
            return _exit_code(error, signals)
    return 0


def _exit_code(error: BaseException, signals: Signals) -> int:
    """Says in a line why a command has ended, and returns its exit code; raises what is a fault.

    Libraries may turn the exception of a signal into one of theirs.
    """
    try:
        flush_output()
    except OSError as output_error:
        drop_output()
        error = output_error if isinstance(error, SystemExit) else error
    if signals.number is not None or isinstance(error, KeyboardInterrupt):
        number = signals.number or signal.SIGINT
        say(LINE if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
        return 128 + number
    if isinstance(error, BrokenPipeError) and not error.filename:
        return BROKEN_PIPE
    if isinstance(error, OSError) and not error.filename and error.errno in OUTPUT_ERRORS:
        error = output_is_full(error)
    if isinstance(error, DipgoError):
        say(f"error: {error}")
        return USER_ERROR
    raise error
