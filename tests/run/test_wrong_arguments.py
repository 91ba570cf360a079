"""Every argument of every public function, with values of every type: it works, or one line says.

Failed at 3bfeb0e with TypeError, ValueError, AttributeError or OverflowError in most rows of the
table below, and without a word in some: `seed=True`, a set of prompts in any order.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dipgo
from dipgo.common.errors import DipgoError
from dipgo.engines import Runner, load
from dipgo.engines.timing import random_inputs
from dipgo.evaluate import evaluate
from dipgo.export import export, refit
from dipgo.run.pipeline import Pipeline
from dipgo.search import SearchRequest, search
from tests.support.build_once import build_once


class Taken:
    """Takes anything, as a callback that is a class by mistake."""

    def __init__(self, *given: Any) -> None: ...


VALUES: dict[str, Any] = {
    "None": None,
    "a float": 1.5,
    "a negative": -1,
    "a digit": "2",
    "an object": object(),
    "int64": np.int64(7),
    "float32": np.float32(1.5),
    "True": True,
    "a set": {"a", "b"},
    "a dict": {"a": 1},
    "a list": ["a", 1],
    "an empty list": [],
    "a ragged list": [[1], [1, 2]],
    "NUL": "\0",
    "bytes": b"a",
    "a class": Taken,
    "a long number": 10**400,
    "a longer number": 10**5000,
    "nan": math.nan,
    "inf": math.inf,
    "an array": np.zeros((2, 3)),
    "an array of objects": np.array([object()]),
    "a complex number": 1j,
    "a function": lambda *given: given,
}

LONGEST = 2000

SAFE_NAMES = ("self", "cls", "of_diffusers", "options", "settings", "progress", "stage")
"""Not values of their own: `self`, or arguments that the tests below give by their names."""

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline of one step."""
    return build_once(
        tmp_path_factory, "one_step", lambda out: export(tiny_pipeline, "dense", out, steps=1)
    )


@pytest.fixture(scope="module")
def pipeline(exported: Path) -> Pipeline:
    return Pipeline.from_export(exported, threads=1)


@pytest.fixture(scope="module")
def runner(exported: Path) -> Runner:
    return load(exported, threads=1)


def _subnet(**changes: Any) -> dipgo.SubNet:
    good: dict[str, Any] = {
        "num_inference_steps": 2,
        "timesteps": (500, 1),
        "blocks": ("a", "b"),
        "gates": [[True, True], [True, False]],
        "backup": ("output", "output"),
    }
    return dipgo.SubNet(**good | changes)


def _request() -> SearchRequest:
    return SearchRequest(ratio=0.5, steps=2)


@pytest.fixture(scope="module")
def calls(
    pipeline: Pipeline,
    runner: Runner,
    exported: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Call, dict[str, Any]]]:
    """By name: a public function, and good arguments, of which one at a time becomes another.

    The model of those that take one is no model: so they end before any work is done.
    """
    out = tmp_path_factory.mktemp("out")
    no = {"model": str(out / "no-model")}
    subnets = {"subnets": {"a": _subnet()}, "dense": (2, None)}
    return {
        "Pipeline": (Pipeline, {"runner": runner}),
        "Pipeline.__call__": (pipeline, {"prompt": "a", "output_type": "latent"}),
        "Pipeline.decode": (pipeline.decode, {"latents": np.zeros((1, 4, 16, 16), np.float32)}),
        "Pipeline.from_export": (Pipeline.from_export, {"path": exported, "check_hashes": False}),
        "load": (load, {"path": exported, "check_hashes": False}),
        "Runner.run": (runner.run, {"inputs": random_inputs(runner)}),
        "SubNet": (_subnet, {}),
        "SubNet.dense": (
            dipgo.SubNet.dense,
            {"timesteps": (500, 1), "blocks": ("a",), "num_inference_steps": 2},
        ),
        "SubNet.load": (dipgo.SubNet.load, {"path": out / "no"}),
        "SubNet.save": (_subnet().save, {"path": out / "subnet.json"}),
        "SubNet.from_published": (
            dipgo.SubNet.from_published,
            {"path": out / "no", "timesteps": (500, 1)},
        ),
        "export": (export, {**no, "subnet": "dense", "out": out / "export"}),
        "refit": (refit, {"export_dir": exported, "out": out / "refitted", **no}),
        "search": (search, {**no, "request": _request(), "prompts": ["a"]}),
        "evaluate": (evaluate, {**no, **subnets, "prompts": ["a"], "cache": out / "cache"}),
    }


