"""The arguments of a pipeline's call, in diffusers' forms, as what a run needs."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError

OutputType = Literal["pil", "np", "latent"]


def check_output_type(output_type: str) -> None:
    """Raises DipgoError, also for diffusers' "pt", which needs torch."""
    if output_type not in get_args(OutputType):
        raise DipgoError(
            f"output_type {output_type!r}",
            found="a torch tensor" if output_type == "pt" else "a form that is not known",
            expected=", ".join(map(repr, get_args(OutputType))),
            remedy='take "np", and torch.from_numpy of it' if output_type == "pt" else "correct it",
        )


def seeds_of(generator: Any, seed: Any) -> int | list[int]:
    """One seed for all pictures, or one a picture; 0 where none is given. Raises DipgoError.

    A generator is a whole number, or what has `initial_seed()`, such as torch's of the CPU: its
    noise is that of a generator from which nothing has been drawn yet.
    """
    if generator is not None and seed is not None:
        raise DipgoError(
            "generator", found="a seed too", expected="one of the two", remedy="leave one out"
        )
    given = seed if generator is None else generator
    if given is None:
        return 0
    if isinstance(given, list | tuple):
        return [_seed(one) for one in given]
    return _seed(given)


def _seed(given: Any) -> int:
    if hasattr(given, "initial_seed"):
        device = str(getattr(given, "device", "cpu"))
        if device != "cpu":
            raise _no_seed(f"a generator on {device}")
        return int(given.initial_seed())
    try:
        return operator.index(given)
    except TypeError:
        raise _no_seed(repr(given)) from None


def _no_seed(found: str) -> DipgoError:
    return DipgoError(
        "generator",
        found=found,
        expected="a whole number, a torch.Generator of the CPU, or a list of one a picture",
        remedy="give the seed itself",
    )


def repeated(items: Sequence[Any], times: Any) -> list[Any]:
    """Each item `times` times, one after another, as diffusers orders pictures."""
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        raise DipgoError(
            "num_images_per_prompt",
            found=repr(times),
            expected="a whole number, at least 1",
            remedy="correct it",
        )
    return [item for item in items for _ in range(times)]


def negatives_of(given: str | Sequence[str] | None, count: int) -> list[str] | None:
    """As many as prompts; None, which is not the same as an empty text, where none is given."""
    if given is None:
        return None
    if isinstance(given, str):
        return [given] * count
    if len(given) != count:
        raise DipgoError(
            "negative_prompt",
            found=f"{len(given)} texts",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return list(given)


def _plain(scale: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(shape, scale, np.float32)


def _sinusoids(scale: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """f32[B, width]: `get_guidance_scale_embedding(scale - 1)` of diffusers' pipelines of LCM."""
    batch, width = shape
    half = width // 2
    frequencies = np.exp(
        np.arange(half, dtype=np.float32) * np.float32(-math.log(1e4) / (half - 1))
    )
    angles = np.float32((scale - 1) * 1000) * frequencies
    row = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])
    return np.tile(row, (batch, 1))


EMBEDDED_SCALES = {"guidance": _plain, "timestep_cond": _sinusoids}
"""Inputs by which models take the guidance scale that they were distilled with: Flux's, LCM's."""


def check_scale(scale: Any) -> float:
    """A guidance scale. Raises DipgoError for what is no finite number."""
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise DipgoError(
            "guidance_scale", found=repr(scale), expected="a finite number", remedy="correct it"
        )
    return float(scale)
