"""The settings of an evaluation: every choice and number, with its default and its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dipgo.common.errors import DipgoError, setting, wrong
from dipgo.common.machine import MOST_THREADS
from dipgo.common.settings import check_settings, option
from dipgo.common.torch_noise import MAX_SEED
from dipgo.compiler.settings import SIZE
from dipgo.engines.ratios import ENOUGH_PAIRS
from dipgo.ir.fitted import MOST_SCALE
from dipgo.models.options import LORAS, Lora

COMPARISON, JUDGES, TIMES = "comparison", "judges", "times"
"""Headings of the command's help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The pictures that are drawn, what judges them, and how they are timed.

    With dense and with every SubNet `pairs` pictures are drawn, `batch` a run: picture i has prompt
    i mod their number, and the seed `seed` + i. `classifier` reads captions; pictures in
    `reference` are compared with by Fréchet distances, with `fid` by FID. `loras` are in dense too.
    Runs of `time_batch` pictures (None: `batch`) are timed `time_repeats` times, if that is not 0.

    Raises:
        DipgoError: A value has a wrong type or is out of bounds, or has no effect without another.
    """

    pairs: int = option(
        64,
        help="pictures drawn with each",
        group=COMPARISON,
        least=2,
        expected="at least 2: one value has no confidence interval",
        remedy="take more pairs, 64 for example",
    )
    seed: int = option(
        0,
        help="seed of the first pair",
        group=COMPARISON,
        least=0,
        expected=f"a whole number from 0 to {MAX_SEED}, less the pairs",
    )
    guidance_scale: float | None = option(
        None,
        help="guidance scale (diffusers', or what the first SubNet was fitted for)",
        group=COMPARISON,
        metavar="SCALE",
        most=MOST_SCALE,
        expected=f"a finite number, at most {MOST_SCALE:.2g}",
    )
    batch: int = option(8, help="pictures a run", group=SIZE, metavar="N", least=1)
    loras: tuple[Lora, ...] = option((), **LORAS)
    classifier: str | Path | None = option(
        None, help="a classifier that reads captions", group=JUDGES, metavar="DIR", type=Path
    )
    reference: str | Path | None = option(
        None, help="PNG files for Fréchet distances", group=JUDGES, metavar="DIR", type=Path
    )
    clip_model: str | Path | None = option(
        None, help="folder or Hub id of a CLIP model, for CLIP scores", group=JUDGES, metavar="M"
    )
    fid: bool = option(
        False,
        help="FID to the reference, by the Inception network (off)",
        group=JUDGES,
        flag="--fid",
    )
    time_repeats: int = option(ENOUGH_PAIRS, help="measured runs", group=TIMES, least=0)
    time_batch: int | None = option(
        None, help="pictures a timed run (--batch)", group=TIMES, metavar="N", least=1
    )
    threads: int = option(
        0, help="threads; 0: all cores (0)", group=TIMES, least=0, most=MOST_THREADS
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.seed > MAX_SEED - self.pairs:
            expected = f"a whole number from 0 to {MAX_SEED - self.pairs}"
            raise wrong("seed", self.seed, expected, "choose a seed in that range")
        self._check_judges()

    def _check_judges(self) -> None:
        if self.fid and not self.reference:
            raise DipgoError(
                setting("fid"),
                found="no reference pictures",
                expected=f"{setting('reference')} DIR",
                remedy=f"say which pictures to compare with, or leave {setting('fid')} out",
            )
        if self.reference and not (self.classifier or self.fid):
            raise DipgoError(
                setting("reference"),
                found="nothing that compares with it",
                expected=f"{setting('classifier')} DIR or {setting('fid')}",
                remedy=f"add one of these, or leave {setting('reference')} out",
            )
