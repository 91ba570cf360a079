"""Import paths of dipgo 0.1 lead, with a warning, to what is there today."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from dipgo.common.moved import moved_modules

MOVED = moved_modules()
# Modules of 0.1 whose paths are packages today, with a name that each had.
PACKAGES = {
    "dipgo.models.families": ("register_family", "dipgo.models.registry"),
    "dipgo.search.cost": ("latency_weights", "dipgo.search.cost.model"),
    "dipgo.search.supernet": ("RowGates", "dipgo.search.supernet.row_gates"),
    "dipgo.export.refitting": ("refit", "dipgo.export.refitting.refitted_copy"),
}
# What README and docs told people to write.
DOCUMENTED = {
    "from dipgo.gate_pickle import import_gate_pickle": "dipgo.ir.subnet.published",
    "from dipgo.models.families import register_family": "dipgo.models.registry",
    "from dipgo.evaluation.api import evaluate": "dipgo.evaluate.api",
    "from dipgo.schedules.faster_diffusion import faster_diffusion": None,
    "from dipgo.errors import DipgoError": "dipgo.common.errors",
    "from dipgo.triton.service import Service": "dipgo.run.triton.service",
}


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_leads_to_its_definitions(old: str) -> None:
    module = importlib.import_module(old)
    for home in MOVED[old]:
        target = importlib.import_module(home)
        names = [name for name in vars(target) if not name.startswith("_")]
        defined = [name for name in names if _home(getattr(target, name)) == home]
        for name in defined[:1]:
            with pytest.warns(DeprecationWarning, match=rf"{old}\.{name} is now "):
                assert getattr(module, name) is getattr(target, name)
    with pytest.raises(AttributeError, match=f"module '{old}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def _home(value: object) -> object:
    return getattr(value, "__module__", None)


@pytest.mark.parametrize("old", PACKAGES)
def test_a_module_that_became_a_package_keeps_its_names(old: str) -> None:
    name, home = PACKAGES[old]
    with pytest.warns(DeprecationWarning, match=rf"{old}\.{name} is now {home}\.{name}"):
        assert getattr(importlib.import_module(old), name) is getattr(
            importlib.import_module(home), name
        )


@pytest.mark.slow
@pytest.mark.parametrize("line", DOCUMENTED)
def test_documented_imports_work_and_warn(line: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", line], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    home = DOCUMENTED[line]
    assert (home or "") in result.stderr
    assert ("DeprecationWarning" in result.stderr) == (home is not None)


def test_what_never_was_stays_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'dipgo\.nothing'"):
        importlib.import_module("dipgo.nothing")
