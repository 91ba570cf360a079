"""MACs of whole trajectories at real size against the totals that DiP-GO's tables have."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from dipgo.models.family import Family
from dipgo.models.registry import find_family, find_presets
from tests.support.architectures import trace_architecture

TOLERANCE = 0.02


@dataclass(frozen=True)
class Published:
    """A total in the paper's tables, and how it was counted."""

    architecture: str
    steps: int
    tmacs: float
    rows: int = 1
    with_attention: bool = False
    """Whether the products of activations with activations are in it."""


TOTALS = (
    Published("sd15", 50, 16.94),
    Published("sd21", 50, 38.04),
    Published("sdxl", 4, 11.95),
    Published("pixart-alpha-1024", 20, 85.65, rows=2),
    Published("dit-xl-2-256", 250, 29.66, with_attention=True),
)


def _family(architecture: str) -> Family:
    with torch.device("meta"):
        return find_family(find_presets()[architecture].build_denoiser())


@pytest.mark.slow
@pytest.mark.parametrize("published", TOTALS, ids=lambda one: one.architecture)
def test_totals_are_those_of_the_paper(published: Published) -> None:
    graph = trace_architecture(published.architecture, _family(published.architecture)).graph
    attention = sum(node.attention_macs for node in graph.nodes)
    macs = graph.macs + (attention if published.with_attention else 0)
    tmacs = macs * published.rows * published.steps / 1e12
    apart = attention * published.rows * published.steps / 1e12
    print(f"{published}: {tmacs:.2f} T, {tmacs / published.tmacs - 1:+.2%}, attention {apart:.2f}")
    assert tmacs == pytest.approx(published.tmacs, rel=TOLERANCE)
