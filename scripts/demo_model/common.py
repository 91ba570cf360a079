"""What every training stage needs: a clock for the budget, a schedule, and picture tensors."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.demo_model.shapes import Scene, draw_batch


def progress(minutes: float) -> Iterator[tuple[int, float]]:
    """Yield (step, share of the wall-clock budget spent) until the budget is spent."""
    start, step = time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        yield step, share
        step += 1


def minutes_since(start: float) -> float:
    """Minutes of wall-clock time since time.monotonic() was `start`."""
    return (time.monotonic() - start) / 60


def set_learning_rate(
    optimizer: torch.optim.Optimizer, peak: float, step: int, share: float, warm_up: int = 100
) -> None:
    """Linear warm-up over steps, then a cosine to zero over the share of the budget spent."""
    rate = peak * min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * share))
    for group in optimizer.param_groups:
        group["lr"] = rate


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """u8[N, 64, 64, 3] to f32[N, 3, 64, 64] in [-1, 1], channels last in memory."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return pixels.contiguous(memory_format=torch.channels_last)


def random_scenes(scenes: tuple[Scene, ...], n: int, rng: np.random.Generator) -> list[Scene]:
    """Draw n scenes with replacement."""
    return [scenes[i] for i in rng.integers(0, len(scenes), n)]


def draw_set(scenes: tuple[Scene, ...], n: int, seed: int) -> tuple[list[Scene], NDArray[np.uint8]]:
    """Draw n random scenes and their pictures u8[n, 64, 64, 3]."""
    rng = np.random.default_rng(seed)
    chosen = random_scenes(scenes, n, rng)
    return chosen, draw_batch(chosen, rng)
