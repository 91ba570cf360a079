"""Several sizes in one export: the same graphs, a plan for each size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.nn import functional

from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.compiler.compile import Compiled, compile_plan
from dipgo.compiler.passes import OPTIMISE
from dipgo.compiler.request import prepare
from dipgo.compiler.settings import Request
from dipgo.compiler.trace.dtypes import TORCH_DTYPES
from dipgo.compiler.trace.symbolic_sizes import SizedModule
from dipgo.compiler.trace.trace import trace
from dipgo.engines import load
from dipgo.engines.tensorrt.build import BuildOptions, build_engines
from dipgo.engines.timing import random_inputs
from dipgo.export import export
from dipgo.export.__main__ import main as export_main
from dipgo.inspect import main as inspect_main
from dipgo.ir.graph import Dependence
from dipgo.ir.manifest.engines import ENGINES_FILE, EngineManifest
from dipgo.ir.plan.nodes import Callee
from dipgo.models.model import Source
from dipgo.run.pipeline import Pipeline
from tests.support.random_subnets import subnet_of_random_rows
from tests.support.rare import rare_unless
from tests.support.zoo import ZOO, case

SIZES: list[tuple[int, ...]] = [(1, 64, 64), (128, 64), (64, 192), (3, 64, 128)]
"""The first is that of the export itself."""
MODELS = ["one_level", "asymmetric", "no_cross_attention", "three_levels", "sdxl", "dit", "sd3"]
TOLERANCE = 1e-5


def source_of(name: str) -> Source:
    family, scheduler = ZOO[name].family, DDIMScheduler(clip_sample=False)
    return Source("zoo", case(name, "block").denoiser, family, scheduler, 8, tokens=7)


def sizes_of(name: str) -> list[tuple[int, ...]]:
    """Position embeddings are made for one size of picture: for as many of them as one likes."""
    return [(1, 64, 64), (3, 64, 64)] if name in ("dit", "sd3") else SIZES


def geometry_of(size: tuple[int, ...]) -> dict[str, int]:
    *batch, height, width = size
    return {"batch": batch[0] if batch else 1, "height": height, "width": width}


def compiled_for(name: str, size: tuple[int, ...]) -> Compiled:
    blocks = tuple(block.name for block in case(name, "block").traced.graph.blocks)
    request = Request(subnet_of_random_rows(blocks, 4, 0.5), **geometry_of(size))
    prepared = prepare(source_of(name), request)
    passes = [one for one in OPTIMISE if one.name != "batch_calls"]
    return compile_plan(prepared.source, prepared.schedule, prepared.geometry, passes)


def module_of(compiled: Compiled, callee: Callee) -> torch.fx.GraphModule:
    inputs, outputs = ([v.name for v in side] for side in (callee.inputs, callee.outputs))
    return compiled.traced.module(callee.members or (callee.name,), inputs, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_one_module_is_the_trace_of_each_size(name: str) -> None:
    """Bit for bit, every segment."""
    compiled = [compiled_for(name, size) for size in sizes_of(name)]
    for callees in zip(*(one.plan.callees for one in compiled), strict=True):
        modules = [module_of(*pair) for pair in zip(compiled, callees, strict=True)]
        sized = SizedModule(modules)
        for module, callee in zip(modules, callees, strict=True):
            inputs = [
                torch.rand(v.type.shape).to(TORCH_DTYPES[v.type.dtype]) for v in callee.inputs
            ]
            for found, expected in zip(sized(*inputs), module(*inputs), strict=True):
                assert torch.equal(found, expected)


ODD = [(64, 64), (120, 136), (136, 72)]
"""Of 8 and 8, 15 and 17, 17 and 9 latents, where a U-Net resizes to the skip connection's size."""


@pytest.mark.slow
@pytest.mark.parametrize("first", range(len(ODD)))
@pytest.mark.parametrize("name", rare_unless(lambda name: name == "asymmetric", MODELS[:4]))
def test_odd_sizes_share_a_graph(name: str, first: int) -> None:
    """Whichever size comes first: some traces resize by a factor, others to a size."""
    sizes = [*ODD[first:], *ODD[:first]]
    compiled = [compiled_for(name, size) for size in sizes]
    for callees in zip(*(one.plan.callees for one in compiled), strict=True):
        modules = [module_of(*pair) for pair in zip(compiled, callees, strict=True)]
        sized = SizedModule(modules)
        for module, callee in zip(modules, callees, strict=True):
            inputs = [
                torch.rand(v.type.shape).to(TORCH_DTYPES[v.type.dtype]) for v in callee.inputs
            ]
            for found, expected in zip(sized(*inputs), module(*inputs), strict=True):
                assert torch.equal(found, expected)


