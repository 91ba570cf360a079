"""Precision: half precision in the graph, its parity with fp32, and what is said where it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from dipgo.common.errors import DipgoError
from dipgo.compiler.compile import Compiled, compile_plan
from dipgo.compiler.oracle import Exact, Rounded, interpret
from dipgo.compiler.request import Prepared, prepare
from dipgo.compiler.settings import Request
from dipgo.compiler.trace.precision import Precision
from dipgo.engines import load
from dipgo.engines.tensorrt.build import BuildOptions, build_engines
from dipgo.export import export
from dipgo.export.precision.compare import check_segments
from dipgo.ir.graph import Dependence
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.plan.nodes import Read, TableRow
from dipgo.ir.plan.parse import parse_plan
from dipgo.ir.plan.plan import value_types
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.types import TensorType
from dipgo.models.model import Source
from tests.support.compare import relative_error
from tests.support.filtered import with_a_filter
from tests.support.rare import rare_unless
from tests.support.schedulers import ddim_for
from tests.support.zoo import (
    EVERY_WAY,
    FILTERS,
    GUIDANCE_CASES,
    UNGUIDED,
    ZOO,
    Case,
    case,
    is_common,
)

STEPS = 4
TOLERANCE = {"fp16": 5e-3, "bf16": 4e-2}
"""Relative L2 after all steps: a few times what one rounding of every number makes."""
NARROW = {"fp16": "f16", "bf16": "bf16"}


def prepared_case(name: str, guidance: bool = True) -> tuple[Case, Prepared]:
    """A model of the zoo, dense, in a few steps; without guidance where the family takes none."""
    guidance = guidance and name not in UNGUIDED
    chosen = case(name, "block", guidance)
    scheduler = ddim_for(name)
    source = Source("zoo", chosen.denoiser, ZOO[name].family, scheduler, 8, tokens=7)
    return chosen, prepare(source, Request("dense", steps=STEPS, guidance=guidance))


def compiled_case(prepared: Prepared, precision: Precision) -> Compiled:
    return compile_plan(prepared.source, prepared.schedule, prepared.geometry, precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "guidance", "precision"),
    rare_unless(
        lambda name, guidance, precision: (
            is_common(name, "block", guidance) and (precision == "fp16" or name in EVERY_WAY)
        ),
        [
            (name, guidance, precision)
            for name, grain, guidance in GUIDANCE_CASES
            for precision in NARROW
            if grain == "block"
        ],
    ),
)
def test_half_precision_is_close_to_fp32(name: str, guidance: bool, precision: str) -> None:
    chosen, prepared = prepared_case(name, guidance)
    exact = compiled_case(prepared, Precision())
    expected = interpret(exact.plan, exact.traced, chosen.inputs)
    narrow = compiled_case(prepared, Precision(precision))
    found = interpret(narrow.plan, narrow.traced, chosen.inputs)
    error = relative_error(found, expected)
    print(f"{name} {precision}: relative L2 {error:.1e}")
    assert 0 < error < TOLERANCE[precision]
    assert parse_plan(str(narrow.plan)) == narrow.plan


@pytest.mark.slow
@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("name", ["asymmetric", "dit"])
def test_filters_of_reuse_stay_in_fp32(name: str, precision: str) -> None:
    """As all that the sampler reads does; the table of their numbers too."""
    _, prepared = prepared_case(name)
    filtered = with_a_filter(prepared)
    compiled = compiled_case(filtered, Precision(precision))
    exact = compiled_case(filtered, Precision())
    (table,) = (one for one in compiled.plan.tables if one.name == FILTERS)
    assert (table.type.dtype, table.rows) == ("f32", (2,))
    (call,) = (one for one in compiled.plan.calls if TableRow(FILTERS, 2) in one.operands)
    types = value_types(compiled.plan)
    read = (leaf.name for leaf in call.leaves if isinstance(leaf, Read))
    assert {types[one] for one in (*read, *call.results)} == {types[compiled.plan.result]}
    inputs = case(name, "block").inputs
    expected = interpret(exact.plan, exact.traced, inputs)
    found = interpret(compiled.plan, compiled.traced, inputs)
    assert 0 < relative_error(found, expected) < TOLERANCE[precision]


@pytest.mark.parametrize(
    ("channels", "guidance", "error"),
    [
        (3, True, r"found filters of 3 channels for latents of shape \[1, 4, 8, 8\]; .+; use"),
        (4, False, r"found filters of unconditional predictions; .+; export with guidance, or"),
    ],
)
def test_filters_that_do_not_fit_are_refused(channels: int, guidance: bool, error: str) -> None:
    _, prepared = prepared_case("asymmetric", guidance)
    subnet = with_a_filter(prepared_case("asymmetric")[1]).schedule.subnet
    assert subnet is not None
    filters = np.ones((1, channels, channels, 3, 3))
    changed = replace(subnet, reuse_filters=(GapFilters((2, 3), filters, filters),), model=None)
    wrong = replace(prepared, schedule=replace(prepared.schedule, subnet=changed))
    with pytest.raises(DipgoError, match=f"^SubNet, reuse_filters: {error}"):
        compiled_case(wrong, Precision())


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_what_enters_and_leaves_the_plan_is_fp32(name: str) -> None:
    """And the sampler's state; what passes between segments is narrow."""
    _, prepared = prepared_case(name)
    plan = compiled_case(prepared, Precision("fp16")).plan
    types = value_types(plan)
    assert {value.type.dtype for value in plan.inputs} <= {"f32", "i64"}
    assert types[plan.result].dtype == "f32"
    passed = {types[slot.value] for slot in plan.slots if ":" in slot.value}
    frames = {TensorType("f32", (3, 1, 1, 1))} if name == "svd" else set()  # each frame's scale
    assert {one for one in passed if one.dtype not in ("f16", "i64")} == frames
    assert all(table.type.dtype == "f16" for table in plan.tables)


