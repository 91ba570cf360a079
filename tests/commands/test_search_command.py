"""`python -m dipgo.search`: bad input takes one line; costs that are timed; every rival."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.compiler.passes import OPTIMISE, run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.unroll import unroll
from dipgo.export import export
from dipgo.ir.plan.cost import plan_cost
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules import RULES
from dipgo.search.__main__ import DIPGO, main
from dipgo.search.cost.budget import TOLERANCE
from dipgo.search.problem import Problem
from dipgo.search.rivals import Rivals
from dipgo.search.settings import SearchSettings
from tests.support.tiny_search import PROMPTS, STEPS, rows_on
from tests.support.zoo import ZOO

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tiny_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command, with other options (None leaves one out): exit code, last line."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))

    def go(**changes: object) -> tuple[int, str]:
        given = {"model": tiny_pipeline, "prompts": prompts, "out": tmp_path / "subnet.json"}
        numbers = {"steps": STEPS, "ratio": 0.5, "batch": 1, "pool": 1, "exchanges": 2}
        few = {"reuse_filter": 0, "reuse_iterations": 1, "exchange_examples": 1}
        few |= {"scheduler": "ddim", "held_out": 0}
        if changes.get("method", DIPGO) != DIPGO:  # rules do not take the search's settings
            numbers, few = {"steps": STEPS, "ratio": 0.5, "batch": 1}, {"scheduler": "ddim"}
        options = {**given, **numbers, **few, **changes}
        texts = [
            text
            for name, value in options.items()
            if value is not None
            for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        code = run_command(main, [*texts, "--force"])
        printed = capsys.readouterr()
        return code, (printed.err if code else printed.out).splitlines()[-1]

    return go


def _check_refused(found: tuple[int, str], *fragments: str) -> None:
    """Exit code 2, and the fragments in the line, in order."""
    code, line = found
    assert code == 2, line
    assert line.startswith("error: ")
    rest = line
    for fragment in fragments:
        assert fragment in rest, f"{fragment!r} is not in its place in {line!r}"
        rest = rest[rest.index(fragment) + len(fragment) :]


REFUSED: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "no prompts": ({"prompts": None}, ("--prompts", "found nothing", "one prompt a line")),
    "a file that is not there": ({"prompts": "none.txt"}, ("none.txt", "found nothing")),
    "ratio 0": ({"ratio": 0}, ("--ratio", "found 0", "above 0 and below 1")),
    "ratio 1": ({"ratio": 1}, ("--ratio", "found 1", "above 0 and below 1")),
    "ratio 1.5": ({"ratio": 1.5}, ("--ratio", "found 1.5", "above 0 and below 1")),
    "ratio nan": ({"ratio": "nan"}, ("--ratio", "found nan", "above 0 and below 1")),
    "one step": ({"steps": 1}, ("--steps", "found 1", "at least 2")),
    "a rate of 0": ({"learning_rate": 0}, ("--learning-rate", "found 0", "above 0")),
    "a scale below 1": ({"guidance_scale": 0.5}, ("--guidance-scale", "found 0.5", "at least 1")),
    "a range from above": (
        {"guidance_scale": "9..3"},
        ("--guidance-scale", "found 9..3", "a range of scales such as 3..9"),
    ),
    "half a range": ({"guidance_scale": "3.."}, ("--guidance-scale", "'3..'", "such as 3..9")),
    "a scale nan": ({"guidance_scale": "nan"}, ("--guidance-scale", "found nan", "finite")),
    "an endless range": ({"guidance_scale": "1..inf"}, ("--guidance-scale", "1..inf", "finite")),
    "no sharpness": ({"sharpness_start": 0}, ("--sharpness-start", "found 0", "above 0")),
    "a cost of none": ({"cost": "price"}, ("--cost", "found price", "latency:OUT")),
    "a cost of no export": ({"cost": "latency:none"}, ("none", "found", "expected")),
    "a log nowhere": ({"log": "none/log.csv"}, ("none/log.csv", "found", "expected")),
    "out nowhere": ({"out": "none/subnet.json"}, ("none", "found", "expected")),
    "a method of none": ({"method": "guess"}, ("--method", "guess", "deepcache")),
    "steps of nothing": ({"method": "steps-of"}, ("--of", "found nothing", "give --of")),
    "no router": ({"method": "l2c"}, ("--router", "found nothing", "give --router")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes, fragments = REFUSED[name]
    _check_refused(run(**changes), *fragments)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_prompts_of_blank_lines_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n  \n")
    _check_refused(run(prompts=tmp_path / "blank.txt"), "blank.txt", "found no prompts")


def test_a_ratio_out_of_reach_names_the_nearest(run: Run, problem: Problem) -> None:
    least = problem.cost.fixed
    nearest = f"{np.floor((1 - least) * 1e4) / 1e4:.4f}"
    _check_refused(run(ratio=0.999), "--ratio", "found 0.9990", f"a ratio from 0 to {nearest}")
    assert run(ratio=nearest)[0] == 0


def test_filters_count_in_the_nearest_ratio(run: Run, problem: Problem) -> None:
    """What is out of reach with them, and is not without."""
    least = problem.with_filters(SearchSettings().reuse_terms, True, 3).cost.fixed
    nearest = f"{np.floor((1 - least) * 1e4) / 1e4:.4f}"
    without = f"{np.floor((1 - problem.cost.fixed) * 1e4) / 1e4:.4f}"
    assert float(nearest) < float(without)
    filters = {"reuse_filter": 3, "reuse_iterations": None}
    _check_refused(run(ratio=without, **filters), "--ratio", f"a ratio from 0 to {nearest}")
    assert run(ratio=nearest, **filters)[0] == 0


CALIBRATED = [rule.name for rule in RULES.values() if "prompts" in rule.options]


def test_calibrated_methods_need_prompts(run: Run) -> None:
    _check_refused(run(method="smooth-cache", prompts=None), "--prompts", "measures the model")


@pytest.mark.parametrize("method", CALIBRATED)
def test_every_calibrated_method_asks_for_prompts(problem: Problem, method: str) -> None:
    with pytest.raises(Exception, match=r"^prompts: found nothing; expected prompts"):
        Rivals(problem).make(method, 0.5)


# Checkpoints that are not this search's.


@pytest.fixture
def state(run: Run, tmp_path: Path) -> Path:
    """A search's folder of checkpoints."""
    folder = tmp_path / "state"
    assert run(checkpoint=folder, iterations=1)[0] == 0
    return folder


