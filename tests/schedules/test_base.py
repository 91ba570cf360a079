"""The parameter of a rule at a kept share of the cost."""

from __future__ import annotations

import pytest

from dipgo.common.errors import DipgoError
from dipgo.schedules.base import at_kept, at_kept_by_bisection
from dipgo.schedules.fora import fora
from tests.support.tiny_schedules import (
    dense_subnet,
)


def test_at_kept_takes_the_nearest_that_is_not_above() -> None:
    shares = {1: 1.0, 2: 0.6, 3: 0.51, 4: 0.48, 5: 0.2}
    made = {n: fora(dense_subnet(steps=10), n) for n in shares}
    kept = {id(subnet): shares[n] for n, subnet in made.items()}.__getitem__
    for target, chosen in [(0.5, 3), (0.49, 4), (0.62, 2), (0.58, 3), (0.2, 5), (1.0, 1)]:
        for find in (at_kept, at_kept_by_bisection):
            found = find(made.__getitem__, sorted(shares), lambda s: kept(id(s)), target)
            assert found is made[chosen], (target, find)


def test_at_kept_tells_what_cannot_be_met() -> None:
    with pytest.raises(DipgoError, match=r"found 0\.200 with the cheapest"):
        at_kept(lambda n: fora(dense_subnet(steps=10), n), [1, 5], lambda subnet: subnet.kept, 0.1)
