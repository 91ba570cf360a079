"""Runs a diffusers scheduler as its pipelines do, in float64 throughout."""

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.image_to_image import begin_at, remaining_timesteps
from dipgo.compiler.trace.torch_private import TorchDispatchMode, conversion
from dipgo.ir.sampler import PriorNoise

Draw = Callable[[int], torch.Tensor]
"""A function (draw, counted from 1) -> noise, of the latents' shape."""

NORMAL = (torch.ops.aten.randn.generator, torch.ops.aten.randn.default)

MARK = 2410_16942
"""A seed that nothing else is likely to have."""


class HandOutDraws(TorchDispatchMode):
    """A mode in which noise of `shape` from `generator` comes from `draw`, in any precision.

    `count` is the number of draws so far.

    Args:
        scheduler: The scheduler's name, for errors.
        generator: The generator that the scheduler is called with.
        shape: The shape of the latents.
        draw: Returns the noise of each draw.

    Raises:
        DipgoError: Something else is random: diffusers' pipelines could not make it again from
            their generator.
    """

    def __init__(
        self, scheduler: str, generator: torch.Generator, shape: torch.Size, draw: Draw
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scheduler, self.generator, self.shape, self.draw = scheduler, generator, shape, draw
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func not in NORMAL:
            raise self._refused(f"random numbers by {func}")
        if not self._is_ours(kwargs.get("generator")):
            raise self._refused("noise from another generator than the pipeline's")
        if tuple(args[0]) != tuple(self.shape):
            raise self._refused(f"noise of shape {list(args[0])} for latents {list(self.shape)}")
        self.count += 1
        return self.draw(self.count)

    def _is_ours(self, other: torch.Generator | None) -> bool:
        """Returns whether `other` is the same generator, by its seed.

        Operators are called with another Python object for the same generator.
        """
        self.generator.manual_seed(MARK + self.count)
        return other is not None and other.initial_seed() == MARK + self.count

    def _refused(self, problem: str) -> DipgoError:
        return DipgoError(
            f"scheduler {self.scheduler}",
            found=problem,
            expected="normal noise like the latents, from the generator that the pipeline gives it",
            remedy="choose another scheduler, euler-a for example",
        )


Model = Callable[[int, torch.Tensor], torch.Tensor]  # (evaluation, its input) -> its output


class Trajectory(NamedTuple):
    """A run of a scheduler: timestep and model input of each evaluation, and the final latents.

    `draws` has, for each draw of noise, the evaluation after which it was made.
    """

    timesteps: list[float]
    inputs: list[torch.Tensor]
    result: torch.Tensor
    draws: list[int]


class KeepFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which float64 latents stay so where a scheduler would cast them to float32.

    It covers the latents only: a scheduler's own tables of sigmas are float32 in its pipelines too.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        cast = func is conversion() and kwargs.get("dtype") == torch.float32
        if cast and args[0].dtype == torch.float64 and args[0].ndim >= 4:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def start_scheduler(
    scheduler: Any,
    num_inference_steps: int,
    options: dict[str, Any],
    strength: float | None = None,
) -> Any:
    """Returns a copy of the scheduler with its timesteps set.

    Args:
        scheduler: A diffusers scheduler.
        num_inference_steps: The number of steps.
        options: Further arguments of `set_timesteps`.
        strength: If not None, the run begins where image-to-image of this strength begins.

    Raises:
        DipgoError: The scheduler refuses the steps or the options.
    """
    fresh = copy.deepcopy(scheduler)
    try:
        fresh.set_timesteps(num_inference_steps, **options)
    except Exception as error:  # a scheduler may refuse in its own way
        raise DipgoError(
            f"{type(scheduler).__name__}.set_timesteps({num_inference_steps})",
            found=f"{type(error).__name__}: {error}",
            expected="a number of steps, and options, that the scheduler takes",
            remedy="choose another number of steps, or another scheduler",
        ) from error
    if strength is not None:
        begin_at(fresh, num_inference_steps, strength)
    return fresh


def run_scheduler(
    started: Any,
    noise: torch.Tensor,
    model: Model,
    *,
    draw: Draw,
    eta: float = 0.0,
    prior_noise: PriorNoise | None = None,
) -> Trajectory:
    """Runs the sampling loop of diffusers' pipelines on a copy of a started scheduler.

    Args:
        started: A scheduler with its timesteps set.
        noise: f64[B, C, H, W], already multiplied by the scheduler's `init_noise_sigma`.
        model: Returns the output of an evaluation from its number and its input.
        draw: Returns the noise that the scheduler draws.
        eta: The eta for a scheduler that takes one.
        prior_noise: The noise that the loop adds again, if any.

    Raises:
        DipgoError: The scheduler asks for more than the loop provides.
    """
    scheduler, generator = copy.deepcopy(started), torch.Generator("cpu")
    draws = HandOutDraws(type(started).__name__, generator, noise.shape, draw)
    named = {"generator": generator, "eta": eta}
    options = {name: value for name, value in named.items() if takes(scheduler, name)}
    try:
        with KeepFloat64(), draws:  # type: ignore[no-untyped-call]
            return _loop(scheduler, noise, model, options, draws, prior_noise)
    except DipgoError:
        raise
    except Exception as error:  # a scheduler may ask for anything
        raise DipgoError(
            f"{type(started).__name__}.step",
            found=f"{type(error).__name__}: {error}",
            expected="a scheduler that steps from the model's output, a timestep and the latents",
            remedy="choose another scheduler",
        ) from error


def takes(scheduler: Any, option: str) -> bool:
    """Returns whether the scheduler's step has this argument, as diffusers' pipelines ask it."""
    step = getattr(scheduler, "step", None)
    return step is not None and option in inspect.signature(step).parameters


def _loop(
    scheduler: Any,
    noise: torch.Tensor,
    model: Model,
    options: dict[str, Any],
    draws: HandOutDraws,
    prior_noise: PriorNoise | None,
) -> Trajectory:
    timesteps, inputs, latents = [], [], noise
    made: list[int] = []
    for index, timestep in enumerate(remaining_timesteps(scheduler)):
        if prior_noise and timestep < prior_noise.below:
            latents = latents + prior_noise.scale * noise
        scaled = latents
        if hasattr(scheduler, "scale_model_input"):  # schedulers for flow matching have none
            scaled = scheduler.scale_model_input(latents, timestep)
        timesteps.append(float(timestep))
        inputs.append(scaled.clone())
        output = model(index, scaled)
        latents = scheduler.step(output, timestep, latents, return_dict=False, **options)[0]
        made += [index] * (draws.count - len(made))
    return Trajectory(timesteps, inputs, latents, made)
