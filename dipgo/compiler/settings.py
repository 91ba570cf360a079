"""The settings for compiling a model: each number and choice with default, bounds and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dipgo.common.settings import check_settings, option
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.options import LORAS, MODEL, Lora

DENSE = "dense"

SCHEDULE, SIZE = "schedule", "size"
"""Headings of a command's help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """The choice of steps that are run, and of the modules that are gated in them.

    `steps` None stands for a SubNet's own, `scheduler` None for the SubNet's, else the model's own,
    and no `blocks` for the family's. `eta` is how much noise a scheduler with this option (DDIM)
    draws, None for what the pipeline says, 0 mostly. With a `strength` the last share of the steps
    is run, from a picture.
    """

    steps: int | None = option(
        None, help="steps of the sampler, where no SubNet says it", group=SCHEDULE, least=1
    )
    scheduler: str | None = option(
        None,
        help="ddim, pndm, dpm++, euler, unipc, … (the SubNet's or the pipeline's)",
        group=SCHEDULE,
        metavar="NAME",
    )
    eta: float | None = option(
        None,
        help="noise that ddim or tcd draws, 0 to 1 (the pipeline's)",
        group=SCHEDULE,
        metavar="E",
    )
    blocks: tuple[str, ...] = option(
        (),
        help="what is gated, where no SubNet says it (the family's)",
        group=SCHEDULE,
        nargs="+",
        metavar="PATTERN",
    )
    strength: float | None = option(
        None, help="start from a picture: run this share of steps", group=SCHEDULE, metavar="S"
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class Request(ScheduleSettings):
    """The request to compile a model for a SubNet, its path or "dense", and a size.

    `height` and `width` are in pixels, 0 for the model's own. `guidance` None stands for
    classifier-free guidance if the model's pipeline has it. `loras` are fused into the weights.
    """

    subnet: SubNet | str | Path = DENSE
    batch: int = option(1, help="pictures a run", group=SIZE, metavar="N", least=1, kw_only=True)
    height: int = option(
        0, help="pixels (the model's own)", group=SIZE, metavar="PX", least=0, kw_only=True
    )
    width: int = option(
        0, help="pixels (the model's own)", group=SIZE, metavar="PX", least=0, kw_only=True
    )
    guidance: bool | None = option(
        None,
        help="without classifier-free guidance",
        group=MODEL,
        flag="--no-guidance",
        kw_only=True,
    )
    loras: tuple[Lora, ...] = option((), **LORAS)
