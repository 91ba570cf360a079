"""Turns the arguments of a pipeline's call, in diffusers' forms, into what a run needs."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import (
    DipgoError,
    close_to,
    described,
    is_unicode,
    wrong,
    wrong_type,
)
from dipgo.common.torch_noise import is_generator
from dipgo.ir.fitted import MOST_SCALE

DRAWN_SEEDS = 2**32
"""The number of seeds that are drawn from: torch's generator of the CPU takes 32 bits of a seed."""

MOST_PICTURES = 10**6
"""Pictures of a call: their noise alone takes gigabytes."""

OutputType = Literal["pil", "np", "latent"]


def check_output_type(output_type: str) -> None:
    """Checks the form of the output.

    Raises:
        DipgoError: The form is not known, or is diffusers' "pt", which needs torch.
    """
    if output_type not in get_args(OutputType):
        raise DipgoError(
            f"output_type {output_type!r}",
            found="a torch tensor" if output_type == "pt" else "a form that is not known",
            expected=", ".join(map(repr, get_args(OutputType))),
            remedy='take "np", and torch.from_numpy of it'
            if output_type == "pt"
            else close_to(output_type, get_args(OutputType)),
        )


def seeds_of(generator: Any, seed: Any) -> Any:
    """Returns a seed or generator for all pictures, or a list with one for each.

    Without any, a seed is drawn, as diffusers draws noise then; the caller says which it is.

    Args:
        generator: A whole number, or torch's generator of the CPU; or a list.
        seed: A whole number, or a list of them.

    Raises:
        DipgoError: Both are passed, or one of the values is not a seed.
    """
    if generator is not None and seed is not None:
        raise DipgoError(
            "generator", found="a seed too", expected="one of the two", remedy="leave one out"
        )
    name, seeds = ("seed", seed) if generator is None else ("generator", generator)
    if seeds is None:
        return secrets.randbelow(DRAWN_SEEDS)
    if isinstance(seeds, list | tuple):
        return [_seed(name, item) for item in seeds]
    return _seed(name, seeds)


def reported(seeds: Any) -> Any:
    """Returns what `seeds_of` has returned with None in the place of generators."""
    if isinstance(seeds, list):
        return [reported(seed) for seed in seeds]
    return None if is_generator(seeds) else seeds


def _seed(name: str, value: Any) -> Any:
    if is_generator(value):
        device = str(value.device)
        if device != "cpu":
            raise _no_seed(name, f"a generator on {device}")
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _no_seed(name, described(value))
    return int(value)


def _no_seed(name: str, problem: str) -> DipgoError:
    return DipgoError(
        name,
        found=problem,
        expected="a whole number, a torch.Generator of the CPU, or a list of one a picture",
        remedy="give the seed itself",
    )


def repeated(items: Sequence[Any], times: int) -> list[Any]:
    """Returns each item `times` times, one after another, as diffusers orders pictures.

    Raises:
        DipgoError: `times` is below 1, or more than a call may ask for.
    """
    if times < 1:
        raise wrong("num_images_per_prompt", times, "a whole number, at least 1")
    if times > MOST_PICTURES:
        raise wrong("num_images_per_prompt", times, f"at most {MOST_PICTURES}", "call it again")
    return [item for item in items for _ in range(times)]


def negatives_of(texts: str | Sequence[str] | None, count: int) -> list[str] | None:
    """Returns a negative prompt for each of `count` prompts.

    Returns:
        The texts, or None, which is not the same as empty texts, if `texts` is None.

    Raises:
        DipgoError: The number of texts is neither 1 nor `count`, or one is no text.
    """
    if texts is None:
        return None
    if not isinstance(texts, str | list | tuple):
        raise wrong_type("negative_prompt", texts, "a text, or a list with one for each prompt")
    for text in [texts] if isinstance(texts, str) else texts:
        check_text("negative_prompt", text)
    if isinstance(texts, str):
        return [texts] * count
    if len(texts) != count:
        raise DipgoError(
            "negative_prompt",
            found=f"{len(texts)} texts",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return list(texts)


def check_text(where: str, text: Any) -> None:
    """Checks that a prompt is a text that has an encoding.

    Raises:
        DipgoError: It is of another type, or has bytes that are not UTF-8.
    """
    if not isinstance(text, str):
        raise DipgoError(
            f"{where} {shown(text)}",
            found=f"what is no text ({type(text).__name__})",
            expected="a str, or several",
            remedy=f"give the {where} as text",
        )
    if not is_unicode(text):
        raise DipgoError(
            f"{where} {text!r}",
            found="bytes that are not UTF-8, or half of a character of UTF-16",
            expected="text in Unicode",
            remedy="give the text in UTF-8",
        )


def shown(prompt: Any) -> str:
    """Returns a prompt as an error names it: as Python writes it, if that is a line."""
    return repr(prompt) if isinstance(prompt, str | float) else _short(prompt)


def _short(prompt: Any) -> str:
    is_small = isinstance(prompt, int) and abs(prompt) < MOST_PICTURES
    return f"{prompt}" if is_small or prompt is None else described(prompt)


def prompts_of(prompt: Any) -> list[Any]:
    """Returns the prompts of a call: one, or those of a list, a tuple or an array of labels.

    Raises:
        DipgoError: It is something else.
    """
    if hasattr(prompt, "tolist"):  # of numpy or torch: labels
        prompt = prompt.tolist()
    if prompt is None or isinstance(prompt, str | int):
        return [prompt]
    if not isinstance(prompt, list | tuple):
        raise wrong_type("prompt", prompt, "a text, the number of a class, or a list of these")
    return [item.item() if isinstance(item, np.generic) else item for item in prompt]


def _plain(scale: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(shape, scale, np.float32)


def _sinusoids(scale: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns f32[B, width]: diffusers' `get_guidance_scale_embedding(scale - 1)` for LCM."""
    batch, width = shape
    half = width // 2
    frequencies = np.exp(
        np.arange(half, dtype=np.float32) * np.float32(-math.log(1e4) / (half - 1))
    )
    angles = np.float32((scale - 1) * 1000) * frequencies
    row = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)])
    return np.tile(row, (batch, 1))


EMBEDDED_SCALES = {"guidance": _plain, "timestep_cond": _sinusoids}
"""The inputs by which distilled models take their guidance scale: that of Flux, that of LCM."""


def check_scale(scale: Any) -> float:
    """Returns a guidance scale as a float.

    Raises:
        DipgoError: It is not a finite number.
    """
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise wrong_type("guidance_scale", scale, "a finite number")
    try:
        number = float(scale)
    except OverflowError:  # a whole number of more than 1024 bits
        number = math.inf
    if not abs(number) <= MOST_SCALE:
        raise wrong("guidance_scale", scale, f"a finite number, at most {MOST_SCALE:.2g}")
    return number