def _arguments(name: str) -> list[str]:
    functions: dict[str, Call] = {
        "Pipeline": Pipeline.__init__,
        "Pipeline.__call__": Pipeline.__call__,
        "Pipeline.decode": Pipeline.decode,
        "Pipeline.from_export": Pipeline.from_export,
        "load": load,
        "Runner.run": Runner.run,
        "SubNet": dipgo.SubNet,
        "SubNet.dense": dipgo.SubNet.dense,
        "SubNet.load": dipgo.SubNet.load,
        "SubNet.save": dipgo.SubNet.save,
        "SubNet.from_published": dipgo.SubNet.from_published,
        "export": export,
        "refit": refit,
        "search": search,
        "evaluate": evaluate,
    }
    return [one for one in inspect.signature(functions[name]).parameters if one not in SAFE_NAMES]


def _rows() -> Iterator[tuple[str, str]]:
    for name in (
        *("Pipeline", "Pipeline.__call__", "Pipeline.decode", "Pipeline.from_export", "load"),
        *("Runner.run", "SubNet", "SubNet.dense", "SubNet.load", "SubNet.save"),
        *("SubNet.from_published", "export", "refit", "search", "evaluate"),
    ):
        yield from ((name, argument) for argument in _arguments(name))


@pytest.mark.filterwarnings("ignore::dipgo.DipgoWarning")
@pytest.mark.parametrize(("name", "argument"), list(_rows()))
def test_a_value_works_or_is_refused_in_a_line(
    name: str,
    argument: str,
    calls: dict[str, tuple[Call, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    function, good = calls[name]
    lines: list[str] = []
    for value in VALUES.values():
        try:
            function(**good | {argument: value})
        except DipgoError as error:
            lines.append(str(error))
    assert lines, "no value was refused"
    assert all(len(line) < LONGEST and line.isprintable() for line in lines)


WORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "numpy's number of pictures": (
        {"num_images_per_prompt": np.int64(2)},
        {"num_images_per_prompt": 2},
    ),
    "numpy's seed": ({"seed": np.uint32(7)}, {"seed": 7}),
    "numpy's scale": ({"guidance_scale": np.float32(2.5)}, {"guidance_scale": 2.5}),
    "a whole scale": ({"guidance_scale": np.int64(3)}, {"guidance_scale": 3.0}),
    "a tuple of prompts": ({"prompt": ("a", "b")}, {"prompt": ["a", "b"]}),
    "numpy's text": ({"prompt": np.str_("a")}, {"prompt": "a"}),
    "an array of texts": ({"prompt": np.array(["a", "b"])}, {"prompt": ["a", "b"]}),
}


@pytest.mark.parametrize("name", WORKS)
def test_numbers_and_lists_of_other_types_are_what_they_look_like(
    name: str, pipeline: Pipeline
) -> None:
    common: dict[str, Any] = {"prompt": "a", "seed": 7, "output_type": "latent"}
    found, expected = (pipeline(**common | one).images for one in WORKS[name])
    assert np.array_equal(found, expected)


MESSAGES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown name": (
        {"guidence_scale": 3},
        r"^guidence_scale: found an argument that Pipeline does not take; .*"
        r"did you mean guidance_scale\?$",
    ),
    "a set of prompts": ({"prompt": {"a"}}, "^prompt: found a set; expected a text, the number"),
    "True as a seed": ({"seed": True}, "^seed: found True; expected a whole number"),
    "a scale without end": ({"guidance_scale": 10**400}, "^guidance_scale: found a number of "),
    "a scale above float32": ({"guidance_scale": 1e39}, r"^guidance_scale: found 1e\+39; "),
    "a callback": (
        {"callback_on_step_end": 5},
        r"^callback_on_step_end: found 5 \(int\); expected a function or None",
    ),
    "inputs": ({"inputs": 5}, r"^inputs: found 5 \(int\); expected a mapping"),
    "a negative prompt": ({"negative_prompt": 5}, r"^negative_prompt: found 5 \(int\); "),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_line_names_the_argument(name: str, pipeline: Pipeline) -> None:
    changes, message = MESSAGES[name]
    with pytest.raises(DipgoError, match=message):
        pipeline(**{"prompt": "a", "output_type": "latent"} | changes)


LOADS: dict[str, tuple[dict[str, Any], str]] = {
    "a path": ({"path": None}, "^path: found None; expected text or a path"),
    "a path of bytes": ({"path": b"out"}, r"^path: found b'out' \(bytes\); "),
    "a path with NUL": ({"path": "a\0b"}, "^path: found a NUL character in "),
    "threads": ({"threads": "2"}, r"^threads: found '2' \(str\); expected a whole number"),
    "half a thread": ({"threads": 1.5}, r"^threads: found 1.5 \(float\); expected a whole number"),
    "many threads": ({"threads": 10000}, "^threads: found 10000; expected a whole number from 0"),
    "an unknown name": ({"thread": 2}, r"thread: found .* load does not take; .*mean threads\?"),
    "another's name": ({"device": "cuda"}, r"^device: found .*; did you mean provider\?"),
    "a target": ({"target": "onnxrutime"}, r"; did you mean onnxruntime\?$"),
    "a provider": ({"provider": "cudda"}, r"; did you mean cuda\?$"),
}


@pytest.mark.parametrize("name", LOADS)
def test_the_line_names_the_argument_of_load(name: str, exported: Path) -> None:
    changes, message = LOADS[name]
    with pytest.raises(DipgoError, match=message):
        load(**{"path": exported, "check_hashes": False} | changes)


@pytest.mark.parametrize("function", [load, export, refit, evaluate, search, Pipeline.from_export])
def test_missing_and_positional_arguments(function: Call) -> None:
    with pytest.raises(DipgoError, match=r"\(\): found missing a required argument"):
        function()
    with pytest.raises(DipgoError, match=r"\(\): found too many positional arguments"):
        function(*["a"] * 9)


@pytest.mark.parametrize(
    ("function", "wrong", "right"),
    [
        (export, "step", "steps"),
        (export, "num_inference_steps", "steps"),
        (export, "torch_dtype", "precision"),
        (evaluate, "pair", "pairs"),
    ],
)
def test_names_of_settings(function: Call, wrong: str, right: str, tmp_path: Path) -> None:
    good: dict[str, Any] = {"model": "no"}
    if function is evaluate:
        good |= {"subnets": {}, "dense": (2, None), "prompts": ["a"], "cache": tmp_path}
    with pytest.raises(DipgoError, match=rf"^{wrong}: found .*; did you mean {right}\?$"):
        function(**good, **{wrong: 2})


def test_an_earlier_name_of_a_setting_is_taken_with_a_warning(tmp_path: Path) -> None:
    good: dict[str, Any] = {"subnets": {}, "dense": (2, None), "prompts": ["a"], "cache": tmp_path}
    with (
        pytest.warns(dipgo.DipgoWarning, match="guidance is called guidance_scale now") as caught,
        pytest.raises(DipgoError, match=r"^subnets: found none"),
    ):
        evaluate("no", **good, guidance=5)
    assert caught[0].filename == __file__
