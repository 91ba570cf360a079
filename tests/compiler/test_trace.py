"""The block structure that tracing reads off: SD-1.5 as published, and refusals."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.block_patterns import match_blocks
from dipgo.ir.graph import BlockGraph, Dependence
from dipgo.models.families.dit import DiTFamily
from dipgo.models.families.sd3 import SD3Family
from dipgo.models.families.sdxl import SDXLFamily
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.registry import find_presets
from tests.support.architectures import trace_architecture
from tests.support.zoo import case

PUBLISHED_GMACS = {
    "down_blocks.0": 32.94,
    "down_blocks.1": 31.32,
    "down_blocks.2": 31.46,
    "down_blocks.3": 3.78,
    "mid_block": 6.03,
    "up_blocks.0": 12.90,
    "up_blocks.1": 75.14,
    "up_blocks.2": 79.12,
    "up_blocks.3": 66.04,
}
"""DiP-GO's released block costs for SD-1.5, batch 1, 512²; 338.83 in all."""

EDGES = {
    "down_blocks.1": {"down_blocks.0"},
    "down_blocks.2": {"down_blocks.1"},
    "down_blocks.3": {"down_blocks.2"},
    "mid_block": {"down_blocks.3"},
    "up_blocks.0": {"mid_block", "down_blocks.3", "down_blocks.2"},
    "up_blocks.1": {"up_blocks.0", "down_blocks.2", "down_blocks.1"},
    "up_blocks.2": {"up_blocks.1", "down_blocks.1", "down_blocks.0"},
    "up_blocks.3": {"up_blocks.2", "down_blocks.0", "glue.conv_in"},
}


@pytest.fixture(scope="module")
def traced_sd15() -> Traced:
    return trace_architecture("sd15", UNetFamily())


@pytest.fixture(scope="module")
def sd15(traced_sd15: Traced) -> BlockGraph:
    return traced_sd15.graph


def test_sd15_macs_are_the_published_ones(traced_sd15: Traced, sd15: BlockGraph) -> None:
    """The published counts have in each block what is hoisted out of it here."""
    hoisted = dict.fromkeys(PUBLISHED_GMACS, 0)
    for name, tensor in _weights(traced_sd15, "glue.timestep", "glue.prompt").items():
        block = ".".join(name.split(".")[: 1 if name.startswith("mid_block") else 2])
        if block in hoisted and name.endswith("weight"):
            hoisted[block] += tensor.numel() * (77 if ".attn2." in name else 1)
    gmacs = {block.name: (block.macs + hoisted[block.name]) / 1e9 for block in sd15.blocks}
    assert gmacs == pytest.approx(PUBLISHED_GMACS, rel=0.005)
    assert sd15.macs / 1e9 == pytest.approx(338.83, rel=0.01)


def test_sd15_edges_are_those_of_the_unet(sd15: BlockGraph) -> None:
    known = {node.name for node in sd15.nodes} - {"glue.timestep", "glue.prompt"}
    for block in sd15.blocks:
        sources = {name.split(":")[0] for name in block.inputs} & known
        assert sources == EDGES.get(block.name, {"glue.conv_in"})


def _weights(traced: Traced, *nodes: str) -> dict[str, torch.Tensor]:
    """Parameters that these nodes need, by their names in the denoiser."""
    outputs = [
        value.name for one in traced.graph.nodes if one.name in nodes for value in one.outputs
    ]
    inputs = [entry.value.name for entry in traced.graph.inputs]
    return dict(traced.module(nodes, inputs, outputs).state_dict())


def test_sd15_leaves_the_time_embedding_and_the_prompts_projections_out_of_the_loop(
    traced_sd15: Traced, sd15: BlockGraph
) -> None:
    """28 M parameters become a table, 19 M run once per prompt; the rest depends on the state."""
    counts = {node.name: node.parameters for node in sd15.nodes}
    assert counts["glue.timestep"] == pytest.approx(28e6, rel=0.02)
    assert counts["glue.prompt"] == pytest.approx(19e6, rel=0.02)
    timestep, prompt = (set(_weights(traced_sd15, f"glue.{one}")) for one in ("timestep", "prompt"))
    assert {name.split(".")[0] for name in timestep} >= {"time_embedding", "down_blocks"}
    assert all("time_emb" in name for name in timestep)
    assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in prompt)
    everything = set(traced_sd15.tensor_names.values())
    assert {name for name in everything if "time_emb" in name} == timestep
    assert {name for name in everything if ".attn2.to_k" in name or ".attn2.to_v" in name} == prompt


