"""Learning-to-Cache (arXiv 2406.01733): imports the routers that its authors publish for DiT.

A checkpoint (github.com/horseee/learning-to-cache, DiT/ckpt) has under `routers` one vector a
step, from the last step to the first. It holds a logit for every block's attention and MLP,
interleaved. Steps with an even number reuse.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.safe_pickle import load_checkpoint
from dipgo.common.typed_json import read_file
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.base import all_on, with_gates

METHOD = "Learning-to-Cache"

PARTS = ("attn1", "ff")
"""The names of a DiT block's attention and MLP in diffusers."""


def learning_to_cache(path: str | Path, dense: SubNet, *, threshold: float = 0.1) -> SubNet:
    """Reuses where the sigmoid of a published router is at most `threshold`.

    Args:
        path: The checkpoint that the authors published.
        dense: The SubNet whose gates are all on, with the blocks `transformer_blocks.*.attn1` and
            `transformer_blocks.*.ff`.
        threshold: The paper's θ, between 0 and 1.

    Raises:
        DipgoError: The file is not such a checkpoint, or belongs to another model.

    Source:
        Ma et al. 2024 (arXiv 2406.01733).
    """
    path = Path(path)
    logits = _read_router(path)
    expected = [f"transformer_blocks.{k // 2}.{PARTS[k % 2]}" for k in range(logits.shape[1])]
    if set(dense.blocks) != set(expected) or len(dense.timesteps) != len(logits):
        raise DipgoError(
            path.name,
            found=f"{len(logits)} steps of {len(expected)} attentions and MLPs",
            expected=f"{len(dense.timesteps)} steps of {' '.join(dense.blocks)}",
            remedy="give the SubNet attn1 and ff of all blocks, and the router's number of steps",
        )
    columns = [expected.index(block) for block in dense.blocks]
    gates = all_on(dense)
    reusing = [row for row in range(1, len(logits)) if (len(logits) - 1 - row) % 2 == 0]
    gates[reusing] = logits[reusing][:, columns] > np.log(threshold / (1 - threshold))
    return with_gates(dense, gates, METHOD, imported_from=path.name, threshold=threshold)


def _read_router(path: Path) -> NDArray[np.float64]:
    """Returns the logits f64[steps, 2 · blocks], the first step first."""
    checkpoint = load_checkpoint(read_file(path, expected="a router checkpoint"), name=path.name)
    routers = checkpoint.get("routers") if isinstance(checkpoint, dict) else None
    try:
        assert isinstance(routers, dict)
        vectors = [routers[f"{index}.prob"] for index in reversed(range(len(routers)))]
        return np.array(vectors, dtype=np.float64).reshape(len(vectors), -1)
    except (AssertionError, KeyError, ValueError, TypeError):
        raise DipgoError(
            path.name,
            found="a checkpoint without routers",
            expected="`routers`, with one vector `0.prob`, `1.prob`, … for every step",
            remedy="fetch a router of github.com/horseee/learning-to-cache, DiT/ckpt",
        ) from None
