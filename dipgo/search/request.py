"""The request for a search: the share of the cost to take out, and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dipgo.common.settings import check_settings, option
from dipgo.compiler.settings import Request, ScheduleSettings
from dipgo.ir.graph import BlockGraph
from dipgo.ir.subnet.backups import BACKUPS, Output
from dipgo.models.options import MODEL, Lora
from dipgo.search.cost.model import macs_weights

SEARCH = "search"
"""The heading of these options in the command's help."""

Weigh = Callable[[BlockGraph], Mapping[str, float]]
"""A function from a graph to the cost of one call of each node, by name."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A request for a search.

    `ratio` is the share of the cost to take out. `weigh` gives the cost of one call of each node,
    by default its MACs. The other fields are those of `dipgo.compiler.settings.Request`, which
    has their help texts and bounds.

    Raises:
        DipgoError: A value has a wrong type or is out of bounds.
    """

    ratio: float = field(
        metadata={
            "help": "share of the cost to take out",
            "group": SEARCH,
            "metavar": "R",
            "above": 0,
            "below": 1,
            "expected": "a share above 0 and below 1: what to take out of the cost",
            "remedy": "0.8 for example keeps a fifth",
        }
    )
    steps: int
    scheduler: str | None = None
    blocks: tuple[str, ...] = ()
    backup: str = option(
        Output.word, help="what a block yields that is off", group=MODEL, choices=BACKUPS
    )
    batch: int = 4
    height: int = 0
    width: int = 0
    guidance: bool | None = None
    weigh: Weigh = macs_weights
    eta: float | None = None
    loras: tuple[Lora, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, Request)

    @property
    def kept(self) -> float:
        """The share of the cost to keep."""
        return 1.0 - self.ratio

    @property
    def schedule(self) -> ScheduleSettings:
        """The steps to run and the blocks that have gates."""
        return ScheduleSettings(
            steps=self.steps, scheduler=self.scheduler, eta=self.eta, blocks=self.blocks
        )
