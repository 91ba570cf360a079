"""Builds the tokenizer: a byte-level BPE in CLIP's format in which each caption word is a token."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer
from transformers import CLIPTokenizer, CLIPTokenizerFast
from transformers.convert_slow_tokenizer import convert_slow_tokenizer

from scripts.demo_model.shapes import all_scenes
from scripts.harness import run_script, script_parser

MAX_LENGTH = 16
START, END = "<|startoftext|>", "<|endoftext|>"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789,.!?-'"

Word = tuple[str, ...]


def learn_merges(words: set[str]) -> list[tuple[str, str]]:
    """Merge the most frequent pair until every word is one token (ties: alphabetical order)."""
    pieces: set[Word] = {(*word[:-1], word[-1] + "</w>") for word in words}
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {_merge(word, best) for word in pieces}
    return merges


def _merge(word: Word, pair: tuple[str, str]) -> Word:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def build_tokenizer(out: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt and a tokenizer.json that pads and truncates to MAX_LENGTH."""
    captions = [scene.caption for scene in all_scenes()]
    merges = learn_merges({word for caption in captions for word in caption.split()})
    tokens = [*_ALPHABET, *(letter + "</w>" for letter in _ALPHABET)]
    tokens += [left + right for left, right in merges]
    vocabulary = {token: i for i, token in enumerate([*tokens, START, END])}

    with tempfile.TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab_file.write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        merges_file.write_text("\n".join(lines) + "\n")
        slow = CLIPTokenizer(str(vocab_file), str(merges_file), model_max_length=MAX_LENGTH)
    slow.save_pretrained(out)
    write_fast_tokenizer(slow, out)
    check_tokenizers_agree(out, ["", "a Red circle, a blue box!", *captions])
    return slow


def write_fast_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write vocab.json and merges.txt, which transformers 5 does not, and their tokenizer.json."""
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    length = tokenizer.model_max_length
    is_fast = tokenizer.is_fast  # always with transformers 5
    converted = tokenizer.backend_tokenizer if is_fast else convert_slow_tokenizer(tokenizer)
    model = json.loads(converted.to_str())["model"]
    vocabulary = json.dumps(model["vocab"], indent=2, sort_keys=True, ensure_ascii=False)
    vocab_file.write_text(vocabulary + "\n")
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    merges_file.write_text("\n".join(["#version: 0.2", *lines]) + "\n")
    fast = CLIPTokenizerFast(str(vocab_file), str(merges_file), model_max_length=length)
    backend = fast.backend_tokenizer
    backend.enable_truncation(length)
    backend.enable_padding(
        length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    backend.save(str(folder / "tokenizer.json"))


def check_tokenizers_agree(folder: Path, texts: list[str]) -> None:
    """Raise ValueError if vocab.json/merges.txt and tokenizer.json differ on any text."""
    slow = CLIPTokenizer.from_pretrained(folder)
    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in texts:
        want = slow(text, padding="max_length", max_length=MAX_LENGTH, truncation=True).input_ids
        got = fast.encode(text).ids
        if want != got:
            raise ValueError(f"{text!r}: tokenizer.json gives {got}, vocab.json gives {want}")


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo-train/tokenizer"))
    tokenizer = build_tokenizer(parser.parse_args(arguments).out)
    print(f"{len(tokenizer)} tokens, at most {MAX_LENGTH} a caption")


if __name__ == "__main__":
    run_script(main)
