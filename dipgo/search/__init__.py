"""Makes SubNets: prices gates, optimises them, and chooses those that meet a cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.search.api import search
    from dipgo.search.request import SearchRequest
    from dipgo.search.settings import SearchSettings, published
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "SearchRequest": "dipgo.search.request",
            "SearchSettings": "dipgo.search.settings",
            "published": "dipgo.search.settings",
            "search": "dipgo.search.api",
        },
        extras="export,search",
    )

__all__ = ["SearchRequest", "SearchSettings", "published", "search"]
