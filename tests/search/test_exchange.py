"""Exchanges and weights for reuse: fitted gap by gap, trained, on trajectories of choices."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from dipgo.compiler.oracle import interpret
from dipgo.compiler.unroll import unroll
from dipgo.ir.sampler import Sampler, Term
from dipgo.ir.subnet.gap_weights import check_weights
from dipgo.ir.subnet.past import Past
from dipgo.search.cost.budget import TOLERANCE
from dipgo.search.fit_gaps import (
    RIDGE,
    Fit,
    Gap,
    as_rows,
    as_table,
    find_gaps,
    fit_filters,
    fit_gap,
)
from dipgo.search.losses import DISTANCES
from dipgo.search.problem import Problem
from dipgo.search.refine.exchange import GLANCE, MARGIN, exchange
from dipgo.search.refine.hard_trajectories import Gates, Outcome, Trajectories
from dipgo.search.refine.initial_gates import LAST, POWERS, regular_rows, whole_rows
from dipgo.search.refine.moves import MOVES, propose
from dipgo.search.refine.train_gap_weights import ReuseWeights, train_reuse
from dipgo.search.supernet.row_gates import RowGates
from dipgo.search.supernet.trajectory_state import Walk
from tests.support.random_subnets import _gates, _probed
from tests.support.tiny_search import rows_on, tiny_examples, tiny_net

SAMPLERS = ["ddim", "plms", "heun", "dpm++", "unipc"]
SHAPE = (2, 3, 4)
PICTURES = (2, 4, 6, 5)
"""Of latents that filters are moved over."""


# Gaps.


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), scheduler=st.sampled_from(SAMPLERS))
def test_gaps_are_all_that_is_off(seed: int, scheduler: str) -> None:
    """Each as long as can be: what comes before and after computes."""
    rows, draw = _probed(scheduler, 6).rows, random.Random(seed)
    gates = _gates(draw, max(rows) + 1, 2)
    off = [at for at, row in enumerate(rows) if not gates[row].any()]
    gaps = find_gaps(rows, gates)
    assert [at for gap in gaps for at in range(gap.first, gap.end)] == off
    assert all(gap.rows == rows[gap.first : gap.end] for gap in gaps)
    assert all(one.end < other.first for one, other in pairwise(gaps))


def _walk(
    sampler: Sampler, gates: Gates, until: int, seed: int, shape: tuple[int, ...] = SHAPE
) -> Walk:
    """Random predictions; a row that is off repeats the latest, as good a past as any."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    walk = Walk(sampler, {}, draw())
    while walk.index < until:
        if gates[sampler.rows[walk.index]].any():
            walk.past = Past((draw(), *walk.latest))
        walk.add(walk.next_input(), walk.latest[0])
    return walk


def _end(walk: Walk, gap: Gap, weights: NDArray[np.float64]) -> Tensor:
    """The state at the gap's end, evaluation by evaluation."""
    ahead = walk.copy()
    made = sum(
        (float(weight) * one for weight, one in zip(weights, walk.latest, strict=False)),
        start=torch.zeros_like(walk.noise),
    )
    while ahead.index < gap.end:
        ahead.add(ahead.next_input(), made)
    last = gap.end == len(walk.sampler.rows)
    return ahead.result() if last else ahead.next_input()


def _lstsq(
    walks: list[Walk], targets: list[Tensor], gap: Gap, terms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By numpy's least squares on states alone, the pull as further equations; and the effects."""
    count = min(terms, len(walks[0].latest))
    zero, repeated = np.zeros(count), np.eye(count)[0]
    ends = [_end(walk, gap, zero) for walk in walks]
    effects = np.concatenate(
        [
            np.stack([(_end(walk, gap, unit) - end).flatten().numpy() for unit in np.eye(count)], 1)
            for walk, end in zip(walks, ends, strict=True)
        ]
    )
    wanted = np.concatenate(
        [(one - end).flatten().numpy() for one, end in zip(targets, ends, strict=True)]
    )
    pull = np.sqrt(RIDGE * (effects**2).sum() / count) * np.eye(count)
    equations = np.concatenate([effects, pull])
    found = np.linalg.lstsq(equations, np.concatenate([wanted, pull @ repeated]), rcond=None)[0]
    return np.asarray(found, np.float64), effects.T @ effects / len(effects)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    scheduler=st.sampled_from(SAMPLERS),
    terms=st.integers(1, 4),
)
def test_a_gap_is_fitted_to_where_dense_passes_at_its_end(
    seed: int, scheduler: str, terms: int
) -> None:
    """Ridge regression, of all evaluations of the gap and of all examples."""
    sampler, draw = _probed(scheduler, 7), random.Random(seed)
    gates = np.zeros((max(sampler.rows) + 1, 2), dtype=np.bool_)
    gates[0] = True
    gates[[row for row in range(1, len(gates)) if draw.random() < 0.5]] = True
    for gap in find_gaps(sampler.rows, gates):
        walks = [_walk(sampler, gates, gap.first, seed + index) for index in range(2)]
        targets = [_walk(sampler, gates, 1, seed - index - 1).noise for index in range(2)]
        states = [[target] * (gap.end + 1) for target in targets]
        fit = fit_gap(gap, walks, states, terms)
        weights, effects = _lstsq(walks, targets, gap, terms)
        assert fit.gap == gap
        assert fit.effects == pytest.approx(effects, rel=1e-6, abs=1e-12)
        if effects.any():
            assert fit.weights == pytest.approx(weights, rel=1e-5, abs=1e-6)
        else:  # nothing reads what the gap predicts
            assert fit.weights.tolist() == np.eye(len(weights))[0].tolist()


