"""What all variants do alike: the same model, steps, noise and prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dipgo.ir.subnet.subnet import SubNet

USUAL_SCALE = 7.5
"""The guidance scale of diffusers' pipelines."""

ROWS = ("negative", "positive")


@dataclass(frozen=True, slots=True)
class Task:
    """`folder` holds inputs, exports, results; `threads` of 0 takes every core."""

    model: str
    subnet: str
    steps: int
    scheduler: str
    guidance: bool
    threads: int
    folder: str

    @classmethod
    def load(cls, path: Path) -> Task:
        """As `save` has written it."""
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """For a worker to read."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @property
    def guidance_scale(self) -> float:
        """The scale for all variants: the usual one, or the nearest that the SubNet was fitted for.

        Without guidance it is 1, as diffusers has it.
        """
        if not self.guidance:
            return 1.0
        fitted = SubNet.load(self.subnet).fitted_for
        return USUAL_SCALE if fitted is None else fitted.nearest_scale(USUAL_SCALE)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """`latents` f32[1, C, h, w]; `negative` and `positive` f32[1, tokens, width]."""
        with np.load(Path(self.folder) / "inputs.npz") as file:
            return dict(file)


@dataclass(frozen=True, slots=True)
class Ready:
    """A variant that is loaded: both give latents f32[1, C, h, w], of one step or of all."""

    run: Callable[[], np.ndarray]
    warm_up: Callable[[], Any]


class NotPossible(Exception):  # noqa: N818
    """Why a variant cannot run here: a line of the table."""
