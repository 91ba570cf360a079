"""Encodes pictures to start from, or to paint in, into latents, as diffusers' pipelines do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, described, setting
from dipgo.common.torch_noise import PictureNoise
from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.runner import Part

if TYPE_CHECKING:
    from PIL.Image import Image


ENCODER, PICTURE = "vae_encoder", "image"

POSTERIOR = "posterior"
"""The output of an encoder whose latents are drawn: their mean and deviation."""

FRAME_ENCODER = "image_encoder"
"""The encoder of exports that make videos, which begin with a picture."""

MASK, MASKED_IMAGE = "mask", "masked_image_latents"
"""The inputs of an inpainting U-Net, in latents' size."""

HALF = np.float32(0.5)
"""The value from which on a mask is white."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a call, each None, a picture, or a list or array of several."""

    image: Any = None
    mask_image: Any = None


def check_image(export: ExportDirectory, pictures: Pictures) -> None:
    """Checks that the export needs and can encode the pictures of a call.

    Raises:
        DipgoError: A picture or mask would be ignored, a picture is missing, or the export cannot
            encode it.
    """
    image, mask_image = pictures.image, pictures.mask_image
    starts_from_one = export.manifest.sampler.strength is not None
    wanted = starts_from_one or mask_image is not None
    if mask_image is not None and MASK not in {record.name for record in export.manifest.inputs}:
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
    encoder: Part, pictures: Pictures, count: int, noise: PictureNoise
) -> NDArray[np.float32]:
    """Encodes one picture for all, or `count` pictures, to latents f32[count, C, h, w].

    A picture is PIL's, or f32[3, H, W] in [-1, 1]; several are a list or f32[count, 3, H, W]. As in
    diffusers, the VAE's posterior is sampled once for each picture that is passed; but with a seed
    for each of `count`, and no mask, once for each of these. A VAE without a posterior is not
    sampled.

    Raises:
        DipgoError: The pictures are of another number or size.
    """
    pixels = pixels_of(pictures.image, encoder.inputs[PICTURE].shape[1:], count)
    encoded = encode(encoder, pixels)
    if noise.one_a_picture and pictures.mask_image is None:
        encoded = np.broadcast_to(encoded, (count, *encoded.shape[1:]))
    latents = _sampled(encoder, encoded, noise)
    return np.broadcast_to(latents, (count, *latents.shape[1:]))


def encode_masked(
    encoder: Part, pictures: Pictures, count: int, noise: PictureNoise
) -> dict[str, NDArray[np.float32]]:
    """Encodes pictures with masks.

    The mask is PIL's, of which white is painted, or f32[H, W] in [0, 1]; for pictures, and for
    several of them, see `encode_picture`.

    Returns:
        `mask` f32[count, 1, h, w], 1 where to paint, and `masked_image_latents` f32[count, C, h,
            w].

    Raises:
        DipgoError: The pictures or masks are of another number or size.

    Source:
        `StableDiffusionInpaintPipeline.prepare_mask_latents`.
    """
    shape = encoder.inputs[PICTURE].shape[1:]
    pixels, mask = (
        pixels_of(pictures.image, shape, count),
        _masks(pictures.mask_image, shape[1:], count),
    )
    latents = _sampled(encoder, encode(encoder, pixels * (mask < HALF)), noise)
    scale = shape[1] // latents.shape[2]
    encoded = {MASK: mask[:, :, ::scale, ::scale], MASKED_IMAGE: latents}
    return {
        name: np.broadcast_to(array, (count, *array.shape[1:])) for name, array in encoded.items()
    }


def _sampled(
    encoder: Part, encoded: NDArray[np.float32], noise: PictureNoise
) -> NDArray[np.float32]:
    if POSTERIOR not in encoder.outputs:
        return encoded
    mean, deviation = np.split(encoded, 2, axis=1)
    return mean + deviation * noise.draw(mean.shape)


