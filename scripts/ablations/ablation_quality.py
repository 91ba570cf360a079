"""Runs one search and measures its SubNet on held-out pairs, on the SuperNet: nothing is exported.

A gate that is off is a choice there, so that the trajectory is the one that an export would run.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipgo.common.files import read_prompts
from dipgo.evaluate.metrics import interval, psnr, ssim
from dipgo.evaluate.pairs import Pair, make_pairs, noise_of
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.prompts import encode_prompts
from dipgo.models.source import load_source
from dipgo.search.api import pose
from dipgo.search.guards import memory_errors
from dipgo.search.log import OnProgress
from dipgo.search.problem import Problem
from dipgo.search.request import SearchRequest
from dipgo.search.rivals import Rivals
from dipgo.search.settings import SearchSettings
from dipgo.search.stages import Search
from dipgo.search.supernet.row_gates import row_gates
from dipgo.search.supernet.supernet import SuperNet


@dataclass(frozen=True, slots=True)
class Ends:
    """Where trajectories end: latents f32[pairs, C, h, w] and pictures u8[pairs, H, W, 3]."""

    latents: NDArray[np.float32]
    pictures: NDArray[np.uint8]


class Bench:
    """Searches and measures with one model, one sampler and one set of held-out pairs."""

    def __init__(
        self, model: Path, search_prompts: Path, held_out: Path, options: Namespace, guidance: float
    ) -> None:
        self.options, self.guidance = options, guidance
        self.prompts = read_prompts(search_prompts)
        self.pairs = make_pairs(read_prompts(held_out), options.pairs, seed=0)
        self.source = load_source(model)
        self.setup = {
            "model": self.source.name,
            "scheduler": options.scheduler,
            "steps": options.steps,
            "target": options.kept,
            "batch": options.batch,
            "pairs": options.pairs,
        }
        self._problems: dict[tuple[tuple[str, ...], str], Problem] = {}

    def problem(self, blocks: tuple[str, ...] = (), backup: str = "output") -> Problem:
        """The model, traced once for each choice of blocks."""
        if (blocks, backup) not in self._problems:
            request = SearchRequest(
                ratio=1 - self.options.kept,
                steps=self.options.steps,
                scheduler=self.options.scheduler,
                blocks=blocks,
                backup=backup,
                batch=self.options.batch,
            )
            self._problems[blocks, backup] = pose(self.source, request)
        return self._problems[blocks, backup]

    def measure(
        self,
        settings: SearchSettings,
        blocks: tuple[str, ...],
        backup: str,
        rival: str,
        on_progress: OnProgress,
    ) -> dict[str, Any]:
        """Seconds of the search, what it keeps and its quality, as plain data. Raises DipgoError"""
        problem = self.problem(blocks, backup)
        started = perf_counter()
        if rival:
            subnet = self._rivals(problem, settings).make(rival, self.options.kept)
        else:
            subnet = self._search(problem, settings, on_progress)
        seconds = perf_counter() - started
        return {
            "search_seconds": seconds,
            "kept": problem.cost.kept(subnet.gates),
            "evaluations": sum(bool(subnet.gates[row].any()) for row in problem.sampler.rows),
            "blocks": list(subnet.blocks),
            "gates": ["".join("01"[int(gate)] for gate in row) for row in subnet.gates],
            "reuse": subnet.reuse,
            "reuse_unconditional": subnet.reuse_unconditional,
            "metrics": self._quality(self._ends(problem, subnet)),
        }

    def _search(
        self, problem: Problem, settings: SearchSettings, on_progress: OnProgress
    ) -> SubNet:
        from accelerate import Accelerator

        with memory_errors(self.options.checkpointing):
            return Search(
                problem,
                self.prompts,
                settings,
                self.options.kept,
                Accelerator(),
                checkpointing=self.options.checkpointing,
                on_progress=on_progress,
            ).run()

    def _rivals(self, problem: Problem, settings: SearchSettings) -> Rivals:
        return Rivals(problem, self.prompts, guidance_scale=self.guidance, seed=settings.seed)

    @cached_property
    def _dense(self) -> Ends:
        """Of the default blocks: how a model is cut into blocks does not change what it computes"""
        problem = self.problem()
        ones = np.ones(problem.cost.shape, dtype=np.bool_)
        return self._ends(problem, problem.subnet(ones, {}))

    @torch.no_grad()
    def _ends(self, problem: Problem, subnet: SubNet) -> Ends:
        net = SuperNet(
            problem.traced,
            problem.sampler,
            problem.blocks,
            problem.backup,
            halves=subnet.uses_halves,
        )
        model = self.source.at(problem.geometry)
        decode = model.decoder(model.vae, torch.zeros(model.latent_shape))
        gates = torch.tensor(subnet.gates, dtype=torch.float32)
        rows = row_gates(subnet)
        latents, pictures = [], []
        for batch in _batches(self.pairs, self.options.batch):
            ended = net(gates, self._inputs(problem, net, batch), rows)
            latents.append(ended.numpy())
            shades = (decode(ended) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
            pictures.append((shades * 255).round().astype(np.uint8))
        count = len(self.pairs)
        return Ends(np.concatenate(latents)[:count], np.concatenate(pictures)[:count])

    def _inputs(
        self, problem: Problem, net: SuperNet, batch: tuple[Pair, ...]
    ) -> dict[str, torch.Tensor]:
        prompts = [pair.prompt for pair in batch]
        inputs = encode_prompts(problem.source, prompts, problem.geometry)
        noise = noise_of(batch, problem.traced.graph.types[net.state].shape[1:])
        inputs[net.state] = torch.from_numpy(noise * np.float32(problem.sampler.start.noise_scale))
        inputs["guidance_scale"] = torch.tensor(self.guidance)
        return inputs

    def _quality(self, ends: Ends) -> dict[str, Any]:
        dense = self._dense
        error = (ends.latents - dense.latents).astype(np.float64) ** 2
        values = {
            "log10_mse": np.log10(error.reshape(len(error), -1).mean(1) + np.finfo(float).tiny),
            "psnr_db": psnr(ends.pictures, dense.pictures),
            "ssim": ssim(ends.pictures, dense.pictures),
        }
        return {name: _measured(one) for name, one in values.items()}


def _batches(pairs: tuple[Pair, ...], size: int) -> Iterator[tuple[Pair, ...]]:
    """All of one size, as the model is traced: the last is filled up with its last pair."""
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        yield (*batch, *batch[-1:] * (size - len(batch)))


def _measured(values: NDArray[np.float64]) -> dict[str, Any]:
    """The mean with its 95 % interval, and all values; null for what is infinite."""
    means = {name: _finite(one) for name, one in asdict(interval(values)).items()}
    return {**means, "values": [_finite(one) for one in values.tolist()]}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
