"""RULES: each row is what its function takes, is public, and is in the documentation."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest

import dipgo.schedules
from dipgo.schedules import RULES, Rule
from dipgo.schedules.rule import OPTIONS, Inputs
from dipgo.search.rivals import Rivals
from scripts.generate.schedules_table import PAGE, TABLE, schedules_table

INPUTS = {name for name in vars(Inputs) if not name.startswith("_")}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_a_rule_has_what_its_function_needs(rule: Rule) -> None:
    parameters = inspect.signature(rule.function).parameters
    filled = {*rule.needs, rule.takes.name}
    assert filled <= set(parameters)
    assert {name for name, one in parameters.items() if one.default is one.empty} <= filled
    assert set(rule.needs) <= INPUTS


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_a_rule_is_public(rule: Rule) -> None:
    name = rule.function.__name__
    assert name in dipgo.schedules.__all__
    assert getattr(dipgo.schedules, name) is rule.function


def test_functions_keep_their_names_where_modules_have_the_same() -> None:
    for name, module in _modules():
        assert module.__name__ == f"dipgo.schedules.{name}"
        assert callable(getattr(dipgo.schedules, name))


def _modules() -> Iterator[tuple[str, object]]:
    names = {rule.function.__module__.rsplit(".", 1)[1] for rule in RULES.values()}
    for name in sorted(names & set(dipgo.schedules.__all__)):
        yield name, importlib.import_module(f"dipgo.schedules.{name}")


def test_rivals_have_all_that_rules_may_ask_for() -> None:
    assert set(OPTIONS) <= INPUTS
    assert {*dir(Rivals), *inspect.signature(Rivals).parameters, "dense"} >= INPUTS


def test_the_page_has_the_table_of_the_rules() -> None:
    assert TABLE.findall(PAGE.read_text()) == [schedules_table()]
