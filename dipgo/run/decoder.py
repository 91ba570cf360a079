"""Decodes latents to pictures, with the export's VAE where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.engines.finite import check_finite
from dipgo.engines.picture_size import DECODER
from dipgo.engines.runner import Part, Runner
from dipgo.run.arguments import OutputType
from dipgo.run.pictures import to_images

VIDEO_AXES = 5
"""The axes of a video: latents f32[N, F, C, h, w], decoded f32[N, F, H, W, 3]."""


def batches(count: int, size: int) -> Iterator[slice]:
    """Yields slices of `size` that together hold `count`; the last may reach beyond."""
    return (slice(start, start + size) for start in range(0, count, size))


class Decoder:
    """Decodes any number of latents, in runs of the export's batch."""

    def __init__(self, runner: Runner) -> None:
        manifest = runner.export.manifest
        self._batch = manifest.batch
        self._part = Part(runner, DECODER) if DECODER in manifest.parts else None

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns pictures, see `dipgo.Pipeline.decode`.

        Raises:
            DipgoError: Numbers of a picture are infinite or NaN.
        """
        padding = latents[-1:].repeat(-len(latents) % self._batch, axis=0)
        padded = np.concatenate([latents, padding])
        decoded = [self._run(padded[part]) for part in batches(len(padded), self._batch)]
        pictures = check_finite("pictures", np.concatenate(decoded)[: len(latents)])
        pictures = np.moveaxis(pictures, -3, -1)
        return np.clip(pictures / 2 + 0.5, 0.0, 1.0)

    def output(self, latents: NDArray[np.float32], output_type: OutputType) -> Any:
        """Returns latents in the form that a caller asks for; `images` of a PipelineOutput."""
        if output_type == "latent":
            return latents
        pictures = self.decode(latents)
        if output_type == "np":
            return pictures
        made = [to_images(picture) for picture in pictures]
        return made if pictures.ndim == VIDEO_AXES else [picture for (picture,) in made]

    def _run(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return latents if self._part is None else self._part({"latents": latents})["image"]
