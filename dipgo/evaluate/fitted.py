"""Chooses the scale of an evaluation, and warns of SubNets that were fitted for something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dipgo.common.warn import warn
from dipgo.ir.misfit import Use, misfits, negative_misfit, scale_misfit
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.models.text_encoding import default_scale


def guidance_of(wanted: float | None, source: Source, subnets: Mapping[str, SubNet]) -> float:
    """Returns the guidance scale to draw with.

    Args:
        wanted: The scale that is asked for, or None: then it is that of diffusers' pipeline, or
            the nearest that the first SubNet was fitted for.
        source: The model.
        subnets: The SubNets by name.
    """
    if wanted is not None:
        return wanted
    first, scale = next(iter(subnets.values())).fitted_for, default_scale(source.pipeline)
    return scale if first is None else first.nearest_scale(scale)


def warn_of_unfit(subnets: Mapping[str, SubNet], source: Source, scale: float) -> None:
    """Warns of SubNets that were not fitted for what is drawn, without negative prompts."""
    model = source.at(source.geometry())
    use = Use(source.geometry().guidance, tuple(model.latent_shape[1:]), None, source.loras)
    for name, subnet in subnets.items():
        for line in _misfits(subnet, use, scale):
            warn(f"{name}: {line}")


def _misfits(subnet: SubNet, use: Use, scale: float) -> Iterator[str]:
    yield from misfits(subnet.fitted_for, use)
    scale_line = scale_misfit(subnet.fitted_for, scale)
    yield from filter(None, (scale_line, negative_misfit(subnet.fitted_for, [""])))


def without_fitted(subnet: SubNet) -> SubNet:
    """Returns the SubNet without what it was fitted for: the evaluation has warned of it."""
    return replace(subnet, fitted=None, provenance={})
