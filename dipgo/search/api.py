"""Searches, from a model and prompts, a SubNet that keeps a share of the model's cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from dipgo.common.arguments import check_texts, checks_arguments
from dipgo.common.errors import DipgoError, wrong_type
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.as_found import leaves_as_found
from dipgo.models.model import Source
from dipgo.models.source import load_source
from dipgo.models.wrappers import pipeline_modules
from dipgo.search.cost.budget import check_target
from dipgo.search.guards import memory_errors
from dipgo.search.log import OnProgress, csv_log, ignore
from dipgo.search.one_process import make_accelerator
from dipgo.search.problem import Problem, make_problem
from dipgo.search.request import SearchRequest
from dipgo.search.settings import SearchSettings
from dipgo.search.stages import Search

Stage = Callable[[str], AbstractContextManager[object]]
"""A function called with a description of a stage; its context is held while the stage runs."""


def pose(model: Any, request: SearchRequest, device: str | torch.device = "cpu") -> Problem:
    """Loads and traces the model.

    Args:
        model: A path, a Hub id, an `arch:` name or a loaded pipeline.
        request: The cost to take out, and the schedule.
        device: The device to trace on.

    Raises:
        DipgoError: The model or the request is wrong, or the ratio is out of reach.
    """
    source = load_source(model, request.loras)
    _move(source, device)
    geometry = source.geometry(request.batch, request.height, request.width, request.guidance)
    source.check_geometry(geometry)
    problem = make_problem(
        source,
        geometry,
        schedule=request.schedule,
        backup=request.backup,
        weigh=request.weigh,
    )
    check_target(problem.cost, request.kept)
    return problem


def _move(source: Source, device: str | torch.device) -> None:
    source.denoiser.to(device)
    for module in pipeline_modules(source.pipeline).values():
        module.to(device)


@checks_arguments
@leaves_as_found
def search(
    model: Any,
    request: SearchRequest,
    prompts: Sequence[str],
    settings: SearchSettings | None = None,
    *,
    accelerator: Any = None,
    checkpointing: bool = True,
    checkpoint: str | Path | None = None,
    log: str | Path | None = None,
    stage: Stage = lambda description: nullcontext(),
    on_progress: OnProgress = ignore,
) -> SubNet:
    """Runs DiP-GO's search with `settings` and returns the SubNet.

    Args:
        model: A path, a Hub id, an `arch:` name or a loaded pipeline.
        request: The cost to take out, and the schedule.
        prompts: The prompts to search with, at least one.
        settings: The choices and numbers of the search; the defaults if None.
        accelerator: An `accelerate.Accelerator`: the device and the precision to search in. Without
            one, this process searches in fp32, on a GPU where there is one.
        checkpointing: Whether activations are computed twice, to keep fewer of them.
        checkpoint: A folder to save to and resume from; a search that was stopped and resumed
            ends with the identical SubNet.
        log: A CSV file for one line an iteration.
        stage: Called with a description of a stage; its context is held while the stage runs.
        on_progress: Called after every iteration.

    Raises:
        DipgoError: An argument is wrong, memory does not suffice, or a number is not finite.
    """
    texts = check_texts("prompts", prompts)
    if not texts:
        raise DipgoError(
            "prompts", found="none", expected="at least one", remedy="give some to search with"
        )
    if accelerator is None:
        accelerator = make_accelerator()
    elif not hasattr(accelerator, "accumulate"):
        raise wrong_type("accelerator", accelerator, "an accelerate.Accelerator, or None")
    with stage("trace the model"):
        problem = pose(model, request, accelerator.device)
    with csv_log(Path(log) if log is not None and accelerator.is_main_process else None) as write:

        def report(progress: Any) -> None:
            write(progress)
            on_progress(progress)

        with memory_errors(checkpointing):
            return Search(
                problem,
                texts,
                settings or SearchSettings(),
                request.kept,
                accelerator,
                checkpointing=checkpointing,
                checkpoint=None if checkpoint is None else Path(checkpoint),
                on_progress=report,
            ).run()
