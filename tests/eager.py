"""Straightforward eager gating, which knows nothing of plans: module hooks and the scheduler."""

from __future__ import annotations

import copy
from typing import Any

import torch

from dipgo.subnet import SubNet
from tests.zoo import Case


class Gating:
    """Forward hooks that return a block's last computed output while its gate is 0."""

    def __init__(self, denoiser: torch.nn.Module, subnet: SubNet) -> None:
        self.subnet, self.row = subnet, 0
        self.last: dict[str, Any] = {}
        modules = dict(denoiser.named_modules())
        self.handles = [
            modules[name].register_forward_hook(self._hook(column, name))
            for column, name in enumerate(subnet.blocks)
        ]

    def _hook(self, column: int, name: str) -> Any:
        def hook(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
            if self.subnet.gates[self.row, column]:
                self.last[name] = output
            return self.last[name]

        return hook

    def __enter__(self) -> Gating:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def run_eagerly(case: Case, scheduler: Any, subnet: SubNet) -> torch.Tensor:
    """The pipeline's own loop, with hooks; latents f32[B, C, H, W]."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(subnet.num_inference_steps)
    latents = case.inputs["latents"]
    rest = [tensor for name, tensor in case.inputs.items() if name != "latents"]
    with Gating(case.denoiser, subnet) as gating:
        for timestep in scheduler.timesteps:
            gating.row = subnet.timesteps.index(float(timestep))
            state = scheduler.scale_model_input(latents, timestep)
            prediction = case.guided(state, timestep.float(), *rest)
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents
