"""Turns texts into token ids, as an export's tokenizer and its record say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.ir.manifest.records import TokenizerRecord
from dipgo.run.tokenizer_file import MOST_ID, REMEDY, read_tokenizer_file

LONGEST = 1 << 16
"""Tokens of a text; what is read is padded to a length that the export says."""

MOST_CHARACTERS = 1 << 20

LONGEST_NAME = 60
"""Characters of a name that an error shows."""

PANIC = "PanicException"
"""The class of errors of a library in Rust that has met what it had ruled out."""

MOST_ORDERS = 120
"""Orders of replacement that are tried: all of five textual inversions in one text."""


class TextTokens:
    """A tokenizer of the export, applied as its record says."""

    def __init__(self, path: str, record: TokenizerRecord) -> None:
        _check_record(path, record)
        self._record, self._path = record, path
        content = read_tokenizer_file(Path(path))
        with self._whole():
            self._tokenizer = _load(content, record)
            self._tokenizer.encode("")

    def encode(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Returns ids and, if the model takes it, the mask, i64[rows, length], by their names.

        Raises:
            DipgoError: Textual inversions in a text can be widened in more than one way.
        """
        encodings = self._encode(self._prepare(texts))
        ids = np.asarray([encoding.ids for encoding in encodings], np.int64)
        mask = np.asarray([encoding.attention_mask for encoding in encodings], np.int64)
        if self._record.end_id is not None:
            self._end_once(ids, mask, self._record.end_id)
        return {self._record.ids: ids, **({self._record.mask: mask} if self._record.mask else {})}

    def _end_once(self, ids: NDArray[np.int64], mask: NDArray[np.int64], end_id: int) -> None:
        """Pads over the end token of each text that ends with one of its own."""
        last = mask.sum(axis=1) - 1
        rows = np.flatnonzero((last > 0) & (ids[np.arange(len(ids)), last - 1] == end_id))
        ids[rows, last[rows]], mask[rows, last[rows]] = self._record.pad_id, 0

    def cut(self, text: str) -> tuple[int, str] | None:
        """Returns the length and what of a text is beyond it, or None if nothing is.

        Raises:
            DipgoError: Textual inversions in the text can be widened in more than one way.
        """
        (prepared,) = self._prepare([text])
        (encoding,) = self._encode([prepared])
        if not encoding.overflowing:
            return None
        length, side = self._record.length, self._record.truncation_side
        return length, _left_out(prepared, encoding, side)

    def _encode(self, texts: Sequence[str]) -> Sequence[Any]:
        with self._whole():
            encodings: Sequence[Any] = self._tokenizer.encode_batch(list(texts))
            if any(len(encoding.ids) != self._record.length for encoding in encodings):
                raise ValueError("texts of other lengths than they are padded to")
        return encodings

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Reports whatever the library raises for a file that contradicts itself in one line.

        Its panics are no `Exception`; nothing else of that kind is caught.
        """
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != PANIC:
                raise
            raise DipgoError(
                self._path,
                found=f"a tokenizer that cannot be used ({' '.join(str(error).split())[:200]})",
                expected="a tokenizer as dipgo.export writes it",
                remedy=REMEDY,
            ) from None

    def _prepare(self, texts: Sequence[str]) -> list[str]:
        """Returns the texts lower-cased and with textual inversions widened, if so recorded."""
        lowered = [text.lower().strip() if self._record.lower else text for text in texts]
        vectors = self._record.vectors
        names = [[name for name in vectors if name in text] for text in lowered]
        if not any(names):
            return lowered
        found = [
            {token for part in (encoding, *encoding.overflowing) for token in part.tokens}
            for encoding in self._encode(lowered)
        ]
        return [
            widen(text, {name: vectors[name] for name in in_text if name in tokens})
            for text, in_text, tokens in zip(lowered, names, found, strict=True)
        ]


def _check_record(path: str, record: TokenizerRecord) -> None:
    """Checks the numbers of a record: texts are padded to its length.

    Raises:
        DipgoError: They are too large.
    """
    facts = (("length", record.length, LONGEST), ("pad_id", record.pad_id, MOST_ID))
    for name, value, most in facts:
        if value > most:
            raise DipgoError(
                f"{path}, {name}", found=f"{value:.3g}", expected=f"at most {most}", remedy=REMEDY
            )


def _load(content: str, record: TokenizerRecord) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content)
    tokenizer.enable_truncation(record.length, direction=record.truncation_side)
    tokenizer.enable_padding(
        length=record.length, pad_id=record.pad_id, direction=record.padding_side
    )
    return tokenizer


def widen(text: str, vectors: Mapping[str, Sequence[str]]) -> str:
    """Replaces each textual inversion by the tokens of its vectors, with spaces between them.

    Source: `TextualInversionLoaderMixin.maybe_convert_prompt` of diffusers, which replaces them in
    the order of a set: another one in each process.

    Raises:
        DipgoError: The result depends on the order.
    """
    replaced = {name: " ".join(tokens) for name, tokens in vectors.items()}
    orders = islice(permutations(sorted(replaced)), MOST_ORDERS)
    results = {
        reduce(lambda result, name: _replace(result, name, replaced[name]), order, text)
        for order in orders
    }
    if len(results) > 1:
        raise DipgoError(
            f"prompt {text!r}",
            found=f"textual inversions whose names overlap: {', '.join(sorted(replaced))}",
            expected="names that give one result in whatever order they are replaced",
            remedy="load them under other names, or use one of them",
        )
    (result,) = results
    return result


def _replace(text: str, name: str, tokens: str) -> str:
    """Replaces a name; in a stranger's export tokens may be names again, many times over.

    Raises:
        DipgoError: The text grows very long.
    """
    if text.count(name) * len(tokens) > MOST_CHARACTERS:
        raise DipgoError(
            f"textual inversion {name[:LONGEST_NAME]!r}",
            found="tokens that make a text very long",
            expected=f"at most {MOST_CHARACTERS:,} characters",
            remedy=REMEDY,
        )
    return text.replace(name, tokens)


def _left_out(text: str, encoding: Any, side: str) -> str:
    """Returns the text beyond that of the tokens which are kept, on the side that is cut."""
    kept = [
        span
        for span, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        if not special and span[0] < span[1]
    ]
    if not kept:
        return text
    return text[kept[-1][1] :] if side == "right" else text[: kept[0][0]]
