"""The term that drives gates off: the published penalty, or a budget that falls over the run."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dipgo.search.cost.cascade import cascade_shares
from dipgo.search.problem import Problem
from dipgo.search.settings import SearchSettings


class Sparsity:
    """The term added to the distance, from gates f32[steps, blocks]."""

    def __init__(self, problem: Problem, settings: SearchSettings, kept: float) -> None:
        self.problem, self.settings, self.target = problem, settings, kept
        cost = problem.cost
        times = np.bincount(problem.sampler.rows, minlength=cost.shape[0])
        shares = np.outer(times, [cost.share(block) for block in cost.blocks])
        self.shares = torch.tensor(shares, dtype=torch.float32)
        self.fixed = 1.0 - float(shares.sum())
        weighted = cascade_shares(problem.traced.graph, cost.backup)
        self.gamma = torch.tensor(
            weighted if settings.gamma else np.ones(len(cost.blocks)), dtype=torch.float32
        )

    def kept(self, gates: Tensor) -> Tensor:
        """Returns the share of the dense cost that the gates keep, without the cascade: f32[]."""
        return self.fixed + (gates * self.shares.to(gates.device)).sum()

    def budget(self, progress: float) -> float:
        """Returns the share allowed at `progress` (0 to 1) of the run, from 1 to the target."""
        done = min(1.0, progress / self.settings.anneal_share)
        return 1.0 + (self.target - 1.0) * done

    def __call__(self, gates: Tensor, progress: float) -> Tensor:
        """Returns the penalty α/(N·T)·Σ γ g while more than τ is kept, or the hinge; f32[].

        Source:
            DiP-GO, equation 5.
        """
        if self.settings.budget == "annealed":
            over = torch.relu(self.kept(gates) - self.budget(progress))
            return self.settings.hinge * over
        if self.problem.cost.kept(hard(gates)) <= self.settings.tau:
            return gates.sum() * 0.0
        return self.settings.alpha * (gates * self.gamma.to(gates.device)).mean()


def hard(gates: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Returns bool[steps, blocks]: the gates above one half, and row 0."""
    chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (gates.detach() > 0.5).cpu().numpy()
    chosen[0] = True
    return chosen
