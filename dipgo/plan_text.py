"""The plan as text: `print_plan` and `parse_plan`, each the other's inverse.

Deterministic, without ids, paths or times, so that it serves as golden file and diffs well.
`#` begins a comment: counts that follow from the rest are printed as comments and not parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from dipgo.graph import TensorType, Value
from dipgo.plan import (
    PROLOGUE,
    Call,
    Callee,
    Combine,
    Leaf,
    Operand,
    Plan,
    Read,
    Slot,
    Stack,
    Statement,
    Step,
    Table,
    TableRow,
    reads,
    value_types,
    writes,
)
from dipgo.plan_cost import evaluations

MIB = 1 << 20


def print_plan(plan: Plan) -> str:
    """The text of a plan; ends without a newline."""
    return "\n".join([*_header(plan), *_declarations(plan), *_body(plan), f"return %{plan.result}"])


def _header(plan: Plan) -> Iterator[str]:
    gates = "".join({step.row: step.gates for step in plan.steps}.values())
    yield f"plan {plan.name} num_inference_steps={plan.num_inference_steps}"
    yield (
        f"# steps={len(plan.steps)} evaluations={evaluations(plan)} "
        f"blocks={len(plan.blocks)} gates={gates.count('1')}/{len(gates)} "
        f"calls={len(plan.calls)} slots={len({(s.offset, s.nbytes) for s in plan.slots})} "
        f"arena={plan.arena_nbytes / MIB:.2f} MiB"
    )


def _declarations(plan: Plan) -> Iterator[str]:
    yield f"blocks {' '.join(plan.blocks)}".rstrip()
    for value in plan.inputs:
        yield f"input %{value.name} {value.type}"
    yield f"state %{plan.state}"
    for table in plan.tables:
        yield f"table {table.name} {table.type} rows={','.join(map(str, table.rows))}"
    for callee in plan.callees:
        yield f"callee {callee.name} ({_values(callee.inputs)}) -> ({_values(callee.outputs)})"
        yield (
            f"  macs={callee.macs} attention_macs={callee.attention_macs} "
            f"parameters={callee.parameters}"
        )
        if callee.members:
            yield f"  members {' '.join(callee.members)}"
        if callee.stacked:
            yield f"  stacked {' '.join(callee.stacked)}"


def _values(values: tuple[Value, ...]) -> str:
    return " ".join(f"%{value.name}={value.type}" for value in values)


def _value(text: str) -> Value:
    name, type_text = text.split("=")
    return Value(_after(name, "%"), TensorType.parse(type_text))


def _body(plan: Plan) -> Iterator[str]:
    types, slots, lives = value_types(plan), {one.value: one for one in plan.slots}, _lives(plan)
    lines: dict[int, list[str]] = {}
    for statement in plan.statements:
        line = f"  {_statement(statement, slots)}{_comment(statement, types, lives)}"
        lines.setdefault(statement.step, []).append(line)
    if PROLOGUE in lines:
        yield "prologue"
        yield from lines[PROLOGUE]
    for index, step in enumerate(plan.steps):
        yield f"s{index} t={step.timestep!r} row={step.row} {step.gates}".rstrip()
        yield from lines.get(index, [])
    yield "end"
    yield from lines.get(len(plan.steps), [])


def _lives(plan: Plan) -> dict[str, int]:
    """The last step that reads each value."""
    return {name: statement.step for statement in plan.statements for name in reads(statement)}


def _comment(statement: Statement, types: dict[str, TensorType], lives: dict[str, int]) -> str:
    if isinstance(statement, Combine):
        return ""
    kept = [
        f"{types[name]} live to s{lives[name]}"
        for name in statement.results
        if lives.get(name, statement.step) > statement.step
    ]
    return f"  # {'; '.join(kept)}" if kept else ""


def _statement(statement: Statement, slots: dict[str, Slot]) -> str:
    results = _results(statement, slots)
    if isinstance(statement, Combine):
        terms = " + ".join(f"{coefficient!r}*%{name}" for coefficient, name in statement.terms)
        return f"{results} = {terms}"
    return f"{results} = {statement.callee}({' '.join(map(str, statement.operands))})"


def _results(statement: Statement, slots: dict[str, Slot]) -> str:
    """The names that a statement defines, the lanes of an output of a batched call in braces."""
    names = [f"%{name}{_slot(slots[name]) if name in slots else ''}" for name in writes(statement)]
    if isinstance(statement, Combine) or not _is_batched(statement):
        return " ".join(names)
    width = statement.width
    outputs = (names[first : first + width] for first in range(0, len(names), width))
    return " ".join(f"{{{' '.join(lanes)}}}" for lanes in outputs)


def _is_batched(call: Call) -> bool:
    return any(isinstance(operand, Stack) for operand in call.operands)


def _slot(slot: Slot) -> str:
    return f"@{slot.offset}+{slot.nbytes}"


class PlanSyntaxError(ValueError):
    """A line that is not part of a plan's text; `line` counts from 1."""

    def __init__(self, line: int, text: str, reason: str) -> None:
        self.line, self.text = line, text
        super().__init__(f"plan text, line {line}: {reason}: {text.strip()!r}")


def parse_plan(text: str) -> Plan:
    """The plan that prints as `text`; raises PlanSyntaxError naming the line."""
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
    """Reads one line at a time; the first word says what it declares."""

    def __init__(self) -> None:
        self.name, self.num_inference_steps, self.state, self.result = "", 0, "", ""
        self.blocks: tuple[str, ...] = ()
        self.steps: list[Step] = []
        self.inputs: list[Value] = []
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
    "table",
    "callee",
    "members",
    "stacked",
    "return",
)
_BRACES = re.compile(r"[{}]")
_WORD = re.compile(r"\{[^}]*\}|\S+")


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
