"""The exception for a user's mistakes: where it is, what was found, what to do.

A program and the command line have different names for a setting: `steps`, `--steps`. An error
names it by `setting("steps")` and is worded for the program; a command rewords it with its flags.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator

from dipgo.common.one_line import one_line

WORD = 64
"""Bits of the numbers that tensors hold."""

PRINTED = 4 * WORD
"""Bits of whole numbers that errors print: Python prints no long ones."""

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
        self._marked = (where, found, expected, remedy)
        self.where, self.found, self.expected, self.remedy = self._parts(str)
        super().__init__()
        self.reword(str)

    def reword(self, name_of: Callable[[str], str], before: str = "") -> None:
        """Words the error again.

        Args:
            name_of: The function that names a setting in the line that is shown.
            before: Text to put in front of the line.
        """
        self._marked = (before + self._marked[0], *self._marked[1:])
        where, found, expected, remedy = self._parts(name_of)
        self.args = (f"{where}: found {found}; expected {expected}; {remedy}",)

    def _parts(self, name_of: Callable[[str], str]) -> Iterator[str]:
        """Yields where, found, expected and remedy, each a line that a terminal may be shown."""
        return (one_line(named(part, name_of)) for part in self._marked)


def named(text: str, name_of: Callable[[str], str]) -> str:
    """Returns a text in which `name_of` has named the settings that `setting` has marked."""
    return re.sub(f"{_MARK}(.*?){_MARK}", lambda match: name_of(match[1]), text)


def wrong(name: str, value: object, expected: str, remedy: str = "correct it") -> DipgoError:
    """Returns the error for a field that holds a wrong value."""
    return DipgoError(setting(name), found=shown(value), expected=expected, remedy=remedy)


def shown(value: object) -> str:
    """Returns a value as text; Python prints no whole number of thousands of digits."""
    return _digits(value) or f"{value}" or "''"


def wrong_type(name: str, value: object, expected: str) -> DipgoError:
    """Returns the error for an argument of a wrong type: it shows the type besides the value."""
    return DipgoError(setting(name), found=described(value), expected=expected, remedy="correct it")


def described(value: object) -> str:
    """Returns a value in a few words: `'2' (str)`, `1.5 (float)`, `an array float32[2, 3]`."""
    if value is None or isinstance(value, bool):
        return f"{value}"
    name = type(value).__name__
    if digits := _digits(value):
        return digits
    if isinstance(value, str | bytes | int | float):
        return f"{value!r} ({name})"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{_article(name)}, {value.dtype}{list(value.shape)}" if value.shape else f"{value}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return _article(name)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _digits(value: object) -> str:
    """Returns the length of a whole number that Python may refuse to print; "" for all else."""
    bits = value.bit_length() if isinstance(value, int) else 0
    return f"a number of {bits} bits" if bits > PRINTED else ""


SAME = {
    "num_inference_steps": "steps",
    "n_steps": "steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "scale": "guidance_scale",
    "batch_size": "batch",
    "output": "out",
    "output_dir": "out",
    "device": "provider",
    "dtype": "precision",
    "torch_dtype": "precision",
    "num_threads": "threads",
    "overwrite": "force",
}
"""Names that other programs have for settings, and dipgo's."""


def close_to(name: object, known: Iterable[str], otherwise: str = "correct it") -> str:
    """Returns a remedy for a name that is not known: the names that are close to it.

    Args:
        name: The name that was given: of a setting, an option with its dashes, or a choice.
        known: The names that there are.
        otherwise: The remedy where none is close.
    """
    plain = {_plain(one): one for one in known}
    given = _plain(str(name)[:WORD])
    begun = [one for one in plain if given and one.startswith(given)]
    same = [SAME[given]] if SAME.get(given) in plain else []
    close = same or begun[:3] or difflib.get_close_matches(given, plain, 1)
    if not close:
        return otherwise
    *others, last = (plain[one] for one in close)
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def _plain(name: str) -> str:
    return name.lower().lstrip("-").replace("-", "_")


def is_unicode(text: str) -> bool:
    """Returns whether the text can be encoded.

    Bytes of arguments and file names that are not UTF-8 are surrogates in Python, which no encoding
    has.
    """
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
