"""`UNetSpatioTemporalConditionModel` as `StableVideoDiffusionPipeline` calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.models.families.stable_diffusion import STABLE_DIFFUSION_SCHEDULE
from dipgo.models.family import Family, Geometry, PipelinePart
from dipgo.models.loop import STABLE_DIFFUSION, Loop
from dipgo.models.presets import Preset
from dipgo.models.vae import example_picture

CLIP_SIDE = 224
"""Pixels on each side of the picture that CLIP sees, whatever its configuration says.

Source: `StableVideoDiffusionPipeline._encode_image`."""


def takes_frames(pipeline: Any) -> bool:
    """Returns whether the pipeline has a CLIP that takes pictures of diffusers' size.

    Any other pipeline takes no picture to begin with.
    """
    clip = getattr(pipeline, "image_encoder", None)
    return clip is not None and bool(clip.config.image_size == CLIP_SIDE)


class FrameEncoder(nn.Module):
    """Encodes a picture f32[B, 3, H, W] in [-1, 1] as CLIP's embedding f32[B, width].

    Resizing is linear, along one axis after the other: one matrix each, computed at export.
    """

    wrapped = "image_encoder"
    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, image_encoder: Any, extractor: Any, height: int, width: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.register_buffer("rows", resizing(height))
        self.register_buffer("columns", resizing(width))
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(extractor, f"image_{name}"))
            self.register_buffer(name, numbers.reshape(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Resizes, normalises and embeds."""
        resized = self.rows @ image @ self.columns.T
        seen = ((resized + 1) / 2 - self.mean) / self.std
        embedding: Tensor = self.image_encoder(pixel_values=seen).image_embeds
        return embedding


class FrameVaeEncoder(nn.Module):
    """Encodes a picture f32[B, 3, H, W] in [-1, 1] as the mode of its latents f32[B, C, h, w].

    The latents are not scaled.
    """

    wrapped = "vae"

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        """Returns the latents that `StableVideoDiffusionPipeline._encode_vae_image` does."""
        mode: Tensor = self.vae.encode(image, return_dict=False)[0].mode()
        return mode


