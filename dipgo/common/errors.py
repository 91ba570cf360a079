"""The exception for a user's mistakes: where it is, what was found, what to do.

A program and the command line have other names for one setting: `steps`, `--steps`. An error names
it by `setting("steps")`, and is worded for the program; a command words it again with its flags.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_MARK = "\N{INVISIBLE SEPARATOR}"


def setting(name: str) -> str:
    """Marks the name of a setting in an error's text: the field of a dataclass, or a keyword.

    Where the command has an option for one value alone, that may follow: `checkpointing=False`.
    """
    return f"{_MARK}{name}{_MARK}"


class DipgoError(Exception):
    """An error of the user's, reported in one line; commands turn it into exit code 2.

    Args:
        where: The place of the error: a file and the path in it, an option, a block.
        found: What stands there.
        expected: What should stand there.
        remedy: What the user can do about it.
    """

    def __init__(self, where: str, *, found: str, expected: str, remedy: str) -> None:
        self._marked = f"{where}: found {found}; expected {expected}; {remedy}"
        self.where, self.found, self.expected, self.remedy = (
            _named(part, str) for part in (where, found, expected, remedy)
        )
        super().__init__()
        self.reword(str)

    def reword(self, name_of: Callable[[str], str], before: str = "") -> None:
        """Calls each setting what `name_of` says, in the line that is shown, after `before`."""
        self._marked = before + self._marked
        self.args = (" ".join(_named(self._marked, name_of).split()),)


def _named(text: str, name_of: Callable[[str], str]) -> str:
    return re.sub(f"{_MARK}(.*?){_MARK}", lambda match: name_of(match[1]), text)
