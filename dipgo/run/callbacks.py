"""Calls diffusers' `callback_on_step_end` as launches report the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from dipgo.common.errors import DipgoError, described
from dipgo.engines.clones import OnStep

StepEnd: TypeAlias = Callable[[Any, int, float, dict[str, Any]], Any]
"""A function that diffusers calls with pipeline, step, timestep and tensors (none here)."""


class StepEnds:
    """A caller of `callback_on_step_end`, once for each step, as launches report where a run is.

    A step that launches nothing ends with the step before it.
    """

    def __init__(self, pipeline: Any, callback: StepEnd, timesteps: Sequence[float]) -> None:
        self.pipeline, self.callback, self.timesteps = pipeline, callback, timesteps
        self.ended = 0

    def on_step(self, step: int) -> None:
        """Ends the steps before `step`, something of which has been run."""
        self._end(range(self.ended, step))

    def finish(self) -> None:
        """Ends all steps."""
        self._end(range(self.ended, len(self.timesteps)))

    def _end(self, steps: Iterable[int]) -> None:
        for step in steps:
            self.ended = step + 1
            changed = self.callback(self.pipeline, step, self.timesteps[step], {})
            if changed:
                names = ", ".join(map(str, changed)) if isinstance(changed, dict) else ""
                raise DipgoError(
                    f"callback_on_step_end, step {step}",
                    found=f"{names} to be changed" if names else described(changed),
                    expected="None or an empty dict: the plan of an export is fixed",
                    remedy="return nothing, or give latents before the first step",
                )


def both(first: OnStep, second: OnStep) -> OnStep:
    """Returns a function that calls the first, then the second."""

    def call(step: int) -> None:
        first(step)
        second(step)

    return call
