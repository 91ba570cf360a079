"""Rule: the record of a schedule: its function, its inputs and the number that sets its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.activation_changes import Changes
from dipgo.schedules.base import at_kept, at_kept_by_bisection
from dipgo.schedules.fewer_steps import count_steps


class Inputs(Protocol):
    """All inputs that a rule's function may need, by the names of its arguments."""

    @property
    def dense(self) -> SubNet:
        """The SubNet whose gates are all on."""

    @property
    def macs(self) -> Mapping[str, int]:
        """MACs of one call of each block."""

    @property
    def seed(self) -> int:
        """The seed of all random choices."""

    @property
    def changes(self) -> Changes:
        """The measured changes of blocks from step to step."""

    @property
    def losses(self) -> NDArray[np.float64]:
        """The measured loss of removing each gate alone, f64[steps, blocks]."""

    @property
    def subnet(self) -> SubNet:
        """Another SubNet of the same model."""

    @property
    def path(self) -> Path:
        """A file that the method's authors published."""

    def timesteps_at(self, steps: int) -> Sequence[float]:
        """Returns the sampler's timesteps at another number of steps."""

    def evaluations_at(self, steps: int) -> int:
        """Returns how often the denoiser runs in n steps; PNDM evaluates its second step twice."""


OPTIONS: Mapping[str, str] = {
    "changes": "prompts",
    "losses": "prompts",
    "subnet": "of",
    "path": "router",
}
"""Names of options of `python -m dipgo.search` by the inputs they provide; others need none."""

EXPECTED: Mapping[str, str] = {
    "prompts": "prompts, one a line: this method measures the model first",
    "of": "a SubNet whose busiest timesteps are to be taken",
    "router": "the file of a Learning-to-Cache router",
}
"""The values of those options, in words."""


def left_out(name: str) -> DipgoError:
    """Returns the error for an option of OPTIONS that is needed and left out."""
    flag = setting(name)
    return DipgoError(flag, found="nothing", expected=EXPECTED[name], remedy=f"give {flag}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """The argument of a rule's function that sets the cost, and the values to choose among."""

    name: str
    values: Callable[[Inputs, float], Sequence[float]]
    """Returns the values for the inputs and the share to keep; may raise DipgoError."""
    falling: bool = False
    """Whether the kept share never rises along the values, so that few of them are tried."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of RULES. `function` is called with `needs` and `takes` as keywords."""

    name: str
    """The rule's name in `--method`."""
    function: Callable[..., SubNet]
    takes: Parameter
    needs: tuple[str, ...]
    """Arguments of the function, each a member of `Inputs`."""
    title: str
    gates: str
    """The gates that are on, in words, for docs/guide/schedules.md."""
    source: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The names of options that a user must set, each once."""
        return tuple(dict.fromkeys(OPTIONS[name] for name in self.needs if name in OPTIONS))

    def make(self, inputs: Inputs, value: float) -> SubNet:
        """Returns the SubNet at one value of the parameter.

        Raises:
            DipgoError: An input is missing, or the function refuses the value.
        """
        needed = {name: getattr(inputs, name) for name in self.needs}
        return self.function(**needed, **{self.takes.name: value})

    def meet(self, inputs: Inputs, kept: Callable[[SubNet], float], target: float) -> SubNet:
        """Returns the SubNet whose kept share is nearest to `target`, see `at_kept`.

        Raises:
            DipgoError: No value meets the share, or an input is missing.
        """
        choose: Callable[..., SubNet] = at_kept_by_bisection if self.takes.falling else at_kept
        values = self.takes.values(inputs, target)
        return choose(lambda value: self.make(inputs, value), values, kept, target)


def counts(name: str) -> Parameter:
    """Returns a parameter `name` that is a number of steps: 1 to all of them."""
    return Parameter(name, lambda inputs, kept: range(1, len(inputs.dense.timesteps) + 1))


def thresholds(values: NDArray[np.float64]) -> Parameter:
    """Returns a parameter `threshold` that has the same values for every model."""
    listed: list[float] = values.tolist()
    return Parameter("threshold", lambda inputs, kept: listed)


INTERVAL, COUNT = counts("interval"), counts("count")


def _affordable_steps(inputs: Inputs, kept: float) -> tuple[int]:
    return (count_steps(kept, inputs.dense.num_inference_steps, inputs.evaluations_at),)


STEPS = Parameter("steps", _affordable_steps)

REMOVED = Parameter(
    "removed", lambda inputs, kept: range(inputs.dense.gates[1:].size + 1), falling=True
)

SHARE = Parameter("share", lambda inputs, kept: np.linspace(1.0, 0.0, 1001).tolist(), falling=True)

BUDGET = Parameter(
    "share", lambda inputs, kept: np.linspace(kept, min(1.0, kept + 0.4), 41).tolist()
)
"""Shares from the target upwards: a knapsack does not see which blocks lose their last reader."""
