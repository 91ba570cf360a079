"""Runs diffusers' own pipeline, gated by module hooks: what an export has to agree with."""

from __future__ import annotations

import fnmatch
import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipgo.ir.subnet.subnet import SubNet
from scripts.fuzz.draws import Draw
from scripts.fuzz.pipelines import IMAGE_WIDTH, NEW_TOKEN, denoiser_of
from tests.support.eager import Gating

EMBEDDED = ("flux", "lcm")
"""Families whose denoiser takes the scale itself: there is no guidance by two predictions."""


@dataclass(slots=True)
class Run:
    """Results of a run of diffusers' pipeline.

    `latents` is what the scheduler's last step returned, [N, ...]; `pictures` f32[N, H, W, C] in
    [0, 1]; `timesteps` that of each call of the denoiser; `keeps_shape` says of each module that
    was called whether its output has the shape of its input.
    """

    latents: NDArray[np.float32]
    pictures: NDArray[np.float32]
    timesteps: list[float] = field(default_factory=list)
    keeps_shape: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Media:
    """Pictures of a call: f32[3, H, W] in [-1, 1], a mask f32[H, W], an image encoder's vectors."""

    picture: torch.Tensor
    mask: torch.Tensor
    control: torch.Tensor
    embeds: torch.Tensor


def draw_media(draw: Draw) -> Media:
    """Returns the pictures of a draw."""
    generator = torch.Generator().manual_seed(draw.seed + 1)
    size = (draw.height, draw.width)
    return Media(
        torch.rand(3, *size, generator=generator) * 2 - 1,
        (torch.rand(*size, generator=generator) > 0.5).float(),
        torch.rand(1, 3, *size, generator=generator),
        torch.randn(2, 1, IMAGE_WIDTH, generator=generator),
    )


def prompts_of(draw: Draw) -> list[str]:
    """Returns the prompts, with the new token of an inversion in the first."""
    first, *rest = draw.prompts
    return [f"{first} {NEW_TOKEN} blue" if draw.inversion else first, *rest]


def labels_of(draw: Draw) -> list[int]:
    """Returns a class for each prompt."""
    return [sum(map(ord, prompt)) % 1000 for prompt in draw.prompts]


