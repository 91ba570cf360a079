"""Model families: the little that tracing cannot read off the graph, one module a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.models.family import Family, Geometry
    from dipgo.models.registry import register_family
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Family": "dipgo.models.family",
            "Geometry": "dipgo.models.family",
            "register_family": "dipgo.models.registry",
        },
    )

__all__ = ["Family", "Geometry", "register_family"]
