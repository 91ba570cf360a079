"""diffusers' `callback_on_step_end`, called as launches tell where a run is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dipgo.common.errors import DipgoError
from dipgo.engines.runner import OnStep

StepEnd: TypeAlias = Callable[[Any, int, float, dict[str, Any]], Any]
"""As diffusers calls `callback_on_step_end`: pipeline, step, timestep, tensors (none here)."""


@dataclass
class StepEnds:
    """Calls `callback_on_step_end` once for each step, as launches tell where a run is.

    A step without a launch of its own ends with the one before it.
    """

    pipeline: Any
    callback: StepEnd
    timesteps: Sequence[float]
    ended: int = 0

    def on_step(self, step: int) -> None:
        """Something of `step` has been run: the steps before it have ended."""
        self._end(range(self.ended, step))

    def finish(self) -> None:
        """All steps have ended."""
        self._end(range(self.ended, len(self.timesteps)))

    def _end(self, steps: Iterable[int]) -> None:
        for step in steps:
            self.ended = step + 1
            changed = self.callback(self.pipeline, step, self.timesteps[step], {})
            if changed:
                raise DipgoError(
                    f"callback_on_step_end, step {step}",
                    found=f"{', '.join(changed)} to be changed",
                    expected="None or an empty dict: the plan of an export is fixed",
                    remedy="return nothing, or give latents before the first step",
                )


def both(first: OnStep, second: OnStep) -> OnStep:
    """Calls one, then the other."""

    def call(step: int) -> None:
        first(step)
        second(step)

    return call
