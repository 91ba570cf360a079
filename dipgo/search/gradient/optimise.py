"""Optimises gates by gradient descent, from all kept to a table of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dipgo.search.checkpoint import load_checkpoint, restore, save_checkpoint, training_state
from dipgo.search.examples import Examples
from dipgo.search.gradient.parameters import gates_of, make_parameters
from dipgo.search.gradient.sparsity import Sparsity
from dipgo.search.guards import check_finite
from dipgo.search.log import OnProgress, Progress, ignore
from dipgo.search.losses import DISTANCES
from dipgo.search.problem import Problem
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet.supernet import SuperNet

Decode = Callable[[Tensor], Tensor]
"""A function from latents to what is compared: pictures, or the latents themselves."""


class Optimisation:
    """A search by gradient. `accelerator` is `accelerate.Accelerator()`, which places it."""

    def __init__(
        self,
        problem: Problem,
        net: SuperNet,
        examples: Examples,
        settings: SearchSettings,
        kept: float,
        accelerator: Any,
        decode: Decode = lambda latents: latents,
    ) -> None:
        self.net, self.examples, self.settings = net, examples, settings
        self.accelerator, self.decode = accelerator, decode
        self.sparsity = Sparsity(problem, settings, kept)
        self.distance = DISTANCES[settings.loss]
        steps, blocks = problem.cost.shape
        with torch.random.fork_rng(devices=()):  # leaves the caller's generator as it was
            torch.manual_seed(settings.seed)
            parameters = make_parameters(settings.parameters, steps, blocks)
        self.parameters: nn.Module = accelerator.prepare(parameters)
        self.optimizer = accelerator.prepare(_optimizer(self.parameters, settings))

    def run(
        self,
        *,
        identity: Mapping[str, Any],
        checkpoint: Path | None = None,
        on_progress: OnProgress = ignore,
    ) -> NDArray[np.float64]:
        """Runs the search.

        Args:
            identity: The facts that a checkpoint must agree with.
            checkpoint: The file to which every iteration is saved. If it exists the search resumes
                from it, and the result is the same, byte for byte.
            on_progress: Called after each iteration.

        Returns:
            Keep-scores f64[steps, blocks], 0 to 1.

        Raises:
            DipgoError: A number is not finite.
        """
        first = self._resume(checkpoint, identity)
        for iteration in range(first, self.settings.iterations):
            progress = self._iterate(iteration)
            if checkpoint is not None and self.accelerator.is_main_process:
                parameters = self.accelerator.unwrap_model(self.parameters)
                state = training_state(parameters, self.optimizer)
                save_checkpoint(checkpoint, iteration + 1, identity, state)
            on_progress(progress)
        with torch.no_grad():
            scores = torch.sigmoid(self.parameters().double())
        return np.asarray(scores.cpu().numpy(), np.float64)

    def _resume(self, path: Path | None, identity: Mapping[str, Any]) -> int:
        saved = None if path is None else load_checkpoint(path, identity)
        if saved is None:
            return 0
        restore(saved, self.accelerator.unwrap_model(self.parameters), self.optimizer)
        return saved.iteration

    def _iterate(self, iteration: int) -> Progress:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, settings)
        distances, kept, losses = [], [], []
        for part in range(settings.accumulate):
            distance, penalty, share = self._loss(iteration, part)
            loss = distance + penalty
            check_finite(loss, iteration, "the loss")
            self.accelerator.backward(loss / settings.accumulate)
            distances.append(float(distance.detach()))
            losses.append(float(loss.detach()))
            kept.append(share)
        if settings.clip:
            self.accelerator.clip_grad_norm_(self.parameters.parameters(), settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for parameter in self.parameters.parameters():
            check_finite(parameter, iteration, "the parameters")
        means = (float(np.mean(values)) for values in (losses, distances, kept))
        return Progress("gates", iteration + 1, settings.iterations, *means)

    def _loss(self, iteration: int, part: int) -> tuple[Tensor, Tensor, float]:
        """Returns distance, penalty and kept share of one batch; each process has its own."""
        settings, accelerator = self.settings, self.accelerator
        done = iteration / max(1, settings.iterations - 1)
        turn = (iteration * settings.accumulate + part) * accelerator.num_processes
        example = self.examples[turn + accelerator.process_index]
        gates = gates_of(self.parameters(), settings.estimator, sharpness(done, settings))
        with accelerator.autocast():
            latents = self.net(gates, example.inputs)
        with torch.no_grad():
            wanted = self.decode(example.dense)
        distance = self.distance(self.decode(latents.float()), wanted)
        return distance, self.sparsity(gates, done), float(self.sparsity.kept(gates.detach()))


def sharpness(done: float, settings: SearchSettings) -> float:
    """Returns the sharpness of the relaxed gates, which grows geometrically.

    Args:
        done: The share of the run that is over, 0 to 1.
        settings: The sharpness at both ends.
    """
    first, last = settings.sharpness_start, settings.sharpness_end
    return float(first * (last / first) ** done)


def learning_rate(iteration: int, settings: SearchSettings) -> float:
    """Returns a linear warm-up, then a cosine to 0 if asked for.

    It is a function of the iteration alone.
    """
    rate = settings.learning_rate
    if iteration < settings.warm_up:
        return rate * (iteration + 1) / settings.warm_up
    if not settings.cosine:
        return rate
    done = (iteration - settings.warm_up) / max(1, settings.iterations - settings.warm_up)
    return rate * 0.5 * (1 + math.cos(math.pi * done))


def _optimizer(parameters: nn.Module, settings: SearchSettings) -> torch.optim.Optimizer:
    options: Mapping[str, Any] = {
        "lr": settings.learning_rate,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters.parameters(), **options)
    return torch.optim.Adam(parameters.parameters(), betas=(0.9, 0.99), **options)