def test_a_checkpoint_of_other_settings_is_refused(state: Path, run: Run) -> None:
    for changes, name, values in (
        ({"learning_rate": 0.3}, "learning_rate", ("found 0.15", "expected 0.3")),
        ({"ratio": 0.4}, "kept", ("found 0.5", "expected 0.6")),
        (
            {"scheduler": "euler"},
            "scheduler",
            ('found "DDIMScheduler"', 'expected "EulerDiscreteScheduler"'),
        ),
    ):
        found = run(checkpoint=state, iterations=1, **changes)
        _check_refused(found, f"safetensors, {name}", *values, "remove the file to start over")


def test_a_checkpoint_of_another_model_is_refused(
    state: Path, run: Run, tiny_pipeline: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline)
    with torch.no_grad():
        pipeline.unet.conv_in.bias += 0.5
    pipeline.save_pretrained(tmp_path / "other")
    found = run(model=tmp_path / "other", checkpoint=state, iterations=1)
    _check_refused(found, "gates.safetensors, weights", "found", "expected")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["gates", "exchange", "reuse"])
def test_a_checkpoint_that_is_none_is_refused(stage: str, state: Path, run: Run) -> None:
    path = state / f"{stage}.safetensors"
    for content in (b"", path.read_bytes()[:100], path.read_bytes()[:-4]):
        path.write_bytes(content)
        found = run(checkpoint=state, iterations=1)
        _check_refused(found, f"{stage}.safetensors", "found no checkpoint of a search", "remove")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["gates", "exchange", "reuse"])
def test_a_checkpoint_of_another_version_is_refused(stage: str, state: Path, run: Run) -> None:
    """A later or earlier dipgo stores other tensors under the same names."""
    path = state / f"{stage}.safetensors"
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
    tensors = load_file(path)
    for version in ("1", None):
        changed = {key: one for key, one in header.items() if key != "version"}
        save_file(tensors, path, metadata=changed | ({"version": version} if version else {}))
        found = run(checkpoint=state, iterations=1)
        _check_refused(found, f"{stage}.safetensors, version", "found 1; expected 3", "start over")


def test_a_file_in_place_of_the_folder_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    _check_refused(run(checkpoint=tmp_path / "state"), "state", "something that is not a folder")


# Costs that are timed.

ONE_BY_ONE = tuple(one.name for one in OPTIMISE if one.name not in ("form_segments", "batch_calls"))
"""Passes that leave every block a callee of its own."""


