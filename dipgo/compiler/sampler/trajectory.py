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
"""(draw, counted from 1) -> noise, of the latents' shape."""

NORMAL = (torch.ops.aten.randn.generator, torch.ops.aten.randn.default)

MARK = 2410_16942
"""A seed that nothing else is likely to have."""


class HandOutDraws(TorchDispatchMode):
    """While active, noise of `shape` from `generator` comes from `draw` instead, in any precision.

    `count` is how many there were. Raises DipgoError, in the name of `scheduler`, for all else
    that is random: diffusers' pipelines could not make it again from their generator.
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
        """Operators are given another Python object of the same generator: its seed tells."""
        self.generator.manual_seed(MARK + self.count)
        return other is not None and other.initial_seed() == MARK + self.count

    def _refused(self, found: str) -> DipgoError:
        return DipgoError(
            f"scheduler {self.scheduler}",
            found=found,
            expected="normal noise like the latents, from the generator that the pipeline gives it",
            remedy="choose another scheduler, euler-a for example",
        )


Model = Callable[[int, torch.Tensor], torch.Tensor]  # (evaluation, its input) -> its output


class Trajectory(NamedTuple):
    """One run of a scheduler: timestep and model input of each evaluation, final latents.

    `draws` has, for each draw of noise, the evaluation after which it was made.
    """

    timesteps: list[float]
    inputs: list[torch.Tensor]
    result: torch.Tensor
    draws: list[int]


class KeepFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, latents in float64 stay so where a scheduler would cast them to float32.

    Only the latents: a scheduler's own tables of sigmas are float32 in its pipelines too.
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
    """A copy of the scheduler with its timesteps set; DipgoError where it will not have it so.

    With a `strength` it begins where image-to-image does.
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
    """The sampling loop of diffusers' pipelines, on a copy of a scheduler that was started.

    `noise` is f64[B, C, H, W], with the scheduler's `init_noise_sigma` already in it; what the
    scheduler draws comes from `draw`, and `eta` is for one that takes it. Raises DipgoError where
    the scheduler asks for more than the loop gives.
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
    """Whether the scheduler's step has an argument of that name: so diffusers' pipelines ask."""
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
        if hasattr(scheduler, "scale_model_input"):  # those for flow matching have none
            scaled = scheduler.scale_model_input(latents, timestep)
        timesteps.append(float(timestep))
        inputs.append(scaled.clone())
        output = model(index, scaled)
        latents = scheduler.step(output, timestep, latents, return_dict=False, **options)[0]
        made += [index] * (draws.count - len(made))
    return Trajectory(timesteps, inputs, latents, made)
