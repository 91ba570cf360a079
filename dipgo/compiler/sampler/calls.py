"""Checks that a scheduler can be called as the pipeline of a model calls it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.models.loop import Loop


def takes(scheduler: Any, option: str) -> bool:
    """Returns whether the scheduler's step has this argument, as diffusers' pipelines ask it."""
    step = getattr(scheduler, "step", None)
    return step is not None and option in inspect.signature(step).parameters


def check_eta(scheduler: Any, eta: float | None) -> None:
    """Checks that eta is in 0..1, and above 0 only for a scheduler that uses it.

    Raises:
        DipgoError: It is not.
    """
    if eta is None:
        return
    if not 0 <= eta <= 1:
        raise DipgoError(
            setting("eta"),
            found=f"{eta:g}",
            expected="a number from 0 to 1",
            remedy="1 draws as much noise as DDPM does, 0 none",
        )
    if eta > 0 and not takes(scheduler, "eta"):
        raise DipgoError(
            setting("eta"),
            found=f"{eta:g} for {type(scheduler).__name__}, which has none",
            expected="a scheduler whose steps take an eta, ddim for example",
            remedy=f"leave {setting('eta')} out, or choose ddim",
        )


def check_has(scheduler: Any, loop: Loop) -> None:
    """Checks that the scheduler has the attributes that the pipeline reads.

    Raises:
        DipgoError: It has not; diffusers' pipeline fails with this scheduler.
    """
    lacking = [name for name in loop.reads or () if not hasattr(scheduler, name)]
    if lacking:
        raise DipgoError(
            f"scheduler {type(scheduler).__name__}",
            found=f"no {' and no '.join(lacking)}",
            expected=f"a scheduler for {loop.pipeline}, which reads {' and '.join(lacking)}",
            remedy="choose another scheduler",
        )


def check_takes(scheduler: Any, method: str, names: Iterable[str], loop: Loop) -> None:
    """Checks that a method of the scheduler has the arguments that the pipeline calls it with.

    Raises:
        DipgoError: It has not; diffusers' pipeline fails with this scheduler.
    """
    known = inspect.signature(getattr(scheduler, method)).parameters
    lacking = [name for name in names if name not in known]
    if lacking:
        raise DipgoError(
            f"scheduler {type(scheduler).__name__}",
            found=f"no {' and no '.join(lacking)} among the arguments of {method}",
            expected=f"a scheduler that {loop.pipeline} can call, which passes "
            f"{' and '.join(lacking)}",
            remedy="choose another scheduler",
        )


def find_mixer(started: Any, loop: Loop) -> str:
    """Returns the scheduler's method that the pipeline puts noise on a picture with.

    Raises:
        DipgoError: The scheduler has none.
    """
    mixer = next((name for name in loop.mixers if hasattr(started, name)), None)
    if mixer is None:
        raise DipgoError(
            setting("strength"),
            found=f"{type(started).__name__}, which has no {' and no '.join(loop.mixers)}",
            expected="a scheduler with the method by which the pipeline puts noise on a picture",
            remedy=f"choose another scheduler, or leave {setting('strength')} out",
        )
    return mixer
