"""Makes one line of any text, which a terminal may be shown: no controls, and not too long.

Names and values of files that strangers made are part of errors and warnings.
"""

from __future__ import annotations

import unicodedata

LONGEST = 1000
"""Characters of a line that are shown; of longer ones the beginning and the end."""

SHOWN_END = LONGEST // 4
"""Characters of the end, which names the place in a file."""

CONTROLS = ("Cc", "Cf", "Cs")
"""Unicode's categories of controls (also those of the direction), format and half characters."""

JOINERS = "\u200c\u200d"
"""Format characters within words of Persian, and within emoji."""


def one_line(text: str) -> str:
    """Returns a text on one line, with controls escaped as in Python, and shortened.

    White space of any kind becomes single spaces.
    """
    line = " ".join(_shortened(text).split())
    if line.isascii() and line.isprintable():
        return line
    return _shortened("".join(map(_escaped, line)))


def printable(text: str) -> str:
    """Returns a text of several lines with controls other than line ends escaped."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(each if each == "\n" else _escaped(each) for each in text)


def _shortened(text: str) -> str:
    """Returns a text, or its beginning and end with the number of characters between them."""
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST - SHOWN_END]}… ({left_out} characters left out) …{text[-SHOWN_END:]}"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in CONTROLS or character in JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
