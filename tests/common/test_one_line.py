"""Errors and warnings are one line without controls, whatever text they are made of.

Failed at 3bfeb0e: controls and a megabyte of a stranger's file reached the terminal as they were.
"""

from __future__ import annotations

import unicodedata
from argparse import Namespace

import pytest

import dipgo
from dipgo.common.cli import Parser, run_command
from dipgo.common.errors import DipgoError, setting
from dipgo.common.one_line import CONTROLS, JOINERS, LONGEST, one_line
from dipgo.common.warn import warn

C0_AND_C1 = [*range(0x20), *range(0x7F, 0xA0)]
BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
OTHERS = [0x2028, 0x2029, 0xFEFF, 0x2063, 0xE0041, 0xD800, 0xDFFF, 0xAD]
CHARACTERS = [chr(code) for code in (*C0_AND_C1, *BIDI, *OTHERS)]
PARTS = ("where", "found", "expected", "remedy")
LENGTHS = (0, 1, LONGEST - 1, LONGEST, LONGEST + 1, 10 * LONGEST, 10**6)
MOST = 2 * LONGEST
"""Characters of a part at most: what is shown, and the number that is left out."""


def _error(part: str, text: str) -> DipgoError:
    texts = dict.fromkeys(PARTS, "words") | {part: text}
    return DipgoError(texts.pop("where"), **texts)


def _is_safe(text: str) -> bool:
    return "\n" not in text and not any(
        unicodedata.category(character) in (*CONTROLS, "Zl", "Zp") for character in text
    )


@pytest.mark.parametrize("character", CHARACTERS, ids=lambda one: f"U+{ord(one):04X}")
def test_no_control_is_shown(character: str) -> None:
    """In any part of an error, its attributes, and a warning; `repr` of it may come first."""
    for part in PARTS:
        error = _error(part, f"a{character}b{character}")
        for text in (str(error), getattr(error, part)):
            assert _is_safe(text)
            assert "a" in text
            assert "b" in text
    with pytest.warns(dipgo.DipgoWarning) as caught:
        warn(f"a{character}b{character}")
    assert _is_safe(str(caught[0].message))


@pytest.mark.parametrize("character", CHARACTERS, ids=lambda one: f"U+{ord(one):04X}")
def test_a_command_shows_no_control(character: str, capsys: pytest.CaptureFixture[str]) -> None:
    def body(options: Namespace) -> None:
        warn(f"a{character}b")
        raise DipgoError(f"c{character}d", found="it", expected="other", remedy="correct it")

    assert run_command(lambda words: Parser("dipgo.x", description="X.").run(body, words), []) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: a")
    assert error.startswith("error: c")
    assert _is_safe(warning)
    assert _is_safe(error)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("character", ["x", "é", "\x1b", " x"])
def test_long_texts_are_cut_and_say_how_much(character: str, length: int) -> None:
    text = f"{character * (length // len(character))}end"
    for part in PARTS:
        error = _error(part, text)
        assert len(getattr(error, part)) <= MOST
        assert len(str(error)) <= MOST + 100
        assert str(error).count("end") >= 1
    line = one_line(text)
    assert ("characters left out" in line) == (len(text) > LONGEST or len(line) > LONGEST)


def test_words_of_people_stay_as_they_are() -> None:
    text = f"Straße, 東京, نص, 👩{JOINERS[1]}🚀, می{JOINERS[0]}خواهم, `--steps` – “x” …"
    assert one_line(text) == text
    assert str(_error("found", text)).startswith(f"words: found {text}; ")


def test_white_space_is_one_space() -> None:
    assert one_line(" a\t\n b\u2028\u3000c\r\n") == "a b c"


def test_a_mark_in_a_strangers_text_renames_nothing_else() -> None:
    """The mark of settings is a format character, which a file may hold too."""
    mark = setting("")[0]
    error = _error("found", f"{mark}a\n{mark} {mark}b")
    error.reword(lambda name: f"--{name}")
    assert str(error).startswith("words: found ")
    assert str(error).endswith("; expected words; words")
    assert _is_safe(str(error))
