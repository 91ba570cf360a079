"""Reads the text of a plan, line by line: the inverse of `dipgo.ir.plan.plan.print_plan`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dipgo.common.errors import DipgoError
from dipgo.common.regular_files import open_file, read_file
from dipgo.ir.plan.nodes import (
    PROLOGUE,
    Call,
    Callee,
    Combine,
    Draw,
    Leaf,
    Operand,
    Read,
    Slot,
    Stack,
    Statement,
    Step,
    Table,
    TableRow,
)
from dipgo.ir.plan.plan import Plan
from dipgo.ir.plan.verify import InvalidPlanError, verify
from dipgo.ir.types import TensorType, Value

FIRST_WORD = "plan "


HEAD = 1 << 16
"""Bytes within which a plan's text begins, after comments."""

EXPECTED = "a plan as `inspect` prints it, in which every read follows its write"


def is_plan_file(path: Path) -> bool:
    """Returns whether the file begins as a plan's text does, comments and blank lines aside."""
    try:
        with open_file(path, expected=EXPECTED, most=None) as file:
            head = file.read(HEAD).decode(errors="replace")
    except (DipgoError, OSError):
        return False
    code = (line for line in head.split("\n") if line.strip() and not line.startswith("#"))
    return next(code, "").startswith(FIRST_WORD)


def read_plan(path: Path) -> Plan:
    """Returns the plan in a text file, verified.

    Raises:
        DipgoError: The text is no valid plan; the error names the line, or the step and the call.
    """
    data = read_file(path, expected=EXPECTED)
    try:
        return verify(parse_plan(data.decode()))
    except (PlanSyntaxError, InvalidPlanError, UnicodeDecodeError) as error:
        raise DipgoError(
            path.name,
            found=str(error),
            expected=EXPECTED,
            remedy="fix the statement, or print the plan again",
        ) from error


class PlanSyntaxError(ValueError):
    """A line that is not part of a plan's text; `line` counts from 1."""

    def __init__(self, line: int, text: str, reason: str) -> None:
        self.line, self.text = line, text
        super().__init__(f"plan text, line {line}: {reason}: {text.strip()!r}")


def parse_plan(text: str) -> Plan:
    """Returns the plan that prints as `text`, not yet verified.

    Raises:
        PlanSyntaxError: A line cannot be read; the error names it.
    """
    parser = _Parser()
    for number, line in enumerate(text.splitlines(), start=1):
        code = line.split("#", 1)[0].rstrip()
        if not code:
            continue
        try:
            parser.line(code)
        except (ValueError, KeyError, IndexError) as error:
            raise PlanSyntaxError(number, line, f"cannot be read ({error})") from error
    return parser.plan()


