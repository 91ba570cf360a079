"""Data-parallel training on a CPU: one process a core, which meet once a step."""

from __future__ import annotations

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn as spawn_processes


def spawn(worker: Callable[..., None], n_workers: int, *args: Any) -> None:
    """Run worker(*args) in `n_workers` processes with one thread each; wait for all."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        arguments = (worker, n_workers, f"file://{folder}/meet", args)
        spawn_processes(_enter, arguments, n_workers)  # type: ignore[no-untyped-call]


def _enter(
    rank: int, worker: Callable[..., None], n_workers: int, address: str, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=n_workers)
    worker(*args)
    dist.destroy_process_group()


def average_gradients(model: nn.Module, *numbers: float) -> list[float]:
    """Average the gradients over the processes, and with them `numbers`, which are returned."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor(numbers)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    *averaged, last = torch.split(flat, [*(g.numel() for g in gradients), len(numbers)])
    for gradient, average in zip(gradients, averaged, strict=True):
        gradient.copy_(average.view_as(gradient))
    return [float(number) for number in last]
