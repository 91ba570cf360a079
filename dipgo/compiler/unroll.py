"""Unrolls BlockGraph, SubNet and sampler into a plan over all steps.

docs/internals/design.md, stage 5.

A gated-off block is simply not called: its outputs have the names that its backup makes for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from itertools import count

from dipgo.compiler.fit import check_fit
from dipgo.ir.graph import BlockGraph, Dependence, GapFunction, Node
from dipgo.ir.plan.nodes import (
    Call,
    Callee,
    Combine,
    Draw,
    Operand,
    Read,
    Statement,
    Step,
    Table,
    TableRow,
)
from dipgo.ir.plan.plan import Plan
from dipgo.ir.plan.verify import verify
from dipgo.ir.sampler import Sampler, Term, draw_name
from dipgo.ir.subnet.backups import BACKUPS, CombineTerms
from dipgo.ir.subnet.gap_rule import Latest, Operations, arguments
from dipgo.ir.subnet.gap_rules import rule_of_rows, rule_with_function
from dipgo.ir.subnet.past import Past
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import TensorType, Value


def unroll(
    graph: BlockGraph, subnet: SubNet, sampler: Sampler, split: Set[str] = frozenset()
) -> Plan:
    """Returns the plan that computes, at every step, the glue and each block whose gate is 1.

    Args:
        graph: The traced denoiser.
        subnet: The gates and backups.
        sampler: The sampler's updates.
        split: Blocks to call part by part, so that a part can be dead while others are not.

    Raises:
        DipgoError: The SubNet does not fit the graph or the sampler.
    """
    check_fit(graph, subnet, sampler)
    function = graph.gap_function if rule_with_function(subnet.gaps) else None
    if not subnet.uses_halves and not (function and function.halves):
        graph = graph.without_unconditional()
    graph = replace(graph, gap_function=function)
    unrolling = _Unrolling(graph, subnet, sampler, split)
    for index in range(len(sampler.rows)):
        unrolling.add_step(index)
    return verify(unrolling.finish())


class _Unrolling:
    """The state of unrolling: the name of each value of the graph at the present step."""

    def __init__(
        self, graph: BlockGraph, subnet: SubNet, sampler: Sampler, split: Set[str]
    ) -> None:
        self.graph, self.subnet, self.sampler, self.split = graph, subnet, sampler, split
        self.state = graph.state.name
        self.timestep = graph.timestep
        self.column = {name: column for column, name in enumerate(subnet.blocks)}
        words = dict(zip(subnet.blocks, subnet.backup, strict=True))
        self.backups = {name: BACKUPS[word] for name, word in words.items()}
        self.entered = {node.name: graph.carriers[node.name] or self.state for node in graph.blocks}
        """The input that each block adds to, or any value for a block that adds to none."""
        self.kept: dict[str, tuple[str, ...]] = {}
        self.rules = rule_of_rows(subnet.gaps)
        parts = (part for node in graph.nodes for part in node.parts)
        self.types = graph.types | {v.name: v.type for part in parts for v in part.outputs}
        self.bindings: dict[str, Operand] = {
            entry.value.name: Read(entry.value.name) for entry in graph.inputs
        }
        self.statements: list[Statement] = []
        self.states: list[str] = []
        self.past: Past[tuple[str, str | None]] = Past()
        """Predictions and their unconditional halves."""
        self.outputs: list[str] = []

    def add_step(self, index: int) -> None:
        row = self.sampler.rows[index]
        self.states.append(f"s{index}.{self.state}")
        self.statements.append(
            Combine(index, self.states[-1], self._terms(self.sampler.inputs[index]))
        )
        self.bindings[self.state] = Read(self.states[-1])
        self.bindings[self.timestep.name] = TableRow(self.timestep.name, row)
        for node in self.graph.nodes:
            if node.kind == "glue" or self.subnet.gates[row, self.column[node.name]]:
                for part in self._parts(node):
                    self._call(index, part)
                if node.kind != "glue":
                    self._keep(index, node)
            else:
                self._reuse(index, node)
        self.outputs.append(self._prediction(index, row))

    def _prediction(self, index: int, row: int) -> str:
        """Returns the denoiser's output; for a row that a gap rule covers, what the rule yields."""
        output = self._bound(self.graph.output)
        before = self.past.before(row)
        if self.subnet.gates[row].any():
            self.past = self.past.after(row, ((output, self._unconditional()), *before))
            return output
        self.past = self.past.after(row, before)
        if row not in self.rules:
            return output
        operations = _AddStatements(index, self.graph.gap_function, self.statements)
        return self.rules[row].predict(row, before, operations)

    def _unconditional(self) -> str | None:
        if self.graph.unconditional is None:
            return None
        return self._bound(self.graph.unconditional)

    def _parts(self, node: Node) -> tuple[Node, ...]:
        return node.parts if node.name in self.split and node.parts else (node,)

    def _call(self, index: int, node: Node) -> None:
        operands = tuple(self.bindings[name] for name in node.inputs)
        results = tuple(f"s{index}.{value.name}" for value in node.outputs)
        self.statements.append(Call(index, node.name, operands, results))
        for value, result in zip(node.outputs, results, strict=True):
            self.bindings[value.name] = Read(result)

    def _keep(self, index: int, node: Node) -> None:
        """Notes what the backup keeps of a block that was called."""
        backup = self.backups[node.name]
        results = tuple(self._bound(value.name) for value in node.outputs)
        combine = self._combining(index, node, f".{backup.word}")
        self.kept[node.name] = backup.keep(results, self._entered(node), combine)

    def _reuse(self, index: int, node: Node) -> None:
        """Binds the outputs of a block whose gate is 0."""
        backup, kept = self.backups[node.name], self.kept[node.name]
        results = backup.reuse(kept, self._entered(node), self._combining(index, node))
        for value, result in zip(node.outputs, results, strict=True):
            self.bindings[value.name] = Read(result)

    def _combining(self, index: int, node: Node, suffix: str = "") -> CombineTerms[str]:
        """Returns a function that adds statements named after the block's output, then numbered."""
        numbers = count(1)

        def combine(terms: tuple[tuple[float, str], ...]) -> str:
            number = next(numbers)
            result = f"s{index}.{node.outputs[0].name}{suffix}" + f".{number}" * (number > 1)
            self.statements.append(Combine(index, result, terms))
            return result

        return combine

    def _entered(self, node: Node) -> str:
        return self._bound(self.entered[node.name])

    def _bound(self, name: str) -> str:
        operand = self.bindings[name]
        assert isinstance(operand, Read), "a value that depends on no state"
        return operand.name

    def _terms(self, terms: tuple[Term, ...]) -> tuple[tuple[float, str], ...]:
        return tuple((term.coefficient, self._source(term)) for term in terms)

    def _source(self, term: Term) -> str:
        match term.kind:
            case "noise":
                return self.state
            case "input":
                return self.states[term.index]
            case "output":
                return self.outputs[term.index]
            case "draw":
                return draw_name(term.index)

    def finish(self) -> Plan:
        steps = len(self.sampler.rows)
        self.statements.append(Combine(steps, "result", self._terms(self.sampler.result)))
        return Plan(
            name=self.graph.model_class,
            num_inference_steps=self.sampler.num_inference_steps,
            blocks=self.subnet.blocks,
            steps=tuple(map(self._step, self.sampler.rows)),
            inputs=self._inputs(),
            state=self.state,
            tables=(self._timestep_table(), *map(self._gap_table, self._gap_functions())),
            callees=tuple(
                _callee(self.types, node)
                for node in (
                    *(part for node in self.graph.nodes for part in self._parts(node)),
                    *(function.node for function in self._gap_functions()),
                )
            ),
            statements=tuple(self.statements),
            result="result",
            draws=tuple(Draw(draw_name(index), index) for index in self.sampler.draws),
        )

    def _gap_functions(self) -> tuple[GapFunction, ...]:
        """Returns the function of the SubNet's gap rule, if one has any."""
        return (self.graph.gap_function,) if self.graph.gap_function else ()

    def _gap_table(self, function: GapFunction) -> Table:
        tables = (rule.numbers(rule.terms, rule.halves) for rule in self.subnet.gaps)
        rows = sorted(row for table in tables for row in table)
        return Table(function.table.name, function.table.type, tuple(rows))

    def _inputs(self) -> tuple[Value, ...]:
        """Returns the graph's inputs but the timestep, and the sampler's draws."""
        inputs = (entry.value for entry in self.graph.inputs if entry.role != Dependence.TIMESTEP)
        state_type = self.graph.types[self.state]
        return (*inputs, *(Value(draw_name(index), state_type) for index in self.sampler.draws))

    def _timestep_table(self) -> Table:
        rows = tuple(range(len(self.sampler.timesteps)))
        return Table(self.timestep.name, self.timestep.type, rows)

    def _step(self, row: int) -> Step:
        gates = "".join("01"[int(gate)] for gate in self.subnet.gates[row])
        return Step(float(self.sampler.timesteps[row]), row, gates)


