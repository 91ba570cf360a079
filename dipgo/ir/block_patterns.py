"""Turns module-path patterns such as `up_blocks.*.resnets.*` into block names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from dipgo.common.errors import DipgoError


class HasModules(Protocol):
    """The part of `torch.nn.Module` that patterns are matched against."""

    def named_modules(self) -> object:
        """Yields (path, module) for the module itself and every module inside it."""


def match_blocks(denoiser: HasModules, patterns: Sequence[str]) -> tuple[str, ...]:
    """Returns the paths of the modules that match, in the model's order.

    Args:
        denoiser: The module whose submodules are matched.
        patterns: Module paths in which `*` stands for one path component.

    Raises:
        DipgoError: A pattern matches no module, or a block lies inside another.
    """
    paths = check_patterns(denoiser, patterns, "block pattern")
    blocks = tuple(p for p in paths if any(_matches(p, pattern) for pattern in patterns))
    _check_disjoint(blocks)
    return blocks


def check_patterns(denoiser: HasModules, patterns: Sequence[str], what: str) -> list[str]:
    """Returns all module paths, once every pattern is known to match one of them.

    Args:
        denoiser: The module whose submodules are matched.
        patterns: As in `match_blocks`.
        what: What the patterns are, for the error: an option or a noun.

    Raises:
        DipgoError: A pattern matches no module.
    """
    paths = [path for path, _ in denoiser.named_modules() if path]  # type: ignore[attr-defined]
    for pattern in patterns:
        if not any(_matches(path, pattern) for path in paths):
            tops = sorted({path.split(".")[0] for path in paths})
            raise DipgoError(
                f"{what} {pattern!r}",
                found="no module of that path",
                expected=f"paths that begin with one of {', '.join(tops)}",
                remedy="correct the pattern; * stands for one part between dots",
            )
    return paths


def present_patterns(denoiser: HasModules, patterns: Sequence[str]) -> tuple[str, ...]:
    """Returns the patterns that match a module; all of them if none does.

    Small distilled models leave out modules that others of their class have.
    """
    paths = [path for path, _ in denoiser.named_modules()]  # type: ignore[attr-defined]
    present = (p for p in patterns if any(_matches(path, p) for path in paths))
    return tuple(present) or tuple(patterns)


def is_within(path: str, pattern: str) -> bool:
    """Returns whether the module at `path`, or a module around it, matches the pattern."""
    outermost = path.split(".")[: pattern.count(".") + 1]
    return _matches(".".join(outermost), pattern)


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _check_disjoint(blocks: Sequence[str]) -> None:
    for outer in blocks:
        for inner in blocks:
            if inner.startswith(f"{outer}."):
                raise DipgoError(
                    f"block {inner}",
                    found=f"a block inside the block {outer}",
                    expected="blocks that do not overlap",
                    remedy="leave one of the two out",
                )