def test_what_can_be_reached_is_reached(problem: Problem) -> None:
    """Up to the pull, far nearer than by repeating what was latest."""
    sampler, gates = problem.sampler, rows_on(problem, 0, 1, 2)
    gap = find_gaps(sampler.rows, gates)[0]
    walk = _walk(sampler, gates, gap.first, 0)
    wanted = np.array([1.5, -0.7, 0.2])
    target = _end(walk, gap, wanted)
    fit = fit_gap(gap, [walk], [[target] * (gap.end + 1)], 3)
    assert fit.weights == pytest.approx(wanted, abs=0.01)
    repeated = _end(walk, gap, np.array([1.0]))
    fitted = _end(walk, gap, fit.weights)
    assert float((fitted - target).norm()) < 0.01 * float((repeated - target).norm())


def test_filters_that_can_be_reached_are_reached(problem: Problem) -> None:
    """Up to the pull; the prediction that they make ends where dense passes."""
    sampler, gates = problem.sampler, rows_on(problem, 0, 1)
    gap = find_gaps(sampler.rows, gates)[0]
    walks = [_walk(sampler, gates, gap.first, seed, PICTURES) for seed in range(8)]
    random = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 4, 4, 3, 3, generator=random, dtype=torch.float64) / 9
    states = [[_filtered_end(walk, gap, wanted)] * (gap.end + 1) for walk in walks]
    fit = fit_filters(gap, walks, states, terms=2, size=3)
    assert fit.weights.shape == (2, 4, 4, 3, 3)
    assert fit.weights == pytest.approx(wanted.numpy(), abs=0.01)
    found = torch.from_numpy(fit.weights)
    for walk, (target, *_) in zip(walks, states, strict=True):
        repeated = _end(walk, gap, np.array([1.0]))
        distance = (_filtered_end(walk, gap, found) - target).norm()
        assert float(distance) < 0.01 * float((repeated - target).norm())


def _filtered_end(walk: Walk, gap: Gap, filters: Tensor) -> Tensor:
    """The state at the gap's end where all of its predictions are these sums."""
    pairs = zip(walk.latest, filters, strict=False)
    prediction = sum(torch.conv2d(one, weights, padding=1) for one, weights in pairs)
    ahead = walk.copy()
    while ahead.index < gap.end:
        ahead.add(ahead.next_input(), prediction)
    return ahead.next_input() if gap.end < len(walk.sampler.rows) else ahead.result()


def test_a_sampler_that_reads_nothing_of_a_gap_repeats(problem: Problem) -> None:
    """Then nothing can be fitted: filters are those that leave the latest prediction as it is."""
    sampler = problem.sampler
    deaf = replace(
        sampler,
        inputs=tuple((Term(1.0, "noise"),) for _ in sampler.inputs),
        result=(Term(1.0, "noise"),),
    )
    gap = find_gaps(sampler.rows, rows_on(problem, 0, 1))[0]
    walk = _walk(deaf, rows_on(problem, 0, 1), gap.first, 0, PICTURES)
    fit = fit_filters(gap, [walk], [[walk.noise + 1] * (gap.end + 1)], terms=2, size=3)
    expected = np.zeros((2, 4, 4, 3, 3))
    expected[0, range(4), range(4), 1, 1] = 1.0
    assert (fit.weights == expected).all()


