"""A caller's model is afterwards as it was: in every family, whatever was done to it, and if it
fails."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import DiffusionPipeline
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.source import trace_source
from dipgo.evaluate import evaluate
from dipgo.export import export, refit
from dipgo.models.as_found import left_as_found
from dipgo.models.source import load_source
from dipgo.search import SearchRequest, SearchSettings, search
from tests.support.tiny_pipeline import save_tiny_pipeline
from tests.support.zoo import ZOO
from tests.support.zoo_pipelines import bare_pipeline


def _modules(pipeline: Any) -> dict[str, nn.Module]:
    return {
        f"{name}.{path}": module
        for name, part in vars(pipeline).items()
        if isinstance(part, nn.Module)
        for path, module in part.named_modules()
    }


def look(pipeline: Any) -> dict[str, Any]:
    """Returns all that a caller could see of the models of a pipeline, by paths."""
    seen: dict[str, Any] = {"pipeline": {name: id(part) for name, part in vars(pipeline).items()}}
    for path, module in _modules(pipeline).items():
        attributes = dict(vars(module))
        tables = {name: value for name, value in attributes.items() if isinstance(value, dict)}
        seen[path] = (
            type(module),
            module.training,
            {name: id(value) for name, value in attributes.items() if name not in tables},
            {
                name: [(key, id(part)) for key, part in table.items()]
                for name, table in tables.items()
            },
        )
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                place = (id(tensor), tensor.dtype, tensor.device, tensor.requires_grad)
                seen[f"{path}.{name}"] = (*place, tensor.stride(), id(tensor.grad), _hash(tensor))
    return seen


def _hash(tensor: torch.Tensor) -> str:
    if tensor.is_meta:
        return "meta"
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def _disturb(pipeline: Any, seed: int) -> None:
    """Draws modes, gradients, types of attributes and hooks."""
    drawn = random.Random(seed)
    for module in _modules(pipeline).values():
        module.training = drawn.random() < 0.5
        if drawn.random() < 0.1:
            module.register_forward_hook(lambda module, inputs, output: None)
        if drawn.random() < 0.1:
            module.note = [drawn.random()]
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(drawn.random() < 0.5)
            if parameter.requires_grad and drawn.random() < 0.2:
                parameter.grad = torch.zeros_like(parameter)


def _compile(pipeline: Any) -> None:
    for module in _modules(pipeline).values():
        module.compile(backend="eager")


def _wrap(pipeline: Any) -> None:
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": _compile,
    "compiled object": _wrap,
    "offloaded by leaves": lambda pipeline: cpu_offload(pipeline.unet, execution_device="cpu"),
    "offloaded": lambda pipeline: cpu_offload_with_hook(pipeline.unet, execution_device="cpu"),
    "channels last": lambda pipeline: pipeline.unet.to(memory_format=torch.channels_last),
    "FreeU": lambda pipeline: pipeline.unet.enable_freeu(0.9, 0.2, 1.5, 1.6),
    "fused attention": lambda pipeline: pipeline.unet.fuse_qkv_projections(),
}


def _trace(pipeline: Any) -> None:
    source = load_source(pipeline)
    trace_source(source, source.geometry(), ())


@pytest.mark.parametrize("name", ZOO)
def test_every_family(name: str) -> None:
    """Failed at 21ce821 for all 17: weights were frozen and modules put into evaluation mode."""
    pipeline = bare_pipeline(name)
    _disturb(pipeline, list(ZOO).index(name))
    before = look(pipeline)
    with left_as_found(pipeline):
        _trace(pipeline)
        assert not any(module.training for module in _modules(pipeline).values())
    assert look(pipeline) == before


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_wraps_it(name: str) -> None:
    """And the wrapped model is traced as the plain one."""
    pipeline = bare_pipeline("asymmetric")
    WRAPPERS[name](pipeline)
    before = look(pipeline)
    with left_as_found(pipeline):
        _trace(pipeline)
    assert look(pipeline) == before


@pytest.mark.parametrize("fails", [False, True])
def test_several_users_at_a_time(fails: bool) -> None:
    """The last puts it back, in whatever order they end."""
    pipeline = bare_pipeline("one_level")
    _disturb(pipeline, 3)
    before, barrier, rest = look(pipeline), threading.Barrier(2), threading.Event()

    def use(first: bool) -> None:
        try:
            with left_as_found(pipeline):
                barrier.wait()
                pipeline.unet.eval().requires_grad_(False)
                barrier.wait()
                if not first:
                    rest.wait(10)
                    assert not pipeline.unet.training
                if fails:
                    raise ValueError
        except ValueError:
            pass
        if first:
            rest.set()

    threads = [threading.Thread(target=use, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert look(pipeline) == before


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = save_tiny_pipeline(tmp_path_factory.mktemp("found") / "pipeline")
    loaded = DiffusionPipeline.from_pretrained(path)
    _disturb(loaded, 7)
    return loaded


REQUEST = SearchRequest(ratio=0.53, steps=3, scheduler="ddim", batch=1)

SETTINGS = SearchSettings(iterations=1, pool=1, exchanges=0, reuse_terms=0)

FAILURES: dict[str, Callable[[Any, Path], Any]] = {
    "export": lambda pipeline, out: export(pipeline, "dense", out, steps=3, keep_fp32=("none",)),
    "export, at its end": lambda pipeline, out: export(
        pipeline, "dense", out, steps=3, passes=("allocate_slots", "form_segments")
    ),
    "search": lambda pipeline, out: search(pipeline, REQUEST, [], SETTINGS),
    "search, no such block": lambda pipeline, out: search(
        pipeline, SearchRequest(ratio=0.5, steps=3, blocks=("none",)), ["red"], SETTINGS
    ),
    "evaluate": lambda pipeline, out: evaluate(
        pipeline, {"none": out / "none.json"}, (3, None), ["red"], cache=out
    ),
    "evaluate, no such scheduler": lambda pipeline, out: evaluate(
        pipeline, {}, (3, "none"), ["red"], cache=out, pairs=1
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails(name: str, pipeline: Any, tmp_path: Path) -> None:
    before = look(pipeline)
    with pytest.raises(DipgoError):
        FAILURES[name](pipeline, tmp_path / "out")
    assert look(pipeline) == before


@pytest.mark.slow
def test_what_succeeds(pipeline: Any, tmp_path: Path) -> None:
    """Failed at 21ce821: in each, the denoiser was frozen, and in a search the VAE too."""
    before = look(pipeline)
    out = export(pipeline, "dense", tmp_path / "out", steps=2, precision="fp16")
    assert look(pipeline) == before
    refit(out, pipeline, tmp_path / "again", check_numerics=False)
    assert look(pipeline) == before
    subnet = search(pipeline, REQUEST, ["red"], SearchSettings(iterations=1, pool=1, exchanges=0))
    assert look(pipeline) == before
    evaluate(
        pipeline, {"found": subnet}, (3, "ddim"), ["red"], cache=tmp_path, pairs=2, time_repeats=0
    )
    assert look(pipeline) == before
