"""Fewer steps: the first baseline of all, regular or at the steps of another SubNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import with_gates


def fewer_steps(dense: SubNet, steps: int, timesteps: Sequence[float]) -> SubNet:
    """The sampler at `steps` steps: every gate on at its own `timesteps`, which the caller probes.

    Its cost is to be set against that of `dense`, the long trajectory.
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
    """The same, with the sampler's timesteps at any number of steps."""
    return fewer_steps(dense, steps, timesteps_at(steps))


def count_steps(
    share: float, steps: int, evaluations: Callable[[int], int] = lambda steps: steps
) -> int:
    """The most steps that cost at most `share` of a dense trajectory of `steps`.

    `evaluations` tells how often the denoiser runs in so many steps (PNDM: 51 times in 50).
    Raises DipgoError where one step already costs more.
    """
    affordable = share * evaluations(steps) + 1e-9  # what 0.2 · 50 is must not fall below 10
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
    """Full rows at the `count` timesteps where `subnet` computes most, all reused elsewhere.

    With DDIM that is plain sampling at the SubNet's own, non-uniform timesteps. `macs` has those
    of each block. Of equal rows the one farthest from all that are chosen goes first.
    Raises DipgoError where there are not so many rows.
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
