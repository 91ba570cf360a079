"""An export of a SubNet that was fitted for something: its defaults, and what warns."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dipgo
import dipgo.inspect
import dipgo.run.__main__
from dipgo.common.cli import run_command
from dipgo.common.warn import DipgoWarning
from dipgo.evaluate.fitted import guidance_of, warn_of_unfit
from dipgo.export import export, refit
from dipgo.ir.fitted import Fitted, MeasuredError
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.manifest.records import MANIFEST_FILE
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.source import load_source
from tests.support.build_once import build_once
from tests.support.refusals import SUBNET

FITTED = Fitted(
    (3.0, 5.0),
    (4, 16, 16),
    errors=(
        MeasuredError(4.0, 0.0142),
        MeasuredError(12.0, 0.344),
        MeasuredError(4.0, 0.03, negative_prompts=True),
    ),
)
PRICE = "the SubNet was fitted for 3 to 5; latent error against dense 0.0142 at 4, 0.344 at 12"
PROMPT = "a red circle"


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "subnet.json"
    path.write_text(json.dumps(SUBNET | {"fitted": {"guidance": [3, 5], "latents": [4, 16, 16]}}))
    subnet = SubNet.load(path)
    replace(subnet, fitted=FITTED, **changes).save(path)
    return path


@pytest.fixture(scope="module")
def fitted(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export; nothing of it is other than what its SubNet was fitted for."""

    def make(folder: Path) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DipgoWarning)
            return export(tiny_pipeline, _write(folder.parent), folder)

    return build_once(tmp_path_factory, "fitted", make)


@pytest.fixture(scope="module")
def pipeline(fitted: Path) -> dipgo.Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DipgoWarning)
        return dipgo.Pipeline.from_export(fitted, threads=1)


def _lines(call: Callable[[], object]) -> list[str]:
    """Returns the warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if issubclass(each.category, DipgoWarning)]


def _latents(pipeline: dipgo.Pipeline, **options: Any) -> np.ndarray:
    found: np.ndarray = pipeline(PROMPT, seed=0, output_type="latent", **options).images
    return found


@pytest.mark.slow
def test_the_default_is_the_nearest_scale_that_was_fitted_for(pipeline: dipgo.Pipeline) -> None:
    """diffusers' own default is 7.5."""
    assert pipeline.manifest.fitted == FITTED
    found: list[np.ndarray] = []
    assert _lines(lambda: found.append(_latents(pipeline))) == []
    assert _lines(lambda: found.append(_latents(pipeline, guidance_scale=5.0))) == []
    assert np.array_equal(*found)


@pytest.mark.slow
def test_a_call_with_another_scale_or_a_negative_prompt_warns(pipeline: dipgo.Pipeline) -> None:
    assert _lines(lambda: _latents(pipeline, guidance_scale=12)) == [
        f"guidance_scale: found 12; {PRICE}"
    ]
    assert _lines(lambda: _latents(pipeline, negative_prompt="a blue square")) == [
        "negative_prompt: found 'a blue square'; the SubNet was fitted for none; latent error "
        "against dense 0.0142 at 4, 0.03 at 4 with negative prompts"
    ]
    assert _lines(lambda: _latents(pipeline, negative_prompt="", guidance_scale=3)) == []
    below = _lines(lambda: _latents(pipeline, guidance_scale=0.5))  # is 1, as in diffusers
    assert [line.split(";")[0] for line in below] == ["guidance_scale: found 1"]


@pytest.mark.slow
def test_the_negative_prompt_that_was_fitted_for_is_the_default(
    fitted: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(fitted, tmp_path / "copy"))
    manifest = json.loads((copy / MANIFEST_FILE).read_text())
    manifest["fitted"]["negative_prompt"] = "a blue square"
    (copy / MANIFEST_FILE).write_text(json.dumps(manifest))
    pipeline = dipgo.Pipeline.from_export(copy, threads=1)
    found: list[np.ndarray] = []
    for options in ({}, {"negative_prompt": "a blue square"}, {"negative_prompt": ""}):
        lines = _lines(lambda given=options: found.append(_latents(pipeline, **given)))
        assert [line.split(";")[0] for line in lines] == (
            ["negative_prompt: found ''"] if options == {"negative_prompt": ""} else []
        )
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.slow
def test_the_command_shows_one_line(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(fitted), "--prompt", PROMPT, "--latents", str(tmp_path / "a.npy"), "--threads=1"]
    for more, expected in (
        (["--guidance-scale", "12"], [f"warning: --guidance-scale: found 12; {PRICE}"]),
        ([], []),
    ):
        assert run_command(dipgo.run.__main__.main, [*words, *more]) == 0
        printed = capsys.readouterr().err.splitlines()
        assert [line for line in printed if "arning" in line] == expected


