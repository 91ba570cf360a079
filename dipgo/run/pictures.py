"""Pictures to start from, or to paint in, become latents, as diffusers' pipelines do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.common.torch_noise import PictureNoise
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import Part

if TYPE_CHECKING:
    from PIL.Image import Image


ENCODER, PICTURE = "vae_encoder", "image"

FRAME_ENCODER = "image_encoder"
"""Of exports that make videos, which begin with a picture."""

MASK, MASKED_IMAGE = "mask", "masked_image_latents"
"""What an inpainting U-Net takes, in latents' size."""

HALF = np.float32(0.5)
"""From here on a mask is white."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a run is given to look at; None is nothing. For several pictures lists or arrays."""

    image: Any = None
    mask_image: Any = None


def check_image(export: ExportDirectory, given: Pictures) -> None:
    """Raises DipgoError for a picture or mask that would be ignored, for no picture where one is
    needed, and where the export cannot encode it.
    """
    image, mask_image = given.image, given.mask_image
    starts_from_one = export.manifest.sampler.strength is not None
    wanted = starts_from_one or mask_image is not None
    if mask_image is not None and MASK not in {one.name for one in export.manifest.inputs}:
        raise DipgoError(
            "mask_image",
            found="a mask for a model that does not paint within one",
            expected="none",
            remedy="leave it out, or export an inpainting model, whose U-Net has nine channels",
        )
    if wanted and image is None:
        raise DipgoError(
            "image",
            found="none for an export that starts from one" if starts_from_one else "none",
            expected="a picture" if starts_from_one else "the picture that the mask is of",
            remedy="give image= (--from-image)",
        )
    if image is not None and not wanted and FRAME_ENCODER not in export.manifest.parts:
        raise DipgoError(
            "image",
            found="a picture",
            expected="none: the export starts from noise",
            remedy=f"leave it out, or export with {setting('strength')}; "
            "with a mask give mask_image= too",
        )
    if wanted and ENCODER not in export.manifest.parts:
        raise DipgoError(
            str(export.path),
            found=f"an export of {export.manifest.model.source} without a VAE encoder",
            expected="an export of a pipeline with a VAE",
            remedy="export the whole pipeline again, or run the plan with dipgo.engines.load",
        )


def encode_picture(
    encoder: Part, given: Pictures, count: int, noise: PictureNoise
) -> NDArray[np.float32]:
    """Latents f32[count, C, h, w] of one picture for all, or of `count` pictures.

    A picture is PIL's, or f32[3, H, W] in [-1, 1]; several are a list or f32[count, 3, H, W].
    The VAE's posterior is sampled by `noise`: for each picture once, but with a seed for each of
    `count` for each of these, unless with a mask, as diffusers does it. Raises DipgoError.
    """
    pixels = pixels_of(given.image, encoder.inputs[PICTURE].shape[1:], count)
    posterior = encode(encoder, pixels)
    if noise.one_a_picture and given.mask_image is None:
        posterior = np.broadcast_to(posterior, (count, *posterior.shape[1:]))
    latents = _sampled(posterior, noise)
    return np.broadcast_to(latents, (count, *latents.shape[1:]))


def encode_masked(
    encoder: Part, given: Pictures, count: int, noise: PictureNoise
) -> dict[str, NDArray[np.float32]]:
    """`mask` f32[count, 1, h, w], 1 where to paint, and `masked_image_latents` f32[count, C, h, w].

    The mask is PIL's, of which white is painted, or f32[H, W] in [0, 1]; for pictures and for
    several see `encode_picture`. Raises DipgoError.
    Source: `StableDiffusionInpaintPipeline.prepare_mask_latents`.
    """
    shape = encoder.inputs[PICTURE].shape[1:]
    pixels, mask = pixels_of(given.image, shape, count), _masks(given.mask_image, shape[1:], count)
    latents = _sampled(encode(encoder, pixels * (mask < HALF)), noise)
    scale = shape[1] // latents.shape[2]
    found = {MASK: mask[:, :, ::scale, ::scale], MASKED_IMAGE: latents}
    return {name: np.broadcast_to(one, (count, *one.shape[1:])) for name, one in found.items()}


def _sampled(posterior: NDArray[np.float32], noise: PictureNoise) -> NDArray[np.float32]:
    mean, deviation = np.split(posterior, 2, axis=1)
    return mean + deviation * noise.draw(mean.shape)


def encode(encoder: Part, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an encoder makes of N pictures, such as f32[N, 2C, h, w], in batches of the export's."""
    size = encoder.inputs[PICTURE].shape[0]
    padded = np.concatenate([pixels, pixels[-1:].repeat(-len(pixels) % size, axis=0)])
    encoded = [
        next(iter(encoder({PICTURE: padded[start : start + size]}).values()))
        for start in range(0, len(padded), size)
    ]
    return np.concatenate(encoded)[: len(pixels)]


def pixels_of(image: Any, shape: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """f32[1 or count, 3, H, W] in [-1, 1]."""
    return np.stack([_picture(one, shape) for one in _each("image", image, len(shape), count)])


def _masks(mask_image: Any, shape: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """f32[1 or count, 1, H, W], 0 or 1."""
    masks = [_mask(one, shape) for one in _each("mask_image", mask_image, len(shape), count)]
    return (np.stack(masks)[:, np.newaxis] >= HALF).astype(np.float32)


def pictures_in(image: Any) -> int:
    """How many there are: those of a list, or of an array with an axis for them."""
    return len(image) if _are_several(image, axes=3) else 1


def _each(name: str, given: Any, axes: int, count: int) -> Sequence[Any]:
    """The pictures of a list or an array; one picture alone has so many axes."""
    pictures: Sequence[Any] = given if _are_several(given, axes) else [given]
    if len(pictures) not in (1, count):
        raise DipgoError(
            name,
            found=f"{len(pictures)} pictures",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return pictures


def _are_several(given: Any, axes: int) -> bool:
    return isinstance(given, list | tuple) or getattr(given, "ndim", 0) > axes


def _mask(mask: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if isinstance(mask, np.ndarray):
        return _numbers("mask_image", mask, shape, (0, 1))
    return _pil_channels("mask_image", mask, shape, "L")


def _picture(image: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if isinstance(image, np.ndarray):
        return _numbers("image", image, shape, (-1, 1))
    one = _pil_channels("image", image, shape[1:], "RGB")
    pixels: NDArray[np.float32] = np.float32(2) * one.transpose(2, 0, 1) - np.float32(1)
    return pixels


def _numbers(
    name: str, array: NDArray[Any], shape: tuple[int, ...], limits: tuple[int, int]
) -> NDArray[np.float32]:
    least, most = limits
    if array.shape != shape or not ((array >= least) & (array <= most)).all():
        raise DipgoError(
            name,
            found=f"numbers of shape {list(array.shape)}, or outside {list(limits)}",
            expected=f"f32{list(shape)} in {list(limits)}",
            remedy="resize and scale it, or export for this size",
        )
    return array.astype(np.float32)


def _pil_channels(name: str, image: Any, shape: tuple[int, ...], mode: str) -> NDArray[np.float32]:
    """f32[H, W] or f32[H, W, 3] in [0, 1]."""
    height, width = shape
    if not hasattr(image, "convert") or image.size != (width, height):
        found = f"{image.size[0]} x {image.size[1]} pixels" if hasattr(image, "size") else "none"
        raise DipgoError(
            name,
            found=found,
            expected=f"a PIL picture of {width} x {height} pixels, or an array",
            remedy="resize it, or export for this size",
        )
    return np.asarray(image.convert(mode), np.float32) / np.float32(255)


def to_images(picture: NDArray[np.float32]) -> list[Image]:
    """The frames of a video f32[F, H, W, 3] in [0, 1], or one picture f32[H, W, 3]."""
    return [to_image(frame) for frame in picture.reshape(-1, *picture.shape[-3:])]


def to_image(picture: NDArray[np.float32]) -> Image:
    """f32[H, W, 3], or of one channel, in [0, 1] to a PIL picture, rounded as diffusers rounds."""
    from PIL import Image

    pixels = (picture * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
