"""Says which libraries have newer releases than those that were tried.

Asks pip, in the environment that it runs in, and prints a warning for each library. It prints
nothing where pip reaches no registry, and never fails: a release is no fault of this repository.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.harness import ROOT, run_script, script_parser

EXTRAS = ("cpu", "export", "lora", "search")
"""The extras whose libraries are watched, with those that every export needs."""

IMPLIED = ("huggingface-hub",)
"""Libraries that dipgo calls and that others bring."""

_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<pin>\S+)(?:\s+# (?P<by_hand>\S+) was tried by hand)?")


def watched(project: Mapping[str, Any]) -> set[str]:
    """Returns the names of the libraries that the table `project` of pyproject.toml names."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    return {*IMPLIED, *(canonicalize_name(Requirement(line).name) for line in lines)}


def tried(constraints: str) -> dict[str, Version]:
    """Returns by name the newest version that was tried: the pin, or what was tried by hand."""
    pins = map(_PIN.match, constraints.splitlines())
    return {
        canonicalize_name(pin["name"]): Version(pin["by_hand"] or pin["pin"]) for pin in pins if pin
    }


def warnings_of(
    outdated: Iterable[Mapping[str, str]], names: set[str], versions: Mapping[str, Version]
) -> list[str]:
    """Returns a line for each watched library of pip's list whose latest version is untried."""
    latest = {canonicalize_name(one["name"]): one["latest_version"] for one in outdated}
    return [
        f"warning: {name} {version} is out; {versions[name]} is the newest that was tried"
        for name, version in sorted(latest.items())
        if name in names and name in versions and Version(version) > versions[name]
    ]


def ask_pip() -> list[dict[str, str]]:
    """Returns what pip lists as outdated; nothing where it cannot be asked."""
    command = [sys.executable, "-m", "pip", "list", "--outdated", "--format", "json"]
    done = subprocess.run(
        [*command, "--retries", "0", "--timeout", "10"], capture_output=True, text=True, check=False
    )
    found: list[dict[str, str]] = json.loads(done.stdout) if done.returncode == 0 else []
    return found


def main(arguments: list[str]) -> None:
    script_parser(__file__, __doc__).parse_args(arguments)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = tried((ROOT / "constraints.txt").read_text())
    for line in warnings_of(ask_pip(), watched(project), versions):
        print(line)


if __name__ == "__main__":
    run_script(main)
