"""Writes a pipeline's tokenizers as files, and checks that these give the same tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.common.warn import warn
from dipgo.export.sample_texts import TEXTS, texts_around
from dipgo.export.slow_tokenizers import convert
from dipgo.ir.manifest.records import TokenizerRecord
from dipgo.models.text_encoding import TextEncoding, Tokens
from dipgo.run.tokens import TextTokens

UNCUT = 4096
"""A length in tokens that cuts none of TEXTS."""


def save_tokenizers(encoding: TextEncoding, directory: Path) -> list[TokenizerRecord]:
    """Writes the tokenizers as files of the `tokenizers` library, read without transformers.

    Raises:
        DipgoError: The library cannot give the tokens of the pipeline's own tokenizer.
    """
    return [
        _save(tokens, directory / f"tokenizer{f'_{index}' if index > 1 else ''}.json")
        for index, tokens in enumerate(encoding.tokens, start=1)
    ]


def _save(tokens: Tokens, path: Path) -> TokenizerRecord:
    tokenizer = tokens.tokenizer
    backend = _copied(tokenizer) if tokenizer.is_fast else convert(tokenizer)
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(path))
    record = TokenizerRecord(
        file=path.name,
        ids=tokens.ids,
        mask=tokens.mask,
        length=tokens.length,
        pad_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
        lower=tokens.lower,
        vectors=_vectors(tokenizer) if tokens.widen else {},
        truncation_side=tokenizer.truncation_side,
        end_id=tokenizer.eos_token_id if _ends_once(tokenizer) else None,
    )
    _check_same(tokens, record, path)
    if tokens.caveat:
        warn(f"tokenizer {type(tokenizer).__name__}: {tokens.caveat}")
    return record


def _copied(tokenizer: Any) -> Any:
    """Returns a copy of a fast tokenizer's backend, whose settings are then its own.

    Raises:
        DipgoError: A step of it is written in Python.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # of Rust: it has no class of its own
        raise DipgoError(
            f"tokenizer {type(tokenizer).__name__}",
            found=f"one that cannot be saved ({error})",
            expected="a tokenizer whose steps are all of the tokenizers library",
            remedy="save the pipeline with such a tokenizer",
        ) from error


def _ends_once(tokenizer: Any) -> bool:
    """Returns whether a text that ends with the end token is given no second one: slow T5."""
    end, end_id = tokenizer.eos_token, tokenizer.eos_token_id
    return end is not None and list(tokenizer(f"a{end}").input_ids).count(end_id) == 1


def _vectors(tokenizer: Any) -> dict[str, list[str]]:
    """Returns the tokens of each textual inversion of several vectors: name, name_1, and so on."""
    added = tokenizer.added_tokens_encoder
    vectors = {}
    for name in sorted(added):
        tokens = [name]
        while (following := f"{name}_{len(tokens)}") in added:
            tokens.append(following)
        if len(tokens) > 1:
            vectors[name] = tokens
    return vectors


def _check_same(tokens: Tokens, record: TokenizerRecord, path: Path) -> None:
    """Checks that the saved tokenizer gives the same tokens for TEXTS and for each added token.

    They are compared in full, and cut to the length that the pipeline has.

    Raises:
        DipgoError: It gives other tokens for a text.
    """
    texts = [*TEXTS, *texts_around(sorted(tokens.tokenizer.added_tokens_encoder))]
    for length in (UNCUT, tokens.length):
        own = replace(tokens, length=length).encode(texts)
        saved = TextTokens(str(path), msgspec.structs.replace(record, length=length)).encode(texts)
        for name, expected in own.items():
            differ = np.flatnonzero((expected.numpy() != saved[name]).any(axis=1))
            if differ.size:
                raise DipgoError(
                    f"tokenizer {type(tokens.tokenizer).__name__}",
                    found=f"other tokens in the tokenizers library for {texts[differ[0]]!r}",
                    expected="those of the pipeline's own tokenizer for every text",
                    remedy="load a fast tokenizer into the pipeline, and compare its pictures",
                )
