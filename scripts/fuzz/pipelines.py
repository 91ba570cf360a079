"""Builds the pipeline of a draw: toy sizes, random weights of the draw's seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTokenizerFast

from scripts.fuzz.draws import Draw
from tests.support.tiny_pipeline import WIDTH, tiny_text_encoder, tiny_tokenizer, tiny_vae
from tests.support.tiny_pipelines import (
    tiny_dit,
    tiny_sd3,
    tiny_sdxl,
    tiny_sdxl_normalised,
    tiny_t5,
    tiny_t5_tokenizer,
)

LORA_SCALE = 0.7
NEW_TOKEN = "<new>"
IMAGE_WIDTH = 20
"""The width of an image encoder's vector, of which an IP-Adapter makes a prompt."""

ODD_VAE = "vae-options"
VAE_OPTIONS: dict[str, Any] = {
    "scaling_factor": 0.7,
    "shift_factor": 0.5,
    "latents_mean": [0.3, -0.2, 0.1, 0.4],
    "latents_std": [1.5, 0.8, 1.2, 0.6],
}
"""Options of a VAE of which each pipeline of diffusers reads some; `odd` names them in tests."""

CLASSES = {
    ("sd", "text"): "StableDiffusionPipeline",
    ("sd", "image"): "StableDiffusionImg2ImgPipeline",
    ("sd", "inpaint"): "StableDiffusionInpaintPipeline",
    ("sd", "controlnet"): "StableDiffusionControlNetPipeline",
    ("sd", "ip-adapter"): "StableDiffusionPipeline",
    ("sdxl", "text"): "StableDiffusionXLPipeline",
    ("sdxl", "image"): "StableDiffusionXLImg2ImgPipeline",
    ("sdxl", "inpaint"): "StableDiffusionXLInpaintPipeline",
    ("sdxl", "controlnet"): "StableDiffusionXLControlNetPipeline",
    ("sd3", "text"): "StableDiffusion3Pipeline",
    ("sd3", "image"): "StableDiffusion3Img2ImgPipeline",
    ("flux", "text"): "FluxPipeline",
    ("flux", "image"): "FluxImg2ImgPipeline",
    ("pixart-alpha", "text"): "PixArtAlphaPipeline",
    ("pixart-sigma", "text"): "PixArtSigmaPipeline",
    ("lcm", "text"): "LatentConsistencyModelPipeline",
    ("lcm", "image"): "LatentConsistencyModelImg2ImgPipeline",
    ("dit", "class"): "DiTPipeline",
}
"""diffusers' pipeline for a family's task."""


def build_pipeline(draw: Draw, folder: Path) -> Any:
    """Returns the pipeline of a draw, in float32, on which the draw's patches have been put."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(draw.seed)
        pipeline = _FAMILIES[draw.family](draw, folder)
        pipeline.scheduler = make_scheduler(draw)
        pipeline = _of_task(pipeline, draw)
        if draw.inversion and hasattr(pipeline, "load_textual_inversion"):
            vectors = torch.randn(draw.inversion, WIDTH)
            pipeline.load_textual_inversion({NEW_TOKEN: vectors}, token=NEW_TOKEN)
    if draw.odd == ODD_VAE:
        pipeline.vae.register_to_config(**VAE_OPTIONS)
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_scheduler(draw: Draw) -> Any:
    """Returns the draw's scheduler, with those of its options that the class has."""
    cls = getattr(diffusers, draw.scheduler)
    named = inspect.signature(cls.__init__).parameters
    options = {key: value for key, value in draw.options.items() if key in named}
    if draw.family in ("sd3", "flux") and "use_flow_sigmas" in named:
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    # What clips each step is no linear map, and is drawn seldom.
    if "clip_sample" in named and "clip_sample" not in options:
        options["clip_sample"] = False
    return cls(**options)


