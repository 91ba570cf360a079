"""What all variants do alike: the same model, steps, noise and prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

GUIDANCE_SCALE = 7.5
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
