"""Makes a draw that goes badly smaller: it asks for less as long as it goes as badly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from scripts.fuzz import trial
from scripts.fuzz.draws import Draw


def simpler(draw: Draw) -> Iterator[Draw]:
    """Yields draws that ask for less than this one, each in one way."""
    changes: list[dict[str, Any]] = [
        {"subnet": None},
        {"lora": False},
        {"inversion": 0},
        {"weights": "fp32"},
        {"precision": "fp32"},
        {"saved": False},
        {"odd": ""},
        {"negative": None},
        {"pictures_each": 1, "seeds": 0, "prompts": draw.prompts[:1], "negative": None},
        {"seeds": 0},
        {"prompts": ("a red circle",) * len(draw.prompts)},
        {"batch": 1},
        {"height": 64, "width": 64},
        {"eta": 0.0},
        {"guidance": True},
        {"guidance_scale": 3.0},
        {"strength": 1.0},
        {"options": {}},
        *(
            {"options": {key: draw.options[key] for key in draw.options if key != dropped}}
            for dropped in draw.options
        ),
        {"steps": max(1, draw.steps - 1)},
        {"scheduler": "DDIMScheduler"} if draw.family not in ("sd3", "flux", "lcm") else {},
        {"task": "text"} if draw.task not in ("class", "none") else {},
    ]
    for change in changes:
        smaller = replace(draw, **change)
        if smaller != draw:
            yield smaller


def shrink(draw: Draw, outcome: trial.Outcome) -> tuple[Draw, trial.Outcome]:
    """Returns the smallest draw found that goes as badly, and its outcome."""
    again = True
    while again:
        again = False
        for smaller in simpler(draw):
            its = trial.try_draw(smaller)
            if its.verdict == outcome.verdict:
                draw, outcome, again = smaller, its, True
                break
    return draw, outcome
