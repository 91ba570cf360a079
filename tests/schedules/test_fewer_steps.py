"""Fewer steps, of the sampler and of a SubNet."""

from __future__ import annotations

import numpy as np
import pytest

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules.fewer_steps import count_steps, steps_of
from tests.support.tiny_schedules import (
    SD15,
    dense_subnet,
    full_rows,
    row_strings,
)


def test_count_of_steps_is_the_largest_that_is_not_above() -> None:
    assert count_steps(0.2, 50) == 10
    assert count_steps(0.239, 50) == 11
    assert count_steps(0.2, 50, lambda steps: steps + 1) == 9  # PNDM: 10 of 51 are below 0.2
    with pytest.raises(DipgoError, match="fewer steps"):
        count_steps(0.01, 50)


def test_steps_of_takes_the_busiest_rows() -> None:
    gates = np.zeros((6, 9), dtype=bool)
    gates[0] = gates[4] = True
    gates[2, 8] = True
    subnet = SubNet(6, range(6, 0, -1), SD15, gates, ("output",) * 9)
    macs = dict.fromkeys(SD15, 1)
    assert full_rows(steps_of(subnet, macs, 3)) == [0, 2, 4]
    assert row_strings(steps_of(subnet, macs, 1))[1:] == ["0" * 9] * 5
    assert full_rows(steps_of(dense_subnet(steps=9), macs, 3)) == [0, 4, 8]  # equal rows are spread
