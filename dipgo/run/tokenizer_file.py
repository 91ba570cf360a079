"""Checks an export's tokenizer before the library that reads it, which ends the process for some.

Where memory does not suffice that library aborts, and where a table of it contradicts another it
panics, with a text of its own on stderr. So each of its components is one that is known here, and
numbers, texts and what texts may grow to are bounded.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from math import isfinite, prod
from pathlib import Path
from typing import Any

import msgspec

from dipgo.common.errors import DipgoError
from dipgo.common.typed_json import decode_json, read_file

REMEDY = "export the model again, or fetch the export again"

MOST_ID = 2**31 - 1

MOST_TOKENS = 1 << 20
"""Entries of a vocabulary: four times the largest that is known."""

MOST_TEXT = 1 << 22
"""Characters of a vocabulary's tokens where the library keeps a tree of them, of added tokens, and
of a table of characters."""

MOST_GROWTH = 10_000
"""The factor by which a normalizer may make a text longer."""

MOST_REPEATS = 1000
"""The product of the counts of repetition in a regular expression, each of which is written out."""

LONGEST, LONGEST_PATTERN = 1000, 1 << 18
"""Characters of a text, and of a regular expression."""

MOST_STEPS = 100
"""Components of one kind, and items of a list."""

NORMALIZERS = frozenset(
    (
        *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
        *("Precompiled", "Prepend", "Replace", "Sequence", "Strip", "StripAccents"),
    )
)

PRE_TOKENIZERS = frozenset(
    (
        *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace"),
        *("Punctuation", "Sequence", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
    )
)

POST_PROCESSORS = frozenset(
    ("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing")
)

COMPONENTS = {
    "normalizer": NORMALIZERS,
    "pre_tokenizer": PRE_TOKENIZERS,
    "post_processor": POST_PROCESSORS,
}
"""The known types of each component that a text passes before and after the model."""

TABLES = ("vocab", "merges")
"""The keys of a model's tables; all others are settings."""

_GROWTH = {"NFKC": 18, "NFKD": 18, "NFC": 3, "NFD": 4, "ByteLevel": 4, "BertNormalizer": 12}
"""The most characters that a normalizer makes of one; Unicode says so of its forms."""

_AROUND = r"(?:[^()\[\]\\]|\\.|\[(?:[^\]\\]|\\.)*\])*"

_LITERAL = re.compile(
    rf"(?:\(\?<[=!]{_AROUND}\))?((?:[^\\()\[\]{{}}.*+?^$|]|\\[^A-Za-z0-9])+)(?:\(\?[=!]{_AROUND}\))?"
)
"""A regular expression of one text, with conditions on what is before and behind it."""

_REPEAT = re.compile(r"(?<!\\[xo])\{(\d*)(?:,(\d*))?\}")


