"""Says in a warning which part of a text is longer than a text encoder takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dipgo.common.warn import warn

NAMED_BY = 48
"""Characters of a text by which a warning names it."""


def warn_of_cuts(where: str, text: str, cuts: Iterable[tuple[int, str] | None]) -> None:
    """Warns of what tokenizers leave out of a text.

    Args:
        where: The argument that the text was given as.
        text: The text.
        cuts: Of each tokenizer, the number of tokens it gives at most and the text that this
            leaves out, or None if it leaves out nothing.
    """
    all_cuts = list(cuts)
    for cut in dict.fromkeys(cut for cut in all_cuts if cut):
        length, left_out = cut
        encoders = [index for index, other in enumerate(all_cuts, start=1) if other == cut]
        warn(
            f"{where} {_shortened(text)!r}: {_encoders(encoders, len(all_cuts))} {length} tokens; "
            f"left out: {left_out.strip()!r}"
        )


def _shortened(text: str) -> str:
    return text if len(text) <= NAMED_BY else f"{text[:NAMED_BY]}…"


def _encoders(numbers: Sequence[int], count: int) -> str:
    if count == 1:
        return "the text encoder takes"
    listed = " and ".join(map(str, numbers))
    return f"text encoder{'s' * (len(numbers) > 1)} {listed} of {count} take" + (
        "" if len(numbers) > 1 else "s"
    )
