"""Searches for a range of guidance scales, and the errors that they measure in the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

import dipgo
from dipgo.common.errors import DipgoError
from dipgo.evaluate.metrics import latent_error
from dipgo.export import export
from dipgo.ir.fitted import Fitted, MeasuredError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.api import search
from dipgo.search.examples import FIRST_NOISE, Examples
from dipgo.search.measure_errors import HELD_OUT, SCALES
from dipgo.search.problem import Problem
from dipgo.search.settings import guidance_scales
from tests.support.tiny_search import PROMPTS, STEPS, small, tiny_net, tiny_request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5.0),
        ("7.5", 7.5),
        ("3..9", (3.0, 9.0)),
        ("2.5..8.5", (2.5, 8.5)),
        ("1..1", (1.0, 1.0)),
    ],
)
def test_scales_and_ranges(text: str, expected: object) -> None:
    assert guidance_scales(text) == expected


@pytest.mark.parametrize("text", ["", "..", "3..", "..9", "3-9", "3..6..9", "much"])
def test_what_is_no_scale(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        guidance_scales(text)


def test_the_scales_of_a_range(problem: Problem) -> None:
    """By default the pipeline's; below 1 diffusers does not guide."""
    assert problem.scales(None) == (7.5, 7.5)
    assert problem.scales(5.0) == (5.0, 5.0)
    assert problem.scales((3.0, 9.0)) == (3.0, 9.0)


@pytest.mark.parametrize("count", [1, 2, 8, 16, 48])
def test_few_batches_are_as_spread_as_many(count: int, problem: Problem) -> None:
    """The first is the middle, and no gap is much wider than its share of the range."""
    examples = Examples(problem, tiny_net(problem), PROMPTS, count=count, scales=(3.0, 9.0))
    scales = [examples._scale(index) for index in range(count)]
    assert scales[0] == 6.0
    assert all(3 <= scale <= 9 for scale in scales)
    ordered = [3.0, *sorted(scales), 9.0]
    assert max(after - before for before, after in pairwise(ordered)) <= 2.7 * 6 / (count + 1)
    assert len({*scales}) == count


def test_a_batch_has_the_scale_of_its_number(problem: Problem) -> None:
    """And all else is that of a search for one scale."""
    net = tiny_net(problem)
    wide, one = (
        Examples(problem, net, PROMPTS, count=2, scales=scales)
        for scales in ((3.0, 9.0), (5.0, 5.0))
    )
    for index in range(2):
        found, expected = dict(wide[index].inputs), dict(one[index].inputs)
        assert float(found.pop("guidance_scale")) == pytest.approx(wide._scale(index))
        assert float(expected.pop("guidance_scale")) == 5.0
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def _without_errors(fitted: Fitted) -> Fitted:
    return msgspec.structs.replace(fitted, errors=())


@pytest.fixture(scope="module")
def found(tiny_pipeline: Path) -> SubNet:
    """Searched for 3 to 9."""
    settings = small(iterations=0, exchanges=2, guidance_scale=(3.0, 9.0), held_out=1)
    return search(tiny_pipeline, tiny_request(), PROMPTS, settings)


@pytest.mark.slow
def test_a_search_says_what_it_was_for(found: SubNet, tmp_path: Path) -> None:
    assert found.provenance["guidance_scale"] == [3.0, 9.0]
    fitted = found.fitted
    assert fitted is not None
    assert _without_errors(fitted) == Fitted((3.0, 9.0), (4, 16, 16), pictures=1)
    measured = [each.guidance for each in fitted.errors if not each.negative_prompts]
    assert measured == sorted({*SCALES, 3.0, 6.0, 9.0})
    (negative,) = (each for each in fitted.errors if each.negative_prompts)
    assert negative.guidance == 6.0
    found.save(tmp_path / "subnet.json")
    assert SubNet.load(tmp_path / "subnet.json") == found


@pytest.mark.slow
def test_the_errors_are_those_of_the_exports(
    found: SubNet, tiny_pipeline: Path, tmp_path: Path
) -> None:
    """On ONNX Runtime, drawn with the held-out prompts and seeds."""
    plain = replace(found, fitted=None, provenance={})
    pruned, dense = (
        dipgo.Pipeline.from_export(
            export(tiny_pipeline, subnet, tmp_path / name, steps=STEPS, scheduler="ddim"), threads=1
        )
        for name, subnet in (("pruned", plain), ("dense", "dense"))
    )
    order = np.random.default_rng(HELD_OUT).permutation(len(PROMPTS))
    prompt, other = (PROMPTS[index] for index in order[:2])
    assert found.fitted is not None
    for measured in found.fitted.errors:
        latents = [
            pipeline(
                prompt,
                negative_prompt=other if measured.negative_prompts else None,
                seed=FIRST_NOISE + HELD_OUT,
                guidance_scale=measured.guidance,
                output_type="latent",
            ).images
            for pipeline in (pruned, dense)
        ]
        assert measured.error == pytest.approx(float(latent_error(*latents).mean()), rel=6e-3)


@pytest.mark.slow
def test_a_negative_prompt_is_fitted_for(tiny_pipeline: Path) -> None:
    """All batches have it, and what a search without one finds is something else."""
    settings = small(iterations=0, exchanges=0, held_out=1)
    plain, dark = (
        search(tiny_pipeline, tiny_request(), PROMPTS, replace(settings, negative_prompt=negative))
        for negative in (None, "two green lines")
    )
    assert plain.fitted is not None
    assert dark.fitted is not None
    assert (plain.fitted.negative_prompt, dark.fitted.negative_prompt) == (None, "two green lines")
    assert plain.fitted.errors != dark.fitted.errors
    assert plain.reuse != dark.reuse


@pytest.mark.parametrize("option", [{"negative_prompt": "dark"}, {"guidance_scale": 5.0}])
def test_without_guidance_there_is_no_scale(option: dict[str, object], tiny_pipeline: Path) -> None:
    """Nor a negative prompt."""
    (name,) = option
    request = replace(tiny_request(), guidance=False)
    with pytest.raises(DipgoError, match=rf"^{name}: found one .+ expected none; leave it out"):
        search(tiny_pipeline, request, PROMPTS, small(**option))


@pytest.mark.slow
def test_without_guidance_there_is_one_error(tiny_pipeline: Path) -> None:
    settings = small(iterations=0, exchanges=0, held_out=1)
    request = replace(tiny_request(), guidance=False)
    fitted = search(tiny_pipeline, request, PROMPTS, settings).fitted
    assert fitted is not None
    assert fitted.guidance is None
    (measured,) = fitted.errors
    assert isinstance(measured, MeasuredError)
    assert measured.guidance is None
    assert measured.error is not None
    assert measured.error > 0
