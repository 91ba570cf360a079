"""Tokenizers of strangers' exports: read as they stand, or refused in one line, within 2 GiB.

Failed at 3bfeb0e: of 16 that are damaged by hand 12 ended in tracebacks of the library in Rust, a
text that grows and a large length ended the process, and 3 were read.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dipgo.common.errors import DipgoError
from dipgo.ir.manifest.records import TokenizerRecord
from dipgo.run.tokens import TextTokens, widen
from scripts.fuzz.mutants import Mutant, damage_bytes, damage_json, damage_values
from tests.export.test_tokenizers import BUILDERS, Saved
from tests.support.limits import outcomes, saved

TABLES = {"vocab", "merges"}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tokenizers of exports, as JSON has them."""
    documents = {}
    for name in ("inversions", "t5"):
        folder = tmp_path_factory.mktemp(name)
        documents[name] = json.loads(Path(Saved(BUILDERS[name](folder), folder).path).read_text())
    return documents


def _changed(document: Any, changes: dict[str, Any]) -> bytes:
    return json.dumps({**document, **changes}).encode()


def _replace(content: str, pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


GROWING = [_replace("ab" * 20, {"Regex": "."})] * 8
CHARACTERS = base64.b64encode(b"\4\0\0\0" + b"\xff" * 4 + b"a" * 9).decode()


def hostile(document: Any) -> dict[str, bytes]:
    """A tokenizer with one thing that no export has."""

    def model(**changes: Any) -> bytes:
        return _changed(document, {"model": {**document["model"], **changes}})

    return {
        "nothing": b"",
        "an empty object": b"{}",
        "an unknown model": model(type="Python"),
        "no vocabulary": model(vocab={}, merges=[["a", "b"]]),
        "an id of 40 bits": model(vocab={"a": 1 << 40}),
        "ids that are equal": model(vocab={"a": 1, "b": 1}),
        "a long suffix": model(end_of_word_suffix="a" * 10**7),
        "a text that grows": _changed(
            document, {"normalizer": {"type": "Sequence", "normalizers": GROWING}}
        ),
        "a pattern that is none": _changed(document, {"normalizer": _replace("", {"Regex": "(a"})}),
        "a pattern that is written out": _changed(
            document, {"normalizer": _replace("", {"Regex": "((a{1,1000}){1,1000}){1,1000}"})}
        ),
        "a deep sequence": _changed(
            document,
            {"normalizer": json.loads('{"type": "Sequence", "normalizers": [' * 90 + "]}" * 90)},
        ),
        "an unknown step": _changed(document, {"pre_tokenizer": {"type": "Custom"}}),
        "a type that is a list": _changed(document, {"pre_tokenizer": {"type": []}}),
        "a table that is cut": _changed(
            document, {"normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARACTERS}}
        ),
        "a token that is not there": _changed(
            document,
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "a", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                }
            },
        ),
        "a text twice": _changed(
            document,
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
                    "pair": [],
                    "special_tokens": {},
                }
            },
        ),
    }


def test_hostile_tokenizers(documents: dict[str, Any], tmp_path: Path) -> None:
    files = saved(hostile(documents["inversions"]), tmp_path, ".json")
    results = outcomes("tests.support.readers:read_tokenizer", files)
    assert not {k: v for k, v in results.items() if not v.startswith("refused: ")}
    assert max(map(len, results.values())) < 700


def test_what_a_file_pads_and_decodes_does_not_matter(documents: Any, tmp_path: Path) -> None:
    """The export's record says how texts are padded; ids are never decoded."""
    padding = {"strategy": {"Fixed": 10**10}, "direction": "Right", "pad_id": 0}
    changes = {"padding": padding, "truncation": {"max_length": 10**18}, "decoder": {"type": "x"}}
    files = {name: _changed(document, changes) for name, document in documents.items()}
    results = outcomes("tests.support.readers:read_tokenizer", saved(files, tmp_path, ".json"))
    assert set(results.values()) == {"read"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inversions", "t5"])
def test_any_damage(documents: dict[str, Any], name: str, tmp_path: Path) -> None:
    document = documents[name]
    tables = {key: value for key, value in document["model"].items() if key in TABLES}
    few = {key: value for key, value in document["model"].items() if key not in TABLES}
    mutants = [
        *damage_json(document, 150, seed=0),
        *damage_json(document, 150, seed=1, allow=lambda place: not TABLES & {*place[:2]}),
        *damage_bytes(json.dumps(document).encode(), 100, seed=2),
    ]
    for mutant in damage_values({**document, "model": few}):
        changed = json.loads(mutant.data)
        if isinstance(changed["model"], dict):
            changed["model"] |= tables
        mutants.append(Mutant(mutant.name, json.dumps(changed).encode()))
    results = outcomes("tests.support.readers:read_tokenizer", saved(mutants, tmp_path, ".json"))
    assert not {k: v for k, v in results.items() if not v.startswith(("read", "refused: "))}


RECORD = TokenizerRecord("tokenizer.json", "ids", "mask", 16, 0, "right", False)


@pytest.mark.parametrize("change", [{"length": 10**10}, {"length": 65_537}, {"pad_id": 1 << 40}])
def test_numbers_of_the_record(change: dict[str, int], documents: Any, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(_changed(documents["t5"], {}))
    record = msgspec.structs.replace(RECORD, **change)
    with pytest.raises(DipgoError, match=rf"tokenizer.json, {next(iter(change))}: found .*; expe"):
        TextTokens(str(path), record)


def test_a_length_that_the_end_tokens_fill(documents: Any, tmp_path: Path) -> None:
    """Failed at 3bfeb0e: it was read, and gave more ids than that."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(_changed(documents["inversions"], {}))
    with pytest.raises(DipgoError, match="a tokenizer that cannot be used"):
        TextTokens(str(path), msgspec.structs.replace(RECORD, length=1)).encode(["a red circle"])


def test_inversions_that_grow() -> None:
    """Failed at 3bfeb0e: for want of memory."""
    vectors = {name: [after * 50] for name, after in zip("abcdefg", "bcdefgh", strict=True)}
    with pytest.raises(DipgoError, match="tokens that make a text very long"):
        widen("a", vectors)
