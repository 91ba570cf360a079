"""The SubNets that are compared, each a file that is made only where it is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.common.progress import live_progress, stage
from dipgo.common.staged import staged_file
from dipgo.ir.subnet.subnet import SubNet
from dipgo.schedules import RULES
from dipgo.search.api import pose, search
from dipgo.search.request import SearchRequest
from dipgo.search.rivals import Rivals
from dipgo.search.settings import SearchSettings

SEARCHED, STEPS_OF = "dipgo", "steps-of"
BATCH = 4
"""Prompts a batch of searches and calibrations."""
RIVALS = tuple(method for method in RULES if method != "l2c")
FLOOR = re.compile(r"(\d\.\d+) with the cheapest|share from (\d\.\d+), the least")
ROUNDING = 0.001
"""N of T whole rows cost a little more than N/T, since what runs once a prompt is kept as a whole:
rivals of whole rows keep that much more than was asked for, so the searched SubNets may as well."""
SAMPLERS = {"ddim": ("ddim", 50), "dpm": ("dpm++", 20), "pndm": ("pndm", 50)}
"""By the names that files begin with: scheduler and steps."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Why a method has no SubNet, and the least share that it could keep where that is known."""

    method: str
    floor: float | None
    error: str


FINER = (
    "conv_in",
    "down_blocks.*.resnets.*",
    "down_blocks.*.attentions.*",
    "mid_block",
    "up_blocks.*.resnets.*",
    "up_blocks.*.attentions.*",
)
OF_LAYERS = ("deepcache", "deepcache-nonuniform")
"""Methods that compute part of a block: what is gated is finer for them."""


class CachedRivals(Rivals):
    """Rivals whose dearest calibration, the loss of removing each gate, is kept in `file`."""

    file: Path

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """f64[steps, blocks], of the file where it was made for the same question."""
        identity = self._identity()
        if self.file.exists():
            with np.load(self.file, allow_pickle=False) as found:
                if str(found["identity"]) == identity:
                    return np.asarray(found["losses"], np.float64)
        losses = super().losses
        with staged_file(self.file) as staging:
            np.savez(staging, losses=losses, identity=np.array(identity))
        return losses

    def _identity(self) -> str:
        problem = self.problem
        return json.dumps(
            {
                "weights": problem.weights_sha256,
                "scheduler": problem.sampler.scheduler_class,
                "timesteps": problem.sampler.timesteps,
                "blocks": problem.blocks,
                "backup": problem.backup,
                "batch": problem.geometry.batch,
                "prompts": list(self.prompts),
                "guidance_scale": self.scales,
                "count": self.count,
                "seed": self.seed,
            }
        )


class Maker:
    """Makes the SubNets of one sampler; what rivals must know of the model is measured once."""

    def __init__(
        self, model: Path, sampler: str, prompts: Sequence[str], guidance: float, folder: Path
    ) -> None:
        self.model, self.sampler, self.folder = model, sampler, folder
        self.prompts, self.guidance = prompts, guidance

    def make(
        self, rivals: Sequence[str], kept: float
    ) -> tuple[dict[str, SubNet], list[Unreachable]]:
        """SubNets by their methods, the searched ones first, and the methods that have none.

        Every other searched SubNet whose file is in the folder, such as ddim-0.20-dipgo-1.json, is
        compared as well.
        """
        subnets: dict[str, SubNet] = {}
        unreachable = []
        for method in (SEARCHED, *self._other_searched(kept), *rivals):
            try:
                subnets[method] = self._load_or_make(method, kept, subnets.get(SEARCHED))
            except DipgoError as error:
                unreachable.append(Unreachable(method, _floor(error), str(error)))
        return subnets, unreachable

    def _path(self, kept: float, method: str) -> Path:
        return self.folder / f"{self.sampler}-{kept:.2f}-{method}.json"

    def _other_searched(self, kept: float) -> list[str]:
        prefix = f"{self.sampler}-{kept:.2f}-"
        found = self.folder.glob(f"{prefix}{SEARCHED}-*.json")
        return sorted(path.stem.removeprefix(prefix) for path in found)

    def _load_or_make(self, method: str, kept: float, searched: SubNet | None) -> SubNet:
        """Steps of a SubNet are taken anew each time: that may have been searched anew."""
        path = self._path(kept, method)
        if path.exists() and method != STEPS_OF:
            return SubNet.load(path)
        with stage(f"make {path.name}"):
            subnet = self._make(method, kept, searched)
        subnet.save(path)
        return subnet

    def _make(self, method: str, kept: float, searched: SubNet | None) -> SubNet:
        if method == SEARCHED:
            return self._search(kept)
        rivals = self._rivals_of_layers if method in OF_LAYERS else self._rivals
        rivals.of = searched
        return rivals.make(method, kept)

    def _search(self, kept: float) -> SubNet:
        """With the default settings. One that was stopped goes on where it was."""
        checkpoint = self._path(kept, SEARCHED).with_suffix(".checkpoint")
        with live_progress() as show:
            subnet = search(
                self.model,
                self._request(kept + ROUNDING),
                self.prompts,
                SearchSettings(guidance_scale=self.guidance),
                checkpointing=False,
                checkpoint=checkpoint,
                on_progress=lambda one: show(
                    one.stage, one.done, one.total, f"distance {one.distance:.4f}"
                ),
            )
        shutil.rmtree(checkpoint, ignore_errors=True)
        return subnet

    @cached_property
    def _rivals(self) -> CachedRivals:
        """For all kept shares."""
        problem = pose(self.model, self._request(kept=0.5))
        rivals = CachedRivals(problem, self.prompts, guidance_scale=self.guidance)
        rivals.file = self.folder / f"{self.sampler}-losses.npz"
        return rivals

    @cached_property
    def _rivals_of_layers(self) -> Rivals:
        """They need nothing measured."""
        return Rivals(pose(self.model, replace(self._request(kept=0.5), blocks=FINER)))

    def _request(self, kept: float) -> SearchRequest:
        scheduler, steps = SAMPLERS[self.sampler]
        return SearchRequest(ratio=1 - kept, steps=steps, scheduler=scheduler, batch=BATCH)


def _floor(error: DipgoError) -> float | None:
    found = FLOOR.search(str(error))
    return float(next(filter(None, found.groups()))) if found else None
