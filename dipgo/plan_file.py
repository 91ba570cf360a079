"""Plan files: a plan's text on disk, read with its errors told as a user's."""

from __future__ import annotations

from pathlib import Path

from dipgo.errors import DipgoError
from dipgo.plan import Plan
from dipgo.plan_check import InvalidPlanError, verify
from dipgo.plan_parser import PlanSyntaxError, parse_plan

FIRST_WORD = "plan "


def is_plan_file(path: Path) -> bool:
    """Whether the file begins as a plan's text does, comments and blank lines aside."""
    try:
        with path.open(encoding="utf-8") as file:
            code = (line for line in file if line.strip() and not line.startswith("#"))
            return next(code, "").startswith(FIRST_WORD)
    except (OSError, UnicodeDecodeError):
        return False


def read_plan(path: Path) -> Plan:
    """The plan in a text file, verified. Raises DipgoError naming the line, or step and call."""
    try:
        return verify(parse_plan(path.read_text(encoding="utf-8")))
    except (PlanSyntaxError, InvalidPlanError) as error:
        raise DipgoError(
            path.name,
            found=str(error),
            expected="a plan as `inspect` prints it, in which every read follows its write",
            remedy="mend the statement, or print the plan anew",
        ) from error
