"""The library's calls leave the state of the process as they found it: it is the caller's."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import dipgo
from dipgo.common.safe_pickle import load_data
from dipgo.compiler import interpret
from dipgo.compiler.passes import run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.unroll import unroll
from dipgo.engines import Runner, load
from dipgo.engines.timing import random_inputs
from dipgo.evaluate import evaluate
from dipgo.export import export, refit
from dipgo.ir import parse_plan, verify
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models import register_family, registry
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.schedules import (
    at_kept,
    at_kept_by_bisection,
    block_caching,
    deepcache,
    deepcache_nonuniform,
    faster_diffusion,
    faster_diffusion_with,
    fewer_steps,
    fewer_steps_with,
    fora,
    greedy,
    knapsack,
    learning_to_cache,
    random_gates,
    smooth_cache,
    steps_of,
)
from dipgo.search import SearchRequest, SearchSettings, published, search
from scripts.generate.python_reference import PUBLIC, public_names
from tests.support.process_state import LIBRARIES, changes, process_state, use_libraries
from tests.support.random_graphs import random_graph
from tests.support.tiny_schedules import dense_subnet, random_changes
from tests.support.tiny_search import PROMPTS, small, tiny_request

Call = Callable[[Path, Path], object]
"""Of the tiny pipeline and a folder to write to."""


def _search(**settings: Any) -> Call:
    return lambda model, _: search(model, tiny_request(0.6), PROMPTS, small(**settings))


def _export(model: Path, folder: Path, **options: Any) -> Path:
    out = folder / "export"
    return export(model, "dense", out, **{"steps": 3, "scheduler": "ddim", **options})


def _run(model: Path, folder: Path) -> None:
    pipeline = dipgo.Pipeline.from_export(_export(model, folder), clones=2)
    latents = pipeline("a red circle", seed=0, output_type="latent").images
    pipeline.decode(latents)
    pipeline.clone()("a red circle", generator=torch.Generator().manual_seed(1))
    runner = load(folder / "export")
    runner.clone().run(random_inputs(runner))
    runner.describe()
    runner.close()
    pipeline.close()


def _refit(model: Path, folder: Path) -> None:
    refit(_export(model, folder), model, folder / "refitted")


def _evaluate(model: Path, folder: Path) -> None:
    timesteps = (667.0, 334.0, 1.0)
    subnet = SubNet.dense(timesteps, ("mid_block",), num_inference_steps=3)
    evaluate(model, {"all": subnet}, (3, "ddim"), PROMPTS, cache=folder, pairs=2, time_repeats=1)


def _subnet(_: Path, folder: Path) -> None:
    subnet = SubNet.dense((3.0, 2.0, 1.0), ("mid_block",), num_inference_steps=3)
    subnet.save(folder / "subnet.json")
    SubNet.load(folder / "subnet.json")


def _plan(_: Path, folder: Path) -> None:
    drawn = random_graph(0)
    blocks = [block.name for block in drawn.traced.graph.blocks]
    sampler = probe(DDIMScheduler(clip_sample=False), 3)
    subnet = SubNet.dense(sampler.timesteps, blocks, num_inference_steps=3)
    plan = run_passes(unroll(drawn.traced.graph, subnet, sampler))
    interpret(verify(parse_plan(str(plan))), drawn.traced, drawn.inputs)


def _learning_to_cache(folder: Path) -> None:
    routers = {f"{step}.prob": torch.zeros(2) for step in range(4)}
    torch.save({"routers": routers, "args": argparse.Namespace()}, folder / "router.pt")
    blocks = ("transformer_blocks.0.attn1", "transformer_blocks.0.ff")
    learning_to_cache(folder / "router.pt", dense_subnet(blocks, 4))


def _rules(_: Path, folder: Path) -> None:
    dense = dense_subnet()
    macs = dict.fromkeys(dense.blocks, 1.0)
    losses = np.ones(dense.gates.shape)
    changes = random_changes(dense)
    dense_with_input = dense_subnet(("conv_in", *dense.blocks))
    fewer_steps(dense, 4, (4.0, 3.0, 2.0, 1.0))
    fewer_steps_with(dense, 4, lambda steps: tuple(range(steps, 0, -1)))
    steps_of(random_gates(dense, 0.5), macs, 4)
    deepcache(dense, 3)
    deepcache_nonuniform(dense, 3)
    blocks, timesteps = dense_with_input.blocks, dense_with_input.timesteps
    faster_diffusion(blocks, timesteps, num_inference_steps=50)
    faster_diffusion_with(dense_with_input, 4)
    fora(dense, 3)
    block_caching(dense, changes, 1.0)
    smooth_cache(dense, changes, 0.5)
    greedy(dense, losses, 40)
    knapsack(dense, losses, macs, 0.5)
    _learning_to_cache(folder)

    def kept(subnet: SubNet) -> float:
        return float(subnet.gates.mean())

    at_kept(lambda n: fora(dense, n), range(1, 9), kept, 0.5)
    at_kept_by_bisection(lambda n: fora(dense, n), range(1, 9), kept, 0.5)


def _settings(*_: Path) -> None:
    published(SearchSettings())
    SearchRequest(0.5, 4, "ddim")
    register_family(UNetFamily())
    registry.REGISTERED.pop(0)


CALLS: dict[str, Call] = {
    "search by gradient": _search(exchanges=0, reuse_terms=0),
    "search by gradient, pruner": _search(
        exchanges=0, reuse_terms=0, parameters="pruner", iterations=1
    ),
    "search by exchange": _search(iterations=0),
    "export": _export,
    "export, fp16": lambda model, folder: _export(model, folder, precision="fp16"),
    "export, torch": lambda model, folder: _export(model, folder, target="torch"),
    "run": _run,
    "refit": _refit,
    "evaluate": _evaluate,
    "subnet": _subnet,
    "plan": _plan,
    "schedules": _rules,
    "settings": _settings,
}

NEED_A_NETWORK = {"from_pretrained", "push_to_hub"}

SHORT = {"subnet", "plan", "schedules", "settings"}


def _public_functions() -> set[str]:
    """The public functions, and the methods of the classes that users call."""
    found = set()
    for package in PUBLIC:
        module = importlib.import_module(package)
        values = {name: getattr(module, name) for name in public_names(package)}
        found |= {name for name, value in values.items() if inspect.isroutine(value)}
    for cls in (dipgo.Pipeline, Runner):
        found |= {name for name, value in vars(cls).items() if callable(value) and name[0] != "_"}
    return found - NEED_A_NETWORK


def test_every_public_function_is_called_here() -> None:
    tree = ast.parse(Path(__file__).read_text())
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    named |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert _public_functions() <= named


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SHORT else pytest.mark.slow) for name in CALLS],
)
def test_the_process_is_left_as_it_was(name: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    torch.manual_seed(2410)
    for library in LIBRARIES:
        library.set_verbosity_info()
        library.enable_progress_bar()
    use_libraries()
    before = process_state()
    try:
        CALLS[name](tiny_pipeline, tmp_path)
        after = process_state()
    finally:
        for library in LIBRARIES:
            library.set_verbosity_warning()
    assert not changes(before, after)


def test_a_search_settles_nothing_for_the_callers_accelerator() -> None:
    """One before it does not change a search's precision, and one after it has its own."""
    code = """
import torch
from accelerate import Accelerator
from dipgo.search.one_process import make_accelerator
ours = make_accelerator()
theirs = Accelerator(cpu=True, mixed_precision="bf16")
for accelerator in (ours, make_accelerator()):
    with accelerator.autocast():
        print((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
print(theirs.mixed_precision)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["torch.float32", "torch.float32", "bf16"]


def test_threads_that_silence_warnings_put_the_filters_back() -> None:
    """Gate pickles of torch tensors, read by several threads at a time."""
    data, interval = pickle.dumps({"gates": torch.ones(3)}), sys.getswitchinterval()
    before = list(warnings.filters)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: load_data(data, name="gates"), range(1000)))
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


def test_imports_change_nothing_either() -> None:
    """In a new process, of what needs no other library; libraries have their own habits."""
    code = """
import logging, os, signal, sys, warnings
def state():
    return (dict(os.environ), list(warnings.filters), warnings.showwarning, os.getcwd(),
            {n: signal.getsignal(n) for n in signal.valid_signals()}, logging.root.level,
            logging.root.handlers[:], sys.excepthook, sys.stdout, sys.getrecursionlimit())
import numpy, onnxruntime, PIL.Image, safetensors, tokenizers
before = state()
import dipgo, dipgo.engines, dipgo.ir, dipgo.schedules, dipgo.run.pipeline, dipgo.bench
for name in dipgo.__all__: getattr(dipgo, name)
print(before == state())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "True"), result.stderr
