"""The SubNet and its file: what goes round, and one refusal for every rule."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import ModelRef, PriorNoise, SchedulerRef, SubNet

GOOD: dict[str, Any] = {
    "format": "dipgo.subnet",
    "version": 1,
    "model": {"class": "UNet2DConditionModel", "config_sha256": "ab12"},
    "scheduler": {"class": "DDIMScheduler", "config": {"steps_offset": 1}},
    "num_inference_steps": 3,
    "timesteps": [667, 334, 0.5],
    "blocks": ["down_blocks.0", "mid_block"],
    "backup": "output",
    "gates": ["11", "01", "10"],
    "scores": [[1.0, 0.9], [0.2, 0.75], [0.625, 0.1]],
    "provenance": {"method": "test", "ratio": 0.5},
}
GOLDEN = """{
  "format": "dipgo.subnet",
  "version": 1,
  "model": {"class": "UNet2DConditionModel", "config_sha256": "ab12"},
  "scheduler": {"class": "DDIMScheduler", "config": {"steps_offset": 1}},
  "num_inference_steps": 3,
  "timesteps": [667, 334, 0.5],
  "blocks": ["down_blocks.0", "mid_block"],
  "backup": "output",
  "gates": [
    "11",
    "01",
    "10"
  ],
  "scores": [
    [1.0, 0.9],
    [0.2, 0.75],
    [0.625, 0.1]
  ],
  "provenance": {"method": "test", "ratio": 0.5}
}
"""


def load(folder: Path, text: str) -> SubNet:
    path = folder / "subnet.json"
    path.write_text(text)
    return SubNet.load(path)


def load_with(folder: Path, **changes: Any) -> SubNet:
    return load(folder, json.dumps(GOOD | changes))


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    subnet = load_with(tmp_path)
    assert subnet.gates.tolist() == [[True, True], [False, True], [True, False]]
    assert subnet.timesteps == (667.0, 334.0, 0.5)
    assert subnet.backup == ("output", "output")
    assert subnet.model == ModelRef("UNet2DConditionModel", "ab12")
    assert subnet.scheduler == SchedulerRef("DDIMScheduler", {"steps_offset": 1})
    assert subnet.kept == pytest.approx(4 / 6)


def test_what_is_saved_is_meant_to_be_read(tmp_path: Path) -> None:
    load_with(tmp_path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == GOLDEN
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "subnet.json"]


def test_the_least_a_file_may_hold(tmp_path: Path) -> None:
    needed = ("format", "version", "num_inference_steps", "timesteps", "blocks", "gates")
    subnet = load(tmp_path, json.dumps({key: GOOD[key] for key in needed}))
    assert (subnet.model, subnet.scheduler, subnet.scores) == (None, None, None)
    assert subnet.backup == ("output", "output")


def test_a_class_may_stand_without_hash_or_config(tmp_path: Path) -> None:
    subnet = load_with(tmp_path, model={"class": "M"}, scheduler={"class": "S"})
    assert subnet.model == ModelRef("M")
    assert subnet.scheduler == SchedulerRef("S")


NAMES = st.text(min_size=1).filter(str.isprintable)


@st.composite
def subnets(draw: st.DrawFn) -> SubNet:
    """Any SubNet of up to 6 steps and 5 blocks."""
    steps, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    times = st.floats(0, 1000) | st.integers(0, 1000)
    timesteps = draw(st.lists(times, min_size=steps, max_size=steps, unique=True))
    rows = st.lists(st.booleans(), min_size=width, max_size=width)
    gates = [[True] * width, *(draw(rows) for _ in range(steps - 1))]
    numbers = st.lists(st.floats(-1e9, 1e9), min_size=width, max_size=width)
    scores = draw(st.none() | st.lists(numbers, min_size=steps, max_size=steps))
    words = st.sampled_from(["output", "delta", "identity"])
    weighed = range(steps) if draw(st.booleans()) else ()
    reuse = tuple(draw(_weights(gates[: row + 1])) for row in weighed) or None
    return SubNet(
        num_inference_steps=draw(st.integers(1, 1000)),
        timesteps=tuple(sorted(timesteps, reverse=True)),
        blocks=tuple(draw(st.lists(NAMES, min_size=width, max_size=width, unique=True))),
        gates=np.array(gates),
        backup=tuple(draw(st.lists(words, min_size=width, max_size=width))),
        scores=None if scores is None else np.array(scores),
        provenance=draw(st.dictionaries(st.text(), st.integers() | st.text(), max_size=3)),
        prior_noise=draw(st.none() | st.builds(PriorNoise, st.floats(-1, 1), st.floats(0, 1000))),
        reuse=reuse,
        reuse_unconditional=reuse and draw(st.none() | st.tuples(*map(_halves, reuse))),
        reuse_filters=None if reuse else _filters(draw, gates),
    )


def _filters(draw: st.DrawFn, gates: list[list[bool]]) -> tuple[GapFilters, ...] | None:
    """For every row that is off an entry of its own, of up to two predictions."""
    draws = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    halves, size = draw(st.booleans()), draw(st.sampled_from([1, 3]))
    found = []
    for row in (index for index, on in enumerate(gates) if not any(on)):
        terms = draw(st.integers(1, min(2, sum(map(any, gates[:row])))))
        values = draws.normal(size=(2, terms, 2, 2, size, size)).astype(np.float32)
        found.append(GapFilters((row,), values[0], values[1] if halves else None))
    return tuple(found) or None


def _weights(rows: list[list[bool]]) -> st.SearchStrategy[tuple[float, ...]]:
    """For the last of these rows: none where it computes, else at most one a row that does."""
    most = 0 if any(rows[-1]) else sum(map(any, rows))
    return st.lists(st.floats(-10, 10), max_size=most).map(tuple)


def _halves(weights: tuple[float, ...]) -> st.SearchStrategy[tuple[float, ...]]:
    """At most as many."""
    return st.lists(st.floats(-10, 10), max_size=len(weights)).map(tuple)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(subnets())
def test_load_undoes_save(tmp_path_factory: pytest.TempPathFactory, subnet: SubNet) -> None:
    path = tmp_path_factory.mktemp("subnets") / "subnet.json"
    subnet.save(path)
    again = SubNet.load(path)
    assert again == subnet
    assert hash(again) == hash(subnet)


WITH_REUSE = {"gates": ["11", "01", "00"], "reuse": [[], [], [1.5, -0.5]]}
WITH_HALVES = {**WITH_REUSE, "reuse_unconditional": [[], [], [0.25]]}


IDENTITY = [[[[[1.0]], [[0.0]]], [[[0.0]], [[1.0]]]]]
"""Of one prediction, two channels, one pixel."""


def _with_filters(**changes: object) -> dict[str, object]:
    entry = {"rows": [1, 2], "predictions": IDENTITY, **changes}
    return {"gates": ["11", "00", "00"], "reuse_filters": [entry]}


def test_filters_are_read_and_written_as_they_stand(tmp_path: Path) -> None:
    subnet = load_with(tmp_path, **_with_filters(unconditional=[[[[[0.1]]] * 2] * 2]))
    (found,) = subnet.reuse_filters or ()
    assert (found.rows, found.terms, found.channels, found.size) == ((1, 2), 1, 2, 1)
    assert found.unconditional is not None
    assert found.unconditional.dtype == np.float32
    subnet.save(tmp_path / "saved.json")
    assert '"unconditional": [[[[[0.1]], [[0.1]]], ' in (tmp_path / "saved.json").read_text()


def test_filters_are_stacked_by_turns() -> None:
    """As what reads them has predictions: each followed by its half; the missing are 0."""
    values = np.arange(2 * 2 * 9, dtype=np.float32).reshape(1, 2, 2, 3, 3)
    found = GapFilters((1,), values, -values).stacked(terms=2, halves=True)
    assert found.shape == (2, 8, 3, 3)
    assert (found[:, :2] == values[0]).all()
    assert (found[:, 2:4] == -values[0]).all()
    assert not found[:, 4:].any()
    assert (GapFilters((1,), values).stacked(1, halves=False) == values[0]).all()


def test_reuse_is_read_and_written_as_it_stands(tmp_path: Path) -> None:
    subnet = load_with(tmp_path, **WITH_HALVES)
    assert subnet.reuse == ((), (), (1.5, -0.5))
    assert subnet.reuse_unconditional == ((), (), (0.25,))
    assert subnet != load_with(tmp_path, **WITH_REUSE)
    subnet.save(tmp_path / "again.json")
    lines = '"reuse": [\n    [],\n    [],\n    [1.5, -0.5]\n  ],\n'
    lines += '  "reuse_unconditional": [\n    [],\n    [],\n    [0.25]\n  ],\n'
    assert lines in (tmp_path / "again.json").read_text()
    assert SubNet.load(tmp_path / "again.json") == subnet


def test_dense_computes_everything() -> None:
    subnet = SubNet.dense((9, 5, 1), ("a", "b"), num_inference_steps=3, backup="delta")
    assert subnet.kept == 1.0
    assert subnet.gates.shape == (3, 2)
    assert subnet.backup == ("delta", "delta")


def test_equality_looks_at_every_part(tmp_path: Path) -> None:
    subnet = load_with(tmp_path)
    gates = subnet.gates.copy()
    gates[1, 0] = True
    assert subnet == replace(subnet)
    assert subnet != replace(subnet, gates=gates)
    assert subnet != replace(subnet, scores=None)
    assert subnet != replace(subnet, prior_noise=PriorNoise(0.003, 500.0))
    assert subnet != replace(subnet, reuse=((), (), ()))
    assert subnet != "subnet"


def test_the_tables_cannot_be_written_to(tmp_path: Path) -> None:
    given_gates = np.ones((1, 2), dtype=bool)
    subnet = SubNet(1, (0,), ("a", "b"), given_gates, ("output", "output"))
    with pytest.raises(ValueError, match="read-only"):
        subnet.gates[0, 0] = False
    given_gates[0, 0] = False
    assert subnet.gates.all()


@pytest.mark.parametrize("timesteps", [(1.0, 2.0, 3.0), (785.954, 786.0, 3.0), (-19.0, 1.0, 0.5)])
def test_timesteps_of_any_order(timesteps: tuple[float, ...], tmp_path: Path) -> None:
    """Inverse schedulers go up, and rounding turns neighbours round."""
    subnet = SubNet.dense(timesteps, ["a"], num_inference_steps=3)
    subnet.save(tmp_path / "subnet.json")
    assert SubNet.load(tmp_path / "subnet.json").timesteps == timesteps


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "format": (
        {"format": "other"},
        r'subnet\.json, format: found "other"; expected "dipgo\.subnet"; .+',
    ),
    "version": ({"version": 2, "news": 1}, r"subnet\.json, version: found 2; expected 1; .+"),
    "extra field": (
        {"gate": []},
        r"subnet\.json: found unknown field `gate`; expected .+; take .+",
    ),
    "extra field inside": (
        {"model": {"class": "M", "hash": ""}},
        r"subnet\.json, \$\.model: found unknown field `hash`; .+",
    ),
    "prior noise without its bound": (
        {"prior_noise": {"scale": 0.003}},
        r"subnet\.json, \$\.prior_noise: found no field `below`; .+",
    ),
    "type": (
        {"timesteps": [3, 2, "1"]},
        r"subnet\.json, \$\.timesteps\[2\]: found `str`; expected `float`; .+",
    ),
    "a row too few": (
        {"gates": ["11", "01"]},
        r"subnet\.json, gates: found 2 rows; expected 3, one a timestep; .+",
    ),
    "a character too few": (
        {"gates": ["11", "0", "10"]},
        r"subnet\.json, gates row 1: found 1 characters; expected 2, one a block; .+",
    ),
    "a character other than 0 and 1": (
        {"gates": ["11", "01", "1x"]},
        r"subnet\.json, gates row 2, block mid_block: found 'x'; expected 0 or 1; .+",
    ),
    "a gate off in row 0": (
        {"gates": ["10", "01", "10"]},
        r"subnet\.json, gates row 0, block mid_block: found 0; expected 1, because nothing "
        r"earlier computes it; set row 0 to all 1",
    ),
    "a gate off in row 0, of a block that needs nothing earlier": (
        {"gates": ["10", "01", "10"], "backup": ["output", "identity"]},
        r"subnet\.json, gates row 0, block mid_block: found 0; expected 1, because the first row "
        r"is all 1, also for blocks whose backup, identity, needs nothing earlier; set row 0 to .+",
    ),
    "a block twice": (
        {"blocks": ["a", "a"]},
        r"subnet\.json, blocks, entry 1: found a a second time; expected .+; .+",
    ),
    "a block without a name": (
        {"blocks": ["a", ""]},
        r"subnet\.json, blocks, entry 1: found an empty name; .+",
    ),
    "no blocks": (
        {"blocks": [], "gates": ["", "", ""], "scores": None},
        r"subnet\.json, blocks: found no block; expected .+; name at least one block",
    ),
    "a backup unknown": (
        {"backup": ["output", "input"]},
        r"subnet\.json, backup, block mid_block: found 'input'; expected output or delta or .+",
    ),
    "a backup too many": (
        {"backup": ["output"] * 3},
        r"subnet\.json, backup: found 3 words for 2 blocks; expected one word, or one a block; .+",
    ),
    "scores of too few rows": (
        {"scores": [[1, 1]]},
        r"subnet\.json, scores: found 1 rows; expected 3, one a timestep; .+",
    ),
    "scores of too few columns": (
        {"scores": [[1, 1], [1], [1, 1]]},
        r"subnet\.json, scores row 1: found 1 numbers; expected 2, one a block; .+",
    ),
    "a timestep twice": (
        {"timesteps": [3, 1, 1]},
        r"subnet\.json, timesteps, entry 2: found 1 a second time; expected each timestep once.+",
    ),
    "a timestep again later": (
        {"timesteps": [3, 1, 3]},
        r"subnet\.json, timesteps, entry 2: found 3 a second time; expected each timestep once.+",
    ),
    "no timesteps": (
        {"timesteps": [], "gates": []},
        r"subnet\.json, timesteps: found no timestep; .+",
    ),
    "reuse of too few rows": (
        {**WITH_REUSE, "reuse": [[], []]},
        r"subnet\.json, reuse: found 2 rows; expected 3, one a timestep; .+",
    ),
    "reuse in a row that computes": (
        {**WITH_REUSE, "reuse": [[], [1.0], [1.0]]},
        r"subnet\.json, reuse row 1: found 1 weights for a row that computes; "
        r"expected weights only where all gates are 0; write \[\] for this row",
    ),
    "reuse of more than was computed": (
        {**WITH_REUSE, "reuse": [[], [], [1.0, 2.0, 3.0]]},
        r"subnet\.json, reuse row 2: found 3 weights; "
        r"expected at most 2, as many as rows before it compute; leave out the last of them",
    ),
    "halves in a row that computes": (
        {**WITH_HALVES, "reuse_unconditional": [[], [1.0], []]},
        r"subnet\.json, reuse_unconditional row 1: found 1 weights for a row that computes; .+",
    ),
    "halves of more predictions than are weighed": (
        {**WITH_HALVES, "reuse": [[], [], []]},
        r"subnet\.json, reuse_unconditional row 2: found 1 weights; "
        r"expected at most 0, as many as reuse has in this row; give reuse a weight for each .+",
    ),
    "halves without reuse": (
        {"gates": ["11", "01", "00"], "reuse_unconditional": [[], [], [1.0]]},
        r"subnet\.json, reuse_unconditional row 2: found 1 weights; expected at most 0, .+",
    ),
    "filters of no row": (
        _with_filters(rows=[]),
        r"subnet\.json, reuse_filters, entry 0, rows: found none; expected consecutive rows .+",
    ),
    "filters of rows apart": (
        _with_filters(rows=[2, 1]),
        r"subnet\.json, reuse_filters, entry 0, rows: found 2 1; expected consecutive rows .+",
    ),
    "filters of a row beyond the last": (
        _with_filters(rows=[2, 3]),
        r"subnet\.json, reuse_filters, entry 0, rows: found 2 3; expected .+ from 1 to 2; .+",
    ),
    "filters in a row that computes": (
        {**_with_filters(), "gates": ["11", "00", "01"]},
        r"subnet\.json, reuse_filters, entry 0, row 2: found a row that computes; .+",
    ),
    "filters of a row twice": (
        {"gates": ["11", "00", "00"], "reuse_filters": _with_filters()["reuse_filters"] * 2},  # type: ignore[operator]
        r"subnet\.json, reuse_filters, entry 1, row 1: found a row of an earlier entry; .+",
    ),
    "filters of more than was computed": (
        _with_filters(predictions=IDENTITY * 2),
        r"subnet\.json, reuse_filters, entry 0, predictions: found filters of 2; "
        r"expected at most 1, .+",
    ),
    "filters that are no filters": (
        _with_filters(predictions=[[[[[1.0]], [[1.0]]]]]),
        r"subnet\.json, reuse_filters, entry 0, predictions: found numbers of shape "
        r"\[1, 1, 2, 1, 1\]; .+",
    ),
    "filters with an even side": (
        _with_filters(predictions=[[[[[1.0, 0.0]] * 2] * 2] * 2]),
        r"subnet\.json, reuse_filters, entry 0, predictions: found numbers of shape .+ odd k.+",
    ),
    "filters of unlike lengths": (
        _with_filters(predictions=[[[[[1.0]], [[1.0, 2.0]]]]]),
        r"subnet\.json, reuse_filters: found lists of unlike lengths .+",
    ),
    "fewer filters of halves": (
        _with_filters(unconditional=[]),
        r"subnet\.json, reuse_filters, entry 0, unconditional: found numbers of shape .+",
    ),
    "filters beside weights": (
        {**_with_filters(), "reuse": [[], [1.0], []]},
        r"subnet\.json, reuse_filters, entry 0, row 1: found filters beside weights of reuse; .+",
    ),
    "reuse of words": (
        {**WITH_REUSE, "reuse": [[], [], ["one"]]},
        r"subnet\.json, \$\.reuse\[2\]\[0\]: found `str`; expected `float`; .+",
    ),
    "no steps": (
        {"num_inference_steps": 0},
        r"subnet\.json, num_inference_steps: found 0; expected 1 or more; .+",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(DipgoError, match=f"^{message}$"):
        load_with(tmp_path, **changes)


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    rest = {key: value for key, value in GOOD.items() if key != "gates"}
    with pytest.raises(DipgoError, match=r"subnet\.json: found no field `gates`; expected"):
        load(tmp_path, json.dumps(rest))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"none\.json: found nothing .+; expected a SubNet file; "):
        SubNet.load(tmp_path / "none.json")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match="expected a SubNet file"):
        SubNet.load(tmp_path)


@pytest.mark.parametrize("keep", [1, 40, 200, -3])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    with pytest.raises(DipgoError, match=r"subnet\.json: found text that is not JSON .+; .+; .+"):
        load(tmp_path, GOLDEN[:keep])


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "subnet.json").write_bytes(GOLDEN.replace("test", "t\0st").encode("utf-16"))
    with pytest.raises(DipgoError, match="that is not JSON"):
        SubNet.load(tmp_path / "subnet.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    scores = np.array([[1, 1], [1, value], [1, 1]])
    with pytest.raises(DipgoError, match=r"scores row 1, block mid_block: found (nan|inf); "):
        replace(load_with(tmp_path), scores=scores)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_reuse_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    subnet = load_with(tmp_path, **WITH_REUSE)
    message = f"^reuse row 2: found 1.0 {value}; expected finite numbers; correct them, or leave"
    with pytest.raises(DipgoError, match=message):
        replace(subnet, reuse=((), (), (1.0, value)))


@pytest.mark.parametrize("name", ["scale", "below"])
def test_prior_noise_that_is_not_finite_is_refused(tmp_path: Path, name: str) -> None:
    prior_noise = replace(PriorNoise(0.003, 500.0), **{name: float("inf")})
    with pytest.raises(DipgoError, match=f"prior_noise, {name}: found inf; expected a finite"):
        replace(load_with(tmp_path), prior_noise=prior_noise)


def test_gates_that_are_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"gates: found values of type float64 other than"):
        replace(load_with(tmp_path), gates=np.full((3, 2), 0.5))


def test_provenance_without_words_in_json_is_refused(tmp_path: Path) -> None:
    for value in (float("nan"), object()):
        subnet = replace(load_with(tmp_path), provenance={"loss": value})
        with pytest.raises(DipgoError, match="SubNet, provenance: found a value JSON has no word"):
            subnet.save(tmp_path / "again.json")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"found a place that cannot be written .+; expected a"):
        load_with(tmp_path).save(tmp_path / "none" / "subnet.json")


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    subnet = load_with(tmp_path)
    before = (tmp_path / "subnet.json").read_bytes()
    with pytest.raises(DipgoError):
        replace(subnet, provenance={"loss": float("nan")}).save(tmp_path / "subnet.json")
    assert (tmp_path / "subnet.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
