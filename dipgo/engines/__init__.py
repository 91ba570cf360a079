"""Runs an export directory. Imports no torch, no diffusers, no transformers."""

if __name__ != "dipgo.engines":
    raise ImportError(
        f"this package is dipgo.engines, not {__name__}: the `engines` at the repository's root is "
        "a link to it; write `import dipgo.engines`"
    )

from dipgo.engines.load import load
from dipgo.engines.runner import Runner, RunTimes
from dipgo.engines.targets import TARGETS

__all__ = ["TARGETS", "RunTimes", "Runner", "load"]
