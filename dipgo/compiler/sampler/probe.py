"""Reads a diffusers scheduler's arithmetic off as a linear map, by running it on a basis."""

from typing import Any

from dipgo.common.warn import warn
from dipgo.compiler.sampler.linearity import read_linear
from dipgo.compiler.sampler.recurrence import find_recurrence
from dipgo.compiler.sampler.schedulers import make_scheduler
from dipgo.compiler.sampler.start import DEFAULT_LOOP, Started, start_scheduler
from dipgo.compiler.sampler.trajectory import CHANNELS, record_runs
from dipgo.ir.sampler import PriorNoise, Sampler
from dipgo.models.loop import Loop

__all__ = ["make_scheduler", "probe", "public_config"]


def probe(
    scheduler: Any,
    num_inference_steps: int,
    *,
    loop: Loop = DEFAULT_LOOP,
    eta: float | None = None,
    prior_noise: PriorNoise | None = None,
    strength: float | None = None,
    channels: tuple[int, int] = CHANNELS,
    **options: Any,
) -> Sampler:
    """Returns the recurrence that a diffusers scheduler performs in `num_inference_steps` steps.

    The noise is what diffusers calls the initial latents, the scheduler's `init_noise_sigma`
    already in it; what is drawn later has unit variance. Coefficients are float64: the scheduler's
    tables as they are, without the roundings of its casts of the latents to float32
    (docs/internals/design.md, stage 4).

    Args:
        scheduler: A diffusers scheduler.
        num_inference_steps: The number of steps.
        loop: How the pipeline calls the scheduler.
        eta: Passed to the scheduler's steps, if they take it; None for what the pipeline passes.
        prior_noise: The noise that the loop adds again, if any.
        strength: If not None, only the last share of the steps is run, and the noise is a picture's
            latents with noise on them, as the pipeline has it.
        channels: The channels of the state, and of the predictions that the scheduler is given.
        **options: Further arguments of the scheduler's `set_timesteps` (`mu`, `sigmas`, …).

    Raises:
        DipgoError: The scheduler cannot be run so, takes no eta, draws other noise than the
            pipeline's, or is not linear.
    """
    config = public_config(scheduler)
    loop = loop.with_timestep_options(options)
    started = start_scheduler(scheduler, num_inference_steps, loop, eta=eta, strength=strength)
    _warn_of_misuse(started, loop)
    runs = record_runs(started, prior_noise, channels)
    table = read_linear(scheduler, runs)
    evaluated = runs.on_basis.timesteps
    timesteps = tuple(dict.fromkeys(evaluated))
    *inputs, result = find_recurrence(
        table.numpy(), with_noise=prior_noise is not None, draws=runs.on_basis.draws
    )
    return Sampler(
        scheduler_class=type(scheduler).__name__,
        num_inference_steps=num_inference_steps,
        timesteps=timesteps,
        rows=tuple(timesteps.index(timestep) for timestep in evaluated),
        inputs=tuple(inputs),
        result=result,
        eta=started.eta,
        start=started.start,
        config=config,
        noise_draws=len(runs.on_basis.draws),
    )


def _warn_of_misuse(started: Started, loop: Loop) -> None:
    """Warns where the pipeline ignores what the scheduler asks for, and so gets other pictures."""
    if started.scales_state and not (loop.scales_noise and loop.scales_input):
        name = type(started.scheduler).__name__
        warn(
            f"{name} is for a state that is scaled, which {loop.pipeline} does not do as {name} "
            "says: pictures are as the scheduler is meant, and other than those of the pipeline"
        )


def public_config(scheduler: Any) -> dict[str, Any]:
    """Returns a scheduler's configuration without diffusers' private entries, sorted."""
    config = scheduler.config
    return {key: config[key] for key in sorted(config) if not key.startswith("_")}
