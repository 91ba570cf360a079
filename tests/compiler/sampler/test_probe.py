"""Samplers as linear maps, against the schedulers they were read off."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.compiler.sampler.linearity import coefficients
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.sampler.recurrence import Basis, expand, find_recurrence
from dipgo.compiler.sampler.start import start_scheduler
from dipgo.compiler.sampler.trajectory import record_runs
from dipgo.ir.sampler import Term
from dipgo.ir.subnet.subnet import SubNet
from scripts.generate.sampler_table import measure
from tests.support.schedulers import (
    NAMES,
    SD15,
    deviation,
    named,
    random_model,
    run_recurrence,
    sd15,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers on numpy 2

TOLERANCE = 1e-6  # diffusers itself rounds to float32 in some schedulers, else 1e-14
EXACT = 1e-12  # against the coefficients read off in float64

NO_SAMPLE_PREDICTION = ("pndm", "plms", "kdpm2")
CASES = [
    (name, prediction, steps)
    for name in NAMES
    for prediction in ("epsilon", "v_prediction", "sample")
    for steps in (20, 50)
    if not (prediction == "sample" and name in NO_SAMPLE_PREDICTION)
]


def run_diffusers(scheduler: Any, steps: int, **options: Any) -> list[Any]:
    """The loop of diffusers' pipelines: every input of the model, and the final latents."""
    noise, model = random_model()
    scheduler.set_timesteps(steps, **options)
    seen, latents = [], noise
    for t in scheduler.timesteps:
        has_scale = hasattr(scheduler, "scale_model_input")
        scaled = scheduler.scale_model_input(latents, t) if has_scale else latents
        seen.append(scaled.clone())
        output = model(scaled, float(t))
        latents = scheduler.step(output, t, latents, return_dict=False)[0]
    return [*seen, latents]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "prediction", "steps"), CASES)
def test_the_recurrence_does_as_the_scheduler(name: str, prediction: str, steps: int) -> None:
    scheduler = named(name, prediction)
    sampler = probe(scheduler, steps)
    assert deviation(run_recurrence(sampler), run_diffusers(scheduler, steps)) <= TOLERANCE
    assert sampler.scheduler_class == type(scheduler).__name__
    assert sampler.num_inference_steps == steps
    assert all(np.diff(sampler.timesteps) < 0)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm++-multi"])
def test_v_prediction_from_pure_noise(name: str) -> None:
    """Zero terminal SNR, where only a predicted velocity says anything at the first step."""
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler = make_scheduler(sd15("v_prediction", **options), name)
    assert scheduler.config.rescale_betas_zero_snr
    wanted = run_diffusers(scheduler, 20)
    assert deviation(run_recurrence(probe(scheduler, 20)), wanted) <= TOLERANCE


RUNGE_KUTTA_STEPS = 4
"""What the start of PNDM takes at least."""
FEW_STEPS = [
    (name, steps)
    for name in NAMES
    for steps in (1, 2, 3, 7)
    if name != "pndm" or steps >= RUNGE_KUTTA_STEPS
]


@pytest.mark.parametrize(("name", "steps"), FEW_STEPS)
def test_few_steps(name: str, steps: int) -> None:
    scheduler = named(name)
    sampler = probe(scheduler, steps)
    assert deviation(run_recurrence(sampler), run_diffusers(scheduler, steps)) <= TOLERANCE


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("options", [{}, {"mu": 1.15}])
def test_flow_matching(steps: int, options: dict[str, float]) -> None:
    shifting = bool(options)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=shifting)
    sampler = probe(scheduler, steps, **options)
    wanted = run_diffusers(scheduler, steps, **options)
    assert deviation(run_recurrence(sampler), wanted) <= TOLERANCE
    assert not all(timestep.is_integer() for timestep in sampler.timesteps)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_terms_expand_to_the_coefficients_read_off(name: str) -> None:
    scheduler = named(name)
    sampler = probe(scheduler, 50)
    found = record_runs(start_scheduler(scheduler, 50)).on_basis
    basis, rows = Basis(len(sampler.rows)), list[Any]()
    assert not found.draws
    for terms, wanted in zip(
        (*sampler.inputs, sampler.result), coefficients(found).numpy(), strict=True
    ):
        rows.append(expand(terms, rows, basis))
        assert np.abs(rows[-1] - wanted).max() <= EXACT * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("ddim", 2),
        ("euler", 2),
        ("heun", 3),
        ("kdpm2", 3),
        ("deis", 3),
        ("dpm++-single", 3),
        ("dpm++-multi", 4),
        ("plms", 5),
        ("lms", 5),
        ("unipc", 6),
    ],
)
def test_no_update_has_more_terms_than_its_method_needs(name: str, most: int) -> None:
    sampler = probe(named(name), 50)
    assert max(len(terms) for terms in (*sampler.inputs, sampler.result)) == most


