"""Every scheduler of diffusers with drawn options, in every task, against diffusers' pipelines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import pytest

from dipgo.common.cli import run_command
from dipgo.common.warn import DipgoWarning
from dipgo.export.__main__ import main as export
from tests.support.drawn_trajectories import (
    TASK_FLAGS,
    Case,
    draw_cases,
    scheduler_names,
)
from tests.support.pipeline_tasks import task
from tests.support.run_trajectories import Outcome, compare, sampler_of
from tests.support.tiny_pipelines import save_pipeline

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, of options to be dropped

TOLERANCE = 1e-4
"""Relative L2: float32 in another order, and casts to float32 within diffusers' schedulers."""

REFUSED_FOR = ("thresholding=True", "the variance that the model predicts", "nothing but zeros")
"""Reasons, in words of the error, why a trajectory that diffusers runs is refused."""


def _check(cases: Iterable[Case]) -> None:
    verdicts: Counter[str] = Counter()
    for case in cases:
        outcome = compare(case)
        verdict = outcome.verdict(TOLERANCE)
        verdicts[verdict] += 1
        assert verdict in ("agrees", "refused", "warned", "both"), _words(outcome)
        if verdict == "refused":
            assert any(reason in str(outcome.found) for reason in REFUSED_FOR), _words(outcome)
    print(verdicts)
    assert verdicts["agrees"]


def _words(outcome: Outcome) -> str:
    numbers = outcome.error if outcome.verdict(TOLERANCE) == "wrong" else ""
    return f"{outcome.case}: diffusers {outcome.expected!r}, ours {outcome.found!r} {numbers}"


def test_drawn_trajectories() -> None:
    _check(draw_cases(12, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASK_FLAGS)
def test_more_trajectories_of_a_task(name: str) -> None:
    _check(draw_cases(80, seed=1, task=name))


@pytest.mark.slow
@pytest.mark.parametrize("name", scheduler_names())
def test_more_trajectories_of_a_scheduler(name: str) -> None:
    for case in draw_cases(8, seed=2, scheduler=name):
        outcome = compare(case)
        verdict = outcome.verdict(TOLERANCE)
        assert verdict in ("agrees", "refused", "warned", "both"), _words(outcome)


MIXED = ("DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "PNDMScheduler")
BY_LOOKUP = ("DPMSolverMultistepInverseScheduler", "CogVideoXDDIMScheduler")
"""They know no begin index, and find where they are in their timesteps."""


def _agree(task_name: str, scheduler: str, steps: int = 5, **more: Any) -> None:
    cls = getattr(diffusers, scheduler)
    case = Case(task_name, scheduler, {}, steps, **more)
    parameters = cls.__init__.__wrapped__ if hasattr(cls.__init__, "__wrapped__") else cls.__init__
    if "clip_sample" in parameters.__code__.co_varnames:
        case = Case(task_name, scheduler, {"clip_sample": False}, steps, **more)
    outcome = compare(case)
    assert outcome.verdict(TOLERANCE) == "agrees", _words(outcome)


@pytest.mark.parametrize("scheduler", [*MIXED, *BY_LOOKUP])
@pytest.mark.parametrize("strength", [None, 0.5, 1.0])
def test_inpainting(scheduler: str, strength: float | None) -> None:
    """A strength of 1 is pure noise, before which no picture is drawn, as without a strength."""
    _agree("inpainting", scheduler, strength=strength)
    case = Case("inpainting", scheduler, {"clip_sample": False} if "DIM" in scheduler else {}, 5)
    start = sampler_of(case)[2].start
    assert (start.image_scale, start.strength) == (0.0, None)


@pytest.mark.parametrize("scheduler", [*MIXED, *BY_LOOKUP])
def test_from_a_picture(scheduler: str) -> None:
    _agree("picture", scheduler, strength=0.5)
    _agree("picture", scheduler, strength=1.0)


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8, 1.0])
def test_lcm_spreads_its_steps_over_the_strength(strength: float) -> None:
    _agree("lcm picture", "LCMScheduler", 4, strength=strength)
    spread = Case("lcm picture", "LCMScheduler", {}, 4, strength=strength)
    assert len(sampler_of(spread)[2].timesteps) == 4
    share = Case("picture", "LCMScheduler", {}, 4, strength=strength)
    assert len(sampler_of(share)[2].timesteps) == max(int(4 * strength), 1)


