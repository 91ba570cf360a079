"""Tokenizers in an export against the pipeline's own, for texts over all of Unicode."""

from __future__ import annotations

import random
import sys
import unicodedata
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from diffusers.loaders import TextualInversionLoaderMixin
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, NormalizedString
from tokenizers.normalizers import Normalizer
from torch import nn
from transformers import CLIPTokenizer, CLIPTokenizerFast

from dipgo.common.errors import DipgoError
from dipgo.export.tokenizer_files import save_tokenizers
from dipgo.models.text_encoding import TextEncoding, Tokens
from dipgo.run.tokens import TextTokens, widen
from tests.support.tiny_pipeline import tiny_tokenizer
from tests.support.tiny_pipelines import tiny_t5_tokenizer

DEMO = Path(__file__).parents[2] / "examples/demo/model/tokenizer"
LENGTH = 32
LONG = 512
INVERSIONS = ["<cat>", "<cat>_1", "<cat>_2", "sks", "Ünï", "猫"]


def _with_inversions(folder: Path) -> Any:
    tokenizer = tiny_tokenizer(folder / "vocabulary")
    tokenizer.add_tokens(INVERSIONS)
    return tokenizer


def _padded_by_a_mark(folder: Path) -> Any:
    """As Stable Diffusion 2's, and XL's second."""
    tokenizer = tiny_tokenizer(folder / "vocabulary")
    tokenizer.add_special_tokens({"pad_token": "!"})
    return tokenizer


def _cut_at_the_left(folder: Path) -> Any:
    tokenizer = tiny_tokenizer(folder / "vocabulary")
    tokenizer.truncation_side = tokenizer.padding_side = "left"
    return tokenizer


BUILDERS: dict[str, Any] = {
    "clip": lambda folder: tiny_tokenizer(folder / "vocabulary"),
    "inversions": _with_inversions,
    "pad": _padded_by_a_mark,
    "left": _cut_at_the_left,
    "merges": lambda folder: CLIPTokenizer.from_pretrained(DEMO),
    "fast": lambda folder: CLIPTokenizerFast.from_pretrained(DEMO),
    "t5": lambda folder: tiny_t5_tokenizer(),
}

FRAGMENTS = [
    *INVERSIONS,
    *("<CAT>", "<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "</s>", "<pad>", "!", "_1"),
    *("red", "Circle", "a", "'s", "'ſ", "'LL", "12", "½", ".", ", ", "(", "…", "“", "-"),
    *(" ", "  ", "\t", "\n", "\r", "\v", "\f", "\x1c", "\x85", "\u00a0", "\u2003", "\u2028"),
    *("\u3000", "\x00", "\x07", "\x7f", "\ufffd", "\ufeff", "\u200b", "\u200d", "\u00ad"),
    *("漢", "字", "か\u3099", "\ufa0e", "\U0002b820", "\U0002f800", "한", "\u1112\u1161\u11ab"),
    *("Σ", "ΑΣ", "ς", "\u0345", "İ", "ẞ", "ﬁ", "ǅ", "e\u0301", "é", "\u0338", "\u0301"),
    *(
        "👩\u200d🚀",
        "👍🏽",
        "❤\ufe0f",
        "🏳\ufe0f\u200d🌈",
        "🇫🇷",
        "1\ufe0f\u20e3",
        "🫨",
        "\U0001fffe",
    ),
]
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | CHARACTERS, max_size=20).map("".join)


class Saved:
    """A tokenizer as the pipeline calls it, and as an export has it."""

    def __init__(self, tokenizer: Any, folder: Path, length: int = LENGTH) -> None:
        widen = TextualInversionLoaderMixin().maybe_convert_prompt
        self.tokens = Tokens(tokenizer, "ids", length, mask="mask", widen=widen)
        encoding = TextEncoding(nn.Identity(), (self.tokens,), ())
        (self.record,) = save_tokenizers(encoding, folder)
        self.path = str(folder / self.record.file)
        self.ours = TextTokens(self.path, self.record)

    def differing(self, texts: list[str]) -> list[str]:
        """The texts for which ids or masks differ."""
        own, ours = self.tokens.encode(texts), self.ours.encode(texts)
        assert own.keys() == ours.keys()
        differ = sum((own[name].numpy() != ours[name]).any(axis=1) for name in own)
        return [text for text, other in zip(texts, differ, strict=True) if other]


