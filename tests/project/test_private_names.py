"""Private names of libraries stand in the files that are for them, and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.private_names import defined_names, private_names, read, replaced_members

PACKAGE = Path(__file__).parents[2] / "dipgo"
HOMES = {"compiler/trace/torch_private.py", "models/diffusers_private.py"}
IN_FILES = {"common/safe_pickle.py", "engines/torch/program_file.py"}
"""They read names that stand in files: those of pickles, of which they call none, and those of a
program's operators, each of which a test looks up."""
NO_LIBRARY = {"_coefficient", "_blocks", "_2", "_3", "_class_name"}
"""Parts of names in an export, in a SubNet and of a pipeline's parts, and a key of its index."""

SOURCES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
OWN = defined_names(map(read, SOURCES.values())) | NO_LIBRARY


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - HOMES - IN_FILES))
def test_no_private_name_of_a_library(name: str) -> None:
    tree = read(SOURCES[name])
    seen = [*private_names(tree, OWN), *replaced_members(tree)]
    assert not seen, f"dipgo/{name}: {seen}; give them a function in one of {sorted(HOMES)}"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from torch._ops import OpOverload", "_ops"),
        ("from torch import _C", "_C"),
        ("import torch._dynamo", "_dynamo"),
        ("torch.utils._pytree.tree_map(f, x)", "_pytree"),
        ("self.net._modules.clear()", "_modules"),
        ("getattr(pipeline, '_callbacks')", "_callbacks"),
        ("find('torch._inductor.config')", "_inductor"),
        ("overloads('add.Tensor _to_copy')", "_to_copy"),
    ],
)
def test_what_the_search_sees(code: str, name: str) -> None:
    assert name in [seen for _, seen in private_names(ast.parse(code), OWN)]


def test_the_search_sees_what_is_replaced() -> None:
    tree = ast.parse("import torch\ntorch.randn = None\ntorch.nn.Linear.forward = None")
    assert [seen for _, seen in replaced_members(tree)] == [
        "torch.randn",
        "torch.nn.Linear.forward",
    ]