@pytest.mark.parametrize("name", ["sd3 text", "flux"])
def test_the_shift_is_the_pipelines(name: str) -> None:
    """It grows with the picture; the default of its maximum is a pipeline's own."""
    scheduler = "FlowMatchEulerDiscreteScheduler"
    outcome = compare(Case(name, scheduler, {"use_dynamic_shifting": True}, 4))
    assert outcome.verdict(TOLERANCE) == "agrees", _words(outcome)


FAILING = {
    "sd3 picture": ("EulerDiscreteScheduler", "which has no scale_noise"),
    "picture": ("IPNDMScheduler", "which has no add_noise"),
    "flux": ("EulerDiscreteScheduler", "no mu among the arguments of set_timesteps"),
    "lcm text": ("EulerDiscreteScheduler", "no original_inference_steps among the arguments of"),
    "unconditional": ("KDPM2DiscreteScheduler", "no generator among the arguments of step"),
    "text": ("FlowMatchEulerDiscreteScheduler", "no init_noise_sigma and no scale_model_input"),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_diffusers_cannot_run(name: str) -> None:
    """It is refused in one line that says what the pipeline asks of its scheduler."""
    scheduler, words = FAILING[name]
    strength = 0.5 if "picture" in TASK_FLAGS[name] else None
    outcome = compare(Case(name, scheduler, {}, 4, strength))
    assert outcome.verdict(TOLERANCE) == "both"
    assert words in str(outcome.found), _words(outcome)
    assert "\n" not in str(outcome.found)


VARIANCES = {
    "DPMSolverMultistepScheduler": ("learned_range", "agrees", ""),
    "SASolverScheduler": ("learned", "both", "noise of shape [1, 6, 1, 1]"),
    "DPMSolverSinglestepScheduler": ("learned", "agrees", ""),
    "DDPMScheduler": ("learned_range", "refused", "variance_type=learned_range, the variance that"),
    "DDIMScheduler": (None, "both", "size of tensor"),
}


@pytest.mark.parametrize("scheduler", VARIANCES)
def test_a_predicted_variance(scheduler: str) -> None:
    """Six channels for a state of three: as much as the scheduler makes of them."""
    variance, verdict, words = VARIANCES[scheduler]
    options: dict[str, Any] = {"variance_type": variance} if variance else {}
    if scheduler.startswith("DD"):
        options["clip_sample"] = False
    outcome = compare(Case("unconditional, variance", scheduler, options, 5))
    assert outcome.verdict(TOLERANCE) == verdict, _words(outcome)
    assert words in str(outcome.found)


@pytest.mark.parametrize("name", ["text", "dit", "sd3 text"])
def test_channels_that_a_scheduler_cuts(name: str) -> None:
    """Schedulers for a learned variance keep three channels, whatever the state has."""
    options = {"variance_type": "learned_range"}
    outcome = compare(Case(name, "DPMSolverMultistepScheduler", options, 4))
    assert outcome.verdict(TOLERANCE) == "both", _words(outcome)


def _warnings(run: Callable[[], object], recwarn: pytest.WarningsRecorder) -> list[str]:
    recwarn.clear()
    run()
    return [str(one.message) for one in recwarn if issubclass(one.category, DipgoWarning)]


@pytest.mark.parametrize("name", ["dit", "sd3 text", "unconditional", "text"])
def test_a_pipeline_that_does_not_scale_the_state_is_named(
    name: str, recwarn: pytest.WarningsRecorder
) -> None:
    """Ours does: pictures differ from the pipeline's, and this is said where it is so."""
    pipeline = type(task(name).pipeline).__name__
    case = Case(name, "EulerDiscreteScheduler", {}, 3)
    said = _warnings(lambda: sampler_of(case), recwarn)
    words = f"EulerDiscreteScheduler is for a state that is scaled, which {pipeline} does not"
    assert [one.startswith(words) for one in said] == ([] if name == "text" else [True])
    unscaled = Case(name, "DPMSolverMultistepScheduler", {}, 3)
    assert not _warnings(lambda: sampler_of(unscaled), recwarn)


@pytest.mark.slow
def test_an_export_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_pipeline("dit", tmp_path)
    arguments = ["--model", str(path), "--subnet", "dense", "--steps", "2"]
    arguments += ["--scheduler", "euler", "--out", str(tmp_path / "out")]
    assert run_command(export, arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("warning: "))
    assert "EulerDiscreteScheduler" in line
    assert "DiTPipeline" in line
