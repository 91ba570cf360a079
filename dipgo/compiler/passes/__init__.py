"""Passes: functions from plan to plan, each leaving a valid plan.

docs/internals/design.md, stage 6.
"""

from dipgo.compiler.passes.manager import (
    OPTIMISE,
    OnPass,
    Pass,
    PlanSize,
    find_passes,
    plan_size,
    run_passes,
)

__all__ = ["OPTIMISE", "OnPass", "Pass", "PlanSize", "find_passes", "plan_size", "run_passes"]
