"""Prints, as markdown, how every known scheduler fares as a linear map.

python -m scripts.generate.sampler_table
"""

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import diffusers
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.calls import takes
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.sampler.schedulers import SCHEDULERS
from dipgo.ir.sampler import Sampler, Term
from scripts.harness import run_script, script_parser

STEPS = (20, 50)
MOST_WORDS = 120  # characters of a reason
SD15 = {  # the scheduler's config in Stable Diffusion 1.5
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


class Deviation(NamedTuple):
    """The largest difference from diffusers' own run, relative to the largest value there."""

    inputs: float
    result: float


def base_scheduler(prediction: str = "epsilon") -> Any:
    """The scheduler of Stable Diffusion 1.5, as DDIM."""
    return diffusers.DDIMScheduler(prediction_type=prediction, **SD15)


def named_scheduler(name: str, prediction: str = "epsilon") -> Any:
    """A scheduler by short name; flow matching has configs of its own."""
    if name == "flow-euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return make_scheduler(base_scheduler(prediction), name)


class Entry(NamedTuple):
    """A line of the table: a scheduler is made when its turn comes."""

    name: str
    make: partial[Any]
    eta: float = 0.0


def entries() -> Iterator[Entry]:
    """Every short name, then every class of diffusers, then options that make them draw noise."""
    yield from (Entry(name, partial(named_scheduler, name)) for name in SCHEDULERS)
    yield from (Entry(kind.__name__, partial(_of_class, kind)) for kind in _classes())
    yield Entry("ddim, eta 1", partial(named_scheduler, "ddim"), 1.0)
    yield Entry("tcd, eta 0.3", partial(named_scheduler, "tcd"), 0.3)
    for name, config in OPTIONS.items():
        kind = getattr(diffusers, name)
        label = f"{name}, {', '.join(f'{key} {value}' for key, value in config.items())}"
        yield Entry(label, partial(_of_class, kind, **config))


OPTIONS: dict[str, dict[str, Any]] = {
    "CMStochasticIterativeScheduler": {"clip_denoised": False},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    "DPMSolverSinglestepScheduler": {
        "algorithm_type": "sde-dpmsolver++",
        "final_sigmas_type": "sigma_min",
    },
    "EDMDPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++"},
    "FlowMatchEulerDiscreteScheduler": {"stochastic_sampling": True},
}


def _classes() -> Iterator[Any]:
    """All that diffusers offers for PyTorch; a stand-in says what package is missing."""
    for name in sorted(dir(diffusers)):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        if isinstance(kind, type) and not name.startswith("Flax"):
            yield kind


def _of_class(kind: Any, **config: Any) -> Any:
    """With as much of Stable Diffusion's config as the class takes."""
    if kind.__name__ == "UnCLIPScheduler":  # which takes no other
        config = {"beta_schedule": "squaredcos_cap_v2", **config}
    return kind.from_config(base_scheduler().config, **config)


class Recorder(TorchDispatchMode):
    """While active, keeps the noise that is drawn; `draws` counts from 1."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.randn.generator:
            self.draws[len(self.draws) + 1] = result
        return result


def measure(scheduler: Any, sampler: Sampler, **options: Any) -> Deviation:
    """Run scheduler and recurrence with the same random linear model on f64[1, 4, 8, 8].

    What the scheduler draws, the recurrence is given.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    noise, here, beside = torch.randn(3, 1, 4, 8, 8, generator=generator, dtype=torch.float64)

    def model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        mixed: torch.Tensor = here * latents + beside * latents.roll(1, dims=-1)
        return mixed * (0.5 + timestep / 2000)

    scheduler.set_timesteps(sampler.num_inference_steps, **options)
    offered = {"generator": generator, "eta": sampler.eta}
    named = {name: value for name, value in offered.items() if takes(scheduler, name)}
    wanted, latents, recorder = [], noise, Recorder()
    for timestep in scheduler.timesteps:
        scaled = latents
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(latents, timestep)
        wanted.append(scaled)
        output = model(scaled, float(timestep))
        with recorder:
            latents = scheduler.step(output, timestep, latents, return_dict=False, **named)[0]
    inputs, result = execute(sampler, noise, model, recorder.draws)
    return Deviation(
        max(map(_relative, inputs, wanted)),
        _relative(result, latents),
    )


def execute(
    sampler: Sampler, noise: torch.Tensor, model: Any, draws: Mapping[int, torch.Tensor]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The recurrence, carried out: the model's inputs, and the final latents."""
    values: dict[str, Any] = {"noise": [noise], "input": [], "output": [], "draw": draws}

    def total(terms: tuple[Term, ...]) -> torch.Tensor:
        parts = [term.coefficient * values[term.kind][term.index] for term in terms]
        return torch.stack(parts).sum(dim=0)

    for row, terms in zip(sampler.rows, sampler.inputs, strict=True):
        values["input"].append(total(terms))
        values["output"].append(model(values["input"][-1], sampler.timesteps[row]))
    return values["input"], total(sampler.result)


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def _row(entry: Entry) -> str:
    """One line of the table."""
    try:
        scheduler = entry.make()
    except ImportError:
        (kind,) = entry.make.args
        return f"| {entry.name} | not tried: needs {' and '.join(kind._backends)} | | | | | |"
    except (TypeError, ValueError) as error:  # not a scheduler of images
        return f"| {entry.name} | no: {str(error)[:MOST_WORDS]} | | | | | |"
    samplers, refused = [], []
    for steps in STEPS:
        try:
            samplers.append(probe(scheduler, steps, eta=entry.eta))
        except DipgoError as error:
            refused.append(f"{error.found.splitlines()[0][:MOST_WORDS]}")
    if not samplers:
        return f"| {entry.name} | no: {refused[0]} | | | | | |"
    deviation = max(max(measure(entry.make(), sampler)) for sampler in samplers)
    counts = [f"{len(s.rows)} / {len(s.timesteps)}" for s in samplers] + ["-"] * len(refused)
    draws = [str(len(sampler.draws)) for sampler in samplers] + ["-"] * len(refused)
    terms = max(len(terms) for s in samplers for terms in (*s.inputs, s.result))
    found = f"{' / '.join(draws)} | {' | '.join(counts)} | {deviation:.1e} | {terms}"
    return f"| {entry.name} | yes | {found} |"


def main(arguments: list[str]) -> None:
    """Print the table, one line a scheduler."""
    script_parser(__file__, __doc__).parse_args(arguments)
    diffusers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    steps = " | ".join(f"evaluations / timesteps at {n} steps" for n in STEPS)
    draws = f"draws at {' / '.join(map(str, STEPS))} steps"
    print(f"| scheduler | linear | {draws} | {steps} | largest relative deviation | most terms |")
    print("|---|---|---|---|---|---|---|")
    for entry in entries():
        print(_row(entry), flush=True)


if __name__ == "__main__":
    run_script(main)