@dataclass
class _AddStatements(Operations[str]):
    """Adds the statements of one prediction: the first is `s3.prediction`, others are numbered."""

    index: int
    function: GapFunction | None
    statements: list[Statement]
    added: int = 0

    def combine(self, terms: tuple[tuple[float, str], ...]) -> str:
        result = self._result()
        self.statements.append(Combine(self.index, result, terms))
        return result

    def apply(self, table_row: int, past: Latest[str]) -> str:
        function = self.function
        assert function is not None, "a graph that was traced without the function"
        names = arguments(past, len(function.past), function.halves)
        operands: dict[str, Operand] = {
            value.name: Read(name) for value, name in zip(function.past, names, strict=True)
        }
        operands[function.table.name] = TableRow(function.table.name, table_row)
        inputs, result = tuple(operands[name] for name in function.node.inputs), self._result()
        self.statements.append(Call(self.index, function.node.name, inputs, (result,)))
        return result

    def _result(self) -> str:
        self.added += 1
        return f"s{self.index}.prediction" + f".{self.added}" * (self.added > 1)


def _callee(types: Mapping[str, TensorType], node: Node) -> Callee:
    return Callee(
        name=node.name,
        members=(),
        inputs=tuple(Value(name, types[name]) for name in node.inputs),
        outputs=node.outputs,
        macs=node.macs,
        attention_macs=node.attention_macs,
        parameters=node.parameters,
    )
