"""Compares times that were measured in turns: the median of paired ratios, and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

CONFIDENCE = 0.95

ENOUGH_PAIRS = 6
"""The fewest pairs whose interval reaches CONFIDENCE: their whole range, 1 - 2 * 0.5 ** 6."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios, and an interval that holds the true median.

    It does so with probability `confidence`, which is at least CONFIDENCE from ENOUGH_PAIRS pairs
    on. Of fewer, the interval is the whole range; of one pair, it has no width and confidence 0.
    """

    median: float
    low: float
    high: float
    confidence: float
    pairs: int

    def over(self, number: float) -> Ratio:
        """Returns the ratio divided by a number above 0, such as the ratio that was expected."""
        return Ratio(
            self.median / number, self.low / number, self.high / number, self.confidence, self.pairs
        )

    def text(self, form: str, unit: str = "") -> str:
        """Returns `4.61× [4.40, 4.75]`; without the brackets if there is one pair only.

        Args:
            form: The format of the numbers, such as ".2f".
            unit: What follows the median.
        """
        interval = f" [{self.low:{form}}, {self.high:{form}}]" if self.pairs > 1 else ""
        return f"{self.median:{form}}{unit}{interval}"

    def note(self) -> str:
        """Returns what the interval is: `medians of 6 turns, 97 % intervals`."""
        if self.pairs == 1:
            return "1 turn, so no interval"
        return f"medians of {self.pairs} turns, {100 * self.confidence:.0f} % intervals"


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Returns the median of above[i] / below[i], of times that were measured next to each other.

    What else a machine does slows both of a pair alike, so their ratio stands; a ratio of medians
    compares times of different moments. The interval reaches from the k-th smallest ratio to the
    k-th largest, and supposes nothing about how times are distributed.

    Args:
        above: Seconds of what is expected to take longer; at least one.
        below: As many seconds, none of them 0.

    Source:
        Conover, Practical Nonparametric Statistics (1999), section 3.2.
    """
    ratios = sorted(left / right for left, right in zip(above, below, strict=True))
    count, outside = len(ratios), 0
    while 2 * (outside + 1) < count and _confidence(count, outside + 1) >= CONFIDENCE:
        outside += 1
    return Ratio(
        median(ratios),
        ratios[outside],
        ratios[count - 1 - outside],
        _confidence(count, outside),
        count,
    )


def _confidence(count: int, outside: int) -> float:
    """Returns how likely the median lies within `count` values but for `outside` at either end."""
    beyond: int = sum(comb(count, below) for below in range(outside + 1))
    return float(1 - beyond / 2 ** (count - 1))
