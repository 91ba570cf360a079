"""The function `search`: from a model and prompts to a SubNet that keeps a share of its cost."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dipgo.errors import DipgoError
from dipgo.models.family import Geometry
from dipgo.models.pipeline_parts import VaeDecoder
from dipgo.models.source import Source, load_source
from dipgo.search.budget import check_target
from dipgo.search.cost import macs_weights
from dipgo.search.examples import Examples
from dipgo.search.optimise import Decode, OnIteration, Optimisation, Progress
from dipgo.search.problem import Problem, Weigh, make_problem
from dipgo.search.select import bisect_threshold, fill_budget, sweep_threshold
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet import SuperNet
from dipgo.subnet import SubNet

Stage = Callable[[str], AbstractContextManager[object]]
"""Called with what is about to happen; the context lasts as long as that does."""

SELECTIONS = {
    "fill": fill_budget,
    "bisection": bisect_threshold,
    "sweep": sweep_threshold,
}


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search. `ratio` is the share of the cost to take out; sizes in pixels, 0 for own.

    `weigh` gives the cost of one call of each node: MACs unless said.
    """

    ratio: float
    steps: int
    scheduler: str | None = None
    blocks: tuple[str, ...] = ()
    backup: str = "output"
    batch: int = 2
    height: int = 0
    width: int = 0
    guidance: bool = True
    weigh: Weigh = macs_weights

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise DipgoError(
                "--ratio",
                found=f"{self.ratio:g}",
                expected="a share above 0 and below 1: what to take out of the cost",
                remedy="0.8 for example keeps a fifth",
            )


def pose(model: Any, request: SearchRequest, device: str | torch.device = "cpu") -> Problem:
    """Loads and traces the model. Raises DipgoError."""
    source = load_source(model)
    _move(source, device)
    geometry = Geometry(
        request.batch, request.height, request.width, request.guidance, source.tokens
    )
    return make_problem(
        source,
        geometry,
        steps=request.steps,
        scheduler=request.scheduler,
        patterns=request.blocks,
        backup=request.backup,
        weigh=request.weigh,
    )


def _move(source: Source, device: str | torch.device) -> None:
    source.denoiser.to(device)
    for part in ("text_encoder", "vae"):
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
    on_iteration: OnIteration = lambda progress: None,
) -> SubNet:
    """DiP-GO's search. Raises DipgoError.

    `model` is a path, a Hub id, an `arch:` name or a loaded pipeline. `accelerator`
    (`accelerate.Accelerator`) says where it runs, and in what precision. `checkpointing` computes
    activations twice to keep fewer. With `checkpoint`, a search that was stopped goes on from
    there, to the identical SubNet. `log` is a CSV file, a line an iteration.
    """
    settings = settings or SearchSettings()
    accelerator = accelerator or _accelerator()
    if not prompts:
        raise DipgoError(
            "prompts", found="none", expected="at least one", remedy="give some to search with"
        )
    with stage("trace the model"):
        problem = pose(model, request, accelerator.device)
    kept = 1.0 - request.ratio
    check_target(problem.cost, kept)
    scores = scores_by_gradient(
        problem,
        prompts,
        settings,
        kept,
        accelerator=accelerator,
        checkpointing=checkpointing,
        checkpoint=checkpoint,
        log=log,
        on_iteration=on_iteration,
    )
    with stage("choose the gates"):
        gates = SELECTIONS[settings.selection](scores, problem.cost, kept)
    return problem.subnet(gates, provenance(problem, settings, gates), scores)


def scores_by_gradient(
    problem: Problem,
    prompts: Sequence[str],
    settings: SearchSettings,
    kept: float,
    *,
    accelerator: Any = None,
    checkpointing: bool = True,
    checkpoint: Path | None = None,
    log: Path | None = None,
    on_iteration: OnIteration = lambda progress: None,
) -> NDArray[np.float64]:
    """Keep-scores f64[steps, blocks]. Raises DipgoError, also where memory does not suffice."""
    net = SuperNet(
        problem.traced, problem.sampler, problem.blocks, problem.backup, checkpointing=checkpointing
    )
    examples = Examples(
        problem,
        net,
        prompts,
        count=settings.pool,
        guidance_scale=settings.guidance_scale,
        seed=settings.seed,
        same_noise=settings.same_noise,
    )
    optimisation = Optimisation(
        problem,
        net,
        examples,
        settings,
        kept,
        accelerator or _accelerator(),
        _decoder(problem, settings),
    )
    with _log(log) as write, _memory_errors(checkpointing):
        return optimisation.run(
            checkpoint=checkpoint,
            on_iteration=lambda progress: (write(progress), on_iteration(progress)),
        )


def _accelerator() -> Any:
    from accelerate import Accelerator

    return Accelerator()


def _decoder(problem: Problem, settings: SearchSettings) -> Decode:
    """The VAE's decoder where pictures are compared."""
    if settings.target == "latents":
        return lambda latents: latents
    vae = getattr(problem.source.pipeline, "vae", None)
    if vae is None:
        raise DipgoError(
            "--target images",
            found=f"no VAE in {problem.source.name}",
            expected="a pipeline that makes pictures of latents",
            remedy="use --target latents",
        )
    return VaeDecoder(vae)


@contextmanager
def _log(path: Path | None) -> Iterator[OnIteration]:
    """Yields what writes a line an iteration; a file that is there is gone on with."""
    if path is None:
        yield lambda progress: None
        return
    started = perf_counter()
    try:
        file = path.open("a", newline="", encoding="utf-8")
    except OSError as error:
        raise DipgoError(
            str(path),
            found=f"a place that cannot be written ({error.strerror})",
            expected="a folder that exists",
            remedy="choose another path for --log",
        ) from None
    with file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(["iteration", "loss", "distance", "kept", "seconds"])

        def write(progress: Progress) -> None:
            seconds = f"{perf_counter() - started:.1f}"
            figures = (f"{one:.6g}" for one in (progress.loss, progress.distance, progress.kept))
            writer.writerow([progress.iteration, *figures, seconds])
            file.flush()

        yield write


@contextmanager
def _memory_errors(checkpointing: bool) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and (
            "can't allocate memory" not in text and "out of memory" not in text
        ):
            raise
        first, *_ = text.splitlines() or ["out of memory"]
        remedy = "lower --batch" if checkpointing else "leave --no-checkpointing out"
        raise DipgoError(
            "search", found=first, expected="memory for one iteration", remedy=remedy
        ) from None


def provenance(
    problem: Problem, settings: SearchSettings, gates: NDArray[np.bool_]
) -> dict[str, Any]:
    """Where a SubNet comes from: the method and everything that was chosen."""
    return {
        "method": "dipgo",
        "kept": round(problem.cost.kept(gates), 6),
        "guidance": problem.geometry.guidance,
        "batch": problem.geometry.batch,
        **asdict(settings),
    }
