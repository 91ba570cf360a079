"""Converts slow (Python) tokenizers for the `tokenizers` library, with the very same tokens."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from dipgo.common.errors import DipgoError

CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
"""Tokens that CLIP's pattern finds in a text too, after the text has been lower-cased."""

CJK = (
    r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}"
    r"\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
)
"""Ideographs, each of which is a word. Source: `BasicTokenizer` of transformers, after BERT's."""

FINAL, CAPITAL = "ς", "Σ"
"""Sigma at the end of a word, and the capital that it is written for; others become σ."""


def convert(tokenizer: Any) -> Any:
    """Returns a slow tokenizer as one of the `tokenizers` library; T5's needs `sentencepiece`.

    A slow tokenizer looks for its added tokens in the text as it is, before anything is normalised,
    which a conversion by transformers alone knows nothing of.

    Raises:
        DipgoError: A package that converts it is missing, or it uses one that cannot be converted.
    """
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import convert_slow_tokenizer

    try:
        backend = convert_slow_tokenizer(tokenizer)
    except ImportError as error:
        raise DipgoError(
            f"tokenizer {type(tokenizer).__name__}",
            found=str(error).strip().splitlines()[0],
            expected="the packages that convert it for the tokenizers library",
            remedy="pip install sentencepiece protobuf, or save the pipeline with a fast tokenizer",
        ) from error
    is_clip = type(tokenizer).__name__ == "CLIPTokenizer"
    if is_clip:
        _split_as_clip(backend, tokenizer)
    for _, token in sorted(tokenizer.added_tokens_decoder.items()):
        added = AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=is_clip and token.content in CLIP_SPECIAL,
            special=token.special,
        )
        backend.add_tokens([added])
    return backend


def _split_as_clip(backend: Any, tokenizer: Any) -> None:
    """Makes the backend normalise texts and split them into words as the slow CLIP does.

    Its steps are those of `BasicTokenizer`, which depend on the version of Unicode that this Python
    has: characters that it does not know are removed. So each class of characters is read off the
    tokenizer and written out, in place of a name for which libraries have tables of their own.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    if tokenizer.fix_text is not None:
        raise DipgoError(
            f"tokenizer {type(tokenizer).__name__}",
            found="the package ftfy, with which this tokenizer mends texts before it reads them",
            expected="a tokenizer that needs no package of Python's to read a text",
            remedy="uninstall ftfy, or load a fast tokenizer into the pipeline",
        )
    classes = _classes(tokenizer.pat)
    cased, ignored = classes["cased"], classes["ignored"]
    steps = [
        *_spaced_special(),
        (f"[{classes['removed']}]+", ""),
        normalizers.NFC(),
        (rf"[{cased}][{ignored}]*\K{CAPITAL}(?![{ignored}]*[{cased}])", FINAL),
        normalizers.Lowercase(),
        *_special_in_lower_case(),
    ]
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(step[0]), step[1]) if isinstance(step, tuple) else step
            for step in steps
        ]
    )
    letters, numbers, others = (classes[name] for name in ("letters", "numbers", "others"))
    contractions = "'[sſ]|'t|'re|'ve|'m|'ll|'d"  # without regard to case, ſ is an s
    words = rf"{contractions}|[{CJK}]|[{letters}&&[^{CJK}]]+|[{numbers}]|[{others}]+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _spaced_special() -> list[tuple[str, str]]:
    """Returns replacements that put spaces between CLIP's special tokens and what is around them.

    A token that stands alone stays as it is: the library normalises the tokens themselves too.
    """
    behind = [(rf"{re.escape(token)}(?=[\s\S])", f"{token} ") for token in CLIP_SPECIAL]
    before = [(rf"(?<=[\s\S]){re.escape(token)}", f" {token}") for token in CLIP_SPECIAL]
    return behind + before


def _special_in_lower_case() -> list[tuple[str, str]]:
    """Returns replacements that leave CLIP's special tokens where its pattern finds them.

    In a text that is lower-cased now it finds one after a letter, a number, white space or another
    one, but not after a mark: marks go on to the next letter, and take its first two along. Three
    of them may stand side by side.
    """
    mark = r"[^\s\p{L}\p{N}\x{345}]"  # without regard to case, U+0345 is the letter iota
    found = [(rf"(?<!{mark}){re.escape(token)}(?=[\s\S])", f"{token} ") for token in CLIP_SPECIAL]
    lost = [
        (f"(?<={mark}){re.escape(token)}", f"{token[:2]} {token[2:]}") for token in CLIP_SPECIAL
    ]
    return found * 3 + lost


@cache
def _classes(pattern: Any) -> dict[str, str]:
    """Returns the classes of characters that CLIP's `pattern` and Python's `lower` tell apart.

    Each is the inside of brackets in a regular expression. What is removed stands in no other
    class, so ranges of these may go on over it.
    """
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    kept = [character for character in every if not _is_removed(character)]
    kept_set = set(kept)

    def is_cased(character: str) -> bool:
        return f"{character}{CAPITAL}".lower().endswith(FINAL)

    def is_ignored(character: str) -> bool:
        return f"a{character}{CAPITAL}".lower().endswith(FINAL) and not is_cased(character)

    def is_letter(character: str) -> bool:
        return bool(pattern.fullmatch(f"a{character}"))

    def is_number(character: str) -> bool:
        return bool(pattern.fullmatch(character)) and not pattern.fullmatch(character * 2)

    def is_other(character: str) -> bool:
        return bool(pattern.fullmatch(f".{character}"))

    return {
        "removed": _ranges(every, lambda character: character not in kept_set),
        "cased": _ranges(kept, is_cased),
        "ignored": _ranges(kept, is_ignored),
        "letters": _ranges(kept, is_letter),
        "numbers": _ranges(kept, is_number),
        "others": _ranges(kept, is_other),
    }


def _is_removed(character: str) -> bool:
    """Returns whether `BasicTokenizer` removes a character: control, private or not assigned."""
    is_control = unicodedata.category(character).startswith("C") and character not in "\t\n\r"
    return is_control or character == "\N{REPLACEMENT CHARACTER}"


def _ranges(characters: Iterable[str], is_member: Callable[[str], bool]) -> str:
    """Returns runs of members among `characters`, as ranges of code points."""
    ranges: list[tuple[int, int]] = []
    goes_on = False
    for character in characters:
        member = is_member(character)
        if member:
            start = ranges.pop()[0] if goes_on else ord(character)
            ranges.append((start, ord(character)))
        goes_on = member
    return "".join(rf"\x{{{start:X}}}-\x{{{end:X}}}" for start, end in ranges)