def test_tables_have_a_row_a_step() -> None:
    fits = [
        Fit(Gap(1, 3, (1, 2)), np.array([3.0]), np.ones((1, 1))),
        Fit(Gap(4, 5, (4,)), np.array([5.0, 6.0]), np.eye(2)),
    ]
    table = as_table(fits, 6, 3)
    assert table.tolist() == [[0] * 3, [3, 0, 0], [3, 0, 0], [0] * 3, [5, 6, 0], [0] * 3]
    gates = np.array([[True], [False], [False], [True], [False], [True]])
    rows = as_rows(table, gates)
    assert rows == ((), (3.0,), (3.0,), (), (5.0, 6.0), ())
    check_weights(rows, None, gates)


# Trajectories of choices.


def _trajectories(problem: Problem, terms: int = 3, count: int = 1) -> Trajectories:
    net = tiny_net(problem)
    examples = tiny_examples(problem, net, max(2, count))
    return Trajectories(net, [examples[at] for at in range(count)], terms, DISTANCES["l2"])


def _rows(gates: Gates, weights: NDArray[np.float64]) -> RowGates:
    on = torch.tensor(gates.any(axis=1), dtype=torch.float32)
    return RowGates(on, torch.tensor(weights, dtype=torch.float32))


@pytest.mark.parametrize("terms", [0, 3])
@pytest.mark.parametrize("name", ["problem", "repeating"])
def test_a_run_ends_where_the_supernet_does(
    name: str, terms: int, request: pytest.FixtureRequest
) -> None:
    """With the weights that were fitted on the way."""
    posed: Problem = request.getfixturevalue(name)
    trajectories = _trajectories(posed, terms, count=2)
    gates = rows_on(posed, 0, 2)
    gates[3, -1] = True
    outcome = trajectories.run(gates)
    weights = as_table(outcome.fits, len(gates), max(1, terms))
    table = torch.tensor(gates, dtype=torch.float32)
    rows = _rows(gates, weights) if terms else None
    with torch.no_grad():
        ends = [
            (trajectories.net(table, one.inputs, rows), one.dense) for one in trajectories.examples
        ]
    errors = [float(DISTANCES["l2"](*pair)) for pair in ends]
    assert outcome.distance == pytest.approx(np.mean(errors), rel=1e-5)
    assert outcome.error == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-5)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("name", ["problem", "repeating"])
def test_a_plan_ends_where_a_run_does(
    name: str, halves: bool, request: pytest.FixtureRequest
) -> None:
    """With the weights that were fitted, as a SubNet has them."""
    posed: Problem = request.getfixturevalue(name)
    net = tiny_net(posed, halves=halves)
    kinds = 1 + halves
    example, gates = tiny_examples(posed, net)[0], rows_on(posed, 0, 1)
    outcome = Trajectories(net, [example], 3 * kinds, DISTANCES["l2"]).run(gates)
    weights = as_table(outcome.fits, len(gates), 3 * kinds)
    rows = (as_rows(weights[:, kind::kinds], gates) for kind in range(kinds))
    fields = dict(zip(("reuse", "reuse_unconditional"), rows, strict=False))
    subnet = posed.subnet(gates, {}, **fields)
    assert all(map(len, (subnet.reuse_unconditional if halves else subnet.reuse or ())[2:]))
    plan = unroll(posed.traced.graph, subnet, posed.sampler)
    latents = interpret(plan, posed.traced, example.inputs)
    expected = float(DISTANCES["l2"](latents, example.dense))
    assert outcome.distance == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("terms", [0, 3])
@pytest.mark.parametrize("name", ["problem", "repeating"])
def test_what_a_base_shares_is_not_run_again(
    name: str, terms: int, request: pytest.FixtureRequest
) -> None:
    """And all is the same, to the last bit."""
    posed: Problem = request.getfixturevalue(name)
    trajectories = _trajectories(posed, terms, count=2)
    draw, rows = random.Random(0), posed.sampler.rows
    base = trajectories.run(rows_on(posed, 0, 2))
    for _ in range(8):
        gates = base.gates.copy()
        row, column = draw.randrange(1, len(gates)), draw.randrange(gates.shape[1])
        if draw.random() < 0.5:
            gates[row] = not gates[row].any()
        else:
            gates[row, column] ^= True
        computed = _evaluations(trajectories, partial(trajectories.run, gates, base))
        first = rows.index(row)
        while terms and not base.gates[rows[first - 1]].any():
            first -= 1  # into the gap that the row ends or lies in
        later = [one for one in rows[first:] if gates[one].any() or not terms]
        assert computed <= 2 * len(later)
        found, alone = trajectories.run(gates, base), trajectories.run(gates)
        assert found.distance == alone.distance
        assert _weights(found).tolist() == _weights(alone).tolist()
        base = found


