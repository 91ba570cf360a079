"""Names weights within traced modules, whose code reads them as attributes.

A module path may hold a word that is no attribute in Python, such as `lambda`, or one that the
traced module has itself, such as `graph`. A space after such a word makes it another, which the
code reads with `getattr`.
"""

from __future__ import annotations

from keyword import iskeyword

from torch import fx, nn


def attribute_of(path: str) -> str:
    """Returns the name that a weight has within a traced module."""
    return ".".join(f"{word} " if _is_taken(word) else word for word in path.split("."))


def path_of(attribute: str) -> str:
    """Returns the weight's path, of which `attribute_of` made the attribute."""
    return ".".join(
        word.removesuffix(" ") if _is_taken(word) else word for word in attribute.split(".")
    )


def _is_taken(word: str) -> bool:
    """Returns whether the word, which may have spaces after it already, is one that cannot be."""
    bare = word.rstrip(" ")
    return iskeyword(bare) or bare in _TAKEN


_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - frozenset(dir(nn.Module()))
