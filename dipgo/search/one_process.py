"""Searches in one process without accelerate, whose state belongs to the whole process.

An `accelerate.Accelerator` settles device and precision for all that come after it in the process,
also for the caller's own; and takes those of one that came before.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class OneProcess:
    """What a search uses of an Accelerator, for one process in fp32: on a GPU, where there is one.

    Attributes:
        device: The device to search on.
        is_main_process: True: this process writes logs and checkpoints.
        num_processes: 1.
        process_index: 0.
    """

    is_main_process, num_processes, process_index = True, 1, 0

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def prepare(self, prepared: Any) -> Any:
        """Places a module on the device; an optimiser stays as it is."""
        return prepared.to(self.device) if isinstance(prepared, nn.Module) else prepared

    def unwrap_model(self, module: nn.Module) -> nn.Module:
        """Returns the module, which nothing wraps."""
        return module

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns a context that changes nothing."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Any, largest: float) -> Tensor:
        """Scales gradients down to a norm."""
        return nn.utils.clip_grad_norm_(parameters, largest)


def make_accelerator() -> Any:
    """Returns a OneProcess, or accelerate's where it has launched several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return OneProcess()
    from accelerate import Accelerator

    return Accelerator()
