"""Texts of every kind, by which an export's tokenizers are compared with the pipeline's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TEXTS = (
    "",
    "a photograph of a red house by the sea",
    "It's 12:30, and they'LL've 3.5% (or #7)! “quoted” – don’t…",
    "  white \t\n\r space \u00a0\u2003\u3000\u2028\u2029 everywhere\v\f ",
    "control\x00 \x07characters\x1b, \x1c\x85 \x7f and the last one \ufffd",
    "invisible: a\u200bb \u200dc\u2060d \ufeffe so\u00adft \u202eright\u202c",
    "composed: é ä ṩ 각 が, and not: e\u0301 a\u0308 s\u0307\u0323 \u1100\u1161\u11a8 か\u3099",
    "漢字と仮名 中文字符，没有空格。 한국어 文字 \U00020000\U0002b820\ufa0e\U0002f800",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ ΑΣ' Α.Σ\u0345ΣΑ, İstanbul STRASSE ẞ ǅ ﬁ ſ 'ſ 'S \u212a \u212b \u0345",
    "Привет ДІМ Ѐ ქარ Ⴀ Ა ⰀⰁ 𐐀 ꭰ ᏣᎳ, עברית \u05e9\u05c1 العربية \u0628\u0651",
    "हिन्दी த ไทย ລາວ မြန် አማ ᠠ\u180eᠠ \u0f40\u0f71 \U0001171e",
    "👩\u200d🚀 👩🏽\u200d❤️\u200d💋\u200d👨🏿 🏳️\u200d🌈 🇫🇷 1️⃣ ❤ ❤️ 🏴\U000e0067\U000e0062\U000e007f",
    "newer: 🫠 🫨 🫩 \U0001e030 \ua7cb, private: \ue000, none: \u0378 \U0001fffe",
    "½ Ⅷ ² ٣ ໑ ① ㉈ 一二三 １２ ＡＢ ~^`|<>=+$€ ‽ ¿ \u0301x \u20dd",
    "<|STARTOFTEXT|> <|EndOfText|> <|end\x00oftext|> </S> ▁ <0x0A> [CLS] <s>",
    "green " * 600,
)
"""Scripts, emoji sequences, composed and decomposed, white space, control characters, long ones."""

FORMS = ("a {} b", "x{}y", "{}\u3000\ufb01", "a {}")
"""Places of an added token: in a sentence, in a word, before other white space, at the end."""


def texts_around(names: Sequence[str]) -> Iterator[str]:
    """Yields texts with each added token, with half of one, and with two that overlap."""
    for name in names:
        yield from (form.format(name) for form in FORMS)
        yield f"a {name.upper()} b"
        yield f"x{name[:-1]} y"
        for other in names:
            shared = next((n for n in range(1, len(other)) if name.endswith(other[:n])), 0)
            if shared:
                yield f"x{name}{other[shared:]} y"
