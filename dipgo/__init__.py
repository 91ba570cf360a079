"""dipgo: from a pruned diffusion model to deployable engines. Nothing heavy is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dipgo.common.early_interrupts  # noqa: F401  before the slower imports
from dipgo.common.lazy import lazy_names
from dipgo.common.moved import install as _forward_old_paths
from dipgo.common.version import __version__

_PACKAGES = ("compiler", "engines", "evaluate", "export", "ir", "models", "schedules", "search")

if TYPE_CHECKING:
    from dipgo.common.errors import DipgoError
    from dipgo.common.warn import DipgoWarning
    from dipgo.ir.subnet.subnet import SubNet
    from dipgo.run.pipeline import Pipeline
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "DipgoError": "dipgo.common.errors",
            "DipgoWarning": "dipgo.common.warn",
            "Pipeline": "dipgo.run.pipeline",
            "SubNet": "dipgo.ir.subnet.subnet",
        },
        packages=_PACKAGES,
    )

__all__ = ["DipgoError", "DipgoWarning", "Pipeline", "SubNet", "__version__"]


def __dir__() -> list[str]:
    """Returns the public names, and the packages that have further ones."""
    return [*__all__, *_PACKAGES]


_forward_old_paths()
