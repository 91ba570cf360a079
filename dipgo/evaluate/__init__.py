"""Quality of SubNets against dense, over held-out prompts and seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipgo.common.lazy import lazy_names

if TYPE_CHECKING:
    from dipgo.evaluate.api import evaluate
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "evaluate": "dipgo.evaluate.api",
        },
        extras="cpu,export,search",
    )

__all__ = ["evaluate"]
