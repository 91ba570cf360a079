"""Makes a traced program free of writes, and refuses one that draws random numbers.

The partition reads edges off the users of values: an operator that writes into a tensor changes
values that are not its own, also those of views, which no edge shows.
"""

from __future__ import annotations

import torch
from torch import fx
from torch.export.graph_signature import OutputKind

from dipgo.common.errors import DipgoError
from dipgo.common.quiet import without_warnings
from dipgo.compiler.trace.state import ALIKE
from dipgo.compiler.trace.torch_private import argument_defaults, is_mutating, module_stack


def make_functional(
    program: torch.export.ExportedProgram, prefix: str
) -> torch.export.ExportedProgram:
    """Returns the program without operators that write into a tensor.

    What is written into the program's own inputs is left out: every evaluation has new ones.

    Args:
        program: The program as it was captured; it is returned if there is no such operator.
        prefix: The path of the denoiser in the exported module, with its dot.

    Raises:
        DipgoError: A buffer or weight is written, or an operator has no form that does not write.
    """
    if not any(map(_writes, program.graph.nodes)):
        return program
    with without_warnings(FutureWarning):  # torch's own, of trees of arguments
        program = program.run_decompositions({})
    for spec in program.graph_signature.output_specs:
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            raise DipgoError(
                f"tensor {str(spec.target).removeprefix(prefix)} of the model",
                found="a tensor that calls of the model write",
                expected=ALIKE,
                remedy="leave out what keeps it",
            )
    for node in program.graph.nodes:
        if _writes(node):
            raise DipgoError(
                _place(node, prefix),
                found=f"{node.target}, which writes into a tensor",
                expected="operators that have a form which does not",
                remedy="compute a new tensor there",
            )
    _keep_user_outputs(program)
    return program


def _writes(node: fx.Node) -> bool:
    """Returns whether the node writes into a tensor; `torch.tensor(…)` only detaches a new one."""
    return is_mutating(node.target) and node.target is not torch.ops.aten.detach_.default


def _keep_user_outputs(program: torch.export.ExportedProgram) -> None:
    """Drops outputs that stand for what is written into inputs."""
    specs = program.graph_signature.output_specs
    kept = [index for index, spec in enumerate(specs) if spec.kind == OutputKind.USER_OUTPUT]
    output = program.graph.output_node()
    (outputs,) = output.args
    assert isinstance(outputs, tuple)
    output.args = (tuple(outputs[index] for index in kept),)
    specs[:] = [specs[index] for index in kept]
    program.graph.eliminate_dead_code()


def refuse_random_numbers(program: torch.export.ExportedProgram, prefix: str) -> None:
    """Checks that no operator draws random numbers: those of a run would be others.

    Raises:
        DipgoError: An operator draws; the error names its module.
    """
    for node in program.graph.nodes:
        if _draws(node):
            raise DipgoError(
                _place(node, prefix),
                found=f"{node.target}, which draws random numbers",
                expected=ALIKE,
                remedy="leave it out, or make what it draws an input",
            )


def _draws(node: fx.Node) -> bool:
    """Returns whether a node draws random numbers; dropout with a probability of 0 does not."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    defaults = argument_defaults(node.target)
    positional = dict(zip((name for name, _ in defaults), node.args, strict=False))
    values = dict(defaults) | positional | dict(node.kwargs)
    return values.get("dropout_p", values.get("p")) != 0.0 and values.get("train") is not False


def _place(node: fx.Node, prefix: str) -> str:
    *_, (_, path) = [("", ""), *module_stack(node)]
    return f"module {path.removeprefix(prefix) or 'denoiser'}"
