"""Model families: the few facts that tracing cannot read off the graph, one module a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.models.family import Family, Geometry, PipelinePart
    from dipgo.models.presets import Preset
    from dipgo.models.registry import register_family
    from dipgo.models.text_encoding import TextEncoding, Tokens
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Family": "dipgo.models.family",
            "Geometry": "dipgo.models.family",
            "PipelinePart": "dipgo.models.family",
            "Preset": "dipgo.models.presets",
            "TextEncoding": "dipgo.models.text_encoding",
            "Tokens": "dipgo.models.text_encoding",
            "register_family": "dipgo.models.registry",
        },
        extras="export",
    )

__all__ = [
    "Family",
    "Geometry",
    "PipelinePart",
    "Preset",
    "TextEncoding",
    "Tokens",
    "register_family",
]
