"""Cuts a SubNet of a whole trajectory to the steps that are left when it starts late."""

from __future__ import annotations

from collections.abc import Sequence

from dipgo.common.errors import DipgoError, setting
from dipgo.ir.subnet.rules import why_first_computes
from dipgo.ir.subnet.subnet import SubNet


def cut_to(subnet: SubNet, timesteps: Sequence[float]) -> SubNet:
    """Returns the SubNet of the rows of `timesteps`, if these are the SubNet's last timesteps.

    Other SubNets are returned as they are.

    Raises:
        DipgoError: The first row left reuses anything, or the SubNet has prior noise: that adds
            the first state, which holds a picture when the trajectory starts late.
    """
    if subnet.prior_noise is not None:
        raise DipgoError(
            setting("strength"),
            found="a SubNet with prior_noise",
            expected="one without: the first state is no pure noise",
            remedy=f"take prior_noise out of the SubNet, or leave {setting('strength')} out",
        )
    wanted = tuple(map(float, timesteps))
    begin = len(subnet.timesteps) - len(wanted)
    if begin <= 0 or subnet.timesteps[begin:] != wanted:
        return subnet
    _check_first_row(subnet, begin)
    cut = (rule.cut(begin) for rule in subnet.gaps)
    try:
        return subnet.with_gaps(
            [rule for rule in cut if rule is not None],
            timesteps=wanted,
            gates=subnet.gates[begin:],
            scores=None if subnet.scores is None else subnet.scores[begin:],
        )
    except DipgoError as error:  # the rows left reuse predictions of rows that are cut off
        raise DipgoError(
            f"{setting('strength')}, {error.where}, of the rows from {begin} on",
            found=error.found,
            expected=error.expected,
            remedy="choose a strength that starts earlier, or a SubNet without reuse",
        ) from error


def _check_first_row(subnet: SubNet, begin: int) -> None:
    for block, word, gate in zip(subnet.blocks, subnet.backup, subnet.gates[begin], strict=True):
        if not gate:
            full = [row for row, gates in enumerate(subnet.gates) if gates.all()]
            raise DipgoError(
                f"{setting('strength')}, row {begin} of the SubNet, block {block}",
                found="0",
                expected="1: with this strength the row is the first, and "
                f"{why_first_computes(word)}",
                remedy=f"choose a strength that starts at a row that is all 1: "
                f"{' '.join(map(str, full))}",
            )
