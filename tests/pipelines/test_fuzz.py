"""Drawn pipelines, schedulers, tasks, SubNets and calls: exports agree with diffusers or refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.fuzz import trial
from scripts.fuzz.draws import draw_case
from scripts.fuzz.fuzz_pipelines import summary
from scripts.fuzz.reference import Run
from scripts.fuzz.shrink import shrink, simpler
from scripts.fuzz.trial import Outcome, Verdict, try_draw
from tests.support.rare import rare_unless

DRAWS, COMMON = 200, 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", rare_unless(lambda seed: seed < COMMON, range(DRAWS)))
def test_a_draw_agrees_or_is_refused(seed: int) -> None:
    draw = draw_case(seed)
    outcome = try_draw(draw)
    print(f"{outcome.verdict.value}: {outcome.reason}")
    assert not outcome.verdict.bad, f"{outcome.verdict.value}: {outcome.reason}\n{draw}"


def test_a_seed_is_a_draw() -> None:
    draws = [draw_case(seed) for seed in range(300)]
    assert draws == [draw_case(seed) for seed in range(300)]
    assert len({(draw.family, draw.task) for draw in draws}) > 15
    assert len({draw.scheduler for draw in draws}) > 15


def test_simpler_draws_differ_and_come_to_an_end() -> None:
    """Each asks for less, so following the first one always ends."""
    for seed in range(50):
        draw, seen = draw_case(seed), set()
        while (smaller := next(simpler(draw), None)) is not None:
            assert repr(smaller) not in seen
            seen.add(repr(smaller))
            draw = smaller
        assert draw.subnet is None
        assert draw.steps == 1


def test_a_fault_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to what it needs: here a LoRA at three steps or more."""

    def tried(draw: trial.Draw) -> Outcome:
        return Outcome(Verdict.CRASH if draw.lora and draw.steps >= 3 else Verdict.AGREES)

    monkeypatch.setattr(trial, "try_draw", tried)
    draw = replace(draw_case(3), lora=True, steps=6)
    smallest, outcome = shrink(draw, Outcome(Verdict.CRASH))
    assert (smallest.lora, smallest.steps, smallest.subnet) == (True, 3, None)
    assert outcome.verdict is Verdict.CRASH


def test_another_picture_is_wrong() -> None:
    """Of several, one that differs suffices; so does one that is not finite."""
    draw = replace(draw_case(0), family="sd", precision="fp32")
    latents, pictures = np.ones((3, 4, 2, 2), np.float32), np.ones((3, 8, 8, 3), np.float32)
    wanted = Run(latents, pictures)
    spoilt = pictures.copy()
    spoilt[2] *= 1.01
    for found, verdict in (
        (pictures, Verdict.AGREES),
        (spoilt, Verdict.WRONG),
        (spoilt * np.nan, Verdict.WRONG),
        (pictures[:2], Verdict.WRONG),
    ):
        outcome = trial._compare(draw, None, None, wanted, wanted, latents, found)
        assert outcome.verdict is verdict


def test_a_difference_of_which_export_warns_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DiTPipeline` does not scale a state as Euler's schedulers need it (docs/guide/samplers.md).

    Without that warning the same draw is wrong.
    """
    draw = replace(draw_case(0), family="dit", task="class", scheduler="EulerDiscreteScheduler")
    draw = replace(draw, options={}, steps=1, batch=1, prompts=("a",), negative=None, lora=False)
    draw = replace(draw, pictures_each=1, seeds=0, inversion=0, odd="", saved=False, subnet=None)
    outcome = try_draw(draw)
    assert outcome.verdict is Verdict.SAID
    assert "DiTPipeline" in outcome.reason
    monkeypatch.setattr(trial, "OTHER_THAN", "nothing of the kind")
    assert try_draw(draw).verdict is Verdict.WRONG


def test_the_summary_counts_reasons_without_their_numbers() -> None:
    outcomes = {
        1: Outcome(Verdict.AGREES, error=1e-6),
        2: Outcome(Verdict.REFUSED, "height: found 72; expected 64"),
        3: Outcome(Verdict.REFUSED, "height: found 40; expected 64"),
        4: Outcome(Verdict.WRONG, "latents"),
    }
    figures = summary(outcomes)
    assert figures["draws"] == 4
    assert figures["refusals"] == [["height: found …; expected …", 2]]
    assert figures["faults"] == {"4": "wrong: latents"}
    assert figures["largest_error"] == 1e-6
