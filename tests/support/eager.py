"""Straightforward eager gating, which knows nothing of plans: module hooks and the scheduler."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet
from tests.support.zoo import Case

BACKUPS = ("output", "delta", "identity")
"""Those that `Gating` knows, which has a meaning of its own for each."""


class Gating:
    """Forward hooks that return a block's backup while its gate is 0.

    `output`: what it last computed. `delta`: its first argument plus what it last added to its
    first argument. `identity`: its first argument.
    """

    def __init__(self, denoiser: torch.nn.Module, subnet: SubNet) -> None:
        self.subnet, self.row = subnet, 0
        self.last: dict[str, Any] = {}
        modules = dict(denoiser.named_modules())
        self.handles = [
            modules[name].register_forward_hook(self._hook(column, name), with_kwargs=True)
            for column, name in enumerate(subnet.blocks)
        ]

    def _hook(self, column: int, name: str) -> Any:
        backup = self.subnet.backup[column]

        def hook(module: torch.nn.Module, arguments: Any, named: Any, output: Any) -> Any:
            on = self.subnet.gates[self.row, column]
            if backup == "output":
                self.last[name] = output if on else self.last[name]
                return self.last[name]
            entered = arguments[0] if arguments else named["hidden_states"]
            if on:
                self.last[name] = _tensor(output, entered) - entered
                return output
            result = entered + self.last[name] if backup == "delta" else entered
            return tree_map(lambda leaf: result if _is_like(leaf, entered) else leaf, output)

        return hook

    def __enter__(self) -> Gating:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def _tensor(output: Any, entered: torch.Tensor) -> torch.Tensor:
    """The only tensor of its type in a block's output; a down block of one layer has it twice.

    What the last block of an SD3 transformer and its attention return for the text is not read.
    """
    first: torch.Tensor
    first, *rest = (leaf for leaf in tree_leaves(output) if _is_like(leaf, entered))
    assert all(other is first for other in rest)
    return first


def _is_like(leaf: torch.Tensor | None, entered: torch.Tensor) -> bool:
    return leaf is not None and leaf.shape == entered.shape


@torch.no_grad()
def run_eagerly(
    case: Case,
    scheduler: Any,
    subnet: SubNet,
    generator: torch.Generator | None = None,
    eta: float = 0.0,
) -> torch.Tensor:
    """The pipeline's own loop, with hooks; latents f32[B, C, H, W].

    `generator` and `eta` are for schedulers that draw noise.
    """
    scheduler = copy.deepcopy(scheduler)
    offered = {"generator": generator, "eta": eta}
    named = inspect.signature(scheduler.step).parameters
    options = {name: value for name, value in offered.items() if name in named}
    scheduler.set_timesteps(subnet.num_inference_steps)
    noise = latents = case.inputs["latents"]
    prior = subnet.prior_noise
    rest = [tensor for name, tensor in case.inputs.items() if name != "latents"]
    unguided = [
        torch.tensor(0.0) if name.endswith("guidance_scale") else tensor
        for name, tensor in case.inputs.items()
        if name != "latents"
    ]
    computed: list[tuple[torch.Tensor, torch.Tensor]] = []
    filters = {row: one for one in subnet.reuse_filters or () for row in one.rows}
    with Gating(case.denoiser, subnet) as gating:
        for timestep in scheduler.timesteps:
            row = subnet.timesteps.index(float(timestep))
            again, gating.row = bool(computed) and row == gating.row, row
            if prior and timestep < prior.below:
                latents = latents + prior.scale * noise
            state = latents
            if hasattr(scheduler, "scale_model_input"):  # those for flow matching have none
                state = scheduler.scale_model_input(latents, timestep)
            prediction, *_ = case.guided(state, timestep.float(), *rest)
            if subnet.gates[gating.row].any():
                half = prediction
                if len(rest) > 1 and subnet.uses_halves:  # at scales of 0 nothing else is left
                    half, *_ = case.guided(state, timestep.float(), *unguided)
                if again:  # of two evaluations in a row at one timestep the second counts
                    computed.pop(0)
                computed.insert(0, (prediction, half))
            elif gating.row in filters:
                prediction = _filtered(filters[gating.row], computed)
            elif subnet.reuse and subnet.reuse[gating.row]:
                prediction = _weighted(subnet, gating.row, computed)
            latents = scheduler.step(prediction, timestep, latents, return_dict=False, **options)[0]
    return latents


def _filtered(
    filters: GapFilters, computed: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """The sum of what was computed, each with its filter moved over it."""
    total = torch.zeros_like(computed[0][0])
    for kind, arrays in enumerate((filters.predictions, filters.unconditional)):
        for array, made in zip(arrays if arrays is not None else (), computed, strict=False):
            weight = torch.tensor(array)
            total += torch.conv2d(made[kind], weight, padding=filters.size // 2)
    return total


def _weighted(
    subnet: SubNet, row: int, computed: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """The sum of what was computed, the newest first, by the row's weights."""
    total = torch.zeros_like(computed[0][0])
    for kind, weights in enumerate((subnet.reuse, subnet.reuse_unconditional)):
        for weight, made in zip(weights[row] if weights else (), computed, strict=False):
            total = total + weight * made[kind]
    return total