def encode(encoder: Part, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encodes N pictures, for example to f32[N, 2C, h, w], in batches of the export's size."""
    size = encoder.inputs[PICTURE].shape[0]
    padded = np.concatenate([pixels, pixels[-1:].repeat(-len(pixels) % size, axis=0)])
    encoded = [
        next(iter(encoder({PICTURE: padded[start : start + size]}).values()))
        for start in range(0, len(padded), size)
    ]
    return np.concatenate(encoded)[: len(pixels)]


def pixels_of(image: Any, shape: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """Returns f32[1 or count, 3, H, W] in [-1, 1].

    Raises:
        DipgoError: The pictures are of another number or size.
    """
    return np.stack(
        [_picture(picture, shape) for picture in _each("image", image, len(shape), count)]
    )


def _masks(mask_image: Any, shape: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """Returns f32[1 or count, 1, H, W], 0 or 1."""
    masks = [_mask(mask, shape) for mask in _each("mask_image", mask_image, len(shape), count)]
    return (np.stack(masks)[:, np.newaxis] >= HALF).astype(np.float32)


def pictures_in(image: Any) -> int:
    """Returns the number of pictures in a list, or in an array with an axis for them; else 1."""
    return len(image) if _are_several(image, axes=3) else 1


def _each(name: str, value: Any, axes: int, count: int) -> Sequence[Any]:
    """Returns the pictures of a list or an array; a single picture has `axes` axes."""
    pictures: Sequence[Any] = value if _are_several(value, axes) else [value]
    if len(pictures) not in (1, count):
        raise DipgoError(
            name,
            found=f"{len(pictures)} pictures",
            expected=f"one, or as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return pictures


def _are_several(value: Any, axes: int) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > axes


def _mask(mask: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if isinstance(mask, np.ndarray):
        return _numbers("mask_image", mask, shape, (0, 1))
    return _pil_channels("mask_image", mask, shape, "L")


def _picture(image: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if isinstance(image, np.ndarray):
        return _numbers("image", image, shape, (-1, 1))
    channels = _pil_channels("image", image, shape[1:], "RGB")
    pixels: NDArray[np.float32] = np.float32(2) * channels.transpose(2, 0, 1) - np.float32(1)
    return pixels


def _numbers(
    name: str, array: NDArray[Any], shape: tuple[int, ...], limits: tuple[int, int]
) -> NDArray[np.float32]:
    least, most = limits
    is_number = array.dtype.kind in "biuf"
    if not is_number or array.shape != shape or not ((array >= least) & (array <= most)).all():
        raise DipgoError(
            name,
            found=f"numbers of shape {list(array.shape)}, or outside {list(limits)}",
            expected=f"f32{list(shape)} in {list(limits)}",
            remedy="resize and scale it, or export for this size",
        )
    return array.astype(np.float32)


def _pil_channels(name: str, image: Any, shape: tuple[int, ...], mode: str) -> NDArray[np.float32]:
    """Returns f32[H, W] or f32[H, W, 3] in [0, 1]."""
    height, width = shape
    size = image.size if hasattr(image, "convert") else None
    if size is None or size != (width, height):
        problem = described(image) if size is None else f"{size[0]} x {size[1]} pixels"
        raise DipgoError(
            name,
            found=problem,
            expected=f"a PIL picture of {width} x {height} pixels, or an array",
            remedy="resize it, or export for this size",
        )
    return np.asarray(image.convert(mode), np.float32) / np.float32(255)


def to_images(picture: NDArray[np.float32]) -> list[Image]:
    """Turns a video f32[F, H, W, 3] in [0, 1], or a picture f32[H, W, 3], into a list of frames."""
    return [to_image(frame) for frame in picture.reshape(-1, *picture.shape[-3:])]


def to_image(picture: NDArray[np.float32]) -> Image:
    """Turns f32[H, W, 3] or f32[H, W, 1] in [0, 1] into a PIL picture, rounded as in diffusers."""
    from PIL import Image

    pixels = (picture * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
