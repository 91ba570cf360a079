"""The data that the stages hand on: graphs, SubNets, plans, manifests. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.ir.plan.parse import parse_plan
    from dipgo.ir.plan.plan import Plan
    from dipgo.ir.plan.verify import verify
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Plan": "dipgo.ir.plan.plan",
            "parse_plan": "dipgo.ir.plan.parse",
            "verify": "dipgo.ir.plan.verify",
        },
    )

__all__ = ["Plan", "parse_plan", "verify"]