def test_dit_xl_leaves_300_million_parameters_out_of_the_loop() -> None:
    graph = trace_architecture("dit-xl-2-256", DiTFamily()).graph
    in_loop = sum(one.parameters for one in graph.nodes if Dependence.STATE in one.dependence)
    everything = sum(one.parameters for one in graph.nodes)
    assert everything == pytest.approx(675e6, rel=0.15)
    assert everything - in_loop >= 300e6


@pytest.mark.slow
def test_sdxl_has_the_published_parameters_and_leaves_the_prompts_out_of_the_loop() -> None:
    """2.57 G parameters; 346 M of them project the prompt, 18 M the time that it is added to."""
    graph = trace_architecture("sdxl", SDXLFamily()).graph
    counts = {node.name: node.parameters for node in graph.nodes}
    assert sum(counts.values()) == 2_567_463_684
    assert counts["glue.prompt"] == pytest.approx(346e6, rel=0.01)
    assert counts["glue.prompt_timestep"] == pytest.approx(17.6e6, rel=0.01)
    blocks = [f"{side}_blocks.{index}" for side in ("down", "up") for index in range(3)]
    assert [one.name for one in graph.blocks] == [*blocks[:3], "mid_block", *blocks[3:]]


@pytest.mark.slow
def test_sd3_leaves_the_modulations_out_of_the_loop() -> None:
    """2.03 G parameters; what modulates image and text is a third of them."""
    graph = trace_architecture("sd3-medium", SD3Family()).graph
    counts = {node.name: node.parameters for node in graph.nodes}
    assert sum(counts.values()) == 2_028_328_000
    assert counts["glue.prompt_timestep"] == pytest.approx(682e6, rel=0.01)
    (hidden,) = (entry for entry in graph.inputs if entry.value.name == "encoder_hidden_states")
    assert hidden.value.type.shape == (1, 333, 4096)


def test_an_output_of_a_block_and_one_of_its_part_are_two_inputs() -> None:
    """`block:0` and `block~0`, which are the same but for what no identifier may hold."""
    traced = case("sd3", "block").traced
    names = ["transformer_blocks.1:0", "transformer_blocks.1~0"]
    first, second = torch.zeros(1), torch.ones(1)
    assert traced.module((), names, names)(first, second) == (first, second)


def test_sd15_parameters_are_all_accounted_for(sd15: BlockGraph) -> None:
    assert sum(node.parameters for node in sd15.nodes) == 859_520_964


def test_attention_products_are_counted_apart(sd15: BlockGraph) -> None:
    """Self-attention of 4096 tokens, 320 channels, twice: 2 · 2 · 4096² · 320 MACs, and cross."""
    (block,) = (one for one in sd15.blocks if one.name == "down_blocks.0")
    expected = 2 * 2 * 320 * 4096 * (4096 + 77)
    assert block.attention_macs == expected


class _Twice(nn.Module):
    """A model that runs one of its modules twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.shared(latents + timestep)
        second: torch.Tensor = self.shared(self.other(first))
        return second


def _trace_twice(block: str) -> BlockGraph:
    example = {"latents": torch.zeros(2, 4), "timestep": torch.tensor(1.0)}
    roles = {"latents": Dependence.STATE, "timestep": Dependence.TIMESTEP}
    model = _Wrapped(_Twice())
    return trace(model, example, roles, [block], model_class="Twice", config_sha256="").graph


class _Wrapped(nn.Module):
    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.denoiser(latents, timestep)
        return result


def test_a_module_that_runs_twice_cannot_be_a_block() -> None:
    with pytest.raises(DipgoError, match="block shared: found a module that runs more than once"):
        _trace_twice("shared")


def test_a_module_inside_can_be_a_block() -> None:
    assert [block.name for block in _trace_twice("other").blocks] == ["other"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("down_blocks.*", "sideways.*"), "block pattern 'sideways.*': found no module"),
        (("down_blocks.*", "down_blocks.0.resnets.*"), "a block inside the block down_blocks.0"),
    ],
)
def test_patterns_that_cannot_be_blocks(patterns: tuple[str, ...], message: str) -> None:
    with torch.device("meta"):
        denoiser = UNet2DConditionModel(**find_presets()["sd15"].denoiser_config)
    with pytest.raises(DipgoError) as error:
        match_blocks(denoiser, patterns)
    assert message in str(error.value)
