"""Every segment builds with TensorRT for RTX, which needs no GPU for it; nothing is run here."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import msgspec
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from jsonschema import Draft202012Validator

from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.tensorrt.build import BuildOptions, build_engines
from dipgo.export import export
from dipgo.ir.manifest.engines import ENGINES_FILE, EngineManifest
from dipgo.ir.manifest.records import WEIGHTS_FILE
from dipgo.ir.plan.cost import step_patterns
from dipgo.models.families.dit import DiTFamily
from dipgo.models.model import Source
from scripts.generate.manifest_schema import ENGINES_PATH
from tests.support.random_subnets import subnet_of_random_rows
from tests.support.rare import rare_unless
from tests.support.schedulers import ddim_for
from tests.support.zoo import ZOO, case

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
DEMO = Path(__file__).parents[2] / "examples"
LARGEST_RATIO = 1.05
PATTERNS = 50
EXPORTS = ("demo", "sdxl", "dit", "sd3", "asymmetric")


def build(path: Path, capability: str) -> EngineManifest:
    """The engines' manifest, everything built anew."""
    folder = build_engines(path, "tensorrt-rtx", BuildOptions((capability,)))
    return msgspec.json.decode((folder / ENGINES_FILE).read_bytes(), type=EngineManifest)


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp16 exports: the demo model with its SubNet, and tiny ones with random gates."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    if request.param == "demo":
        subnet = DEMO / "subnets" / "demo-deepcache-5.json"
        return export(DEMO / "demo" / "model", subnet, out, precision="fp16", check_numerics=False)
    chosen = case(request.param, "block")
    family, scheduler = ZOO[request.param].family, ddim_for(request.param)
    source = Source("zoo", chosen.denoiser, family, scheduler, 8, tokens=7)
    blocks = tuple(block.name for block in chosen.traced.graph.blocks)
    subnet = subnet_of_random_rows(blocks, 5, 0.5)
    return export(source, subnet, out, precision="fp16", check_numerics=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exported", "capability"),
    rare_unless(
        lambda name, capability: name == "demo" or capability == CAPABILITIES[-1],
        product(EXPORTS, CAPABILITIES),
    ),
    indirect=["exported"],
)
def test_every_graph_builds(exported: Path, capability: str) -> None:
    manifest = build(exported, capability)
    export = ExportDirectory.open(exported, check_hashes=False)
    assert set(manifest.engines) == {*export.engine_files, *export.manifest.parts}
    assert manifest.compute_capabilities == [capability]
    assert manifest.gpu is None
    written = json.loads((exported / "engines/tensorrt-rtx" / ENGINES_FILE).read_bytes())
    Draft202012Validator(json.loads(ENGINES_PATH.read_text())).validate(written)
    for record in manifest.engines.values():
        assert record.nbytes == (exported / "engines/tensorrt-rtx" / record.file).stat().st_size


@pytest.mark.slow
def test_engines_are_hardly_larger_than_the_weights(tmp_path: Path) -> None:
    """However many step patterns there are: each weight is in one engine.

    The model is as wide as real ones, since kernels take room that does not depend on the width.
    """
    torch.manual_seed(0)
    denoiser = DiTTransformer2DModel(
        num_attention_heads=16,
        attention_head_dim=96,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    scheduler = DDIMScheduler(clip_sample=False)
    source = Source("wide", denoiser.eval().requires_grad_(False), DiTFamily(), scheduler, 8, 7)
    blocks = tuple(
        f"transformer_blocks.{index}.{part}" for index in range(6) for part in ("attn1", "ff")
    )
    subnet = subnet_of_random_rows(blocks, PATTERNS, 0.5)
    out = export(source, subnet, tmp_path / "out", precision="fp16", check_numerics=False)
    manifest = build(out, "8.6")
    plan = ExportDirectory.open(out, check_hashes=False).plan
    assert step_patterns(plan) == PATTERNS
    engines = sum(record.nbytes for record in manifest.engines.values())
    ratio = engines / (out / WEIGHTS_FILE).stat().st_size
    print(f"{len(plan.callees)} segments, engines {ratio:.4f} times the weights")
    assert ratio <= LARGEST_RATIO
