"""The function `search`: from a model and prompts to a SubNet that keeps a share of its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dipgo.common.errors import DipgoError
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.source import Source, load_source
from dipgo.search.cost.budget import check_target
from dipgo.search.guards import memory_errors
from dipgo.search.log import OnProgress, csv_log, ignore
from dipgo.search.problem import Problem, make_problem
from dipgo.search.request import SearchRequest
from dipgo.search.settings import SearchSettings
from dipgo.search.stages import Search

Stage = Callable[[str], AbstractContextManager[object]]
"""Called with what is about to happen; the context lasts as long as that does."""


def pose(model: Any, request: SearchRequest, device: str | torch.device = "cpu") -> Problem:
    """Loads and traces the model. Raises DipgoError, also for a ratio that is out of reach."""
    source = load_source(model, request.loras)
    _move(source, device)
    problem = make_problem(
        source,
        source.geometry(request.batch, request.height, request.width, request.guidance),
        schedule=request.schedule,
        backup=request.backup,
        weigh=request.weigh,
    )
    check_target(problem.cost, request.kept)
    return problem


def _move(source: Source, device: str | torch.device) -> None:
    source.denoiser.to(device)
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3", "vae"):
        module = getattr(source.pipeline, part, None)
        if isinstance(module, nn.Module):
            module.requires_grad_(False).to(device)


def search(
    model: Any,
    request: SearchRequest,
    prompts: Sequence[str],
    settings: SearchSettings | None = None,
    *,
    accelerator: Any = None,
    checkpointing: bool = True,
    checkpoint: Path | None = None,
    log: Path | None = None,
    stage: Stage = lambda description: nullcontext(),
    on_progress: OnProgress = ignore,
) -> SubNet:
    """DiP-GO's search, as `settings` has it. Raises DipgoError.

    `model` is a path, a Hub id, an `arch:` name or a loaded pipeline. `accelerator`
    (`accelerate.Accelerator`) says where it runs, and in what precision. `checkpointing` computes
    activations twice to keep fewer. `checkpoint` is a folder: a search that was stopped goes on
    from there, to the identical SubNet. `log` is a CSV file, a line an iteration.
    """
    if not prompts:
        raise DipgoError(
            "prompts", found="none", expected="at least one", remedy="give some to search with"
        )
    accelerator = accelerator or _accelerator()
    with stage("trace the model"):
        problem = pose(model, request, accelerator.device)
    with csv_log(log if accelerator.is_main_process else None) as write:

        def tell(progress: Any) -> None:
            write(progress)
            on_progress(progress)

        with memory_errors(checkpointing):
            return Search(
                problem,
                prompts,
                settings or SearchSettings(),
                request.kept,
                accelerator,
                checkpointing=checkpointing,
                checkpoint=checkpoint,
                on_progress=tell,
            ).run()


def _accelerator() -> Any:
    from accelerate import Accelerator

    return Accelerator()
