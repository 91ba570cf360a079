"""Backups: the outputs of a block while its gate is 0. A new one is a class here, named in BACKUPS.

A backup is written once for all stand-ins of a tensor: its name when a SubNet is unrolled, the
tensor itself in the SuperNet, the number of a statement when calls are counted. It may only
combine them linearly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, TypeAlias, TypeVar

V = TypeVar("V")
"""The type of a tensor's stand-in."""

Values: TypeAlias = tuple[V, ...]

CombineTerms: TypeAlias = Callable[[tuple[tuple[float, V], ...]], V]
"""A function that returns the sum of coefficient · value over its terms."""


class Backup(ABC):
    """A way to do without a block; a SubNet names it by its `word`.

    In both methods `entered` is the input that the block adds to; it has the type of the block's
    only output. A backup that ignores it also serves other blocks, whose `entered` is any value.
    """

    word: ClassVar[str]

    @abstractmethod
    def keep(self, results: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Returns the values to keep when the block is computed; `results` are its outputs."""

    @abstractmethod
    def reuse(self, kept: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Returns the block's outputs when its gate is 0."""

    @cached_property
    def reads_input(self) -> bool:
        """Whether the block's outputs are made of its input, the current or an earlier one."""
        return any("input" in sources for sources in self._sources)

    @cached_property
    def needs_earlier(self) -> bool:
        """Whether the block has to have been computed before its outputs can be made."""
        result, entered = frozenset({"result"}), frozenset({"input"})
        return bool(self.keep((result,), entered, _united))

    @cached_property
    def repeats(self) -> bool:
        """Whether the block's outputs are the last ones unchanged, so nothing has to be done."""
        return self._sources == (frozenset({"result"}),)

    @cached_property
    def _sources(self) -> tuple[frozenset[str], ...]:
        """The names of what each output is made of: the backup applied to sets of names."""
        result, entered = frozenset({"result"}), frozenset({"input"})
        return self.reuse(self.keep((result,), entered, _united), entered, _united)


def _united(terms: tuple[tuple[float, frozenset[str]], ...]) -> frozenset[str]:
    return frozenset({"a combination"}).union(*(sources for _, sources in terms))


class Output(Backup):
    """The last outputs, of which there may be several."""

    word = "output"

    def keep(self, results: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Keeps the outputs."""
        return results

    def reuse(self, kept: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Returns the outputs kept."""
        return kept


class Delta(Backup):
    """The input, plus the difference that the block last added to its input."""

    word = "delta"

    def keep(self, results: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Keeps the difference that the block adds."""
        return (combine(((1.0, results[0]), (-1.0, entered))),)

    def reuse(self, kept: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Returns the input plus the difference kept."""
        return (combine(((1.0, entered), (1.0, kept[0]))),)


class Identity(Backup):
    """The input as it is."""

    word = "identity"

    def keep(self, results: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Keeps nothing."""
        return ()

    def reuse(self, kept: Values[V], entered: V, combine: CombineTerms[V]) -> Values[V]:
        """Returns the input."""
        return (entered,)


BACKUPS: dict[str, Backup] = {backup.word: backup for backup in (Output(), Delta(), Identity())}
"""All backups by their words: SubNets, `--backup` and error texts read the words here."""
