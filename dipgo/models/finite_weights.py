"""Refuses weights that are no numbers: all pictures would be black, and equal to one another."""

from __future__ import annotations

from torch import Tensor, nn

from dipgo.common.errors import DipgoError


def check_weights(module: nn.Module, where: str) -> None:
    """Checks that all parameters are finite.

    Buffers may hold infinity: masks do.

    Args:
        module: The denoiser.
        where: Begins the error's text.

    Raises:
        DipgoError: A parameter holds NaN or infinity, or a buffer NaN; the error names it.
    """
    for name, parameter in module.named_parameters():
        low, high = _extremes(parameter)
        if not -_INFINITY < low <= high < _INFINITY:
            raise _not_finite(f"{where}, weight {name}", "NaN or infinity")
    for name, buffer in module.named_buffers():
        check_no_nan(f"{where}, buffer {name}", buffer)


def check_no_nan(where: str, tensor: Tensor) -> None:
    """Checks that a weight or a constant has no NaN.

    Raises:
        DipgoError: It has one.
    """
    low, _ = _extremes(tensor)
    if low != low:
        raise _not_finite(where, "NaN")


_INFINITY = float("inf")


def _extremes(tensor: Tensor) -> tuple[float, float]:
    """Returns the smallest and the largest number, both NaN if one is, read in one pass."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0, 0.0
    low, high = tensor.detach().aminmax()
    return float(low), float(high)


def _not_finite(where: str, found: str) -> DipgoError:
    return DipgoError(
        where,
        found=found,
        expected="finite numbers",
        remedy="look for the fault in what made these weights, such as training in half precision",
    )
