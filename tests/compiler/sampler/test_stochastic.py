"""Samplers that draw noise, against the schedulers they were read off and the same generator."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, SchedulerMixin
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.common.torch_noise import draw_noise
from dipgo.compiler.sampler.linearity import coefficients
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.sampler.recurrence import Basis, expand, find_recurrence
from dipgo.compiler.sampler.start import start_scheduler
from dipgo.compiler.sampler.trajectory import record_runs
from dipgo.ir.sampler import Sampler, Term
from scripts.generate.sampler_table import SD15, execute, measure
from tests.support.stochastic import SCHEDULERS

TOLERANCE = 1e-6  # diffusers itself rounds to float32 in some schedulers, else 1e-14
FLOAT32 = 1e-5  # the same in float32, where noise is drawn as pipelines draw it
SHAPE = (2, 4, 8, 8)
SEED = 11
CASES = [(name, steps) for name in SCHEDULERS for steps in (20, 50)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), CASES)
def test_the_recurrence_does_as_the_scheduler(name: str, steps: int) -> None:
    scheduler, eta = SCHEDULERS[name]()
    sampler = probe(scheduler, steps, eta=eta)
    assert sampler.draws
    assert sampler.eta == eta
    found = measure(scheduler, sampler)
    print(f"{name}, {steps} steps: {max(found):.1e}")
    assert max(found) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), CASES)
def test_the_same_generator_gives_the_same_latents(name: str, steps: int) -> None:
    """In float32: the first draw is the initial noise, and each draw advances the generator."""
    scheduler, eta = SCHEDULERS[name]()
    sampler = probe(scheduler, steps, eta=eta)
    draws = draw_noise(SEED, SHAPE, (0, *sampler.draws))
    noise = {index: torch.from_numpy(one) for index, one in draws.items()}
    _, found = execute(sampler, noise[0], _model, noise)
    expected = _run(scheduler, steps, eta)
    error = float((found - expected).abs().max() / expected.abs().max())
    print(f"{name}, {steps} steps: {error:.1e}")
    assert error <= FLOAT32


def _model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """Predicts little, so that differences do not grow."""
    predicted: torch.Tensor = 0.3 * latents.tanh() + 0.1 * latents.roll(1, dims=-1).tanh()
    return predicted * (0.5 + timestep / 2000)


def _run(scheduler: Any, steps: int, eta: float) -> torch.Tensor:
    """The loop of Stable Diffusion's pipeline, but for the scaling of the initial noise."""
    generator = torch.Generator("cpu").manual_seed(SEED)
    latents = torch.randn(SHAPE, generator=generator)
    scheduler.set_timesteps(steps)
    options = {"eta": eta} if eta else {}
    for timestep in scheduler.timesteps:
        state = latents
        if hasattr(scheduler, "scale_model_input"):
            state = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(
            _model(state, float(timestep)),
            timestep,
            latents,
            generator=generator,
            return_dict=False,
            **options,
        )[0]
    return latents


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_terms_expand_to_the_coefficients_read_off(name: str) -> None:
    scheduler, eta = SCHEDULERS[name]()
    sampler = probe(scheduler, 20, eta=eta)
    found = record_runs(start_scheduler(scheduler, 20, eta=eta)).on_basis
    basis, rows = Basis(len(sampler.rows), tuple(found.draws)), list[Any]()
    for terms, wanted in zip(
        (*sampler.inputs, sampler.result), coefficients(found).numpy(), strict=True
    ):
        rows.append(expand(terms, rows, basis))
        assert np.abs(rows[-1] - wanted).max() <= 1e-10 * np.abs(wanted).max()


MOST_TERMS = {"euler-a": 3, "ddpm": 3, "ddim": 3, "lcm": 3, "tcd": 3, "kdpm2-a": 4, "dpm++-sde": 5}


@pytest.mark.parametrize(("name", "most"), MOST_TERMS.items())
def test_no_update_has_more_terms_than_its_method_needs(name: str, most: int) -> None:
    scheduler, eta = SCHEDULERS[name]()
    sampler = probe(scheduler, 50, eta=eta)
    updates = (*sampler.inputs, sampler.result)
    assert max(map(len, updates)) == most
    if name in ("dpm++-sde", "kdpm2-a"):  # these look back further, or make none at every other
        return
    for index, terms in enumerate(updates):
        drawn = [term.index for term in terms if term.kind == "draw"]
        assert drawn in ([], [index]), "an ancestral step uses its own draw only"


def test_draws_that_are_not_used_are_counted() -> None:
    """Euler-ancestral draws after its last evaluation too, and multiplies by 0."""
    scheduler, eta = SCHEDULERS["euler-a"]()
    assert len(record_runs(start_scheduler(scheduler, 5, eta=eta)).on_basis.draws) == 5
    assert probe(scheduler, 5).draws == (1, 2, 3, 4)
    late, _ = SCHEDULERS["sa"]()
    assert probe(late, 50).draws == tuple(range(11, 42))  # stochastic in the middle alone


