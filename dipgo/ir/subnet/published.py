"""Imports published gate pickles under the function's name of dipgo 0.1."""

from collections.abc import Iterable
from pathlib import Path

from dipgo.ir.subnet.subnet import SubNet


def import_gate_pickle(
    path: str | Path, timesteps: Iterable[float], *, num_inference_steps: int | None = None
) -> SubNet:
    """Returns `SubNet.from_published` of the same arguments.

    Raises:
        DipgoError: The file is not a gate pickle as published.
    """
    return SubNet.from_published(path, timesteps, num_inference_steps=num_inference_steps)