@pytest.fixture(scope="module")
def timed(tiny_pipeline: Path, problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose every block has a time of its own."""
    return export(
        tiny_pipeline,
        "dense",
        tmp_path_factory.mktemp("timed") / "out",
        steps=2,
        scheduler="ddim",
        blocks=problem.blocks,
        passes=ONE_BY_ONE,
    )


@pytest.mark.slow
def test_a_search_by_latency(run: Run, timed: Path, tmp_path: Path) -> None:
    code, line = run(cost=f"latency:{timed}")
    assert code == 0, line
    found = SubNet.load(tmp_path / "subnet.json")
    assert found.provenance["kept"] <= 0.5


def test_times_of_other_blocks_are_refused(run: Run, timed: Path) -> None:
    found = run(cost=f"latency:{timed}", blocks="up_blocks.0.resnets.0")
    _check_refused(found, "latency, ", "found no time", "same blocks")


# Rivals.


@pytest.fixture(scope="module")
def rivals(problem: Problem) -> Rivals:
    """With all that they need but a router."""
    of = problem.subnet(rows_on(problem, 0, 1, 4), {"method": "hand"})
    return Rivals(problem, PROMPTS, of=of)


def test_the_command_knows_every_rival(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"--method {{dipgo,{','.join(RULES)}}}" in printed
    for option in {name for rule in RULES.values() for name in rule.options} - {"prompts"}:
        names = ", ".join(rule.name for rule in RULES.values() if option in rule.options)
        assert f"--{option} FILE {names}: " in printed


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(set(RULES) - {"l2c"}))
def test_every_rival_compiles_at_its_share(method: str, problem: Problem, rivals: Rivals) -> None:
    target = 0.9 if method == "faster-diffusion" else 0.75  # its decoder runs at every step
    made = rivals.make(method, target)
    if method != "fewer-steps":
        assert problem.cost.kept(made.gates) <= target + TOLERANCE
    sampler = probe(problem.scheduler, made.num_inference_steps, prior_noise=made.prior_noise)
    plan = run_passes(unroll(problem.traced.graph, made, sampler))
    dense = run_passes(unroll(problem.traced.graph, rivals.dense, problem.sampler))
    kept = plan_cost(plan).macs / plan_cost(dense).macs
    assert kept <= target + TOLERANCE


def test_fewer_steps_count_what_a_sampler_evaluates_twice(repeating: Problem) -> None:
    """PNDM: one step takes two evaluations, of six in five steps."""
    assert Rivals(repeating).make("fewer-steps", 0.34).num_inference_steps == 1
    with pytest.raises(DipgoError, match=r"kept share of 0\.3; expected at least one step of 5"):
        Rivals(repeating).make("fewer-steps", 0.3)


@pytest.mark.parametrize("method", ["deepcache", "faster-diffusion"])
def test_a_rival_that_cannot_says_so(method: str, run: Run, tmp_path: Path) -> None:
    """The outer layers, or the decoder, at every step cost more."""
    found = run(method=method, ratio=0.78, steps=5)
    _check_refused(found, "kept share", "with the cheapest of the family", "at most 0.22")
    assert not (tmp_path / "subnet.json").exists()


@pytest.mark.parametrize("method", ["random", "fewer-steps"])
def test_a_rival_s_file_can_be_exported(
    method: str, run: Run, tiny_pipeline: Path, tmp_path: Path
) -> None:
    code, line = run(method=method, prompts=None)
    assert code == 0, line
    assert line.startswith(f"wrote {tmp_path / 'subnet.json'}: ")
    made = SubNet.load(tmp_path / "subnet.json")
    assert run(method="steps-of", of=tmp_path / "subnet.json")[0] == (
        0 if made.num_inference_steps == STEPS else 2
    )


class _Router(torch.nn.Module):
    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.prob = torch.nn.Parameter(torch.tensor(logits))


def test_a_router_becomes_gates(tmp_path: Path) -> None:
    """On a DiT, whose attentions and MLPs are gated."""
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    pipeline = DiTPipeline(ZOO["dit"].build(), vae, DDIMScheduler(clip_sample=False))
    pipeline.save_pretrained(tmp_path / "dit")
    generator = np.random.default_rng(0)
    routers = torch.nn.ModuleList([_Router(generator.normal(size=8).tolist()) for _ in range(6)])
    settings = argparse.Namespace(lr=0.01)
    torch.save({"routers": routers.state_dict(), "args": settings}, tmp_path / "router.pt")
    options = {
        "model": tmp_path / "dit",
        "method": "l2c",
        "router": tmp_path / "router.pt",
        "steps": 6,
        "ratio": 0.2,
        "out": tmp_path / "subnet.json",
    }
    texts = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    blocks = ["transformer_blocks.*.attn1", "transformer_blocks.*.ff"]
    assert run_command(main, [*texts, "--blocks", *blocks]) == 0
    gates = SubNet.load(tmp_path / "subnet.json").gates
    assert gates[1::2].all() or gates[::2].all()
    assert not gates.all()


def test_a_missing_package_takes_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    _check_refused(run(), "dipgo.search: found no package accelerate", ".[export,search]")