def resizing(size: int) -> Tensor:
    """Returns the matrix f32[CLIP_SIDE, size] that resizes an axis of `size` pixels.

    It blurs against aliasing, then interpolates bicubically with aligned corners.

    Source: `_resize_with_antialiasing` in diffusers' pipeline, after scikit-image.
    """
    sigma = max((size / CLIP_SIDE - 1.0) / 2.0, 0.001)
    taps = int(max(4.0 * sigma, 3)) | 1
    at = torch.arange(taps, dtype=torch.float32) - taps // 2
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    points = torch.eye(size).reshape(size, 1, size)
    padded = nn.functional.pad(points, (taps // 2, taps // 2), mode="reflect")
    blurred = nn.functional.conv1d(padded, (kernel / kernel.sum()).reshape(1, 1, -1))
    resized = nn.functional.interpolate(
        blurred.reshape(1, size, size, 1), (CLIP_SIDE, 1), mode="bicubic", align_corners=True
    )
    return resized.reshape(size, CLIP_SIDE).T.contiguous()


TIME_IDS = 3
"""Length of `added_time_ids`: pictures a second minus 1, the motion's bucket, and the strength of
the noise on the picture."""

IMAGE_LATENTS = "image_latents"

MIN_SCALE = "min_guidance_scale"


PRESETS = {
    # stabilityai/stable-video-diffusion-img2vid: unet/config.json, scheduler/scheduler_config.json
    "svd": Preset(
        "UNetSpatioTemporalConditionModel",
        {
            "sample_size": 96,
            "in_channels": 8,
            "out_channels": 4,
            "num_frames": 14,
            "block_out_channels": (320, 640, 1280, 1280),
            "num_attention_heads": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 768,
        },
        "EulerDiscreteScheduler",
        {
            **STABLE_DIFFUSION_SCHEDULE,
            "prediction_type": "v_prediction",
            "timestep_spacing": "leading",
            "timestep_type": "continuous",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
            "sigma_max": 700.0,
        },
    ),
}


@dataclass(frozen=True)
class SVDFamily(Family):
    """Stable Video Diffusion: state f32[B, F, C, h, w] of F frames, conditioning of its pipeline.

    It is `encoder_hidden_states` f32[rows, 1, width] of the picture, `added_time_ids` f32[rows, 3],
    and `image_latents` f32[rows, F, C, h, w], which go in next to the state's channels. With
    guidance the scale goes from `min_guidance_scale` f32[] in the first frame to `guidance_scale`,
    which is the pipeline's `max_guidance_scale`, in the last. `size` is height and width in latent
    pixels; None stands for the model's `sample_size`.
    """

    size: tuple[int, int] | None = None

    denoisers = "UNetSpatioTemporalConditionModel"
    default_blocks = ("down_blocks.*", "mid_block", "up_blocks.*")
    pipelines = ("StableVideoDiffusionPipeline",)
    presets = PRESETS
    vae_options = ()

    def fits(self, denoiser: Any) -> bool:
        """Returns whether the denoiser has the class in `denoisers`."""
        return type(denoiser).__name__ == self.denoisers

    def at_size(self, denoiser: Any, geometry: Geometry) -> SVDFamily:
        """Returns the family at the geometry's size."""
        return replace(self, size=geometry.in_latents(self.size or denoiser.config.sample_size))

    def latent_shape(self, denoiser: Any, geometry: Geometry) -> tuple[int, ...]:
        """Returns the shape at the geometry's size.

        The default is the model's `sample_size`, which is not the pipeline's.
        """
        return (geometry.batch, *self.at_size(denoiser, geometry)._frames(denoiser))

    def loop(self, denoiser: Any, pipeline: Any) -> Loop:
        """Returns how `StableVideoDiffusionPipeline` calls its scheduler."""
        return Loop("StableVideoDiffusionPipeline", step_options={}, reads=STABLE_DIFFUSION)

    def conditioning(self, denoiser: Any, geometry: Geometry) -> dict[str, torch.Tensor]:
        """Returns the picture's embedding and latents, time ids, and if guided the least scale."""
        rows, width = geometry.rows, denoiser.config.cross_attention_dim
        width = width if isinstance(width, int) else width[0]
        least = {MIN_SCALE: torch.tensor(1.0)} if geometry.guidance else {}
        return {
            "encoder_hidden_states": torch.zeros(rows, 1, width),
            "added_time_ids": torch.zeros(rows, TIME_IDS),
            IMAGE_LATENTS: torch.zeros(rows, *self._frames(denoiser)),
            **least,
        }

    def predict(
        self,
        denoiser: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Returns the U-Net's sample f32[rows, F, C, h, w]."""
        prediction: torch.Tensor = denoiser(
            torch.cat([latents, conditioning[IMAGE_LATENTS]], dim=2),
            timestep,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            added_time_ids=conditioning["added_time_ids"],
            return_dict=False,
        )[0]
        return prediction

    def spread_scale(
        self, denoiser: Any, scale: torch.Tensor, conditioning: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Returns the scale of each frame, f32[F, 1, 1, 1], evenly from the least to `scale`."""
        least = conditioning[MIN_SCALE]
        shares = torch.linspace(0.0, 1.0, denoiser.config.num_frames, device=scale.device)
        return (least + shares * (scale - least)).reshape(-1, 1, 1, 1)

    def parts(
        self, pipeline: Any, latents: torch.Tensor, geometry: Geometry
    ) -> Iterator[PipelinePart]:
        """Yields the encoders of the video's first picture, if the pipeline has a CLIP."""
        if getattr(pipeline, "vae", None) is None or not takes_frames(pipeline):
            return
        picture = example_picture(pipeline.vae, latents)
        clip = FrameEncoder(pipeline.image_encoder, pipeline.feature_extractor, *picture.shape[-2:])
        yield PipelinePart("image_encoder", clip, {"image": picture}, ("frame_embedding",))
        encoder = FrameVaeEncoder(pipeline.vae)
        yield PipelinePart("vae_encoder", encoder, {"image": picture}, ("mode",))

    def _frames(self, denoiser: Any) -> tuple[int, ...]:
        config = denoiser.config
        size = Geometry().in_latents(self.size or config.sample_size)
        return (config.num_frames, config.out_channels, *size)