@pytest.mark.parametrize(
    "name", ["asymmetric", "dit", "sdxl", "sd3", "pixart_alpha", "unconditional"]
)
def test_weights_are_stored_narrow(name: str) -> None:
    """But for those that only what depends on the timestep reads: these are in no graph."""
    _, prepared = prepared_case(name)
    traced = compiled_case(prepared, Precision("fp16")).traced
    read_in_loop = {
        source.name
        for node_name, nodes in traced.partition.members.items()
        if Dependence.STATE in traced.partition.dependences[node_name]
        for node in nodes
        for source in node.all_input_nodes
        if source.name in traced.tensors
    }
    floating = {n for n in read_in_loop if traced.tensors[n].is_floating_point()}
    wide = {n for n in floating if traced.tensors[n].dtype != torch.float16}
    assert floating
    assert not wide


@pytest.mark.parametrize("name", ["sdxl", "flux", "svd", "pixart_alpha"])
def test_angles_of_embeddings_are_in_fp32(name: str) -> None:
    """Sizes and scales of a thousand radians: in fp16 their sines would be those of others."""
    _, prepared = prepared_case(name)
    traced = compiled_case(prepared, Precision("fp16")).traced
    nodes = traced.program.graph.nodes
    sines = [node for node in nodes if "aten.sin." in str(node.target)]
    read = {source for node in sines for source in node.all_input_nodes}
    assert sines
    assert {node.meta["val"].dtype for node in (*sines, *read)} == {torch.float32}


def test_modules_can_be_kept_in_fp32() -> None:
    _, prepared = prepared_case("asymmetric")
    traced = compiled_case(prepared, Precision("fp16", ("mid_block",))).traced
    types = {name.startswith("mid_block."): set() for name in traced.tensor_names.values()}
    for placeholder, name in traced.tensor_names.items():
        if "time_emb" not in name and "time_proj" not in name:
            types[name.startswith("mid_block.")].add(traced.tensors[placeholder].dtype)
    assert types[True] == {torch.float32}
    assert torch.float16 in types[False]


def test_operators_can_be_kept_in_fp32() -> None:
    _, prepared = prepared_case("asymmetric")
    traced = compiled_case(prepared, Precision("fp16", keep_operators=("group_norm",))).traced
    kinds = {
        node.meta["val"].dtype
        for node in traced.program.graph.nodes
        if "group_norm" in str(node.target)
    }
    assert kinds == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("fp8",), "precision"),
        (("fp32", ("mid_block",)), "keep_fp32"),
    ],
)
def test_wrong_precisions_are_refused(arguments: tuple[str, ...], where: str) -> None:
    with pytest.raises(DipgoError) as caught:
        Precision(*arguments)  # type: ignore[arg-type]
    assert caught.value.where == where


def test_a_pattern_without_a_module_is_refused() -> None:
    _, prepared = prepared_case("asymmetric")
    with pytest.raises(DipgoError, match="keep_fp32 'middle'"):
        compiled_case(prepared, Precision("fp16", ("middle",)))


