"""The baseline: diffusers' own modules in fp16, called in a loop as its pipelines call them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from scripts.benchmarks.gpu_checks.cases import GUIDANCE_SCALE, Case
from scripts.benchmarks.gpu_checks.machine import seconds_of


class DiffusersLoop:
    """Moves the case's denoiser, converted, to the device: nothing can be traced of it after.

    There is no second copy then, which for SDXL would be 10 GB. As a context it takes the
    denoiser back to the host, so that another loop's memory can be told.
    """

    def __init__(self, case: Case, device: str) -> None:
        self._device, self._family = device, case.source.family
        self._module: Any = case.source.denoiser.to(device, torch.float16)
        self._denoiser: Any = self._module
        self._scheduler = copy.deepcopy(case.scheduler)
        self._steps = case.subnet.num_inference_steps

    def __enter__(self) -> DiffusersLoop:
        return self

    def __exit__(self, *error: object) -> None:
        self._denoiser = self._module.to("cpu")
        torch.compiler.reset()  # which holds what it has compiled

    def compile(self, mode: str) -> str:
        """From now on by torch.compile; says how. On the CPU nothing is generated."""
        backend = "inductor" if self._device == "cuda" else "eager"
        options: dict[str, Any] = {"mode": mode} if self._device == "cuda" else {}
        self._denoiser = torch.compile(self._module, backend=backend, **options)
        return f"backend {backend}, mode {mode}" if options else f"backend {backend}"

    @torch.no_grad()
    def run(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
        """The latents, and the device's seconds from the first step to the last."""
        given = {name: self._to_device(one) for name, one in inputs.items()}
        latents = given.pop("latents")
        del given["guidance_scale"]  # a number of Python's in pipelines
        # A pipeline sets the timesteps in every call; it also resets the scheduler's own count.
        self._scheduler.set_timesteps(self._steps, device=self._device)
        result = [latents]
        seconds = seconds_of(lambda: result.append(self._loop(latents, given)), self._device)
        return result[-1].float().cpu().numpy(), seconds

    def _loop(self, latents: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        scheduler = self._scheduler
        for timestep in scheduler.timesteps:
            state = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            prediction = self._family.predict(self._denoiser, state, timestep, given)
            unconditional, conditional = prediction.chunk(2)
            guided = unconditional + GUIDANCE_SCALE * (conditional - unconditional)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        return latents

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        kind = torch.float16 if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, kind)