def test_ddim_is_the_formula_of_the_paper() -> None:
    """arXiv 2010.02502, equation 12 with σ = 0, rearranged for x and ε."""
    scheduler = sd15()
    sampler = probe(scheduler, 20)
    alphas = [float(scheduler.alphas_cumprod[int(t)]) for t in sampler.timesteps]
    for index in range(1, 20):
        old, new = alphas[index - 1], alphas[index]
        on_input = (new / old) ** 0.5
        on_output = (1 - new) ** 0.5 - on_input * (1 - old) ** 0.5
        first, second = sampler.inputs[index]
        assert (first.kind, first.index, second.kind, second.index) == (
            *("input", index - 1),
            *("output", index - 1),
        )
        assert first.coefficient == pytest.approx(on_input, rel=1e-6)
        assert second.coefficient == pytest.approx(on_output, rel=1e-4)
    assert sampler.inputs[0] == (Term(1.0, "noise"),)


def test_sd15_timesteps() -> None:
    assert probe(sd15(), 50).timesteps == tuple(range(981, 0, -20))


def test_evaluations_at_one_timestep_share_its_row() -> None:
    plms, heun = probe(named("plms"), 50), probe(named("heun"), 20)
    assert plms.timesteps == tuple(range(981, 0, -20))
    assert plms.rows == (0, 1, 1, *range(2, 50))
    assert len(heun.timesteps) == 20
    assert heun.rows == (0, *(row for row in range(1, 20) for _ in range(2)))


def test_the_scheduler_is_left_as_it_was() -> None:
    scheduler = named("plms")
    state = torch.random.get_rng_state()
    before = dict(vars(scheduler))
    assert probe(scheduler, 10) == probe(scheduler, 10)
    assert all(vars(scheduler)[key] is value for key, value in before.items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("kind", "config", "option"),
    [
        ("DDIMScheduler", {}, "clip_sample"),
        ("DDIMScheduler", {"clip_sample": False, "thresholding": True}, "thresholding"),
        ("DDIMScheduler", {"clip_sample_range": 50.0}, "clip_sample"),
        ("DPMSolverMultistepScheduler", {"thresholding": True}, "thresholding"),
        ("UniPCMultistepScheduler", {"thresholding": True}, "thresholding"),
    ],
)
def test_a_scheduler_that_clips_is_refused(kind: str, config: dict[str, Any], option: str) -> None:
    message = (
        rf"^scheduler {kind}: found steps that are not linear .+, from {option}=True; "
        rf"expected .+; set {option} to false in the scheduler's config$"
    )
    with pytest.raises(DipgoError, match=message):
        probe(getattr(diffusers, kind)(**config), 10)


def test_bends_without_a_known_option_are_refused() -> None:
    class Bent(diffusers.DDIMScheduler):  # type: ignore[misc, name-defined]
        def step(self, output: Any, *args: Any, **kwargs: Any) -> Any:
            return super().step(output + output**2 / 1000, *args, **kwargs)

    with pytest.raises(DipgoError, match=r"found steps that are not linear .+; choose one of ddim"):
        probe(Bent(**SD15), 10)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler", "LCMScheduler"])
