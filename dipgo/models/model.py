"""Source: a loaded model; SizedModel: the same at one geometry, with its answers computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.ir.block_patterns import present_patterns
from dipgo.ir.fitted import LoraRecord
from dipgo.models.families.stable_diffusion import CONTROLNET
from dipgo.models.family import Family, Geometry, PipelinePart
from dipgo.models.inventory import check_start, find_vae
from dipgo.models.loop import Loop
from dipgo.models.registry import find_text_encoding
from dipgo.models.text_encoding import TextEncoding
from dipgo.models.vae import PictureEncoder


@dataclass(frozen=True)  # without slots: cached properties are stored next to the fields
class SizedModel:
    """A denoiser, its family and its pipeline, if it has one, for pictures of one size."""

    family: Family
    denoiser: nn.Module
    pipeline: Any | None
    geometry: Geometry

    @cached_property
    def sized_family(self) -> Family:
        """The family at this size.

        Raises:
            DipgoError: The model cannot have this size.
        """
        return self.family.at_size(self.denoiser, self.geometry)

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of the state.

        Raises:
            DipgoError: The model cannot have this size.
        """
        return self.sized_family.latent_shape(self.denoiser, self.geometry)

    @cached_property
    def conditioning(self) -> dict[str, Tensor]:
        """Example conditioning by the denoiser's own argument names."""
        return self.sized_family.conditioning(self.denoiser, self.geometry)

    @cached_property
    def text_encoding(self) -> TextEncoding | None:
        """The way in which the pipeline makes conditioning of texts; None where there is none."""
        return find_text_encoding(self.pipeline, self.geometry.tokens, self.family)

    @property
    def vae(self) -> Any | None:
        """The model that decodes latents to pictures; None if the pipeline has none."""
        return find_vae(self.pipeline)

    @cached_property
    def fixed_conditioning(self) -> dict[str, list[float]]:
        """The conditioning that does not depend on prompts: by name, the values of a row."""
        return self.sized_family.fixed_conditioning(self.denoiser, self.geometry)

    @cached_property
    def channels(self) -> tuple[int, int]:
        """The channels of the state, and of the predictions that the scheduler is given.

        Raises:
            DipgoError: The denoiser predicts fewer than the state has.
        """
        state = self.latent_shape[1]
        predicted = self.family.predicted_channels(self.denoiser) or state
        if predicted < state:
            raise DipgoError(
                f"denoiser {type(self.denoiser).__name__}",
                found=f"a prediction of {predicted} channels for latents of {state}",
                expected="a prediction for each of the latents' numbers",
                remedy="use a denoiser that takes nothing but the state in its channels; or bring "
                "an adapter: docs/internals/add-a-family.md",
            )
        return state, predicted

    def loop(self, scheduler: Any, steps: int) -> Loop:
        """Returns how the pipeline calls the scheduler to run a number of steps."""
        options = self.family.timestep_options(self.denoiser, scheduler, self.geometry, steps)
        return self.family.loop(self.denoiser, self.pipeline).with_timestep_options(options)

    @cached_property
    def fixed_unconditional(self) -> dict[str, list[float]]:
        """The rows of `fixed_conditioning` that are others in the unconditional half."""
        return self.sized_family.fixed_unconditional(self.denoiser, self.geometry)

    def fixed_rows(self) -> dict[str, Tensor]:
        """Returns `fixed_conditioning` for all rows, f32[rows, …] by name."""
        batch, halves = self.geometry.batch, {**self.fixed_conditioning, **self.fixed_unconditional}
        unconditional = self.geometry.rows - batch
        return {
            name: torch.tensor([halves[name]] * unconditional + [numbers] * batch)
            for name, numbers in self.fixed_conditioning.items()
        }

    def parts(self, latents: Tensor) -> Iterable[PipelinePart]:
        """Returns the pipeline's parts besides text encoder and VAE; `latents` are an example."""
        return self.sized_family.parts(self.pipeline, latents, self.geometry)

    def decoder(self, vae: Any, latents: Tensor) -> nn.Module:
        """Returns the module that decodes latents to pictures."""
        return self.sized_family.decoder(vae, latents, self.geometry)

    def encoder(self, vae: Any) -> PictureEncoder:
        """Returns the module that encodes pictures, with the name of its `output`."""
        return self.sized_family.encoder(vae, self.denoiser)


