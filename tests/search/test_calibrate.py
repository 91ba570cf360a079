"""Calibration against the SuperNet itself, with gates set by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from torch import Tensor

from dipgo.compiler.oracle import interpret
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.unroll import unroll
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.calibrate import activation_changes, removal_curvature, removal_losses
from dipgo.search.supernet.supernet import SuperNet
from tests.support.zoo import Case, case

DDIM = DDIMScheduler(clip_sample=False, steps_offset=1)
PLMS = PNDMScheduler(skip_prk_steps=True, steps_offset=1)


def _net(tiny: Case, scheduler: object, steps: int, backup: tuple[str, ...] = ()) -> SuperNet:
    blocks = [block.name for block in tiny.traced.graph.blocks]
    words = backup or ("output",) * len(blocks)
    return SuperNet(tiny.traced, probe(scheduler, steps), blocks, words)


def _gates(net: SuperNet) -> Tensor:
    return torch.ones(len(net.sampler.timesteps), len(net.blocks))


def _mean_square(pruned: Tensor, dense: Tensor) -> Tensor:
    return ((pruned - dense) ** 2).mean()


BACKUPS = {
    "output": (),
    "mixed": ("delta", "output", "identity", "delta"),
}


@pytest.mark.parametrize("scheduler", [DDIM, PLMS], ids=["ddim", "plms"])
@pytest.mark.parametrize("backup", BACKUPS)
@torch.no_grad()
def test_removal_losses_equal_gates_one_by_one(scheduler: object, backup: str) -> None:
    tiny = case("dit", "block") if backup == "mixed" else case("one_level", "block")
    net = _net(tiny, scheduler, 4, BACKUPS[backup])
    dense = net(_gates(net), tiny.inputs)
    seen: list[tuple[int, int]] = []
    losses = removal_losses(
        net, tiny.inputs, dense, loss=_mean_square, on_gate=lambda *at: seen.append(at)
    )
    expected = np.full_like(losses, np.inf)
    for row, column in np.ndindex(*losses.shape):
        if row:
            gates = _gates(net)
            gates[row, column] = 0
            expected[row, column] = float(_mean_square(net(gates, tiny.inputs), dense))
    assert np.allclose(losses, expected, rtol=1e-2, atol=1e-9)
    assert (expected[1] > 1e-7).all()
    assert seen[-1] == (len(seen), len(seen))


def test_changes_are_those_of_the_blocks_outputs() -> None:
    """The oracle tells what every call of a dense plan yields."""
    tiny = case("one_level", "block")
    net = _net(tiny, DDIM, 5)
    changes = activation_changes(net, tiny.inputs, max_lag=2)
    outputs = _dense_outputs(tiny, net)
    for lag, step, column in np.ndindex(*changes.relative.shape):
        measured = changes.relative[lag, step, column]
        if step <= lag:
            assert np.isnan(measured)
            continue
        now = outputs[net.blocks[column], step]
        before = outputs[net.blocks[column], step - lag - 1]
        expected = (now - before).abs().sum(1) / now.abs().sum(1)
        assert measured == pytest.approx(float(expected.mean()), rel=1e-3)


def _dense_outputs(tiny: Case, net: SuperNet) -> dict[tuple[str, int], Tensor]:
    subnet = SubNet.dense(
        net.sampler.timesteps, net.blocks, num_inference_steps=net.sampler.num_inference_steps
    )
    found: dict[tuple[str, int], Tensor] = {}

    def keep(call: object, operands: object, results: list[Tensor]) -> None:
        flat = [result.reshape(len(result), -1) for result in results]
        found[call.callee, call.step] = torch.cat(flat, dim=1)  # type: ignore[attr-defined]

    plan = unroll(tiny.traced.graph, subnet, net.sampler)
    interpret(plan, tiny.traced, tiny.inputs, on_call=keep)
    return found


def test_changes_with_timesteps_that_come_again() -> None:
    tiny = case("one_level", "block")
    changes = activation_changes(_net(tiny, PLMS, 4), tiny.inputs, max_lag=3)
    assert np.isfinite(changes.relative[0, 1:]).all()
    assert np.isnan(changes.relative[2, :3]).all()


def test_curvature_is_the_squared_slope_of_the_latents() -> None:
    tiny = case("one_level", "block")
    net = _net(tiny, DDIM, 4)
    measured = removal_curvature(net, tiny.inputs, probes=64)
    assert np.isinf(measured[0]).all()
    with torch.no_grad():
        for row, column in np.ndindex(3, len(net.blocks)):
            ends = [_gates(net), _gates(net)]
            ends[0][row + 1, column] += 1e-2
            ends[1][row + 1, column] -= 1e-2
            slope = (net(ends[0], tiny.inputs) - net(ends[1], tiny.inputs)) / 2e-2
            ratio = measured[row + 1, column] / float((slope**2).mean())
            assert 0.5 < ratio < 2, (row, column, ratio)
