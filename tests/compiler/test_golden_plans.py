"""Whole plans of real models, as text: what changes in them is seen in a review."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dipgo.compiler.compile import compile_plan
from dipgo.compiler.passes import run_passes
from dipgo.compiler.request import prepare
from dipgo.compiler.sampler.probe import make_scheduler, probe
from dipgo.compiler.settings import Request
from dipgo.compiler.split_blocks import choose_split_blocks
from dipgo.compiler.unroll import unroll
from dipgo.ir.graph import BlockGraph
from dipgo.ir.plan.parse import parse_plan
from dipgo.ir.plan.plan import Plan
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.families.dit import DiTFamily
from dipgo.models.families.sd3 import SD3Family
from dipgo.models.families.sdxl import SDXLFamily
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.family import Family
from dipgo.models.registry import find_presets
from tests.support.architectures import trace_architecture
from tests.support.golden import GOLDEN

EXAMPLES = Path(__file__).parents[2] / "examples"
COEFFICIENT = re.compile(r"(?<![\w.])-?\d+\.\d+(e-?\d+)?(?=\*%)")
CLOSE = 1e-5
"""Relative, of two coefficients that are written with six digits."""
CheckGolden = Callable[[str, str], None]


def _compiled(graph: BlockGraph, subnet: SubNet, scheduler: object) -> Plan:
    """As `compile_plan` does, of a graph that was traced without weights."""
    sampler = probe(scheduler, subnet.num_inference_steps, prior_noise=subnet.prior_noise)
    split = choose_split_blocks(graph, subnet, sampler)
    return run_passes(unroll(graph, subnet, sampler, split))


def _check(name: str, plan: Plan, check_golden: CheckGolden) -> None:
    assert parse_plan(str(plan)) == plan
    golden = f"plans/{name}"
    check_golden(golden, _as_known(COEFFICIENT.sub(_rounded, str(plan)), GOLDEN / f"{golden}.txt"))


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.6g}"


def _as_known(text: str, golden: Path) -> str:
    """The text with the golden file's coefficients in place of those that are close to them.

    The last digits of a scheduler's tables differ from processor to processor, and any rounding
    has numbers at whose edge they lie.
    """
    known = [number[0] for number in COEFFICIENT.finditer(golden.read_text())]
    if len(COEFFICIENT.findall(text)) != len(known):
        return text
    numbers = iter(known)
    return COEFFICIENT.sub(lambda found: _nearest(found[0], next(numbers)), text)


def _nearest(found: str, known: str) -> str:
    return known if math.isclose(float(found), float(known), rel_tol=CLOSE) else found


def test_demo_model(check_golden: CheckGolden) -> None:
    request = Request(EXAMPLES / "subnets" / "demo-deepcache-5.json")
    prepared = prepare(EXAMPLES / "demo" / "model", request)
    plan = compile_plan(prepared.source, prepared.schedule, prepared.geometry).plan
    _check("demo", plan, check_golden)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dipgo-0.80", "faster-diffusion"])
def test_sd15(name: str, check_golden: CheckGolden) -> None:
    blocks = ("conv_in",) if name == "faster-diffusion" else ()
    traced = trace_architecture("sd15", UNetFamily(), blocks)
    scheduler = make_scheduler(find_presets()["sd15"].build_scheduler(), "ddim")
    subnet = SubNet.load(EXAMPLES / "subnets" / f"sd15-{name}.json")
    _check(f"sd15_{name}", _compiled(traced.graph, subnet, scheduler), check_golden)


HALVES: dict[str, tuple[str, Family]] = {
    "dit_xl": ("dit-xl-2-256", DiTFamily()),
    "sdxl": ("sdxl", SDXLFamily()),
    "sd3": ("sd3-medium", SD3Family()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HALVES)
def test_halves(name: str, check_golden: CheckGolden) -> None:
    """Four steps: the first half of the blocks at every other step, the second half at all."""
    architecture, family = HALVES[name]
    graph = trace_architecture(architecture, family).graph
    scheduler = find_presets()[architecture].build_scheduler()
    names = tuple(block.name for block in graph.blocks)
    gates = np.ones((4, len(names)), dtype=bool)
    gates[1::2, : len(names) // 2] = False
    timesteps = probe(scheduler, 4).timesteps
    subnet = SubNet(4, timesteps, names, gates, ("output",) * len(names))
    _check(name, _compiled(graph, subnet, scheduler), check_golden)
