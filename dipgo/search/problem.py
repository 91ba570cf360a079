"""The problem of a search: a traced model, its sampler, the gated blocks and their cost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from msgspec import to_builtins
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.fit import can_have
from dipgo.compiler.front import read_model
from dipgo.compiler.request import Schedule, read_schedule
from dipgo.compiler.sampler.schedulers import beyond_class, make_scheduler
from dipgo.compiler.settings import DENSE, ScheduleSettings
from dipgo.compiler.trace.trace import Traced
from dipgo.ir.fitted import LEAST_SCALE, Scales
from dipgo.ir.graph import BlockGraph
from dipgo.ir.sampler import Sampler
from dipgo.ir.subnet.subnet import ModelRef, SchedulerRef, SubNet
from dipgo.models.family import Geometry
from dipgo.models.model import Source
from dipgo.models.source import add_weights
from dipgo.models.text_encoding import default_scale
from dipgo.search.cost.model import CostModel, GapCost, macs_weights
from dipgo.search.request import Weigh

OUTER_BLOCKS = ("conv_in",)
"""Modules that run before a family's own blocks; gated too if a denoiser has them."""


@dataclass(frozen=True)
class Problem:
    """A model, traced for one batch size, for which gates are to be chosen."""

    source: Source
    geometry: Geometry
    schedule: Schedule
    traced: Traced
    sampler: Sampler
    cost: CostModel
    weigh: Weigh = macs_weights

    def with_filters(self, terms: int, halves: bool, size: int) -> Problem:
        """Returns the problem in which rows that are off filter the latest predictions.

        The filters' MACs count if the cost is MACs. By parameters or latency filters cost
        nothing: they touch no weights, and their time has not been measured.

        Args:
            terms: The number of predictions that are filtered.
            halves: Whether each prediction's unconditional half has a filter too.
            size: The side of a filter in latent pixels.

        Raises:
            DipgoError: The latents are not [pictures, channels, height, width].
        """
        state = self.traced.graph.state
        if len(state.type.shape) != 4:
            raise DipgoError(
                setting("reuse_filter"),
                found=f"{size} for latents {state.type}",
                expected="latents [pictures, channels, height, width]",
                remedy=f"use {setting('reuse_filter')} 0",
            )
        batch, channels, height, width = state.type.shape
        each = (1 + halves) * batch * channels**2 * size**2 * height * width
        gaps = GapCost(terms, float(each) if self.weigh is macs_weights else 0.0)
        return replace(self, cost=replace(self.cost, gaps=gaps))

    @property
    def scheduler(self) -> Any:
        """The diffusers scheduler that the sampler was read from, not started."""
        return make_scheduler(self.source.scheduler, self.schedule.scheduler)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks, in the order of the gates' columns."""
        return self.cost.blocks

    @property
    def backup(self) -> tuple[str, ...]:
        """The backup's word for each block."""
        return self.cost.backup

    @property
    def weights_sha256(self) -> str:
        """The hash of the denoiser's weights and their names."""
        digest = hashlib.sha256()
        add_weights(digest, self.source.denoiser)
        return digest.hexdigest()

    def scales(self, wanted: float | Scales | None) -> Scales:
        """Returns the range of guidance scales that is asked for; by default the pipeline's scale.

        Args:
            wanted: A scale, a range, or None.

        Raises:
            DipgoError: A scale is asked for, and there is no guidance.
        """
        if wanted is not None and not self.geometry.guidance:
            raise DipgoError(
                setting("guidance_scale"),
                found="one for a model without guidance",
                expected="none",
                remedy="leave it out",
            )
        if wanted is None:
            pipeline = self.source.pipeline
            wanted = LEAST_SCALE if pipeline is None else default_scale(pipeline)
        lowest, highest = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        return max(lowest, LEAST_SCALE), max(highest, LEAST_SCALE)

    def _loras(self) -> dict[str, Any]:
        """Returns the provenance of the LoRAs that are in the weights, if there are any."""
        loras = self.source.loras
        return {"loras": [to_builtins(lora) for lora in loras]} if loras else {}

    def subnet(
        self,
        gates: NDArray[np.bool_],
        provenance: dict[str, Any],
        scores: NDArray[np.float64] | None = None,
        **gaps: Any,
    ) -> SubNet:
        """Returns gates bool[steps, blocks] as a SubNet of this model and scheduler.

        Args:
            gates: bool[steps, blocks].
            provenance: How the gates were made.
            scores: Keep-scores f64[steps, blocks].
            gaps: The SubNet's fields for rows that are wholly off, such as `reuse`.

        Raises:
            DipgoError: The parts contradict one another.
        """
        return SubNet(
            num_inference_steps=self.sampler.num_inference_steps,
            timesteps=self.sampler.timesteps,
            blocks=self.blocks,
            gates=gates,
            backup=self.backup,
            model=ModelRef(self.source.model_class, self.source.config_sha256),
            scheduler=SchedulerRef(
                self.sampler.scheduler_class, beyond_class(self.source.scheduler, self.scheduler)
            ),
            scores=scores,
            provenance=provenance | self._loras(),
            **gaps,
        )


def make_problem(
    source: Source,
    geometry: Geometry,
    *,
    schedule: ScheduleSettings,
    backup: str = "output",
    weigh: Weigh = macs_weights,
) -> Problem:
    """Traces the model and prices its calls.

    Args:
        source: The model.
        geometry: The sizes to trace it for.
        schedule: The steps and the blocks; without blocks, the family's own, and `conv_in` if
            the denoiser has it.
        backup: The backup of all blocks; a block that cannot have it has `output`.
        weigh: The function that gives the cost of one call of each node.

    Raises:
        DipgoError: There are fewer than two steps, or the model cannot be traced.
    """
    blocks = schedule.blocks or default_patterns(source)
    read = read_schedule(DENSE, replace(schedule, blocks=blocks))
    if read.steps < 2:
        raise DipgoError(
            setting("steps"),
            found=str(read.steps),
            expected="at least 2",
            remedy="the first computes all",
        )
    traced, sampler, _ = read_model(source, read, geometry)
    graph = traced.graph
    words = [_backup(graph, name, backup) for name in (node.name for node in graph.blocks)]
    names = tuple(node.name for node in graph.blocks)
    cost = CostModel(graph, sampler, names, tuple(words), dict(weigh(graph)))
    return Problem(source, geometry, read, traced, sampler, cost, weigh)


def default_patterns(source: Source) -> tuple[str, ...]:
    """Returns OUTER_BLOCKS, as far as the denoiser has them, then the family's blocks."""
    paths = {path for path, _ in source.denoiser.named_modules()}
    return (*(name for name in OUTER_BLOCKS if name in paths), *source.default_blocks)


def _backup(graph: BlockGraph, name: str, wanted: str) -> str:
    (node,) = (block for block in graph.blocks if block.name == name)
    return wanted if can_have(graph, node, wanted) else "output"
