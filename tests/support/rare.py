"""Marks the cases of a test that only `make test-slow` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def rare_unless(common: Callable[..., bool], cases: Iterable[Any]) -> list[Any]:
    """Returns the cases for `parametrize`, of which `make test` runs those that are common.

    Args:
        common: Called with a case's values; whether `make test` runs it. At least one case is.
        cases: The cases, tuples if the test takes more than one value.
    """
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    chosen = [common(*row) for row in rows]
    assert any(chosen), "every case is rare: make test would leave the test out"
    return [
        pytest.param(*row, marks=() if often else pytest.mark.rare)
        for row, often in zip(rows, chosen, strict=True)
    ]