def _unet(draw: Draw, **changes: Any) -> Any:
    config: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": WIDTH,
        "in_channels": 9 if draw.task == "inpaint" else 4,
    }
    odd: dict[str, dict[str, Any]] = {
        "v": {
            "use_linear_projection": True,
            "upcast_attention": True,
            "attention_head_dim": (2, 4),
        },
        "no-mid": {"mid_block_type": None},
        "one-level": {
            "block_out_channels": (8,),
            "down_block_types": ("CrossAttnDownBlock2D",),
            "up_block_types": ("CrossAttnUpBlock2D",),
        },
        "wide-text": {"encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "text_proj"},
        "scale-shift": {"resnet_time_scale_shift": "scale_shift"},
    }
    return UNet2DConditionModel(**{**config, **odd.get(draw.odd, {}), **changes})


def _vae(draw: Draw) -> Any:
    if draw.odd == "tiny-vae":
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        )
    return tiny_vae()


def _changed(model: Any, **changes: Any) -> Any:
    """Returns a model of the same class, with random weights and other options.

    The option of a configuration that lists what was left at its default would win over changes.
    """
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    return type(model).from_config({**config, **changes})


def _stable_diffusion(draw: Draw, folder: Path, **changes: Any) -> Any:
    tokenizer = tiny_tokenizer(folder / "vocabulary")
    if draw.odd == "fast-tokenizer":
        tokenizer = CLIPTokenizerFast.from_pretrained(folder / "vocabulary", model_max_length=16)
    return diffusers.StableDiffusionPipeline(
        vae=_vae(draw),
        text_encoder=tiny_text_encoder(),
        tokenizer=tokenizer,
        unet=_unet(draw, **changes),
        scheduler=make_scheduler(draw),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(draw: Draw, folder: Path) -> Any:
    if draw.odd == "normalised":
        pipeline = tiny_sdxl_normalised(folder)
    else:
        pipeline = tiny_sdxl(folder, zeros=draw.odd != "zeros-off")
    if draw.odd == "tiny-vae":
        pipeline.register_modules(vae=_vae(draw))
    if draw.task == "inpaint":
        pipeline.register_modules(unet=_changed(pipeline.unet, in_channels=9))
    return pipeline


def _sd3(draw: Draw, folder: Path) -> Any:
    pipeline = tiny_sd3(folder, t5=draw.odd == "t5")
    odd: dict[str, dict[str, Any]] = {
        "qk-norm": {"qk_norm": "rms_norm"},
        "dual": {"dual_attention_layers": (0,)},
    }
    transformer = _changed(pipeline.transformer, **odd.get(draw.odd, {}))
    pipeline.register_modules(transformer=transformer)
    return pipeline


def _flux(draw: Draw, folder: Path) -> Any:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2 if draw.odd == "single" else 1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=WIDTH,
        guidance_embeds=draw.odd != "schnell",
        axes_dims_rope=(2, 2, 4),
    )
    return diffusers.FluxPipeline(
        scheduler=make_scheduler(draw),
        vae=_changed(tiny_vae(), shift_factor=0.2),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(folder / "vocabulary"),
        text_encoder_2=tiny_t5(12),
        tokenizer_2=tiny_t5_tokenizer(),
        transformer=transformer,
    )


def _pixart(draw: Draw, folder: Path) -> Any:
    alpha = draw.family == "pixart-alpha"
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=6,
        num_layers=2,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=12,
        sample_size=128 if alpha and draw.seed % 2 else 16,
        caption_channels=10,
        interpolation_scale=1,
        use_additional_conditions=bool(alpha and draw.seed % 2),
    )
    cls = diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline
    return cls(
        tokenizer=tiny_t5_tokenizer(),
        text_encoder=tiny_t5(10),
        vae=tiny_vae(),
        transformer=transformer,
        scheduler=make_scheduler(draw),
    )


