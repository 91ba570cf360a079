"""The parts of a search by gradient: losses, settings, sparsity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image import StructuralSimilarityIndexMeasure

from dipgo.common.errors import DipgoError
from dipgo.search.cost.cascade import cascade_shares
from dipgo.search.gradient.optimise import learning_rate, sharpness
from dipgo.search.gradient.sparsity import Sparsity, hard
from dipgo.search.losses import DISTANCES, LEAST_ERROR
from dipgo.search.problem import Problem
from dipgo.search.settings import Loss, SearchSettings, published
from tests.support.tiny_search import rows_on

# Losses.


def _pictures(seed: int = 0, side: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)
    noise = torch.randn(dense.shape, generator=generator, dtype=torch.float64)
    return dense + 0.3 * noise, dense


def _window() -> Tensor:
    """Gaussian, 11 x 11, σ 1.5, adding up to 1."""
    line = torch.exp(-0.5 * (torch.arange(-5, 6, dtype=torch.float64) / 1.5) ** 2)
    return torch.outer(line, line) / line.sum() ** 2


def _blurred(pictures: Tensor) -> Tensor:
    channels = pictures.shape[1]
    window = _window().expand(channels, 1, 11, 11)
    mirrored = torch.nn.functional.pad(pictures, (5,) * 4, mode="reflect")
    return torch.nn.functional.conv2d(mirrored, window, groups=channels)


def _ssim_by_hand(one: Tensor, other: Tensor, span: float) -> float:
    """Wang et al. 2004, equation 13, over windows about every pixel."""
    means = _blurred(one), _blurred(other)
    variances = _blurred(one**2) - means[0] ** 2, _blurred(other**2) - means[1] ** 2
    covariance = _blurred(one * other) - means[0] * means[1]
    small, large = (0.01 * span) ** 2, (0.03 * span) ** 2
    above = (2 * means[0] * means[1] + small) * (2 * covariance + large)
    below = (means[0] ** 2 + means[1] ** 2 + small) * (sum(variances) + large)
    return float((above / below).mean())


def test_ssim_is_that_of_the_formula_and_of_torchmetrics() -> None:
    pruned, dense = _pictures()
    span = float(dense.max() - dense.min())
    found = float(DISTANCES["ssim"](pruned, dense))
    measure = StructuralSimilarityIndexMeasure(sigma=1.5, kernel_size=11, data_range=span)
    assert found == pytest.approx(1 - float(measure(pruned, dense)), abs=1e-6)
    assert found == pytest.approx(1 - _ssim_by_hand(pruned, dense, span), abs=1e-6)
    assert float(DISTANCES["ssim"](dense, dense)) == pytest.approx(0, abs=1e-9)


def test_the_other_distances_by_hand() -> None:
    pruned, dense = _pictures()
    error = (pruned - dense).numpy()
    by_picture = [np.log10((one**2).mean() + LEAST_ERROR) for one in error]
    expected = {
        "l1": np.abs(error).mean(),
        "l2": (error**2).mean(),
        "log-l2": np.log10((error**2).mean() + LEAST_ERROR),
        "log-mse": np.mean(by_picture),
        "ssim+l1": float(DISTANCES["ssim"](pruned, dense)) + np.abs(error).mean(),
    }
    assert {*expected, "ssim"} == set(DISTANCES)
    for name, value in expected.items():
        assert float(DISTANCES[name](pruned, dense)) == pytest.approx(value, rel=1e-9)  # type: ignore[index]


@pytest.mark.parametrize("loss", DISTANCES)
def test_distances_are_least_at_dense(loss: Loss) -> None:
    """And finite there, gradient included; a flat picture has no range."""
    for dense in (_pictures()[1], torch.zeros(1, 3, 16, 16)):
        same = dense.clone().requires_grad_()
        value = DISTANCES[loss](same, dense)
        (slope,) = torch.autograd.grad(value, same)
        assert torch.isfinite(slope).all()
        assert float(value.detach()) < float(DISTANCES[loss](dense + 0.1, dense))


# Settings.

WRONG: dict[str, Any] = {
    "parameters": "tree",
    "estimator": "gumbel",
    "loss": "lpips",
    "compare": "prompts",
    "budget": "none",
    "optimizer": "lion",
    "selection": "top",
    "iterations": -1,
    "accumulate": 0,
    "pool": 0,
    "exchanges": -1,
    "exchange_examples": 0,
    "reuse_terms": -1,
    "reuse_iterations": -1,
    "warm_up": -1,
    "clip": -0.1,
    "seed": -1,
    "learning_rate": 0.0,
    "anneal_share": 0.0,
    "sharpness_start": 0.0,
    "sharpness_end": -5.0,
}


@pytest.mark.parametrize("field", WRONG)
def test_settings_that_are_refused(field: str) -> None:
    value = WRONG[field]
    with pytest.raises(
        DipgoError, match=f"^{field}: found {value}; expected .+; (correct it|did you mean .+)$"
    ):
        SearchSettings(**{field: value})


@pytest.mark.parametrize("share", [1.01, float("nan")])
def test_anneal_shares_that_are_refused(share: float) -> None:
    with pytest.raises(DipgoError, match=r"^anneal_share: "):
        SearchSettings(anneal_share=share)


def test_published_is_the_paper_s() -> None:
    """Section 4.1 and the released script: 500 × 2 accumulation, 10 warm-up, and no more."""
    found = published()
    assert (found.parameters, found.estimator) == ("pruner", "straight-through")
    assert (found.loss, found.compare) == ("ssim", "images")
    assert (found.budget, found.alpha, found.gamma, found.tau) == ("penalty", 1.0, True, 0.2)
    assert (found.optimizer, found.learning_rate, found.weight_decay) == ("sgd", 0.1, 1e-4)
    assert (found.cosine, found.warm_up, found.clip > 0) == (True, 10, True)
    assert (found.iterations, found.accumulate) == (500, 2)
    assert found.selection == "bisection"
    assert (found.same_noise, found.guidance_scale) == (True, None)  # the pipeline's own
    assert (found.exchanges, found.reuse_terms) == (0, 0)


def test_published_leaves_the_rest_as_it_was() -> None:
    found = published(SearchSettings(seed=7, pool=3))
    assert (found.seed, found.pool) == (7, 3)


# The schedule of the optimiser.


def test_learning_rate_rises_and_falls() -> None:
    chosen = SearchSettings(iterations=12, learning_rate=0.4, warm_up=2, cosine=True)
    rates = [learning_rate(index, chosen) for index in range(12)]
    cosine = [0.2 * (1 + np.cos(np.pi * index / 10)) for index in range(10)]
    assert rates == pytest.approx([0.2, 0.4, *cosine])


def test_learning_rate_stays_without_cosine() -> None:
    chosen = SearchSettings(iterations=5, learning_rate=0.4, warm_up=2)
    assert [learning_rate(index, chosen) for index in range(5)] == [0.2, 0.4, 0.4, 0.4, 0.4]


def test_sharpness_grows_geometrically() -> None:
    chosen = SearchSettings(sharpness_start=1.0, sharpness_end=4.0)
    assert [sharpness(done, chosen) for done in (0, 0.5, 1)] == pytest.approx([1, 2, 4])


# Sparsity.


def _soft_gates(problem: Problem, least: float = 0.6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return least + (1 - least) * torch.rand(problem.cost.shape, generator=generator)


PENALTY = SearchSettings(budget="penalty", alpha=0.7, tau=0.2)


@pytest.mark.parametrize("gamma", [True, False])
def test_penalty_by_hand(problem: Problem, gamma: bool) -> None:
    """α/(N·T)·Σ γ g."""
    gates = _soft_gates(problem)
    graph = problem.traced.graph
    weights = cascade_shares(graph, problem.backup) if gamma else np.ones(len(problem.blocks))
    steps, blocks = gates.shape
    expected = 0.7 / (steps * blocks) * float((gates.numpy() * weights).sum())
    found = Sparsity(problem, replace(PENALTY, gamma=gamma), 0.4)(gates, 0.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_penalty_stops_below_tau(problem: Problem) -> None:
    """What is kept is counted after the cascade."""
    gates = torch.tensor(rows_on(problem, 0, 3), dtype=torch.float32) * 0.8
    kept = problem.cost.kept(hard(gates))
    gates.requires_grad_()
    above = Sparsity(problem, replace(PENALTY, tau=kept - 0.01), 0.4)(gates, 0.0)
    below = Sparsity(problem, replace(PENALTY, tau=kept + 0.01), 0.4)(gates, 0.0)
    assert float(above.detach()) > 0
    assert float(below.detach()) == 0
    (slope,) = torch.autograd.grad(below, gates)
    assert not slope.any()


@pytest.mark.parametrize("name", ["problem", "repeating"])
def test_the_share_of_whole_rows_is_that_of_the_cost(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Glue outside the blocks apart, a row that is evaluated twice counts twice."""
    posed: Problem = request.getfixturevalue(name)
    sparsity = Sparsity(posed, SearchSettings(), 0.4)
    assert float(sparsity.kept(torch.ones(posed.cost.shape))) == pytest.approx(1.0, abs=1e-6)
    for rows in ((0,), (0, 1), (0, 2, 4)):
        gates = rows_on(posed, *rows)
        found = float(sparsity.kept(torch.tensor(gates, dtype=torch.float32)))
        assert found == pytest.approx(posed.cost.kept(gates), abs=0.02)


def test_the_budget_falls_and_what_is_over_it_costs(problem: Problem) -> None:
    chosen = SearchSettings(anneal_share=0.5, hinge=10.0)
    sparsity = Sparsity(problem, chosen, 0.4)
    assert [sparsity.budget(at) for at in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.7, 0.4, 0.4])
    gates = _soft_gates(problem).requires_grad_()
    over = float(sparsity.kept(gates.detach())) - 0.4
    assert over > 0
    assert float(sparsity(gates, 1.0).detach()) == pytest.approx(10 * over, rel=1e-5)
    assert float(sparsity(gates, 0.0).detach()) == 0
    (slope,) = torch.autograd.grad(sparsity(gates, 1.0), gates)
    shares = [problem.cost.share(block) for block in problem.blocks]
    assert slope[2].tolist() == pytest.approx([10 * share for share in shares], rel=1e-5)
