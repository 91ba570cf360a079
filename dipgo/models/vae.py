"""Wraps the VAE: its encoder for a picture to start from, its decoder for finished latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError, setting

SHIFT: tuple[str, ...] = ("shift_factor",)
NORMAL: tuple[str, ...] = ("latents_mean", "latents_std")
"""Options of a VAE by which its latents are shifted and normalised. All pipelines read its
`scaling_factor`, but few of them these: the others leave the latents of such a VAE as they are."""


class _ScaledVae(nn.Module):
    """A VAE with the numbers that scale, shift and normalise its latents.

    `reads` is SHIFT, NORMAL, both or neither: what the pipeline reads of the VAE's options.
    """

    wrapped = "vae"

    def __init__(self, vae: Any, reads: tuple[str, ...]) -> None:
        super().__init__()
        self.vae = vae
        self.scale = vae.config.scaling_factor
        shift, mean, std = (
            getattr(vae.config, name, None) if name in reads else None for name in SHIFT + NORMAL
        )
        self.shift = shift or 0.0
        self.normal = None if mean is None or std is None else (mean, std)
        """Mean and standard deviation a channel, if the latents are normalised."""


class VaeEncoder(_ScaledVae):
    """Encodes a picture f32[B, 3, H, W] in [-1, 1] as mean and deviation of its latents.

    Both are scaled as the latents are, and concatenated to f32[B, 2C, h, w]; a sample is
    mean + deviation · noise of unit variance.
    """

    output = "posterior"

    def forward(self, image: Tensor) -> Tensor:
        """Returns the posterior that diffusers' image-to-image pipelines draw from."""
        posterior = self.vae.encode(image, return_dict=False)[0]
        mean, deviation = posterior.mean - self.shift, posterior.std
        if self.normal is not None:
            centre, width = (torch.tensor(row).view(1, -1, 1, 1).to(mean) for row in self.normal)
            mean, deviation = (mean - centre) / width, deviation / width
        scaled: Tensor = torch.cat([mean, deviation], dim=1) * self.scale
        return scaled


class LatentsEncoder(_ScaledVae):
    """Encodes a picture f32[B, 3, H, W] in [-1, 1] as its latents f32[B, C, h, w], scaled.

    Nothing is drawn: VAEs such as `AutoencoderTiny` have no deviation.
    """

    output = "latents"

    def forward(self, image: Tensor) -> Tensor:
        """Returns the latents that diffusers' image-to-image pipelines start from."""
        latents = self.vae.encode(image, return_dict=False)[0] - self.shift
        if self.normal is not None:
            centre, width = (torch.tensor(row).view(1, -1, 1, 1).to(latents) for row in self.normal)
            latents = (latents - centre) / width
        scaled: Tensor = latents * self.scale
        return scaled


PictureEncoder = VaeEncoder | LatentsEncoder


@torch.no_grad()
def picture_encoder(vae: Any, reads: tuple[str, ...]) -> PictureEncoder:
    """Returns the encoder of pictures to start from, for what the VAE makes of a small one.

    Args:
        vae: The VAE.
        reads: SHIFT, NORMAL, both or neither: what the pipeline reads when it encodes.

    Source: `retrieve_latents` of diffusers' pipelines.

    Raises:
        DipgoError: The VAE yields neither latents nor their distribution.
    """
    picture = example_picture(vae, torch.zeros(1, 1, 1, 1))
    encoded = vae.encode(picture.to(next(vae.parameters()).device))
    if hasattr(encoded, "latent_dist"):
        return VaeEncoder(vae, reads)
    if hasattr(encoded, "latents"):
        return LatentsEncoder(vae, reads)
    raise DipgoError(
        f"VAE {type(vae).__name__}",
        found="an encoder without latents",
        expected="one that yields latents, or their distribution",
        remedy=f"leave {setting('strength')} out, or use a pipeline with another VAE",
    )


class VaeDecoder(_ScaledVae):
    """Decodes latents f32[B, C, h, w] to a picture f32[B, 3, H, W] in [-1, 1]."""

    def forward(self, latents: Tensor) -> Tensor:
        """Undoes the latents' scaling, as diffusers' pipelines do, and decodes."""
        picture: Tensor = self.vae.decode(self._unscaled(latents), return_dict=False)[0]
        return picture

    def _unscaled(self, latents: Tensor) -> Tensor:
        if self.normal is None:
            shifted: Tensor = latents / self.scale + self.shift
            return shifted
        mean, std = (torch.tensor(row).view(1, -1, 1, 1).to(latents) for row in self.normal)
        denormalised: Tensor = latents * std / self.scale + mean
        return denormalised


class PackedVaeDecoder(VaeDecoder):
    """Decodes packed latents f32[B, rows * columns, 4 C], of 2 x 2 latent pixels each.

    Source: `FluxPipeline._unpack_latents`.
    """

    def __init__(self, vae: Any, reads: tuple[str, ...], rows: int, columns: int) -> None:
        super().__init__(vae, reads)
        self.grid = (rows, columns)

    def forward(self, latents: Tensor) -> Tensor:
        """Unpacks the latents, then decodes them as a VaeDecoder."""
        batch, _, channels = latents.shape
        packed = latents.reshape(batch, *self.grid, channels // 4, 2, 2)
        rows, columns = self.grid
        unpacked = packed.permute(0, 3, 1, 4, 2, 5)
        return super().forward(unpacked.reshape(batch, channels // 4, 2 * rows, 2 * columns))


class VideoVaeDecoder(VaeDecoder):
    """Decodes latents f32[B, F, C, h, w] to pictures f32[B, F, 3, H, W] in [-1, 1].

    All F frames are decoded at once.

    Source: `StableVideoDiffusionPipeline.decode_latents`, whose decoder sees F frames together.
    """

    def forward(self, latents: Tensor) -> Tensor:
        """Undoes the latents' scaling and decodes."""
        batch, frames = latents.shape[:2]
        pictures: Tensor = self.vae.decode(
            latents.flatten(0, 1) / self.scale, num_frames=frames, return_dict=False
        )[0]
        return pictures.reshape(batch, frames, *pictures.shape[1:])


VIDEO_AXES = 5
"""The rank of a video's latents f32[B, F, C, h, w]."""


def vae_decoder(
    vae: Any, reads: tuple[str, ...], shape: tuple[int, ...], packed: tuple[int, int] | None
) -> VaeDecoder:
    """Returns the decoder for latents of a shape.

    Args:
        vae: The VAE.
        reads: SHIFT, NORMAL, both or neither: what the pipeline reads when it decodes.
        shape: Of the latents.
        packed: As of `Family.packed_grid`.
    """
    if len(shape) == VIDEO_AXES:
        return VideoVaeDecoder(vae, reads)
    return VaeDecoder(vae, reads) if packed is None else PackedVaeDecoder(vae, reads, *packed)


def example_picture(vae: Any, latents: Tensor) -> Tensor:
    """Returns zeros f32[B, C, H, W], a picture that the VAE encodes to latents of this size."""
    batch, *_, height, width = latents.shape
    scale = pixels_of_latent(vae)
    return torch.zeros(batch, vae.config.in_channels, height * scale, width * scale)


def pixels_of_latent(vae: Any) -> int:
    """Returns the pixels of a side that one latent stands for: all levels but the first halve."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))
