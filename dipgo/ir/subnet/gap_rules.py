"""All gap rules, and what a SubNet does with those that it has.

A new rule is a class in a file of its own, named in GAP_RULES. If it has a function, that is a row
of `dipgo.models.gap_functions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.gap_filters import FilteredGaps
from dipgo.ir.subnet.gap_rule import GapPredictor, GapRule, Gates
from dipgo.ir.subnet.gap_weights import WeightedGaps

Gaps: TypeAlias = tuple[GapRule, ...]

GAP_RULES: dict[str, type[GapRule]] = {rule.key: rule for rule in (WeightedGaps, FilteredGaps)}
"""All rules by their keys, in the order of a SubNet file."""


def gap_keys() -> dict[str, Any]:
    """Returns all JSON keys of rules, with their types."""
    return {key: cls for rule in GAP_RULES.values() for key, cls in rule.keys.items()}


def read_gaps(values: Mapping[str, Any]) -> Gaps:
    """Returns the rules of a SubNet file.

    Args:
        values: The value of each of `gap_keys`, or None.

    Raises:
        DipgoError: The values make no rule.
    """
    return tuple(
        rule.read(values)
        for rule in GAP_RULES.values()
        if any(values[key] is not None for key in rule.keys)
    )


def write_gaps(gaps: Gaps) -> dict[str, Any]:
    """Returns the keys and values that a SubNet file has for its rules."""
    written = {key: value for rule in gaps for key, value in rule.write().items()}
    return {key: written[key] for key in gap_keys() if written.get(key) is not None}


def check_gaps(gaps: Gaps, gates: Gates) -> None:
    """Checks each rule against gates bool[steps, blocks], and that no two cover one row.

    Raises:
        DipgoError: A rule is wrong, two cover one row, or two have a function.
    """
    owners: dict[int, GapRule] = {}
    for rule in gaps:
        rule.check(gates)
        for row in rule.rows:
            if row in owners:
                raise DipgoError(
                    rule.where(row),
                    found=f"{rule.noun} beside {owners[row].noun} of {owners[row].key}",
                    expected="one or the other for a row",
                    remedy=f"take the row out of {owners[row].key}, or leave the {rule.noun} out",
                )
            owners[row] = rule
    functions = [rule.key for rule in gaps if rule.terms]
    if len(functions) > 1:
        raise DipgoError(
            functions[1],
            found=f"{functions[1]} beside {functions[0]}",
            expected="one of them: a plan has one function that makes predictions",
            remedy="leave one of them out",
        )


P = TypeVar("P", bound=GapPredictor)


def rule_of_rows(gaps: Sequence[P]) -> dict[int, P]:
    """Returns the rule that covers each row."""
    return {row: rule for rule in gaps for row in rule.rows}


def rule_with_function(gaps: Sequence[GapRule]) -> GapRule | None:
    """Returns the rule whose function has to be traced, if one has any."""
    return next((rule for rule in gaps if rule.terms), None)
