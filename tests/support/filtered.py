"""A dense request with a SubNet in its place whose last rows are off and have filters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dipgo.compiler.compile import compile_plan
from dipgo.compiler.request import Prepared
from dipgo.ir.subnet.gap_filters import GapFilters
from dipgo.ir.subnet.subnet import SubNet


def with_a_filter(prepared: Prepared) -> Prepared:
    """Rows 2 and 3 of four are off, and filter the two predictions before and their halves."""
    plan = compile_plan(prepared.source, prepared.schedule, prepared.geometry).plan
    timesteps = [step.timestep for step in plan.steps]
    made = SubNet.dense(timesteps, plan.blocks, num_inference_steps=plan.num_inference_steps)
    gates = made.gates.copy()
    gates[2:] = False
    random = np.random.default_rng(0)
    filters = GapFilters((2, 3), *random.normal(0, 0.1, (2, 2, 4, 4, 3, 3)))
    subnet = replace(made, gates=gates, reuse_filters=(filters,))
    return replace(prepared, schedule=replace(prepared.schedule, subnet=subnet))
