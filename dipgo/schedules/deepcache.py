"""DeepCache (arXiv 2312.00858): between full steps only the outermost layers are computed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, check_interval, regular_steps, with_gates

PART = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?(?:\.([a-z]+)\.(\d+))?(?:\.|$)")
"""Matches a path's side, block, group of layers and number of the layer, as far as it has them."""


def is_outside(block: str, blocks: Sequence[str], depth: int, layer: int) -> bool:
    """Returns whether a step that runs a single branch computes the block.

    A whole block is computed if any of its layers is.

    Args:
        block: Path of the block or layer.
        blocks: Paths of all blocks, which say how many there are.
        depth: The down block that the branch leaves from, counted from the outermost.
        layer: The layer of that block that the branch leaves from.
    """
    match = PART.match(block)
    if match is None:  # conv_in and the head are outside all branches
        return True
    side, number, group, place = match.groups()
    if side == "mid":
        return False
    outside = int(number) if side == "down" else _last(r"up_blocks\.(\d+)", blocks) - int(number)
    if outside != depth:
        return outside < depth
    if side == "down":
        return layer > 0 if group is None else group != "downsamplers" and int(place) < layer
    if group is None or group == "upsamplers":
        return True
    last = _last(rf"up_blocks\.{number}\.(?:resnets|attentions)\.(\d+)", blocks)
    return last - int(place) <= layer


def _last(pattern: str, blocks: Sequence[str]) -> int:
    """Returns the highest number that the pattern matches in the blocks' paths."""
    return max(int(match[1]) for match in (re.match(pattern, block) for block in blocks) if match)


METHOD = "DeepCache"

LAYERS = 3
"""Layers of an up block of Stable Diffusion: published branch ids are depth · 3 + layer."""


def deepcache(dense: SubNet, interval: int, *, branch: int = 0, layers: int = LAYERS) -> SubNet:
    """Runs all blocks at every `interval`-th step, and a single branch at the others.

    Args:
        dense: The SubNet whose gates are all on, with blocks of a U-Net.
        interval: Steps from a full step to the next.
        branch: The published branch id, `depth * layers + layer`.
        layers: Layers of a block, by which branch ids count.

    Raises:
        DipgoError: The interval is below 1, or no block is deeper than the branch.

    Source:
        Ma et al. 2023 (arXiv 2312.00858).
    """
    full = regular_steps(METHOD, len(dense.timesteps), interval)
    gates = _gates(dense, full, branch, layers)
    return with_gates(dense, gates, METHOD, interval=interval, branch=branch)


def deepcache_nonuniform(
    dense: SubNet,
    interval: int,
    *,
    branch: int = 0,
    layers: int = LAYERS,
    centre: int | None = None,
    power: float = 1.4,
) -> SubNet:
    """Runs all blocks at as many steps as `deepcache` does, but closer together about `centre`.

    Args:
        dense: The SubNet whose gates are all on, with blocks of a U-Net.
        interval: Mean number of steps from a full step to the next.
        branch: The published branch id, `depth * layers + layer`.
        layers: Layers of a block, by which branch ids count.
        centre: The step about which full steps are closest; by default 0.3 of all steps, as the
            released default of 15 is of 50.
        power: The power by which distances from the centre grow.

    Raises:
        DipgoError: The interval is below 1, no block is deeper than the branch, or no power yields
            distinct steps.

    Source:
        Ma et al. 2023 (arXiv 2312.00858).
    """
    steps = len(dense.timesteps)
    middle = round(0.3 * steps) if centre is None else centre
    full = nonuniform_steps(steps, interval, centre=middle, power=power)
    gates = _gates(dense, full, branch, layers)
    parameters = {"interval": interval, "branch": branch, "centre": middle, "power": power}
    return with_gates(dense, gates, f"{METHOD}, non-uniform", **parameters)


def nonuniform_steps(steps: int, interval: int, *, centre: int, power: float) -> list[int]:
    """Returns ⌈steps / interval⌉ steps whose distance from `centre` grows as a power of their rank.

    The power falls by 0.02 until the steps are distinct, and left of the centre the power of a
    negative number is the real part of its principal value.

    Raises:
        DipgoError: The interval is below 1, or no power above 1 suffices.

    Source:
        The released code of DeepCache.
    """
    check_interval(METHOD, interval)
    wanted = -(-steps // interval)
    if wanted == steps:
        return list(range(steps))
    for exponent in np.arange(power, 1.0, -0.02).tolist():
        first, end = (complex(end) ** (1 / exponent) for end in (-centre, steps - centre))
        offsets = np.linspace(first, end, wanted + 1) ** exponent
        distinct = np.unique(np.trunc(offsets.real).astype(int))
        full = [0, *(int(offset) + centre for offset in distinct[1:-1])]
        if len(full) == wanted and max(full) < steps:
            return full
    raise DipgoError(
        f"{METHOD}, non-uniform",
        found=f"interval {interval}, centre {centre} and power {power:g} for {steps} steps",
        expected=f"{wanted} distinct steps",
        remedy="choose another centre, a larger interval, or uniform steps",
    )


def _gates(dense: SubNet, full: Sequence[int], branch: int, layers: int) -> np.ndarray:
    depth, layer = divmod(branch, layers)
    outer = [is_outside(block, dense.blocks, depth, layer) for block in dense.blocks]
    unet = any(block.startswith("up_blocks.") for block in dense.blocks)
    if branch < 0 or all(outer) or not unet:
        raise DipgoError(
            f"{METHOD}, blocks",
            found=" ".join(dense.blocks),
            expected=f"blocks of a U-Net, some of them deeper than branch {branch}",
            remedy="name down_blocks, mid_block and up_blocks, and take a lower branch",
        )
    gates = all_on(dense)
    cheap = np.setdiff1d(np.arange(len(gates)), full)
    gates[cheap] = outer
    return gates