@pytest.fixture(scope="module", params=BUILDERS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp(request.param)
    return Saved(BUILDERS[request.param](folder), folder)


@given(texts=st.lists(TEXTS, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_every_text_has_the_pipelines_own_tokens(saved: Saved, texts: list[str]) -> None:
    assert not saved.differing(texts)


@pytest.mark.rare
def test_every_character_has_the_pipelines_own_tokens(tmp_path: Path) -> None:
    """Alone, doubled, after a letter, and before the sigma that its neighbours decide."""
    saved = Saved(tiny_tokenizer(tmp_path / "vocabulary"), tmp_path)
    known = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) not in ("Cn", "Co", "Cs")
    ]
    texts = [f"{one} a{one}{one} A{one}Σ" for one in known]
    for start in range(0, len(texts), LONG):
        assert not saved.differing(texts[start : start + LONG])


NAMES = st.text(st.sampled_from("sk<>_1Éσ漢!'"), min_size=1, max_size=4)
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
ADDED = st.builds(AddedToken, NAMES, **dict.fromkeys(FLAGS, st.booleans()))


@given(added=st.lists(ADDED, min_size=1, max_size=4), seed=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None, phases=[Phase.reuse, Phase.generate])
def test_added_tokens_of_any_kind_are_kept_or_refused(
    tmp_path_factory: pytest.TempPathFactory, added: list[AddedToken], seed: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("added")
    tokenizer = tiny_tokenizer(folder / "vocabulary")
    tokenizer.add_tokens(added)
    names = [token.content for token in added]
    try:
        saved = Saved(tokenizer, folder, LONG)
    except DipgoError:
        return
    parts = [*FRAGMENTS, *names * 9]
    assert not saved.differing(["".join(seed.choices(parts, k=9)) for _ in range(100)])


def _letters(text: str) -> str:
    return text.replace(" ", "").replace("▁", "")


def test_a_text_beyond_the_length_is_cut_as_by_the_pipeline(saved: Saved) -> None:
    texts = ["green " * 40, "blue" * LENGTH, "short"]
    assert not saved.differing(texts)
    for text in texts:
        own, ours = saved.tokens.cut(text), saved.ours.cut(text)
        assert (own is None) == (ours is None) == (text == "short")
        if own and ours:
            assert own[0] == ours[0] == LENGTH
            assert ours[1].strip() in text
            assert _letters(own[1]) == _letters(ours[1]) != ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<cat>", "<cat> <cat>_1 <cat>_2"),
        ("a <cat>, two <cat>s", "a <cat> <cat>_1 <cat>_2, two <cat> <cat>_1 <cat>_2s"),
        ("<cat>_1", "<cat>_1"),
        ("sks <CAT>", "sks <CAT>"),
    ],
)
def test_textual_inversions_of_several_vectors(text: str, expected: str, tmp_path: Path) -> None:
    """Each is a row of the embedding; `load_textual_inversion` names them name, name_1, ..."""
    tokenizer = _with_inversions(tmp_path)
    saved = Saved(tokenizer, tmp_path, LONG)
    assert saved.record.vectors == {"<cat>": INVERSIONS[:3]}
    assert not saved.differing([text])
    assert TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer) == expected
    plain = TextTokens(saved.path, msgspec.structs.replace(saved.record, vectors={}))
    assert (saved.ours.encode([text])["ids"] == plain.encode([expected])["ids"]).all()


def test_inversions_that_are_replaced_in_no_one_order() -> None:
    """diffusers replaces them in that of a set of strings: another in each process."""
    vectors = {"sks": ["sks", "sks_1"], "<sks>": ["<sks>", "<sks>_1"]}
    assert widen("a sks", {"sks": vectors["sks"]}) == "a sks sks_1"
    with pytest.raises(DipgoError, match=r"^prompt 'sks <sks>': found .* overlap: <sks>, sks;"):
        widen("sks <sks>", vectors)


def test_ftfy_is_named(tmp_path: Path) -> None:
    """A slow tokenizer takes it where it is installed, and an export can not."""
    tokenizer = tiny_tokenizer(tmp_path / "vocabulary")
    tokenizer.fix_text = str.swapcase
    refused = pytest.raises(DipgoError, match="found the package ftfy")
    with nullcontext() if tokenizer.is_fast else refused:
        Saved(tokenizer, tmp_path)


def test_a_tokenizer_with_steps_in_python(tmp_path: Path) -> None:
    class Step:
        def normalize(self, text: NormalizedString) -> None:
            text.lowercase()

    tokenizer = tiny_t5_tokenizer()
    tokenizer.backend_tokenizer.normalizer = Normalizer.custom(Step())
    with pytest.raises(DipgoError, match="found one that cannot be saved"):
        Saved(tokenizer, tmp_path)


def test_other_tokens_than_the_pipelines_are_refused(tmp_path: Path) -> None:
    """A setting that the file does not hold: special tokens in a text are read as letters."""
    tokenizer = tiny_t5_tokenizer()
    tokenizer.split_special_tokens = True
    with pytest.raises(DipgoError, match=r"^tokenizer T5Tokenizer\w*: found other tokens .* for '"):
        Saved(tokenizer, tmp_path)


def test_the_pipelines_tokenizer_stays_as_it_is(saved: Saved, tmp_path: Path) -> None:
    tokenizer = saved.tokens.tokenizer
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.enable_truncation(7)
        tokenizer.backend_tokenizer.enable_padding(length=7)
        before = tokenizer.backend_tokenizer.to_str()
    Saved(tokenizer, tmp_path)
    assert not tokenizer.is_fast or tokenizer.backend_tokenizer.to_str() != before