def _lcm(draw: Draw, folder: Path) -> Any:
    parts = _stable_diffusion(draw, folder, time_cond_proj_dim=8)
    return diffusers.LatentConsistencyModelPipeline(
        **{name: getattr(parts, name) for name in ("vae", "text_encoder", "tokenizer", "unet")},
        scheduler=make_scheduler(draw),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _dit(draw: Draw, folder: Path) -> Any:
    return tiny_dit(folder)


def _unconditional(draw: Draw, folder: Path) -> Any:
    channels = 1 if draw.odd == "gray" else 3
    attention = draw.odd == "attention"
    unet = UNet2DModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 12),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D" if attention else "DownBlock2D"),
        up_block_types=("AttnUpBlock2D" if attention else "UpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    ddim = draw.scheduler.startswith("DDIM")
    return (diffusers.DDIMPipeline if ddim else diffusers.DDPMPipeline)(unet, make_scheduler(draw))


_FAMILIES: dict[str, Callable[[Draw, Path], Any]] = {
    "sd": _stable_diffusion,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "pixart-alpha": _pixart,
    "pixart-sigma": _pixart,
    "lcm": _lcm,
    "dit": _dit,
    "unconditional": _unconditional,
}


def _controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Returns a ControlNet with random weights where it begins with zeros."""
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8))
    for parameter in controlnet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return controlnet


def _ip_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """Returns random weights in the layout of an IP-Adapter's file: four tokens a picture."""
    tokens, width = 4, unet.config.cross_attention_dim
    modules = dict(unet.named_modules())
    adapter = {}
    cross = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for index, name in enumerate(cross):
        size = modules[name.removesuffix(".processor")].to_q.in_features
        for key in ("to_k_ip", "to_v_ip"):
            adapter[f"{2 * index + 1}.{key}.weight"] = torch.randn(size, width) / width**0.5
    return {
        "image_proj": {
            "proj.weight": torch.randn(tokens * width, IMAGE_WIDTH) / IMAGE_WIDTH**0.5,
            "proj.bias": torch.randn(tokens * width),
            "norm.weight": torch.ones(width),
            "norm.bias": torch.zeros(width),
        },
        "ip_adapter": adapter,
    }


def _of_task(pipeline: Any, draw: Draw) -> Any:
    """Returns the parts as the pipeline that diffusers has for the draw's task."""
    if draw.task == "ip-adapter":
        pipeline.unet._load_ip_adapter_weights([_ip_adapter(pipeline.unet)])
        pipeline.set_ip_adapter_scale(0.6)
    name = CLASSES.get((draw.family, draw.task))
    if name is None or type(pipeline).__name__ == name:
        return pipeline
    cls = getattr(diffusers, name)
    named = inspect.signature(cls.__init__).parameters
    parts = dict(pipeline.components)
    if draw.task == "controlnet":
        parts["controlnet"] = _controlnet(pipeline.unet)
    settings = {"requires_safety_checker": False, "add_watermarker": False, **pipeline.config}
    offered = {**settings, **parts}
    return cls(**{key: offered[key] for key in named if key in offered})


def write_lora(pipeline: Any, draw: Draw, folder: Path) -> Path:
    """Writes a LoRA for two layers of the denoiser."""
    denoiser, prefix = denoiser_of(pipeline), "unet" if hasattr(pipeline, "unet") else "transformer"
    generator = torch.Generator().manual_seed(draw.seed)
    layers = [
        (name, module)
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(("to_q", "to_v"))
    ]
    tensors = {}
    for name, module in layers[:2]:
        down, up = f"{prefix}.{name}.lora_A.weight", f"{prefix}.{name}.lora_B.weight"
        tensors[down] = torch.randn(2, module.in_features, generator=generator)
        tensors[up] = torch.randn(module.out_features, 2, generator=generator) / 2
    path = folder / "lora.safetensors"
    save_file(tensors, path)
    return path


def denoiser_of(pipeline: Any) -> nn.Module:
    """Returns the pipeline's U-Net or transformer."""
    denoiser: nn.Module = getattr(pipeline, "unet", None) or pipeline.transformer
    return denoiser
