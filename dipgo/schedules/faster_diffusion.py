"""Faster Diffusion (arXiv 2312.09608): the encoder runs at key steps only, the decoder at all.

A ControlNet counts as part of the encoder: if it is among the `blocks`, it too runs at key steps
only. The paper's parallel decoding needs no code here: non-key steps read the last key step's
encoder and no newer state, so the pass `batch_calls` can run their decoders together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.ir.sampler import PriorNoise
from dipgo.ir.subnet.subnet import SubNet


def scale_key_steps(published: Sequence[int], of: int, steps: int, count: int) -> tuple[int, ...]:
    """Returns `count` key steps of `steps`, spaced as the `published` ones are among `of`.

    The published steps are read as quantiles of a density of key steps, from which any number can
    be drawn. With the published count and number of steps the result is the published steps.

    Args:
        published: The published key steps.
        of: The number of steps that they were published for.
        steps: The number of steps of the result.
        count: The number of key steps of the result.

    Raises:
        DipgoError: `count` is not between 1 and `steps`.
    """
    if not 1 <= count <= steps:
        raise DipgoError(
            "key steps",
            found=f"{count} of {steps} steps",
            expected=f"1 to {steps}",
            remedy="choose key steps among the steps",
        )
    ranks = np.arange(count) * len(published) / count
    places = np.interp(ranks, np.arange(len(published) + 1), (*published, of)) * steps / of
    keys = [-1]
    for rank, place in enumerate(places):  # distinct, with room for those that follow
        keys.append(min(max(int(place + 1e-9), keys[-1] + 1), steps - count + rank))
    return tuple(keys[1:])


DDIM_50_KEY_STEPS = (0, 1, 2, 3, 5, 10, 15, 25, 35)
"""Key steps for Stable Diffusion with 50 steps of DDIM."""

DREAMBOOTH_KEY_STEPS = (*DDIM_50_KEY_STEPS, 40)
"""Key steps for DreamBooth and Custom Diffusion, 50 steps of DDIM."""

DPM_20_KEY_STEPS = (0, 1, 2, 3, 5, 10, 15)
"""Key steps for 20 steps of DPM-Solver or DPM-Solver++."""

PRIOR_NOISE = PriorNoise(scale=0.003, below=500.0)
"""Noise that makes up for the detail that skipping loses."""


def faster_diffusion(
    blocks: Sequence[str],
    timesteps: Sequence[float],
    *,
    num_inference_steps: int,
    key_steps: Sequence[int] = DDIM_50_KEY_STEPS,
    decoder: str = "up_blocks.",
    prior_noise: PriorNoise | None = PRIOR_NOISE,
) -> SubNet:
    """Runs every block at `key_steps`, and at other steps the blocks that begin with `decoder`.

    Args:
        blocks: Paths of the blocks, among them `conv_in`: its output is a skip of the last up
            block, and is reused too.
        timesteps: A timestep a row.
        num_inference_steps: The sampler's number of steps.
        key_steps: Rows at which every block runs, among them 0.
        decoder: The prefix of the decoder's blocks.
        prior_noise: Noise that is added back to the latents; None for none.

    Raises:
        DipgoError: `conv_in` or the decoder is missing, or a key step is not a row.

    Source:
        Li et al. 2023 (arXiv 2312.09608).
    """
    _check(blocks, key_steps, len(timesteps), decoder)
    gates = np.array([[name.startswith(decoder) for name in blocks]] * len(timesteps))
    gates[list(key_steps)] = True
    return SubNet(
        num_inference_steps=num_inference_steps,
        timesteps=tuple(timesteps),
        blocks=tuple(blocks),
        gates=gates,
        backup=("output",) * len(blocks),
        provenance={"method": "Faster Diffusion", "key_steps": list(key_steps)},
        prior_noise=prior_noise,
    )


def faster_diffusion_with(
    dense: SubNet, count: int, *, prior_noise: PriorNoise | None = PRIOR_NOISE
) -> SubNet:
    """Returns `faster_diffusion` for the blocks and timesteps of `dense`, with `count` key steps.

    No count makes it cheaper than the decoder at every step.

    Raises:
        DipgoError: `conv_in` or the decoder is missing, or `count` is not between 1 and all steps.
    """
    made = faster_diffusion(
        dense.blocks,
        dense.timesteps,
        num_inference_steps=dense.num_inference_steps,
        key_steps=_scaled_key_steps(len(dense.timesteps), count),
        prior_noise=prior_noise,
    )
    return replace(made, model=dense.model, scheduler=dense.scheduler)


def _scaled_key_steps(steps: int, count: int) -> tuple[int, ...]:
    """Scales the key steps that are published for the number nearest to `steps`."""
    if abs(steps - 20) < abs(steps - 50):
        return scale_key_steps(DPM_20_KEY_STEPS, 20, steps, count)
    return scale_key_steps(DDIM_50_KEY_STEPS, 50, steps, count)


def _check(blocks: Sequence[str], key_steps: Sequence[int], rows: int, decoder: str) -> None:
    if "conv_in" not in blocks or not any(name.startswith(decoder) for name in blocks):
        raise DipgoError(
            "Faster Diffusion, blocks",
            found=" ".join(blocks),
            expected=f"conv_in, the encoder's blocks, and some that begin with {decoder}",
            remedy="name conv_in as a block",
        )
    if 0 not in key_steps or not all(0 <= step < rows for step in key_steps):
        raise DipgoError(
            "Faster Diffusion, key steps",
            found=" ".join(map(str, key_steps)),
            expected=f"0, and others below {rows}",
            remedy="choose key steps among the steps",
        )