class _Parser:
    """A reader of one line at a time, whose first word says what it declares."""

    def __init__(self) -> None:
        self.name, self.num_inference_steps, self.state, self.result = "", 0, "", ""
        self.blocks: tuple[str, ...] = ()
        self.steps: list[Step] = []
        self.inputs: list[Value] = []
        self.draws: list[Draw] = []
        self.tables: list[Table] = []
        self.callees: list[Callee] = []
        self.statements: list[Statement] = []
        self.slots: list[Slot] = []
        self.step = PROLOGUE

    def plan(self) -> Plan:
        return Plan(
            name=self.name,
            num_inference_steps=self.num_inference_steps,
            blocks=self.blocks,
            steps=tuple(self.steps),
            inputs=tuple(self.inputs),
            state=self.state,
            tables=tuple(self.tables),
            callees=tuple(self.callees),
            statements=tuple(self.statements),
            result=self.result,
            slots=tuple(self.slots),
            draws=tuple(self.draws),
        )

    def line(self, code: str) -> None:
        word, _, rest = code.strip().partition(" ")
        if word in _DECLARATIONS:
            getattr(self, f"_{word}")(rest.strip())
        elif word.startswith("macs="):
            self._costs(code)
        elif word == "prologue":
            self.step = PROLOGUE
        elif word == "end":
            self.step = len(self.steps)
        elif code.startswith("s"):
            self._begin_step(code)
        else:
            self.statements.append(self._statement(code))

    def _plan(self, rest: str) -> None:
        self.name, steps = rest.split(" ")
        self.num_inference_steps = int(_after(steps, "num_inference_steps="))

    def _blocks(self, rest: str) -> None:
        self.blocks = tuple(rest.split())

    def _input(self, rest: str) -> None:
        name, type_text = rest.split(" ")
        self.inputs.append(Value(_after(name, "%"), TensorType.parse(type_text)))

    def _state(self, rest: str) -> None:
        self.state = _after(rest, "%")

    def _draw(self, rest: str) -> None:
        name, index = rest.split(" ")
        self.draws.append(Draw(_after(name, "%"), int(_after(index, "index="))))

    def _table(self, rest: str) -> None:
        name, type_text, rows = rest.split(" ")
        numbers = tuple(int(row) for row in _after(rows, "rows=").split(",") if row)
        self.tables.append(Table(name, TensorType.parse(type_text), numbers))

    def _callee(self, rest: str) -> None:
        name, signature = rest.split(" ", 1)
        inputs, outputs = (part.strip("() ").split() for part in signature.split("->"))
        values = (tuple(map(_value, inputs)), tuple(map(_value, outputs)))
        self.callees.append(Callee(name, (), *values, macs=0, attention_macs=0, parameters=0))

    def _costs(self, code: str) -> None:
        costs = {key: int(number) for key, number in (word.split("=") for word in code.split())}
        self.callees[-1] = replace(
            self.callees[-1],
            macs=costs["macs"],
            attention_macs=costs["attention_macs"],
            parameters=costs["parameters"],
        )

    def _members(self, rest: str) -> None:
        self.callees[-1] = replace(self.callees[-1], members=tuple(rest.split()))

    def _stacked(self, rest: str) -> None:
        self.callees[-1] = replace(self.callees[-1], stacked=tuple(rest.split()))

    def _return(self, rest: str) -> None:
        self.result = _after(rest, "%")

    def _begin_step(self, code: str) -> None:
        index, timestep, row, *gates = code.split(" ")
        if int(_after(index, "s")) != len(self.steps):
            raise ValueError(f"expected s{len(self.steps)}")
        number = float(_after(timestep, "t="))
        self.step = len(self.steps)
        self.steps.append(Step(number, int(_after(row, "row=")), "".join(gates)))

    def _statement(self, code: str) -> Statement:
        left, right = code.split(" = ")
        results = tuple(map(self._defined, _BRACES.sub(" ", left).split()))
        if right.endswith(")"):
            callee, operands = right[:-1].split("(")
            return Call(self.step, callee, tuple(map(_operand, _WORD.findall(operands))), results)
        (result,) = results
        terms = (term.split("*") for term in right.split(" + "))
        return Combine(
            self.step, result, tuple((float(number), _after(name, "%")) for number, name in terms)
        )

    def _defined(self, word: str) -> str:
        name, at, place = _after(word, "%").partition("@")
        if at:
            offset, nbytes = place.split("+")
            self.slots.append(Slot(name, int(offset), int(nbytes)))
        return name


_DECLARATIONS = (
    "plan",
    "blocks",
    "input",
    "state",
    "draw",
    "table",
    "callee",
    "members",
    "stacked",
    "return",
)

_BRACES = re.compile(r"[{}]")

_WORD = re.compile(r"\{[^}]*\}|\S+")


def _value(text: str) -> Value:
    name, type_text = text.split("=")
    return Value(_after(name, "%"), TensorType.parse(type_text))


def _operand(word: str) -> Operand:
    if word.startswith("{"):
        return Stack(tuple(map(_leaf, word.strip("{}").split())))
    return _leaf(word)


def _leaf(word: str) -> Leaf:
    if word.startswith("%"):
        return Read(word[1:])
    table, row = word.removesuffix("]").split("[")
    return TableRow(table, int(row))


def _after(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise ValueError(f"expected {prefix!r}")
    return text[len(prefix) :]
