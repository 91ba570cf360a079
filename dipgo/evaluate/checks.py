"""Checks an evaluation's inputs before the hours of work begin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dipgo.common.errors import DipgoError, setting, wrong, wrong_type
from dipgo.compiler.front import fit_schedule
from dipgo.compiler.request import read_schedule
from dipgo.compiler.settings import DENSE
from dipgo.evaluate.variants import Variant
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.models.text_encoding import HIDDEN_STATES


def read_subnets(subnets: Mapping[str, SubNet | str | Path]) -> dict[str, SubNet]:
    """Returns SubNets by name, of SubNets or their files.

    Raises:
        DipgoError: There is none, or a file cannot be read.
    """
    if not subnets:
        raise DipgoError(
            setting("subnets"),
            found="none",
            expected="at least one SubNet",
            remedy="name a SubNet file",
        )
    for name in subnets:
        if not isinstance(name, str):
            raise wrong_type("subnets", name, "SubNets by their names, which are text")
    return {
        name: subnet if isinstance(subnet, SubNet) else SubNet.load(subnet)
        for name, subnet in subnets.items()
    }


def check_dense(dense: object) -> tuple[int, str | None]:
    """Returns `dense`, the number of steps and the scheduler, if that is what it is.

    Raises:
        DipgoError: It is something else.
    """
    match dense:
        case (int() as steps, None | str() as scheduler) if steps > 0:
            return steps, scheduler
    expected = "a pair of a number of steps above 0 and a scheduler, such as (50, None)"
    raise wrong("dense", dense, expected)


def check_draws_pictures(source: Source) -> tuple[int, int]:
    """Returns height and width of the model's pictures in pixels.

    Raises:
        DipgoError: The model is not a text-to-image pipeline with one text encoder and a VAE.
    """
    model = source.at(source.geometry())
    conditioning = set(model.conditioning)
    parts = ("text_encoder", "tokenizer", "vae")
    missing = [name for name in parts if getattr(source.pipeline, name, None) is None]
    if missing or conditioning != {HIDDEN_STATES}:
        problem = f"no {' and no '.join(missing)}" if missing else " ".join(sorted(conditioning))
        raise DipgoError(
            f"model {source.name}",
            found=problem,
            expected="a text-to-image pipeline with one text encoder and a VAE",
            remedy="use a pipeline of Stable Diffusion 1 or 2",
        )
    *_, height, width = model.latent_shape
    return height * source.pixels_per_latent, width * source.pixels_per_latent


def check_variant(variant: Variant, source: Source) -> None:
    """Checks that a variant fits the model.

    Raises:
        DipgoError: The SubNet does not fit; the error names it.
    """
    try:
        schedule = read_schedule(variant.subnet or DENSE, variant.schedule)
        fit_schedule(source, schedule, source.geometry())
    except DipgoError as error:
        error.reword(str, before=f"{variant.name}: ")
        raise
