"""Runs a diffusers scheduler as its pipelines do, in float64 throughout."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.start import Started
from dipgo.compiler.trace.torch_private import TorchDispatchMode, conversion
from dipgo.ir.sampler import PriorNoise

Draw = Callable[[int], torch.Tensor]
"""A function (draw, counted from 1) -> noise, of the latents' shape."""

NORMAL = (torch.ops.aten.randn.generator, torch.ops.aten.randn.default)

SCALES = (0.0, 1.0, 1e2, 1e4)  # of the samples of random data: clipping shows in large ones only

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


class Runs(NamedTuple):
    """A scheduler's run on a basis, and one on random data that shows whether it is linear.

    `data` is f64[1 + E + D, B, C, H, W] for E evaluations with D draws: [initial noise, output 0,
    output 1, …, draw 1, draw 2, …]. The basis is the identity in this order, on the last axis.
    Outputs that have more channels than the state have 0 in them on the basis, else random data:
    a scheduler that leaves them out is linear.
    """

    on_basis: Trajectory
    on_data: Trajectory
    data: torch.Tensor


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


CHANNELS = (4, 4)
"""Channels of the state and of predictions, if they are not known: more than schedulers cut to."""


def record_runs(
    started: Started,
    prior_noise: PriorNoise | None = None,
    channels: tuple[int, int] = CHANNELS,
) -> Runs:
    """Runs a scheduler on the basis and on random data.

    Args:
        started: A started scheduler.
        prior_noise: The noise that the loop adds again, if any.
        channels: The channels of the state, and of the predictions that the scheduler is given.

    Raises:
        DipgoError: The scheduler asks for more than the pipelines' loop provides.
    """
    state, predicted = channels
    if state == predicted:  # a cut shows in a few channels
        state = predicted = min(state, max(CHANNELS))
    size = 1 + len(started.timesteps) + _count_draws(started, state, predicted)
    basis = torch.eye(size, dtype=torch.float64).reshape(size, 1, 1, 1, size)
    basis = basis.expand(size, 1, state, 1, size)
    data = _make_data((size, len(SCALES), max(state, predicted), 4, 4))
    zeros = torch.zeros_like(basis[:, :, :1])
    return Runs(
        _run_on(basis, _outputs(basis, zeros, predicted), started, prior_noise),
        _run_on(data[:, :, :state], data[:, :, :predicted], started, prior_noise),
        data[:, :, :state],
    )


def _outputs(tensors: torch.Tensor, more: torch.Tensor, channels: int) -> torch.Tensor:
    """Returns the tensors, on the third axis cut to so many channels, or with `more` after them."""
    missing = channels - tensors.shape[2]
    cut = tensors[:, :, :channels]
    return torch.cat([cut, *[more] * missing], dim=2) if missing > 0 else cut


def _count_draws(started: Started, state: int, predicted: int) -> int:
    """Returns how often a trajectory draws noise: the timesteps alone decide that."""
    ones = torch.ones(1, state, 1, 1, dtype=torch.float64)
    output = torch.ones(1, predicted, 1, 1, dtype=torch.float64)
    run = run_scheduler(started, ones, lambda index, _: output.clone(), draw=lambda _: ones.clone())
    return len(run.draws)


def _make_data(shape: tuple[int, ...]) -> torch.Tensor:
    """Returns f64[size, B, C, H, W]: noise, an output for each evaluation, draws; B scales."""
    generator = torch.Generator("cpu").manual_seed(2410)
    data = torch.randn(shape, generator=generator, dtype=torch.float64)
    return data * torch.tensor(SCALES, dtype=torch.float64).reshape(-1, 1, 1, 1)


def _run_on(
    tensors: torch.Tensor,
    outputs: torch.Tensor,
    started: Started,
    prior_noise: PriorNoise | None,
) -> Trajectory:
    """Runs a scheduler on [initial noise, …, draw 1, draw 2, …] and outputs, from the second on."""
    evaluations = len(started.timesteps)
    return run_scheduler(
        started,
        tensors[0].clone(),
        lambda index, _: outputs[1 + index].clone(),
        draw=lambda index: tensors[evaluations + index].clone(),
        prior_noise=prior_noise,
    )


def run_scheduler(
    started: Started,
    noise: torch.Tensor,
    model: Model,
    *,
    draw: Draw,
    prior_noise: PriorNoise | None = None,
) -> Trajectory:
    """Runs the sampling loop of diffusers' pipelines on a copy of a started scheduler.

    Args:
        started: A started scheduler.
        noise: f64[B, C, H, W], already multiplied by the scheduler's `init_noise_sigma`.
        model: Returns the output of an evaluation from its number and its input.
        draw: Returns the noise that the scheduler draws.
        prior_noise: The noise that the loop adds again, if any.

    Raises:
        DipgoError: The scheduler asks for more than the loop provides.
    """
    generator, name = torch.Generator("cpu"), type(started.scheduler).__name__
    draws = HandOutDraws(name, generator, noise.shape, draw)
    options: dict[str, Any] = {"generator": generator} if started.takes_generator else {}
    options |= started.step_options
    try:
        with KeepFloat64(), draws:  # type: ignore[no-untyped-call]
            return _loop(started, noise, model, options, draws, prior_noise)
    except DipgoError:
        raise
    except Exception as error:  # a scheduler may ask for anything
        raise DipgoError(
            f"{name}.step",
            found=f"{type(error).__name__}: {error}",
            expected="a scheduler that steps from the model's output, a timestep and the latents",
            remedy="choose another scheduler",
        ) from error


def _loop(
    started: Started,
    noise: torch.Tensor,
    model: Model,
    options: dict[str, Any],
    draws: HandOutDraws,
    prior_noise: PriorNoise | None,
) -> Trajectory:
    scheduler = copy.deepcopy(started.scheduler)
    timesteps, inputs, latents = [], [], noise
    made: list[int] = []
    for index, timestep in enumerate(started.timesteps):
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
