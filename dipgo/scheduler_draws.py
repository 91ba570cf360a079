"""Hands a scheduler the noise that it draws, so that it is known what becomes of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dipgo.errors import DipgoError

Draw = Callable[[int], torch.Tensor]
"""(draw, counted from 1) -> noise, of the latents' shape."""

NORMAL = (torch.ops.aten.randn.generator, torch.ops.aten.randn.default)
MARK = 2410_16942
"""A seed that nothing else is likely to have."""


class HandOutDraws(TorchDispatchMode):
    """While active, noise of `shape` from `generator` comes from `draw` instead, in any precision.

    `count` is how many there were. Raises DipgoError, in the name of `scheduler`, for all else
    that is random: diffusers' pipelines could not make it again from their generator.
    """

    def __init__(
        self, scheduler: str, generator: torch.Generator, shape: torch.Size, draw: Draw
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.scheduler, self.generator, self.shape, self.draw = scheduler, generator, shape, draw
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func not in NORMAL:
            raise self._refused(f"random numbers by {func}")
        if not self._is_ours(kwargs.get("generator")):
            raise self._refused("noise from another generator than the pipeline's")
        if tuple(args[0]) != tuple(self.shape):
            raise self._refused(f"noise of shape {list(args[0])} for latents {list(self.shape)}")
        self.count += 1
        return self.draw(self.count)

    def _is_ours(self, other: torch.Generator | None) -> bool:
        """Operators are given another Python object of the same generator: its seed tells."""
        self.generator.manual_seed(MARK + self.count)
        return other is not None and other.initial_seed() == MARK + self.count

    def _refused(self, found: str) -> DipgoError:
        return DipgoError(
            f"scheduler {self.scheduler}",
            found=found,
            expected="normal noise like the latents, from the generator that the pipeline gives it",
            remedy="choose another scheduler, euler-a for example",
        )
