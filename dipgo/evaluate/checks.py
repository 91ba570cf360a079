"""Checks an evaluation's inputs before the hours of work begin."""

from __future__ import annotations

from collections.abc import Mapping

from dipgo.common.errors import DipgoError, setting
from dipgo.compiler.front import fit_schedule
from dipgo.compiler.request import read_schedule
from dipgo.compiler.settings import DENSE
from dipgo.evaluate.variants import Variant
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.models.text_encoding import HIDDEN_STATES


def check_options(subnets: Mapping[str, SubNet], judged_by: Mapping[str, object]) -> None:
    """Checks that there are SubNets, and that no option of a judge would do nothing.

    Args:
        subnets: SubNets by name.
        judged_by: The options classifier, reference and fid.

    Raises:
        DipgoError: There is no SubNet, or an option lacks another that it needs.
    """
    if not subnets:
        raise DipgoError(
            setting("subnets"),
            found="none",
            expected="at least one SubNet",
            remedy="name a SubNet file",
        )
    classifier, reference, fid = (judged_by[name] for name in ("classifier", "reference", "fid"))
    if fid and not reference:
        raise DipgoError(
            setting("fid"),
            found="no reference pictures",
            expected=f"{setting('reference')} DIR",
            remedy=f"say which pictures to compare with, or leave {setting('fid')} out",
        )
    if reference and not (classifier or fid):
        raise DipgoError(
            setting("reference"),
            found="nothing that compares with it",
            expected=f"{setting('classifier')} DIR or {setting('fid')}",
            remedy=f"add one of these, or leave {setting('reference')} out",
        )


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