@dataclass(frozen=True)
class Source:
    """A model to export. `pipeline` is None for an architecture with random weights."""

    name: str
    denoiser: nn.Module
    family: Family
    scheduler: Any
    pixels_per_latent: int
    tokens: int
    pipeline: Any | None = None
    loras: tuple[LoraRecord, ...] = ()
    """LoRAs that have been fused into the weights."""
    _sized: dict[Geometry, SizedModel] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Cache of `at`."""

    @property
    def model_class(self) -> str:
        """The denoiser's class, as diffusers names it."""
        return type(self.denoiser).__name__

    @property
    def config_sha256(self) -> str:
        """The hash of the denoiser's configuration, without diffusers' private entries."""
        config: Mapping[str, Any] = self.denoiser.config  # type: ignore[assignment]
        public = {key: value for key, value in config.items() if not key.startswith("_")}
        controlnet = getattr(self.denoiser, CONTROLNET, None)
        if controlnet is not None:
            options = controlnet.config.items()
            public[CONTROLNET] = {key: value for key, value in options if not key.startswith("_")}
        return hashlib.sha256(json.dumps(public, sort_keys=True).encode()).hexdigest()

    @property
    def default_blocks(self) -> tuple[str, ...]:
        """The family's patterns of blocks, as far as this denoiser has such modules."""
        return present_patterns(self.denoiser, self.family.default_blocks)

    def geometry(
        self, batch: int = 1, height: int = 0, width: int = 0, guidance: bool | None = None
    ) -> Geometry:
        """Returns the geometry to trace for.

        Args:
            batch: Pictures a run.
            height: Height in pixels; 0 for the model's own.
            width: Width in pixels; 0 for the model's own.
            guidance: Whether to guide by two predictions; None for what the family's pipeline does.
        """
        guided = self.family.guided if guidance is None else guidance
        return Geometry(batch, height, width, guided, self.tokens, self.pixels_per_latent)

    def check_geometry(
        self, geometry: Geometry, *, from_picture: bool = False, where: str = ""
    ) -> None:
        """Checks that the model can have a geometry, before it is traced.

        Args:
            geometry: The sizes of a run.
            from_picture: Whether runs start from a picture, which is encoded to latents.
            where: Where an error of the size is; "" for the settings of height and width.

        Raises:
            DipgoError: The size is no whole number of latents, or not one that the model can have,
                or latents are not those of pictures.
        """
        scale = self.pixels_per_latent
        for name, size in (("height", geometry.height), ("width", geometry.width)):
            if size % scale:
                raise DipgoError(
                    f"{where}, {name}" if where else setting(name),
                    found=str(size),
                    expected=f"a multiple of {scale}, the pixels of one latent",
                    remedy=f"use {max(scale, round(size / scale) * scale)}",
                )
        shape = self.at(geometry).latent_shape
        self._check_has_size(geometry, shape, where)
        if from_picture and len(shape) != 4:
            raise DipgoError(
                setting("strength"),
                found=f"a {self.model_class}, whose latents are of shape {list(shape)}",
                expected="latents [pictures, channels, height, width], which a picture is encoded "
                "to",
                remedy=f"leave {setting('strength')} out",
            )

    def _check_has_size(self, geometry: Geometry, shape: tuple[int, ...], where: str) -> None:
        """Checks that latents have the size that was asked for: some models have only one.

        Latents of fewer than four axes do not show their size.

        Raises:
            DipgoError: They have another.
        """
        asked = (("height", geometry.height), ("width", geometry.width))
        for (name, size), latents in zip(asked, shape[-2:] if len(shape) > 3 else (), strict=False):
            pixels = latents * self.pixels_per_latent
            if size not in (0, pixels):
                raise DipgoError(
                    f"{where}, {name}" if where else setting(name),
                    found=f"{size} for a {self.model_class}, whose pictures have one size",
                    expected=str(pixels),
                    remedy="leave it out",
                )

    def check_start(self, strength: float | None) -> None:
        """Checks that a pipeline that begins with a picture has a strength.

        Raises:
            DipgoError: It has none.
        """
        check_start(self.pipeline, self.name, strength)

    def at(self, geometry: Geometry) -> SizedModel:
        """Returns the model at a geometry; equal geometries share one object."""
        geometry = replace(geometry, pixels_per_latent=self.pixels_per_latent)
        if geometry not in self._sized:
            sized = SizedModel(self.family, self.denoiser, self.pipeline, geometry)
            self._sized[geometry] = sized
        return self._sized[geometry]
