"""What is checked and measured: models with random weights, and SubNets for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dipgo.compiler.compile import Compiled, compile_plan
from dipgo.compiler.request import prepare
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.settings import Request
from dipgo.compiler.trace.precision import Precision
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.family import Geometry
from dipgo.models.guided import example_inputs
from dipgo.models.model import Source
from dipgo.models.source import load_source
from scripts.benchmarks.gpu_checks.tiny_models import TINY

SUBNETS = Path(__file__).parents[2] / "examples" / "subnets"
STEPS, GUIDANCE_SCALE, SEED = 50, 7.5, 0
TINY_STEPS = 4
REAL, SMALL = ("sd15", "sdxl", "dit-xl-2-256"), tuple(TINY)
FP16 = Precision("fp16")


@dataclass(frozen=True)
class Case:
    """A model, the scheduler that it is measured with, and the gates of the pruned run."""

    name: str
    source: Source
    scheduler: Any
    subnet: SubNet
    gates: str
    """Where the SubNet is from, in words."""

    @property
    def dense(self) -> SubNet:
        """The same blocks, all on."""
        chosen = self.subnet
        return SubNet.dense(
            chosen.timesteps, chosen.blocks, num_inference_steps=chosen.num_inference_steps
        )

    def compile(self, subnet: SubNet) -> Compiled:
        """The plan, batch 1 with guidance, in fp16. Raises DipgoError."""
        name = type(self.scheduler).__name__
        prepared = prepare(self.source, Request(subnet=subnet, scheduler=name))
        return compile_plan(prepared.source, prepared.schedule, prepared.geometry, precision=FP16)

    def inputs(self) -> dict[str, np.ndarray]:
        """Of a run: random numbers, and for labels none beside the first class."""
        source, geometry = self.source, Geometry(guidance=True, tokens=self.source.tokens)
        example, _ = example_inputs(source.family, source.denoiser, geometry)
        generator = torch.Generator().manual_seed(SEED)
        found = {name: _random(one, generator, source) for name, one in example.items()}
        sigma = probe(self.scheduler, self.subnet.num_inference_steps).start.noise_scale
        found["latents"] = found["latents"] * sigma
        found["guidance_scale"] = torch.tensor(GUIDANCE_SCALE)
        del found["timestep"]
        return {name: tensor.numpy() for name, tensor in found.items()}


def _random(example: torch.Tensor, generator: torch.Generator, source: Source) -> torch.Tensor:
    if example.is_floating_point():
        return torch.randn(example.shape, generator=generator)
    # Alike labels would make the two predictions alike, and the guidance scale without effect.
    config: Any = source.denoiser.config
    return torch.tensor([config.num_embeds_ada_norm, 0])


def make_case(name: str, steps: int | None) -> Case:
    """A model of `REAL` or `SMALL`; `steps` None stands for the usual number."""
    source = tiny_source(name) if name in TINY else load_source(f"arch:{name}")
    count = steps or (TINY_STEPS if name in TINY else STEPS)
    scheduler = make_scheduler(source.scheduler, "ddim" if name == "sd15" else None)
    blocks, gates, words = _GATES[name](source.denoiser, count)
    timesteps = probe(scheduler, count).timesteps
    subnet = SubNet(count, timesteps, blocks, gates, ("output",) * len(blocks))
    return Case(name, source, scheduler, subnet, words)


def tiny_source(name: str) -> Source:
    """A model of TINY with random weights, of which none are zero."""
    model = TINY[name]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        denoiser = model.build()
        for parameter in denoiser.parameters():
            if not parameter.any():  # what starts at zero would hide a block's fault
                nn.init.normal_(parameter, std=0.05)
    denoiser = denoiser.eval().requires_grad_(False)
    return Source(name, denoiser, model.family(), model.scheduler(), 8, tokens=7)


Gates = tuple[tuple[str, ...], np.ndarray, str]


def _published(denoiser: nn.Module, steps: int) -> Gates:
    """DiP-GO's own; of fewer steps the first rows, for a quick look."""
    given = SubNet.load(SUBNETS / "sd15-dipgo-0.80.json")
    rows = np.arange(steps) % len(given.gates)
    cut = "" if steps == len(given.gates) else f", its rows cut or repeated to {steps}"
    return given.blocks, given.gates[rows], f"examples/subnets/sd15-dipgo-0.80.json{cut}"


def _outermost(denoiser: nn.Module, steps: int, interval: int = 5) -> Gates:
    """DeepCache's kind (Ma et al. 2024): the deep blocks at every fifth step only."""
    names = [name for name, _ in denoiser.named_modules()]
    down, up = (
        [name for name in names if name.startswith(kind) and name.count(".") == 1]
        for kind in ("down_blocks.", "up_blocks.")
    )
    blocks = (*down, "mid_block", *up)
    always = [name in (down[0], up[-1]) for name in blocks]
    return (
        blocks,
        _every(interval, always, steps),
        f"of DeepCache's kind: all every {interval} steps",
    )


def _outer_layers(denoiser: Any, steps: int, interval: int = 2) -> Gates:
    """The middle half of the transformer at every second step only."""
    count = len(denoiser.transformer_blocks)
    blocks = tuple(f"transformer_blocks.{index}" for index in range(count))
    always = [not count // 4 <= index < count - count // 4 for index in range(count)]
    return blocks, _every(interval, always, steps), f"middle half every {interval} steps"


def _every(interval: int, always: list[bool], steps: int) -> np.ndarray:
    gates = np.tile(np.array(always), (steps, 1))
    gates[::interval] = True
    return gates


_GATES: dict[str, Callable[[Any, int], Gates]] = {
    "sd15": _published,
    "sdxl": _outermost,
    "dit-xl-2-256": _outer_layers,
    "tiny-unet": _outermost,
    "tiny-dit": _outer_layers,
}