class TokenizerFile(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a tokenizer's file, as the library writes it."""

    version: str
    added_tokens: list[dict[str, Any]]
    model: dict[str, Any]
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    truncation: Any = None
    padding: Any = None


def read_tokenizer_file(path: Path) -> str:
    """Returns the content of a tokenizer's file, checked, without what texts do not pass.

    Raises:
        DipgoError: It is no such file, or is beyond the bounds.
    """
    data = read_file(path, expected="a tokenizer of an export")
    content = decode_json(data, TokenizerFile, name=str(path), remedy=REMEDY, keys_once=False)
    content.decoder = content.truncation = content.padding = None
    for problem in _problems(content):
        raise DipgoError(
            str(path),
            found=problem,
            expected="a tokenizer as dipgo.export writes it",
            remedy=REMEDY,
        )
    return msgspec.json.encode(content).decode()


def _problems(content: TokenizerFile) -> Iterator[str]:
    for name, known in COMPONENTS.items():
        component = getattr(content, name)
        if component is not None:
            yield from _problems_of_component(name, component, known)
    if content.normalizer is not None and _growth(content.normalizer) > MOST_GROWTH:
        yield "a normalizer that makes texts very long"
    yield from _problems_of_model(content.model)
    yield from _problems_of_added(content.added_tokens)


def _problems_of_component(
    name: str, component: Mapping[str, Any], known: frozenset[str]
) -> Iterator[str]:
    """Yields what is wrong with a component: parts of unknown types, values beyond bounds."""
    steps = list(_steps(component))
    if len(steps) > MOST_STEPS:
        yield f"a {name} of {len(steps)} steps"
    for step in steps:
        if not isinstance(step.get("type"), str) or step["type"] not in known:
            yield f"a {name} of an unknown type"
            return
        yield from _problems_of_template(step)
    yield from _problems_of_values(name, component)
    for step in steps:
        if "precompiled_charsmap" in step:
            yield from _problems_of_characters(step["precompiled_charsmap"])


def _problems_of_template(step: Mapping[str, Any]) -> Iterator[str]:
    """Yields tokens that a template names and does not have."""
    tokens = step.get("special_tokens", {})
    if not isinstance(tokens, dict):
        yield "a template without tokens"
        return
    for key in ("single", "pair"):
        pieces = step.get(key)
        for piece in pieces if isinstance(pieces, list) else ():
            match piece:
                case {"SpecialToken": {"id": str(name)}} if name not in tokens:
                    yield f"a template with {name:.60}, a token that it does not have"


def _steps(component: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields a component, and those that it is a sequence of."""
    yield component
    for key in ("normalizers", "pretokenizers", "processors"):
        parts = component.get(key)
        for part in parts if isinstance(parts, list) else ():
            yield from _steps(part) if isinstance(part, dict) else [{}]


def _problems_of_values(where: str, value: Any, key: str = "") -> Iterator[str]:
    """Yields numbers and texts beyond the bounds, wherever they are in a component."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else ((key, each) for each in value)
        if len(value) > MOST_STEPS:
            yield f"a {where} with {len(value)} values at one place"
            return
        for name, each in items:
            yield from _problems_of_values(where, each, name)
    elif isinstance(value, str) and key == "Regex":
        yield from _problems_of_pattern(where, value)
    elif isinstance(value, str) and key != "precompiled_charsmap":
        if len(value) > LONGEST:
            yield f"a {where} with a text of {len(value)} characters"
    elif isinstance(value, int | float) and not -MOST_ID <= value <= MOST_ID:
        yield f"a {where} with a number that is too large"


def _problems_of_pattern(where: str, pattern: str) -> Iterator[str]:
    if len(pattern) > LONGEST_PATTERN:
        yield f"a {where} with a regular expression of {len(pattern)} characters"
    counts = [
        max(1, *(int(f"0{count[:9]}") for count in pair)) for pair in _REPEAT.findall(pattern)
    ]
    if prod(counts[:LONGEST]) > MOST_REPEATS or len(counts) > LONGEST:
        yield f"a {where} with a regular expression of too many repetitions"


def _growth(normalizer: Mapping[str, Any]) -> float:
    """Returns the factor by which a normalizer makes a text longer at most."""
    factor = 1.0
    for step in _steps(normalizer):
        factor *= _GROWTH.get(str(step.get("type")), 1)
        content, pattern = step.get("content"), step.get("pattern")
        if isinstance(content, str):
            literal = _literal(pattern) if isinstance(pattern, dict) else ""
            factor *= max(1, len(content) / len(literal)) if literal else len(content) + 1
    return factor


def _literal(pattern: Mapping[str, Any]) -> str:
    """Returns the one text that a pattern matches; "" if it matches others, or nothing at all."""
    text, expression = pattern.get("String"), pattern.get("Regex")
    if isinstance(text, str):
        return text
    match = _LITERAL.fullmatch(expression) if isinstance(expression, str) else None
    return re.sub(r"\\(.)", r"\1", match[1]) if match else ""


def _problems_of_characters(table: Any) -> Iterator[str]:
    """Yields what is wrong with a compiled table of characters, in base64.

    It is the length of a trie in bytes, the trie, and the texts that it leads to, each with a NUL
    at its end. Source: `PrefixMatch` of sentencepiece.
    """
    if table is None:
        return
    if not isinstance(table, str) or len(table) > MOST_TEXT:
        yield "a normalizer with a table of characters that is too long"
        return
    try:
        data = base64.b64decode(table, validate=True)
    except ValueError:
        yield "a normalizer with a table of characters that is none"
        return
    size = int.from_bytes(data[:4], "little")
    texts = data[4 + size :]
    if size % 4 or not 0 < size < len(data) - 4 or not texts.endswith(b"\0"):
        yield "a normalizer with a table of characters that is cut"
    elif max(map(len, texts.split(b"\0"))) > MOST_STEPS:
        yield "a normalizer with a table of characters that makes texts very long"


def _problems_of_model(model: Mapping[str, Any]) -> Iterator[str]:
    settings = {key: value for key, value in model.items() if key not in TABLES}
    yield from _problems_of_values("model", settings)
    vocabulary, merges = model.get("vocab"), model.get("merges", ())
    kind = model.get("type")
    if kind == "Unigram":
        yield from _problems_of_scores(model, vocabulary)
    elif kind in ("BPE", "WordPiece", "WordLevel"):
        if not isinstance(vocabulary, dict) or len(vocabulary) > MOST_TOKENS:
            yield "a vocabulary that is none, or too large"
        elif not all(_is_id(number) for number in vocabulary.values()):
            yield f"a vocabulary with ids that are no numbers from 0 to {MOST_ID}"
        elif len(set(vocabulary.values())) < len(vocabulary):
            yield "a vocabulary with one id for two tokens"
    else:
        yield "a model of an unknown type"
    if not isinstance(merges, list | tuple) or len(merges) > 2 * MOST_TOKENS:
        yield "merges that are none, or too many"


def _problems_of_scores(model: Mapping[str, Any], vocabulary: Any) -> Iterator[str]:
    """Yields what is wrong with a vocabulary of tokens with scores."""
    if not isinstance(vocabulary, list) or not 0 < len(vocabulary) <= MOST_TOKENS:
        yield "a vocabulary that is none, or too large"
        return
    characters = 0
    for entry in vocabulary:
        match entry:
            case [str(token), float() | int() as score] if isfinite(score):
                characters += len(token)
            case _:
                yield "a vocabulary with an entry that is not a token with its score"
                return
    if characters > MOST_TEXT:
        yield f"a vocabulary of {characters} characters"
    unknown = model.get("unk_id")
    if unknown is not None and not (_is_id(unknown) and unknown < len(vocabulary)):
        yield "an unknown token that is not in the vocabulary"


def _problems_of_added(added: list[dict[str, Any]]) -> Iterator[str]:
    characters = 0
    for token in added:
        content = token.get("content")
        if not isinstance(content, str) or not _is_id(token.get("id")):
            yield f"an added token without a text, or an id from 0 to {MOST_ID}"
            return
        characters += len(content) + 1
    if characters > MOST_TEXT:
        yield f"added tokens of {characters} characters"


def _is_id(number: Any) -> bool:
    return type(number) is int and 0 <= number <= MOST_ID