@pytest.mark.slow
def test_odd_sizes_in_one_export(tmp_path: Path) -> None:
    """Each as an export of its own."""
    name, first, *further = "asymmetric", *ODD
    options = {"steps": 2, "check_numerics": False}
    out = export(
        source_of(name),
        "dense",
        tmp_path / "all",
        **geometry_of(first),
        also_sizes=further,
        **options,
    )
    for wanted in (first, further[0]):
        alone = load(
            export(
                source_of(name), "dense", tmp_path / f"{wanted}", **geometry_of(wanted), **options
            )
        )
        inputs = random_inputs(alone)
        expected = alone.run(inputs)["latents"]
        size = "" if wanted == first else "x".join(map(str, wanted))
        found = load(out, size=size).run(inputs)["latents"]
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < TOLERANCE


def _by_height(*results: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.fx.GraphModule]:
    """Traces of a model that computes otherwise for each height, all of as many operators."""

    class ByHeight(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (results[x.shape[-1] - 4](x),)

    traces = []
    for index in range(len(results)):
        x = torch.rand(1, 2, 4 + index, 4 + index)
        roles = {"x": Dependence.STATE}
        traced = trace(
            ByHeight(), {"x": x}, roles, (), model_class="", config_sha256="", prefix="none."
        )
        nodes = [node.name for node in traced.graph.nodes]
        traces.append(traced.module(nodes, ["x"], [traced.graph.output]))
    return traces


UNLIKE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], ...]] = {
    "a float": (lambda x: x * 2.0, lambda x: x * 2.5),
    "a float and a whole number": (lambda x: x.clamp(0.5), lambda x: x.clamp(0)),
    "a bound that is None": (lambda x: x.clamp(None, 1), lambda x: x.clamp(1, None)),
    "a truth value": (
        lambda x: x.mean(1, keepdim=True).sum(),
        lambda x: x.mean(1, keepdim=False).sum(),
    ),
    "a list and None": (
        lambda x: functional.interpolate(x, size=(8, 8)),
        lambda x: functional.interpolate(x, scale_factor=1.3, recompute_scale_factor=False),
    ),
    "the other operand": (
        lambda x: torch.sub(x.sin(), x.cos()),
        lambda x: (lambda a, b: torch.sub(b, a))(x.sin(), x.cos()),
    ),
    "a number that is no size": (lambda x: x.roll(1, 2), lambda x: x.roll(3, 2)),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_arguments_that_differ_in_more_than_sizes_are_refused(name: str) -> None:
    """No trace's argument stands in for another's."""
    traces = _by_height(*UNLIKE[name])
    sized = SizedModule(traces)
    with pytest.raises(DipgoError, match=r"^also_sizes: found .*; export each size by itself"):
        sized(torch.rand(1, 2, 4, 4))


@pytest.fixture(
    scope="module", params=["three_levels", pytest.param("sdxl", marks=pytest.mark.rare), "dit"]
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random gates, several sizes, with programs for PyTorch."""
    folder = tmp_path_factory.mktemp(request.param)
    blocks = tuple(block.name for block in case(request.param, "block").traced.graph.blocks)
    return export(
        source_of(request.param),
        subnet_of_random_rows(blocks, 4, 0.5),
        folder / request.param,
        also_sizes=sizes_of(request.param)[1:],
        target="torch",
    )


def each_size(name: str) -> list[tuple[str, int]]:
    return [(name, index) for index in range(len(sizes_of(name)))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exported", "index"),
    rare_unless(
        lambda name, index: name == "dit" or (name, index) == ("three_levels", 3),
        [pair for name in ("three_levels", "sdxl", "dit") for pair in each_size(name)],
    ),
    indirect=["exported"],
)
def test_every_size_equals_an_export_of_its_own(exported: Path, index: int, tmp_path: Path) -> None:
    name = exported.name
    blocks = tuple(block.name for block in case(name, "block").traced.graph.blocks)
    wanted = sizes_of(name)[index]
    size = "x".join(map(str, wanted)) if index else ""
    subnet = subnet_of_random_rows(blocks, 4, 0.5)
    alone = export(source_of(name), subnet, tmp_path / "out", **geometry_of(wanted))
    expected_runner = load(alone)
    inputs = random_inputs(expected_runner)
    expected = expected_runner.run(inputs)["latents"]
    for options in ({}, {"target": "torch", "provider": "cpu"}):
        found = load(exported, size=size, **options).run(inputs)["latents"]
        assert found.shape == expected.shape
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < TOLERANCE


@pytest.mark.slow
def test_one_engine_takes_all_sizes(exported: Path) -> None:
    """Profiles reach from the least to the most; nothing is run, for want of a GPU."""
    folder = build_engines(exported, "tensorrt-rtx", BuildOptions(("8.6",)))
    written = (folder / ENGINES_FILE).read_bytes()
    manifest = msgspec.json.decode(written, type=EngineManifest)
    (latents,) = (
        record.profile["latents"]
        for record in manifest.engines.values()
        if "latents" in record.profile
    )
    most = [3, 4, 8, 8] if exported.name == "dit" else [3, 4, 16, 24]
    assert (latents.min, latents.max) == ([1, 4, 8, 8], most)


@pytest.mark.slow
def test_pictures_of_several_sizes(tiny_pipeline: Path, tmp_path: Path) -> None:
    sizes = [(64, 96), (2, 64, 64)]
    out = export(tiny_pipeline, "dense", tmp_path / "out", steps=2, also_sizes=sizes)
    alone = export(tiny_pipeline, "dense", tmp_path / "alone", steps=2, height=64, width=96)
    found = Pipeline.from_export(out, size="64x96")("a red circle", seed=0, output_type="np").images
    expected = Pipeline.from_export(alone)("a red circle", seed=0, output_type="np").images
    assert found.shape == (1, 64, 96, 3)
    assert np.abs(found - expected).max() < 1e-4
    both = Pipeline.from_export(out, size="2x64x64")(["a red circle"] * 2, output_type="np")
    assert both.images.shape == (2, 64, 64, 3)


OTHER_BATCHES: list[list[tuple[int, int, int]]] = [
    [(1, 128, 128), (2, 64, 64)],
    [(2, 64, 64), (1, 128, 128)],
    [(1, 64, 192), (4, 64, 64), (2, 128, 64)],
]
"""The largest has one picture: that axis would be taken for a constant in its shapes."""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", rare_unless(lambda sizes: len(sizes) == 2, OTHER_BATCHES))
def test_the_largest_size_may_have_fewer_pictures(
    sizes: list[tuple[int, int, int]], tmp_path: Path
) -> None:
    first, *further = sizes
    source = source_of("one_level")
    options = {"steps": 2, "guidance": False}
    out = export(
        source, "dense", tmp_path / "out", also_sizes=further, **options, **geometry_of(first)
    )
    for size in sizes:
        alone = export(source, "dense", tmp_path / f"{size}", **options, **geometry_of(size))
        inputs = random_inputs(load(alone))
        name = "" if size == first else "x".join(map(str, size))
        found, expected = (
            runner.run(inputs)["latents"] for runner in (load(out, size=name), load(alone))
        )
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < TOLERANCE


def test_sizes_without_a_common_example(tmp_path: Path) -> None:
    """Of 8 pixels a latent, one has a latent for its height, the other for its width."""
    with pytest.raises(
        DipgoError, match=r"^also_sizes: found sizes each of which has an axis of 1"
    ):
        export(
            source_of("one_level"),
            "dense",
            tmp_path / "out",
            steps=2,
            height=8,
            width=64,
            also_sizes=[(64, 8)],
        )


def test_a_size_that_is_not_there(exported: Path) -> None:
    with pytest.raises(DipgoError, match="3x64x") as caught:
        load(exported, size="512x512")
    assert "also_sizes 512x512" in caught.value.remedy


def test_inspect_tells_the_sizes(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_main([str(exported), "--no-plan"])
    assert "3x64x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "size", "found"),
    [
        ("asymmetric", (65, 64), "65"),
        ("asymmetric", (64, 65), "65"),
        ("asymmetric", (64, 64), "the size of"),
        ("dit", (128, 128), "whose pictures have one size"),
        ("sd3", (128, 128), "other operators, or other weights"),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    model: str, size: tuple[int, int], found: str, tmp_path: Path
) -> None:
    with pytest.raises(DipgoError) as caught:
        export(source_of(model), "dense", tmp_path / "out", steps=2, also_sizes=[size])
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_size_that_is_none_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "arch:sd15", "--subnet", "dense", "--out", "x", "--also-size", "64"]
    assert run_command(export_main, arguments) == 2
    assert "a height and width in pixels" in capsys.readouterr().err