def test_a_run_that_remembers_nothing_ends_alike(problem: Problem) -> None:
    trajectories, gates = _trajectories(problem), rows_on(problem, 0, 2, 3)
    whole, bare = (trajectories.run(gates, remember=one) for one in (True, False))
    assert (bare.distance, bare.error) == (whole.distance, whole.error)
    assert (_weights(bare) == _weights(whole)).all()
    assert not bare.passed
    assert whole.passed


def _weights(outcome: Outcome) -> NDArray[np.float64]:
    return as_table(outcome.fits, len(outcome.gates), 3)


def _evaluations(trajectories: Trajectories, run: Callable[[], object]) -> int:
    """How often the head of the denoiser runs."""
    net = trajectories.net
    counts: list[str] = []
    last = net.functions[net.graph.nodes[-1].name]
    handle = last.register_forward_hook(lambda *ignored: counts.append("head"))
    run()
    handle.remove()
    return len(counts)


def test_fitted_weights_are_nearer_than_repeating(problem: Problem) -> None:
    for rows in ((0, 2), (0, 1, 3), (0, 1, 2, 4)):
        gates = rows_on(problem, *rows)
        repeated = _trajectories(problem, 0).run(gates).distance
        assert _trajectories(problem, 1).run(gates).distance < repeated
        assert _trajectories(problem, 3).run(gates).distance < repeated


# Where it begins, and the moves.


@pytest.mark.parametrize("kept", [0.35, 0.5, 0.75])
def test_regular_rows_fit(kept: float, problem: Problem) -> None:
    tables = list(regular_rows(problem.cost, kept))
    assert len({gates.tobytes() for gates in tables}) == len(tables) > 1
    for gates in tables:
        assert gates[0].all()
        assert kept - TOLERANCE <= problem.cost.kept(gates) <= kept + 1e-9


@given(
    steps=st.integers(1, 60),
    share=st.floats(0, 1),
    power=st.sampled_from(POWERS),
    last=st.sampled_from(LAST),
)
def test_whole_rows_are_as_many_as_asked_for(
    steps: int, share: float, power: float, last: float
) -> None:
    count = max(1, round(share * steps))
    gates = whole_rows(count, power, last, (steps, 2))
    assert gates[0].all()
    assert gates.all(axis=1).sum() == gates.any(axis=1).sum() == count


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_proposals_leave_row_0_and_the_table_they_change(seed: int) -> None:
    draw = random.Random(seed)
    gates = _gates(draw, draw.randint(2, 8), draw.randint(1, 4))
    before = gates.copy()
    found = propose(gates, np.random.default_rng(seed))
    assert found.shape == gates.shape
    assert found[0].all()
    assert (gates == before).all()
    assert -1 <= int(found.sum()) - int(gates.sum()) <= gates.shape[1]
    assert ((found != gates).any(axis=1)).sum() <= 4


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__.strip("_"))
def test_every_move_finds_something_to_do(move: Callable[..., Gates]) -> None:
    gates = np.zeros((9, 3), dtype=np.bool_)
    gates[[0, 3, 6]] = True
    found = [move(gates.copy(), np.random.default_rng(seed)) for seed in range(20)]
    assert any((one != gates).any() for one in found)


def _exchanged(
    problem: Problem, tries: int, seed: int, checkpoint: Path | None = None, count: int = 1
) -> tuple[Gates, list[float]]:
    trajectories, distances = _trajectories(problem, count=count), []
    found = exchange(
        trajectories,
        problem.cost,
        rows_on(problem, 0, 3),
        problem.cost.kept(rows_on(problem, 0, 3)),
        tries=tries,
        seed=seed,
        identity={"seed": seed},
        checkpoint=checkpoint,
        on_try=lambda done, total, distance: distances.append(distance),
    )
    return found, distances


@pytest.mark.parametrize("seed", [0, 1])
def test_exchange_gets_better_within_the_share(problem: Problem, seed: int) -> None:
    start = rows_on(problem, 0, 3)
    found, distances = _exchanged(problem, 15, seed)
    assert problem.cost.kept(found) <= problem.cost.kept(start) + 1e-9
    trajectories = _trajectories(problem)
    first = trajectories.run(start).distance
    assert [first, *distances] == sorted([first, *distances], reverse=True)
    assert distances[-1] < first
    assert trajectories.run(found).distance == distances[-1]
    assert (_exchanged(problem, 15, seed)[0] == found).all()


