"""Fewer steps: the first baseline, with regular steps or at the steps of another SubNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import with_gates


def fewer_steps(dense: SubNet, steps: int, timesteps: Sequence[float]) -> SubNet:
    """Returns the sampler at `steps` steps, with every gate on.

    Args:
        dense: The long trajectory, with which the cost is to be compared.
        steps: The sampler's number of steps.
        timesteps: The sampler's timesteps at that number, which the caller probes.
    """
    return replace(
        dense.without_reuse(),
        num_inference_steps=steps,
        timesteps=tuple(timesteps),
        gates=np.ones((len(timesteps), len(dense.blocks)), dtype=np.bool_),
        scores=None,
        prior_noise=None,
        provenance={"method": "fewer steps", "instead_of": dense.num_inference_steps},
    )


def fewer_steps_with(
    dense: SubNet, steps: int, timesteps_at: Callable[[int], Sequence[float]]
) -> SubNet:
    """Returns `fewer_steps`, with `timesteps_at` for the sampler's timesteps at n steps."""
    return fewer_steps(dense, steps, timesteps_at(steps))


def count_steps(
    share: float, steps: int, evaluations: Callable[[int], int] = lambda steps: steps
) -> int:
    """Returns the most steps that cost at most `share` of a dense trajectory of `steps`.

    Args:
        share: The share of the cost, 0 to 1.
        steps: Steps of the dense trajectory.
        evaluations: Returns how often the denoiser runs in n steps (PNDM: 51 times in 50).

    Raises:
        DipgoError: A single step already costs more.
    """
    affordable = share * evaluations(steps) + 1e-9  # 0.2 · 50 must not round to less than 10
    counts = [count for count in range(1, steps + 1) if evaluations(count) <= affordable]
    if not counts:
        raise DipgoError(
            "fewer steps",
            found=f"a kept share of {share:g}",
            expected=f"at least one step of {steps}",
            remedy="ask for a larger share",
        )
    return counts[-1]


def steps_of(subnet: SubNet, macs: Mapping[str, float], count: int) -> SubNet:
    """Runs all blocks at the `count` timesteps where `subnet` computes most, and none elsewhere.

    With DDIM this is plain sampling at the SubNet's own, non-uniform timesteps. Of equal rows the
    farthest from all chosen ones is taken first.

    Args:
        subnet: The SubNet whose steps are followed.
        macs: MACs of a call of each block.
        count: The number of full rows.

    Raises:
        DipgoError: `count` is not between 1 and the number of rows.
    """
    rows = len(subnet.timesteps)
    if not 1 <= count <= rows:
        raise DipgoError(
            "steps of a SubNet",
            found=f"{count} steps",
            expected=f"1 to {rows}",
            remedy="choose among the SubNet's own timesteps",
        )
    gates = np.zeros(subnet.gates.shape, dtype=np.bool_)
    gates[_busiest(subnet, macs, count)] = True
    # A step in which nothing runs repeats the prediction only if blocks repeat their outputs.
    plain = replace(subnet.without_reuse(), backup=("output",) * len(subnet.blocks))
    origin = subnet.provenance.get("method", "a SubNet")
    return with_gates(plain, gates, "steps of a SubNet", count=count, of=origin)


def _busiest(subnet: SubNet, macs: Mapping[str, float], count: int) -> list[int]:
    work = subnet.gates @ np.array([macs[block] for block in subnet.blocks], dtype=np.float64)
    chosen, rest = [0], set(range(1, len(work)))
    while len(chosen) < count:
        distance = {row: min(abs(row - other) for other in chosen) for row in rest}
        chosen.append(max(rest, key=lambda row: (work[row], distance[row], -row)))
        rest.remove(chosen[-1])
    return sorted(chosen)