@pytest.mark.slow
@pytest.mark.parametrize("changes", [None, {"latents": [4, 24, 24]}, {"guidance": None}])
def test_an_export_that_says_otherwise_warns_when_loaded(
    changes: dict[str, Any] | None, fitted: Path, tmp_path: Path
) -> None:
    """And one that says nothing, as older ones do, takes any scale."""
    copy = Path(shutil.copytree(fitted, tmp_path / "copy"))
    manifest = json.loads((copy / MANIFEST_FILE).read_text())
    if changes is None:
        del manifest["fitted"]
    else:
        manifest["fitted"] |= changes
    (copy / MANIFEST_FILE).write_text(json.dumps(manifest))
    pipelines: list[dipgo.Pipeline] = []
    lines = _lines(lambda: pipelines.append(dipgo.Pipeline.from_export(copy, threads=1)))
    if changes is None:
        assert lines == _lines(lambda: _latents(pipelines[0], guidance_scale=12)) == []
    elif "latents" in changes:
        assert [line.split(";")[:2] for line in lines] == [
            ["latents: found 4x16x16", " the SubNet was fitted for 4x24x24"]
        ]
    else:
        assert [line.split(";")[:2] for line in lines] == [
            ["guidance: found guidance", " the SubNet was fitted for none"]
        ]


@pytest.mark.slow
def test_inspect_shows_it(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (fitted, fitted.parent / "subnet.json"):
        assert run_command(dipgo.inspect.main, [str(shown)]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert "fitted for guidance 3 to 5, latents 4x16x16" in lines
        assert "latent error 0.0142 at 4, 0.344 at 12, 0.03 at 4 with negative prompts" in lines


@pytest.mark.slow
def test_a_refitted_copy_keeps_it(fitted: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    assert _lines(lambda: refit(fitted, tiny_pipeline, tmp_path / "new")) == []
    assert (tmp_path / "new" / MANIFEST_FILE).read_bytes() == (fitted / MANIFEST_FILE).read_bytes()


@pytest.mark.slow
def test_an_export_for_something_else_warns(tiny_pipeline: Path, tmp_path: Path) -> None:
    out, subnet = tmp_path / "out", _write(tmp_path)
    lines = _lines(lambda: export(tiny_pipeline, subnet, out, guidance=False, height=96))
    assert [line.split(";")[0] for line in lines] == [
        "guidance: found none",
        "latents: found 4x24x16",
    ]
    pipeline = read_manifest(out).pipeline
    assert pipeline is not None


def test_dense_exports_say_nothing_of_it(sample_exports: dict[str, Path]) -> None:
    """And so their bytes are those of before."""
    for path in sample_exports.values():
        manifest = json.loads((path / MANIFEST_FILE).read_text())
        assert "fitted" not in manifest
        assert manifest["refittable"] is True


def test_an_evaluation_draws_at_the_scale_of_the_first(tiny_pipeline: Path, tmp_path: Path) -> None:
    source = load_source(tiny_pipeline)
    own = SubNet.load(_write(tmp_path))
    other = replace(own, fitted=Fitted((9.0, 9.0), (4, 24, 24)))
    plain = replace(own, fitted=None)
    assert guidance_of(None, source, {"a": own, "b": other}) == 5.0
    assert guidance_of(None, source, {"b": other, "a": own}) == 9.0
    assert guidance_of(None, source, {"c": plain, "a": own}) == 7.5
    assert guidance_of(2.0, source, {"a": own}) == 2.0
    subnets = {"a": own, "b": other, "c": plain}
    assert [line.split(";")[0] for line in _lines(lambda: warn_of_unfit(subnets, source, 5.0))] == [
        "b: latents: found 4x16x16",
        "b: guidance_scale: found 5",
    ]