def test_the_generator_is_what_pipelines_hand_on() -> None:
    """A scheduler that is run leaves torch's global generator alone."""
    before = torch.random.get_rng_state()
    probe(DDPMScheduler(clip_sample=False), 5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_eta_0_draws_nothing() -> None:
    scheduler = DDIMScheduler(**SD15)
    assert probe(scheduler, 5, eta=0.0) == probe(scheduler, 5)
    assert probe(scheduler, 5).draws == ()


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan"), float("inf")])
def test_an_eta_out_of_range_is_refused(eta: float) -> None:
    with pytest.raises(DipgoError, match=r"^eta: found .+; expected a number from 0 to 1; "):
        probe(DDIMScheduler(**SD15), 5, eta=eta)


def test_an_eta_that_would_change_nothing_is_refused() -> None:
    scheduler = make_scheduler(DDIMScheduler(**SD15), "euler-a")
    message = r"^eta: found 0.5 for EulerAncestralDiscreteScheduler, which has none; .+ choose"
    with pytest.raises(DipgoError, match=message):
        probe(scheduler, 5, eta=0.5)


@pytest.mark.parametrize(
    ("kind", "config", "option"),
    [
        ("DDPMScheduler", {}, "clip_sample"),
        ("LCMScheduler", {"clip_sample": True}, "clip_sample"),
        ("DDPMScheduler", {"clip_sample": False, "thresholding": True}, "thresholding"),
        ("CMStochasticIterativeScheduler", {}, "clip_denoised"),
    ],
)
def test_one_that_clips_is_refused(kind: str, config: dict[str, Any], option: str) -> None:
    import diffusers

    message = rf"^scheduler {kind}: found steps that are not linear .+, from {option}=True; "
    with pytest.raises(DipgoError, match=message):
        probe(getattr(diffusers, kind)(**config), 10)


class Odd(DDIMScheduler):
    """Adds something random at every step, in a way of its own."""

    def add(self, sample: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int,
        sample: torch.Tensor,
        generator: torch.Generator,
        return_dict: bool = True,
    ) -> Any:
        (before, *rest) = super().step(model_output, timestep, sample, return_dict=False)
        return (before + self.add(sample, generator), *rest)


class OwnGenerator(Odd):
    """As Brownian trees draw."""

    def add(self, sample: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        own = torch.Generator("cpu").manual_seed(3)
        return torch.randn(sample.shape, generator=own, dtype=sample.dtype)


class Global(Odd):
    def add(self, sample: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(sample.shape, dtype=sample.dtype)


class Uniform(Odd):
    def add(self, sample: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(sample.shape, generator=generator, dtype=sample.dtype)


class Scalar(Odd):
    def add(self, sample: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.randn((), generator=generator, dtype=sample.dtype)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (OwnGenerator, "noise from another generator than the pipeline's"),
        (Global, "noise from another generator than the pipeline's"),
        (Uniform, "random numbers by aten.rand.generator"),
        (Scalar, r"noise of shape \[\] for latents "),
    ],
)
def test_one_that_draws_otherwise_is_refused(kind: type[SchedulerMixin], found: str) -> None:
    message = rf"^scheduler {kind.__name__}: found {found}.*; expected .+; choose another"
    with pytest.raises(DipgoError, match=message):
        probe(kind(**SD15), 5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_recurrence_with_draws_is_found_again(seed: int) -> None:
    """Written out over the whole history, and made short again."""
    draw = random.Random(seed)
    evaluations = draw.randint(1, 12)
    made = sorted(draw.randrange(evaluations) for _ in range(draw.randint(0, 2 * evaluations)))
    basis, rows = Basis(evaluations, tuple(made)), list[Any]()
    for index in range(evaluations + 1):
        terms = [Term(1.0, "noise")]
        if index:
            newest = basis.drawn(index - 1, index)
            terms = [Term(draw.uniform(0.5, 1.5), "input", index - 1)]
            terms += [Term(draw.uniform(-1, 1), "output", index - 1)]
            terms += [Term(draw.uniform(0.1, 1), "draw", one) for one in newest]
        rows.append(expand(terms, rows, basis))
    found, again = find_recurrence(np.stack(rows), draws=made), list[Any]()
    for index, (terms, wanted) in enumerate(zip(found, rows, strict=True)):
        again.append(expand(terms, again, basis))
        assert np.abs(again[-1] - wanted).max() <= 1e-9 * np.abs(wanted).max()
        assert len(terms) <= 2 + len(basis.drawn(index - 1, index))


def test_a_sampler_names_the_draws_that_it_uses() -> None:
    terms = (Term(1.0, "input", 0), Term(0.5, "draw", 3), Term(0.1, "draw", 1))
    sampler = Sampler("Handmade", 1, (1.0,), (0,), ((Term(1.0, "noise"),),), terms)
    assert sampler.draws == (1, 3)