def test_overflow_names_segment_and_module_and_keeping_it_helps() -> None:
    """Weights a thousand times too large: fp32 takes them, fp16 does not."""
    chosen, _ = prepared_case("asymmetric")
    denoiser = ZOO["asymmetric"].build().eval().requires_grad_(False)
    denoiser.load_state_dict(chosen.denoiser.state_dict())
    denoiser.mid_block.resnets[0].conv1.weight.mul_(3e6)
    source = Source(
        "zoo", denoiser, ZOO["asymmetric"].family, DDIMScheduler(clip_sample=False), 8, tokens=7
    )
    prepared = prepare(source, Request("dense", steps=STEPS))
    compiled = compiled_case(prepared, Precision("fp16"))
    with pytest.raises(DipgoError) as caught:
        check_segments(compiled.plan, compiled.traced, chosen.inputs)
    assert caught.value.where.startswith("segment seg")
    assert "mid_block.resnets.0" in caught.value.found
    assert "keep_fp32 mid_block.resnets.0" in caught.value.remedy
    assert "\n" not in str(caught.value)
    kept = compiled_case(prepared, Precision("fp16", ("mid_block.resnets.0",)))
    figures, _ = check_segments(kept.plan, kept.traced, chosen.inputs)
    assert max(one.error for one in figures.values()) < 0.05


def test_figures_are_of_every_segment() -> None:
    chosen, prepared = prepared_case("dit")
    compiled = compiled_case(prepared, Precision("fp16"))
    figures, exact = check_segments(compiled.plan, compiled.traced, chosen.inputs)
    assert set(figures) == {callee.name for callee in compiled.plan.callees}
    assert all(one.calls > 0 for one in figures.values())
    fp32 = compiled_case(prepared, Precision())
    expected = interpret(fp32.plan, fp32.traced, chosen.inputs)
    assert relative_error(exact, expected) < 1e-3  # its tables are narrow, all else is not


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["asymmetric", "dit", "sdxl", "sd3", "pixart_alpha", "unconditional"]
)
def test_engines_equal_the_oracle(name: str, tmp_path: Path) -> None:
    """ONNX Runtime computes fp16 graphs on CPUs, if slowly."""
    chosen, prepared = prepared_case(name)
    out = export(prepared.source, "dense", tmp_path / "out", steps=STEPS, precision="fp16")
    found = load(out).run({key: tensor.numpy() for key, tensor in chosen.inputs.items()})
    compiled = compiled_case(prepared, Precision("fp16"))
    expected = interpret(compiled.plan, compiled.traced, chosen.inputs)
    error = relative_error(torch.from_numpy(found["latents"]), expected)
    print(f"{name}: relative L2 {error:.1e}")
    assert error < TOLERANCE["fp16"]
    manifest = read_manifest(out)
    assert manifest.precision == "fp16"
    assert {"sampler", "guidance"} <= set(manifest.kept_fp32)
    assert set(manifest.numerics) == {segment.name for segment in manifest.segments}


@pytest.mark.slow
def test_a_vae_that_overflows_stays_in_fp32(tiny_pipeline: Path, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(tiny_pipeline)
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight.mul_(1e7)
    out = export(
        pipeline, "dense", tmp_path / "out", steps=2, precision="fp16", keep_fp32=["mid_block"]
    )
    manifest = read_manifest(out)
    assert "mid_block" in manifest.kept_fp32
    assert "vae_decoder" in manifest.kept_fp32
    assert "vae_decoder" not in manifest.numerics
    assert "text_encoder" in manifest.numerics
    assert "text_encoder" not in manifest.kept_fp32


def test_rounded_rounds_once_after_a_sum_in_fp32() -> None:
    """2048 + 1 + 1 … is lost in a sum in fp16, and is not here."""

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(4097, 1, dtype=x.dtype)

    x = torch.ones(1, 4097, dtype=torch.float16)
    x[0, 0] = 2048.0
    module = torch.export.export(Sum(), (x,)).module()
    (found,) = torch.utils._pytree.tree_leaves(Rounded(module).run(x))
    (exact,) = torch.utils._pytree.tree_leaves(Exact(module).run(x.float()))
    assert found.dtype == torch.float16
    assert float(exact) == 6144.0
    assert np.float16(6144.0) == found.item()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asymmetric", "dit"])
def test_bf16_runs_on_torch_and_builds(name: str, tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider lacks its operators, and says so."""
    chosen, prepared = prepared_case(name)
    out = export(
        prepared.source, "dense", tmp_path / "out", steps=STEPS, precision="bf16", target="torch"
    )
    inputs = {key: tensor.numpy() for key, tensor in chosen.inputs.items()}
    found = load(out, target="torch", provider="cpu").run(inputs)["latents"]
    exact = compiled_case(prepared, Precision())
    expected = interpret(exact.plan, exact.traced, chosen.inputs)
    assert relative_error(torch.from_numpy(found), expected) < TOLERANCE["bf16"]
    assert build_engines(out, "tensorrt-rtx", BuildOptions(("8.6",))).is_dir()
    with pytest.raises(DipgoError, match="cannot load"):
        load(out)
