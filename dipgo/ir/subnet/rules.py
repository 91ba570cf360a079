"""Checks a SubNet's parts; each rule raises the error that names its breach."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, shown
from dipgo.ir.sampler import PriorNoise
from dipgo.ir.subnet.backups import BACKUPS
from dipgo.ir.types import LARGEST

MOST_STEPS = 10_000
"""Steps of a sampler: ten times the timesteps that models are trained with."""

LONGEST_NAME = 1000
"""Characters of a module path."""


def check_steps(num_inference_steps: int, timesteps: Sequence[float]) -> None:
    """Checks that there are steps, not too many, and that timesteps are finite and differ.

    Their order is the scheduler's: an inverse one goes up, and rounding may turn neighbours round.

    Raises:
        DipgoError: They are not.
    """
    if not 1 <= num_inference_steps <= MOST_STEPS:
        raise DipgoError(
            "num_inference_steps",
            found=shown(num_inference_steps),
            expected="1 or more" if num_inference_steps < 1 else f"at most {MOST_STEPS}",
            remedy="give the number the scheduler's set_timesteps is called with",
        )
    if len(timesteps) > MOST_STEPS:
        raise DipgoError(
            "timesteps",
            found=f"{len(timesteps)} timesteps",
            expected=f"at most {MOST_STEPS}",
            remedy="list the scheduler's timesteps",
        )
    if not timesteps or not all(math.isfinite(t) for t in timesteps):
        raise DipgoError(
            "timesteps",
            found="no timestep" if not timesteps else "a timestep that is not finite",
            expected="one finite number for every row of gates",
            remedy="list the scheduler's timesteps",
        )
    seen: set[float] = set()
    for index, timestep in enumerate(timesteps):
        if timestep in seen:
            raise DipgoError(
                f"timesteps, entry {index}",
                found=f"{timestep:g} a second time",
                expected="each timestep once, the first step's first",
                remedy="take the entry and its row out: evaluations at one timestep share a row",
            )
        seen.add(timestep)


def check_blocks(blocks: Sequence[str]) -> None:
    """Checks that there is at least one block, and that names differ and can be printed.

    Raises:
        DipgoError: They do not.
    """
    if not blocks:
        raise DipgoError(
            "blocks",
            found="no block",
            expected="the module path of each gated block",
            remedy="name at least one block",
        )
    seen: set[str] = set()
    for index, block in enumerate(blocks):
        if len(block) > LONGEST_NAME or not block.isprintable():
            raise DipgoError(
                f"blocks, entry {index}",
                found=f"{block[:LONGEST_NAME]!a:.60}",
                expected=f"a module path, of at most {LONGEST_NAME} characters that can be printed",
                remedy="fix its name",
            )
        if not block or block in seen:
            raise DipgoError(
                f"blocks, entry {index}",
                found=f"{block} a second time" if block else "an empty name",
                expected="each block's module path once",
                remedy="take the entry and its column of gates out, or fix its name",
            )
        seen.add(block)


def check_gates(
    gates: NDArray[Any],
    timesteps: Sequence[float],
    blocks: Sequence[str],
    backup: Sequence[str],
) -> None:
    """Checks that gates are bool[steps, blocks] with row 0 all on.

    Args:
        gates: The gates.
        timesteps: The timestep of each row.
        blocks: The block of each column.
        backup: A known word for each block.

    Raises:
        DipgoError: They are not.
    """
    _check_table("gates", gates, timesteps, blocks)
    if gates.dtype != np.bool_ and not np.isin(gates, (0, 1)).all():
        raise DipgoError(
            "gates",
            found=f"values of type {gates.dtype} other than 0 and 1",
            expected="0 or 1 (False or True)",
            remedy="decide the gates first, by comparing the scores with a threshold",
        )
    for block, word, gate in zip(blocks, backup, gates[0], strict=True):
        if not gate:
            raise DipgoError(
                f"gates row 0, block {block}",
                found="0",
                expected=f"1, because {why_first_computes(word)}",
                remedy="set row 0 to all 1",
            )


def why_first_computes(backup: str) -> str:
    """Returns, in words, why the first row has to compute a block with the backup of this word."""
    if BACKUPS[backup].needs_earlier:
        return "nothing earlier computes it"
    return f"the first row is all 1, also for blocks whose backup, {backup}, needs nothing earlier"


def check_backup(backup: Sequence[str], blocks: Sequence[str]) -> None:
    """Checks that there is one known word a block.

    Raises:
        DipgoError: A word is missing or unknown.
    """
    if len(backup) != len(blocks):
        raise DipgoError(
            "backup",
            found=f"{len(backup)} words for {len(blocks)} blocks",
            expected="one word, or one a block",
            remedy="give a single word where all blocks have the same backup",
        )
    for block, word in zip(blocks, backup, strict=True):
        if word not in BACKUPS:
            raise DipgoError(
                f"backup, block {block}",
                found=repr(word),
                expected=" or ".join(BACKUPS),
                remedy="choose what the block yields when its gate is 0",
            )


def check_prior_noise(prior_noise: PriorNoise | None) -> None:
    """Checks that prior noise, if any, has numbers that are finite in float32.

    Raises:
        DipgoError: It does not.
    """
    if prior_noise is None:
        return
    for name, number in (("scale", prior_noise.scale), ("below", prior_noise.below)):
        if not abs(number) <= LARGEST:
            raise DipgoError(
                f"prior_noise, {name}",
                found=str(number),
                expected="a finite number",
                remedy="correct it, or leave prior_noise out",
            )


def check_scores(scores: NDArray[Any], timesteps: Sequence[float], blocks: Sequence[str]) -> None:
    """Checks that scores are finite numbers [steps, blocks].

    Raises:
        DipgoError: They are not.
    """
    _check_table("scores", scores, timesteps, blocks)
    if not np.isfinite(scores).all():
        step, block = np.argwhere(~np.isfinite(scores))[0]
        raise DipgoError(
            f"scores row {step}, block {blocks[block]}",
            found=str(scores[step, block]),
            expected="a finite number",
            remedy="search again with finite scores, or leave scores out",
        )


def _check_table(
    name: str, table: NDArray[Any], timesteps: Sequence[float], blocks: Sequence[str]
) -> None:
    if table.ndim == 2 and len(table) != len(timesteps):
        raise DipgoError(
            name,
            found=f"{len(table)} rows",
            expected=f"{len(timesteps)}, one a timestep",
            remedy=f"give {name} one row for every entry of timesteps",
        )
    if table.shape != (len(timesteps), len(blocks)):
        raise DipgoError(
            name,
            found=f"a table of shape {list(table.shape)}",
            expected=f"[{len(timesteps)}, {len(blocks)}], steps by blocks",
            remedy=f"give {name} one row a timestep and one column a block",
        )
