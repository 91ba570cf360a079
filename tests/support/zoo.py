"""Tiny models of odd shapes, with random weights: what every path must agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
    UNetSpatioTemporalConditionModel,
)

from dipgo.compiler.trace.trace import Traced, trace
from dipgo.ir.block_patterns import match_blocks
from dipgo.ir.graph import Dependence
from dipgo.ir.subnet.gap_rules import rule_with_function
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.families.controlnet import ControlledFamily, attach_controlnet
from dipgo.models.families.dit import DiTFamily
from dipgo.models.families.flux import FluxFamily
from dipgo.models.families.lcm import LCMFamily, SDXLLCMFamily
from dipgo.models.families.pixart import PixArtFamily
from dipgo.models.families.sd3 import SD3Family
from dipgo.models.families.sdxl import SDXLFamily
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.families.svd import SVDFamily
from dipgo.models.families.unconditional import UnconditionalFamily
from dipgo.models.family import Family, Geometry
from dipgo.models.gap_functions import GapShape
from dipgo.models.guided import GuidedDenoiser, example_inputs, guided_denoiser


@dataclass(frozen=True)
class Entry:
    """A model of the zoo, and the granularities at which it is gated."""

    build: Callable[[], torch.nn.Module]
    family: Family
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _unet(**config: Any) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        defaults = {"sample_size": 8, "norm_num_groups": 4, "cross_attention_dim": 12}
        unet: torch.nn.Module = UNet2DConditionModel(
            **{**defaults, "attention_head_dim": 2, **config}
        )
        return unet

    return build


def _pixart(**config: Any) -> Callable[[], torch.nn.Module]:
    return lambda: PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=6,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        cross_attention_dim=12,
        sample_size=8,
        norm_num_groups=2,
        caption_channels=10,
        **config,
    )


def _sd3(**config: Any) -> Callable[[], torch.nn.Module]:
    return lambda: SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=8,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        **config,
    )


SDXL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 10,
}

UNET = {
    "block": UNetFamily.default_blocks,
    "layer": (
        "conv_in",
        "down_blocks.*.resnets.*",
        "down_blocks.*.attentions.*",
        "mid_block.resnets.*",
        "mid_block.attentions.*",
        "up_blocks.*.resnets.*",
        "up_blocks.*.attentions.*",
    ),
}
PLAIN = {
    "block": UNetFamily.default_blocks,
    "layer": ("down_blocks.*.resnets.*", "mid_block.resnets.*", "up_blocks.*.resnets.*"),
}
DIT = {
    "block": DiTFamily.default_blocks,
    "layer": ("transformer_blocks.*.attn1", "transformer_blocks.*.ff"),
}
PIXART = {
    "block": PixArtFamily.default_blocks,
    "layer": (
        "transformer_blocks.*.attn1",
        "transformer_blocks.*.attn2",
        "transformer_blocks.*.ff",
    ),
}
SD3 = {
    "block": SD3Family.default_blocks,
    "layer": (
        "transformer_blocks.*.attn",
        "transformer_blocks.*.ff",
        "transformer_blocks.*.ff_context",
    ),
}
FLUX = {
    "block": FluxFamily.default_blocks,
    "layer": (
        "transformer_blocks.*.attn",
        "transformer_blocks.*.ff",
        "transformer_blocks.*.ff_context",
        "single_transformer_blocks.*.attn",
    ),
}
SVD = {
    "block": SVDFamily.default_blocks,
    "layer": (
        "down_blocks.*.resnets.*",
        "down_blocks.*.attentions.*",
        "mid_block.resnets.*",
        "mid_block.attentions.*",
        "up_blocks.*.resnets.*",
        "up_blocks.*.attentions.*",
    ),
}


def _controlled(**config: Any) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        unet = _unet(**config)()
        assert isinstance(unet, UNet2DConditionModel)
        small = {"conditioning_embedding_out_channels": (4, 8)}
        return attach_controlnet(unet, ControlNetModel.from_unet(unet, **small))

    return build


ZOO = {
    "one_level": Entry(
        _unet(
            block_out_channels=(8,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
        ),
        UNetFamily(),
        UNET,
    ),
    "asymmetric": Entry(
        _unet(
            block_out_channels=(8, 16),
            layers_per_block=(1, 2),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        UNetFamily(),
        UNET,
    ),
    "no_cross_attention": Entry(
        _unet(
            block_out_channels=(8, 12),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            mid_block_type="UNetMidBlock2D",
            up_block_types=("UpBlock2D", "UpBlock2D"),
        ),
        UNetFamily(),
        PLAIN,
    ),
    "three_levels": Entry(
        _unet(
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ),
        UNetFamily(),
        UNET,
    ),
    "inpainting": Entry(
        _unet(
            in_channels=9,
            block_out_channels=(8, 12),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        UNetFamily(),
        {"block": UNetFamily.default_blocks},
    ),
    "controlnet": Entry(
        _controlled(
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        ControlledFamily(UNetFamily()),
        {"block": (*UNetFamily.default_blocks, "controlnet")},
    ),
    "dit": Entry(
        lambda: DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=4,
            out_channels=8,
            num_layers=4,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=10,
            norm_num_groups=2,
        ),
        DiTFamily(),
        DIT,
    ),
    "sdxl": Entry(
        _unet(**SDXL),
        SDXLFamily(),
        UNET,
    ),
    "sd3": Entry(
        _sd3(),
        SD3Family(),
        SD3,
    ),
    "sd35": Entry(
        _sd3(dual_attention_layers=(0, 1), qk_norm="rms_norm"),
        SD3Family(),
        {"block": SD3Family.default_blocks},
    ),
    "flux": Entry(
        lambda: FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=10,
            guidance_embeds=True,
            axes_dims_rope=(2, 2, 4),
        ),
        FluxFamily((8, 12)),
        FLUX,
    ),
    "svd": Entry(
        lambda: UNetSpatioTemporalConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=2,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            layers_per_block=1,
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=3 * 4,
            cross_attention_dim=12,
            num_attention_heads=(2, 4),
            num_frames=3,
        ),
        SVDFamily(),
        SVD,
    ),
    "pixart_alpha": Entry(_pixart(use_additional_conditions=True), PixArtFamily(), PIXART),
    "pixart_sigma": Entry(
        _pixart(interpolation_scale=2),
        PixArtFamily(),
        {"block": PixArtFamily.default_blocks},
    ),
    "lcm": Entry(
        _unet(
            block_out_channels=(8, 12),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            time_cond_proj_dim=6,
        ),
        LCMFamily(),
        UNET,
    ),
    "sdxl_lcm": Entry(
        _unet(**SDXL, time_cond_proj_dim=6),
        SDXLLCMFamily(),
        {"block": SDXLLCMFamily.default_blocks},
    ),
    "unconditional": Entry(
        lambda: UNet2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 12),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            downsample_padding=0,
            attention_head_dim=None,
            norm_num_groups=4,
        ),
        UnconditionalFamily(),
        {**PLAIN, "block": UnconditionalFamily.default_blocks},
    ),
}
NO_PICTURES = ("flux", "svd")
"""Their latents are no f32[B, C, h, w], which filters of reuse are for."""
UNGUIDED = ("lcm", "sdxl_lcm", "unconditional")
"""There is no unconditional prediction to guide by."""
CASES = [(name, grain) for name, entry in ZOO.items() for grain in entry.blocks]
GUIDANCE_CASES = [
    (name, grain, guidance)
    for name, grain in CASES
    for guidance in ((False,) if name in UNGUIDED else (False, True))
]
EVERY_WAY = ("asymmetric", "dit")
"""A U-Net and a transformer, which the common cases of slow tests have in every way."""


def is_common(name: str, grain: str, guidance: bool) -> bool:
    """Returns whether a case is common: a model in one way, as it is mostly run, or EVERY_WAY's."""
    usual = grain == "block" and guidance == (name not in UNGUIDED)
    return usual or name in EVERY_WAY


