"""The exception for a user's mistakes: where it is, what was found, what to do.

A program and the command line have different names for a setting: `steps`, `--steps`. An error
names it by `setting("steps")` and is worded for the program; a command rewords it with its flags.
"""

from __future__ import annotations

import re
from collections.abc import Callable

WORD = 64
"""Bits of the numbers that tensors hold."""

_MARK = "\N{INVISIBLE SEPARATOR}"


def setting(name: str) -> str:
    """Marks the name of a setting in an error's text: the field of a dataclass, or a keyword.

    If the command's option is for a single value, the value may follow: `checkpointing=False`.
    """
    return f"{_MARK}{name}{_MARK}"


class DipgoError(Exception):
    """An error of the user's, reported in one line; commands turn it into exit code 2.

    Args:
        where: The place of the error: a file and the path in it, an option, a block.
        found: The value or condition at that place.
        expected: The values that are allowed there.
        remedy: The action that the user can take.
    """

    def __init__(self, where: str, *, found: str, expected: str, remedy: str) -> None:
        self._marked = f"{where}: found {found}; expected {expected}; {remedy}"
        self.where, self.found, self.expected, self.remedy = (
            named(part, str) for part in (where, found, expected, remedy)
        )
        super().__init__()
        self.reword(str)

    def reword(self, name_of: Callable[[str], str], before: str = "") -> None:
        """Words the error again.

        Args:
            name_of: The function that names a setting in the line that is shown.
            before: Text to put in front of the line.
        """
        self._marked = before + self._marked
        self.args = (" ".join(named(self._marked, name_of).split()),)


def named(text: str, name_of: Callable[[str], str]) -> str:
    """Returns a text in which `name_of` has named the settings that `setting` has marked."""
    return re.sub(f"{_MARK}(.*?){_MARK}", lambda match: name_of(match[1]), text)


def wrong(name: str, value: object, expected: str, remedy: str = "correct it") -> DipgoError:
    """Returns the error for a field that holds a wrong value."""
    if isinstance(value, int) and value.bit_length() > WORD:  # Python prints no long ones
        text = f"a number of {value.bit_length()} bits"
    else:
        text = f"{value}" or "''"
    return DipgoError(setting(name), found=text, expected=expected, remedy=remedy)


def is_unicode(text: str) -> bool:
    """Returns whether the text can be encoded.

    Bytes of arguments and file names that are not UTF-8 are surrogates in Python, which no encoding
    has.
    """
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