def generators_of(seeds: Sequence[int] | int) -> Any:
    """Returns new generators of the CPU, as diffusers takes them."""
    if isinstance(seeds, int):
        return torch.Generator("cpu").manual_seed(seeds)
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def call_arguments(draw: Draw, pipeline: Any) -> dict[str, Any]:
    """Returns the arguments of diffusers' pipeline; those that it has not are left out."""
    media, count = draw_media(draw), len(draw.prompts)
    negative = draw.negative
    scaled = draw.guidance or draw.family in EMBEDDED
    offered: dict[str, Any] = {
        "prompt": prompts_of(draw),
        "class_labels": [label for label in labels_of(draw) for _ in range(draw.pictures_each)],
        "batch_size": count * draw.pictures_each,
        "negative_prompt": None if negative is None else list(negative * (count // len(negative))),
        "num_images_per_prompt": draw.pictures_each,
        "num_inference_steps": draw.steps,
        "guidance_scale": draw.guidance_scale if scaled else min(draw.guidance_scale, 1.0),
        "eta": draw.eta,
        "height": draw.height,
        "width": draw.width,
        "generator": generators_of(draw.seeds),
        "use_resolution_binning": False,
        "clean_caption": False,
        "output_type": "np",
    }
    if draw.task in ("image", "inpaint"):
        picture = (media.picture[None] + 1) / 2
        offered |= {"image": picture, "mask_image": media.mask[None, None]}
        # Pipelines that paint in start from noise at a strength of 1, which the export stands for.
        offered["strength"] = 1.0 if draw.task == "inpaint" else draw.strength
    elif draw.task == "controlnet":
        offered |= {"image": media.control, "controlnet_conditioning_scale": 0.7}
    elif draw.task == "ip-adapter":
        embeds = media.embeds if draw.guidance and draw.guidance_scale > 1 else media.embeds[1:]
        offered["ip_adapter_image_embeds"] = [embeds]
    named = inspect.signature(type(pipeline).__call__).parameters
    return {key: value for key, value in offered.items() if key in named and value is not None}


@torch.no_grad()
def run_diffusers(
    pipeline: Any,
    draw: Draw,
    subnet: SubNet | None = None,
    timesteps: Sequence[float] = (),
    *,
    nudge: float = 0.0,
) -> Run:
    """Runs the pipeline.

    Args:
        pipeline: diffusers' pipeline.
        draw: The call.
        subnet: Gates its denoiser, a row for each timestep; None computes everything.
        timesteps: Those of the calls, as the dense run had them.
        nudge: Relative noise on every prediction, which shows how far rounding is carried.
    """
    arguments = call_arguments(draw, pipeline)
    scheduler, denoiser = pipeline.scheduler, denoiser_of(pipeline)
    nothing = np.zeros(0, np.float32)
    run, generator = Run(nothing, nothing), torch.Generator().manual_seed(1)
    last: list[torch.Tensor] = []
    step = scheduler.step
    takes_generator = "generator" in inspect.signature(step).parameters

    @wraps(step)  # pipelines read off its signature whether it takes a generator
    def recorded(prediction: Any, timestep: Any, *rest: Any, **named: Any) -> Any:
        run.timesteps.append(float(timestep))
        if takes_generator and named.get("generator") is None:
            named["generator"] = _one_for_each(arguments["generator"], len(prediction), draw)
        if nudge:
            noise = torch.randn(prediction.shape, generator=generator, dtype=prediction.dtype)
            prediction = prediction + nudge * prediction.abs().mean() * noise
        result = step(prediction, timestep, *rest, **named)
        last[:] = [result[0] if isinstance(result, tuple) else result.prev_sample]
        return result

    scheduler.step = recorded
    try:
        with (
            _shapes_kept(denoiser, run.keeps_shape),
            _gated(denoiser, subnet, timesteps),
            torch.random.fork_rng(devices=()),
        ):
            torch.manual_seed(draw.seed)  # for what no generator reaches: each run has the same
            pictures = pipeline(**arguments).images
    finally:
        del scheduler.step
    run.latents, run.pictures = last[0].float().numpy(), np.asarray(pictures, np.float32)
    return run


def _one_for_each(given: Any, count: int, draw: Draw) -> list[torch.Generator]:
    """Returns a generator for each row, where the pipeline leaves noise to torch's global one.

    dipgo draws from the seed's stream all the same (docs/guide/samplers.md). A DiT's scheduler
    steps both halves of guidance, of which the second does not count.
    """
    pictures = len(draw.prompts) * draw.pictures_each
    streams = given if isinstance(given, list) else [given] * pictures
    return [*streams, *(torch.Generator().manual_seed(0) for _ in range(count - pictures))]


@contextmanager
def _gated(denoiser: Any, subnet: SubNet | None, timesteps: Sequence[float]) -> Iterator[None]:
    """Sets the SubNet's row before each call of the denoiser, by the timestep of the call."""
    if subnet is None:
        yield
        return
    calls = iter(timesteps)
    with Gating(denoiser, subnet) as gating:

        def choose(module: Any, arguments: Any) -> None:
            gating.row = subnet.timesteps.index(next(calls))

        handle = denoiser.register_forward_pre_hook(choose)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def _shapes_kept(denoiser: Any, kept: dict[str, bool]) -> Iterator[None]:
    """Notes for each module whether its only tensor of output has the shape of its first input."""

    def note(name: str) -> Any:
        def hook(module: Any, arguments: Any, named: Any, output: Any) -> None:
            entered = arguments[0] if arguments else named.get("hidden_states")
            same = torch.is_tensor(output) and torch.is_tensor(entered)
            kept[name] = kept.get(name, True) and same and output.shape == entered.shape

        return hook

    handles = [
        module.register_forward_hook(note(name), with_kwargs=True)
        for name, module in denoiser.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_subnet(draw: Draw, pipeline: Any, dense: Run) -> SubNet | None:
    """Returns the SubNet of a draw; None for the dense model, or if no module matches."""
    wish = draw.subnet
    if wish is None:
        return None
    chosen = random.Random(wish.seed)
    names = [
        name
        for name, _ in denoiser_of(pipeline).named_modules()
        if any(_matches(name, pattern) for pattern in wish.patterns)
    ]
    if not names:
        return None
    timesteps = tuple(dict.fromkeys(dense.timesteps))
    gates = np.ones((len(timesteps), len(names)), dtype=np.bool_)
    for row in range(1, len(timesteps)):
        on = chosen.random() < wish.share
        gates[row] = [on if wish.whole_rows else chosen.random() < wish.share for _ in names]
    return SubNet(
        num_inference_steps=draw.steps,
        timesteps=timesteps,
        blocks=tuple(names),
        gates=gates,
        backup=tuple(
            chosen.choice(wish.backups) if dense.keeps_shape.get(name) else "output"
            for name in names
        ),
    )


def _matches(name: str, pattern: str) -> bool:
    """Returns whether each part of a module's path matches that of the pattern."""
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