FILTERS = "reuse_filters"
"""The table of filters in a plan."""


@dataclass(frozen=True)
class FilterShape:
    """What filters are traced for."""

    terms: int
    halves: bool
    size: int

    def of_latents(self, latents: torch.Tensor) -> GapShape:
        channels = latents.shape[1]
        values = self.terms * (2 if self.halves else 1)
        table = (channels, values * channels, self.size, self.size)
        return GapShape(FILTERS, self.terms, self.halves, table)


@dataclass(frozen=True)
class Case:
    """A model of the zoo, traced at one granularity."""

    denoiser: torch.nn.Module
    guided: GuidedDenoiser
    traced: Traced
    inputs: dict[str, torch.Tensor]
    """Random inputs of a plan; `latents` is the initial noise."""


@cache
def case(name: str, grain: str, guidance: bool = True, filters: FilterShape | None = None) -> Case:
    """Deterministic weights and inputs; with `filters`, SubNets may have such.

    Without guidance where the family takes none.
    """
    return traced_case(name, ZOO[name].blocks[grain], guidance, filters)


@cache
def traced_case(
    name: str,
    patterns: tuple[str, ...],
    guidance: bool = True,
    filters: FilterShape | None = None,
) -> Case:
    """The same, with the blocks that the patterns match."""
    entry = ZOO[name]
    guidance = guidance and name not in UNGUIDED
    torch.manual_seed(0)
    denoiser = entry.build().eval().requires_grad_(False)
    scale_up(denoiser)
    geometry = Geometry(guidance=guidance, tokens=7)
    example, roles = example_inputs(entry.family, denoiser, geometry)
    guided = guided_denoiser(entry.family, denoiser, geometry)
    gap = filters.of_latents(example["latents"]) if filters else None
    past = gap.example_inputs(example["latents"]) if gap else {}
    traced = trace(
        guided_denoiser(entry.family, denoiser, geometry, gap),
        {**example, **past},
        {**roles, **dict.fromkeys(past, Dependence.STATE)},
        match_blocks(denoiser, patterns),
        model_class=type(denoiser).__name__,
        config_sha256="",
        past=tuple(past),
    )
    inputs = {key: _random(key, tensor) for key, tensor in example.items() if key != "timestep"}
    if guidance:
        inputs["guidance_scale"] = torch.tensor(3.0)
    return Case(denoiser, guided, traced, inputs)


def with_filters(chosen: Case, subnet: SubNet) -> Case:
    """The case, traced for filters, with those of a SubNet in its table."""
    function = chosen.traced.graph.gap_function
    assert function is not None
    terms = len(function.past) // (2 if function.halves else 1)
    shape = GapShape(function.table.name, terms, function.halves, function.table.type.shape)
    rule = rule_with_function(subnet.gaps)
    tables = {shape.key: shape.numbers(rule)} if rule else {}
    return replace(chosen, traced=replace(chosen.traced, given_tables=tables))


def scale_up(denoiser: torch.nn.Module) -> None:
    """Some layers start at zero (adaLN-zero); random values let every block matter."""
    for parameter in denoiser.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)


def _random(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point():
        return torch.randn(tensor.shape)
    return torch.randint(0, 2 if name.endswith("mask") else 10, tensor.shape)