def test_a_try_that_is_much_worse_on_few_examples_is_given_up(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others are run on every example, and what gets better there stays."""
    runs: list[tuple[int, float]] = []
    run = Trajectories.run

    def recorded(self: Trajectories, gates: Gates, base: Outcome | None = None) -> Outcome:
        found = run(self, gates, base)
        runs.append((len(self.examples), found.distance))
        return found

    monkeypatch.setattr(Trajectories, "run", recorded)
    count = GLANCE + 1
    _, distances = _exchanged(problem, 12, 0, count=count)
    (_, best), (_, best_glance), *tries = runs
    given_up = 0
    for at, (examples, glance) in enumerate(tries):
        if examples == count:
            continue
        goes_on = at + 1 < len(tries) and tries[at + 1][0] == count
        assert goes_on == (glance <= MARGIN * best_glance)
        given_up += not goes_on
        if goes_on and tries[at + 1][1] < best:
            best, best_glance = tries[at + 1][1], glance
    assert 0 < given_up < len(tries)
    assert distances[-1] == best


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every table that is run, in order."""
    seen: list[bytes] = []
    run = Trajectories.run

    def counted(self: Trajectories, gates: Gates, base: Outcome | None = None) -> Outcome:
        seen.append(gates.tobytes())
        return run(self, gates, base)

    monkeypatch.setattr(Trajectories, "run", counted)
    return seen


def test_exchange_goes_on_where_it_stopped(
    problem: Problem, tmp_path: Path, ran: list[bytes]
) -> None:
    """The same tries in the same order, none of which had been tried before."""
    path = tmp_path / "exchange.safetensors"
    _exchanged(problem, 15, 0, path)
    before = len(ran)
    again, distances = _exchanged(problem, 25, 0, path)
    resumed = ran[before + 1 :]  # the best so far comes first
    assert len(distances) == 10
    ran.clear()
    assert (again == _exchanged(problem, 25, 0)[0]).all()
    assert resumed == ran[before:]


def test_no_table_is_run_twice(problem: Problem, ran: list[bytes]) -> None:
    _exchanged(problem, 25, 0)
    assert len(ran) == len(set(ran)) > 10


# Training the weights.


def _fitted(problem: Problem, *rows: int) -> Outcome:
    """On one example of the two that are trained on."""
    return _trajectories(problem).run(rows_on(problem, *rows))


def test_a_move_changes_the_state_by_the_error(problem: Problem) -> None:
    """At the gap's end, whichever the direction."""
    fitted = _fitted(problem, 0, 1, 3)
    module = ReuseWeights(fitted.fits, 6, 3, error=0.25)
    start = module().detach().double().numpy()
    assert start == pytest.approx(as_table(fitted.fits, 6, 3), rel=1e-6)
    for index, fit in enumerate(fitted.fits):
        for direction in range(len(fit.weights)):
            with torch.no_grad():
                module.moves.zero_()
                module.moves[index, direction] = 1.0
            moved = (module().detach().double().numpy() - start)[list(fit.gap.rows)]
            assert (moved == moved[0]).all()
            move = moved[0, : len(fit.weights)]
            assert np.sqrt(move @ fit.effects @ move) == pytest.approx(0.25, rel=0.02)


def _distance(problem: Problem, gates: Gates, weights: NDArray[np.float64]) -> float:
    """Mean over both examples."""
    net, table = tiny_net(problem), torch.tensor(gates, dtype=torch.float32)
    examples = [tiny_examples(problem, net)[index] for index in range(2)]
    with torch.no_grad():
        ends = [(net(table, one.inputs, _rows(gates, weights)), one.dense) for one in examples]
    return float(np.mean([float(DISTANCES["log-mse"](*pair)) for pair in ends]))


@pytest.mark.slow
def test_training_reuse_lowers_the_distance(problem: Problem) -> None:
    net, fitted = tiny_net(problem, checkpointing=True), _fitted(problem, 0, 2, 4)
    identity: Mapping[str, Any] = {}
    trained = train_reuse(
        net,
        tiny_examples(problem, net),
        fitted,
        3,
        iterations=32,
        distance=DISTANCES["log-mse"],
        identity=identity,
    )
    start = as_table(fitted.fits, 6, 3)
    assert _distance(problem, fitted.gates, trained) < _distance(problem, fitted.gates, start)
    assert (trained[fitted.gates.any(axis=1)] == 0).all()
    assert trained[1, 1:].tolist() == [0, 0]
