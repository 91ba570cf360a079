"""Models of drawn operators: what has rules is batched and computes the same, the rest is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers import DDIMScheduler

from dipgo.compiler.compile import batchable
from dipgo.compiler.oracle import interpret
from dipgo.compiler.passes import OPTIMISE, run_passes
from dipgo.compiler.sampler.probe import probe
from dipgo.compiler.trace.dtypes import TORCH_DTYPES
from dipgo.compiler.trace.trace import Traced
from dipgo.compiler.unroll import unroll
from dipgo.export.lower.callee import callee_lowering, lower_as_onnx
from dipgo.ir.plan.nodes import Callee
from dipgo.ir.plan.plan import Plan
from dipgo.ir.subnet.subnet import SubNet
from tests.support.drawn_operators import (
    FEATURES,
    OPERATORS,
    TOKENS,
    WITH_RULES,
    draw_operators,
)

TOLERANCE = 1e-5
SCHEDULER = DDIMScheduler(clip_sample=False)
GATES = ("11", "01", "01", "11", "01")
"""The encoder runs at two steps of five, so the decoder's other calls need no newer state."""


def _plan(traced: Traced) -> Plan:
    sampler = probe(SCHEDULER, len(GATES))
    subnet = SubNet(
        len(GATES),
        sampler.timesteps,
        tuple(block.name for block in traced.graph.blocks),
        np.array([[gate == "1" for gate in row] for row in GATES]),
        ("output", "output"),
    )
    plan = unroll(traced.graph, subnet, sampler)
    return run_passes(plan, OPTIMISE, can_batch=batchable(traced))


def _lanes(callee: Callee, width: int) -> dict[str, torch.Tensor]:
    """Random inputs, with lanes where they differ; whole numbers are indices."""
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for value in callee.inputs:
        shape = (width,) * (value.name in callee.stacked) + value.type.shape
        numbers = torch.randn(shape, generator=generator)
        inputs[value.name] = numbers.to(TORCH_DTYPES[value.type.dtype])
        if value.type.dtype == "i64":
            inputs[value.name] = inputs[value.name].abs() % TOKENS
    return inputs


def _one_by_one(traced: Traced, callee: Callee, inputs: dict[str, torch.Tensor]) -> Sequence[Any]:
    """Computes every lane by itself, as an export without `batch_calls` does."""
    module = traced.module(
        callee.members or (callee.name,), [*inputs], [value.name for value in callee.outputs]
    )
    if not callee.stacked:
        alone: Sequence[Any] = module(*inputs.values())
        return alone
    width = len(inputs[callee.stacked[0]])
    results = [
        module(*(x[lane] if name in callee.stacked else x for name, x in inputs.items()))
        for lane in range(width)
    ]
    return [torch.stack(lanes) for lanes in zip(*results, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(len(OPERATORS)))
def test_batched_or_not_every_export_computes_the_same(seed: int) -> None:
    """All segments in ONNX Runtime, in lanes where the plan has any, against each lane alone."""
    denoiser, traced = draw_operators(seed)
    plan = _plan(traced)
    with_lanes = [callee for callee in plan.callees if callee.stacked]
    if WITH_RULES.keys() >= {*denoiser.names}:
        assert any("decoder" in callee.members for callee in with_lanes), denoiser.names
    for callee in plan.callees:
        widths = [call.width for call in plan.calls if call.callee == callee.name]
        lowering = callee_lowering(plan, traced, callee)
        model = lower_as_onnx(lowering, callee.name, callee.inputs, callee.outputs)
        session = onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for width in set(widths):
            inputs = _lanes(callee, width)
            arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
            found = session.run(None, arrays)
            expected = _one_by_one(traced, callee, inputs)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


def test_what_has_rules_is_batched_and_what_has_none_is_not() -> None:
    """The oracle runs lanes one by one: both plans yield the same bits."""
    batched = 0
    for seed in (0, 7, 12, 27, 29, len(OPERATORS) - 1):
        _, traced = draw_operators(seed)
        plan = _plan(traced)
        plain = run_passes(plan, ())
        inputs = {
            "latents": torch.randn(1, TOKENS, FEATURES, generator=torch.Generator().manual_seed(1)),
            "prompt": torch.ones(1, 1, FEATURES),
        }
        assert torch.equal(interpret(plan, traced, inputs), interpret(plain, traced, inputs))
        batched += any(callee.stacked and "decoder" in callee.members for callee in plan.callees)
    assert 0 < batched < 6