def test_numbers_that_are_not_finite_are_named(kind: str, steps: int) -> None:
    """No picture can be told from pure noise; the numbers say nothing of linearity."""
    config = {"clip_sample": False, "rescale_betas_zero_snr": True}
    message = rf"^scheduler {kind}: found infinite or NaN numbers in .+; expected finite numbers"
    with pytest.raises(DipgoError, match=message):
        probe(getattr(diffusers, kind)(timestep_spacing="trailing", **config), steps)


def test_latents_of_nothing_are_refused() -> None:
    """One step of IPNDM multiplies all by 0."""
    with pytest.raises(DipgoError, match="found nothing but zeros in the final latents; expected"):
        probe(diffusers.IPNDMScheduler(), 1)


RISING = {
    "DDIMInverseScheduler": {"clip_sample": False},
    "DPMSolverMultistepInverseScheduler": {},
    "FlowMatchEulerDiscreteScheduler": {"invert_sigmas": True},
    "KDPM2AncestralDiscreteScheduler": {"use_exponential_sigmas": True},
}


@pytest.mark.parametrize("steps", [2, 5, 8, 20])
@pytest.mark.parametrize("kind", RISING)
def test_timesteps_that_rise(kind: str, steps: int) -> None:
    """On purpose or by rounding: a SubNet has a row for each all the same."""
    scheduler = getattr(diffusers, kind)(**RISING[kind])
    sampler = probe(scheduler, steps)
    assert steps == 2 or not all(np.diff(sampler.timesteps) < 0)
    assert SubNet.dense(sampler.timesteps, ["a"], num_inference_steps=steps).gates.all()
    assert max(measure(scheduler, sampler)) <= TOLERANCE


def test_a_number_of_steps_that_the_scheduler_refuses() -> None:
    with pytest.raises(DipgoError, match=r"DDIMScheduler\.set_timesteps\(2000\): found ValueError"):
        probe(sd15(), 2000)


def test_a_scheduler_that_asks_for_more_is_refused() -> None:
    with pytest.raises(DipgoError, match=r"RePaintScheduler\.step: found TypeError: .+; choose"):
        probe(diffusers.RePaintScheduler(clip_sample=False), 10)


def test_schedulers_by_name() -> None:
    base = sd15("v_prediction")
    assert make_scheduler(base, None) is base
    for name in ("euler", "EulerDiscreteScheduler"):
        scheduler = make_scheduler(base, name)
        assert type(scheduler).__name__ == "EulerDiscreteScheduler"
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.config.beta_end == SD15["beta_end"]
    assert make_scheduler(base, "plms").config.skip_prk_steps is True


@pytest.mark.parametrize("name", ["dddim", "UNet2DConditionModel", "NoScheduler", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    where = f"scheduler {name}".strip()
    with pytest.raises(DipgoError, match=rf"^{where}: found a name .+ one of ddim, pndm,"):
        make_scheduler(sd15(), name)


def test_a_scheduler_that_lacks_a_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class StandIn(metaclass=diffusers.utils.DummyObject):  # type: ignore[name-defined]
        _backends = ("torch", "scipy")

    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", StandIn)
    message = "^scheduler lms: found LMSDiscreteScheduler, which needs torch and scipy; expected"
    with pytest.raises(DipgoError, match=message):
        make_scheduler(sd15(), "lms")


def test_a_scheduler_for_another_kind_of_model_is_refused() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(DipgoError, match=r"found FlowMatch\w+ for a pipeline of DDIMScheduler; "):
        make_scheduler(sd15(), "flow-euler")
    with pytest.raises(DipgoError, match=r"found DDIMScheduler .+; choose one of flow-euler$"):
        make_scheduler(flow, "ddim")
    assert make_scheduler(flow, "flow-euler").config == flow.config


def test_a_history_without_a_short_recurrence_is_kept_whole() -> None:
    table = np.tril(np.random.default_rng(0).normal(size=(31, 31)))
    basis, rows = Basis(30), list[Any]()
    for terms, wanted in zip(find_recurrence(table), table, strict=True):
        rows.append(expand(terms, rows, basis))
        assert np.abs(rows[-1] - wanted).max() <= 1e-10 * np.abs(wanted).max()
