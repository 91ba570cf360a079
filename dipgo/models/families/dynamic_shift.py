"""The shift of flow-matching timesteps that grows with the picture.

Source: Esser et al. 2024, section 5.3.2; `calculate_shift` of diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHIFT = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5}
"""Defaults of diffusers' pipelines for options that the scheduler's configuration leaves out."""


def dynamic_shift(config: Mapping[str, Any], patches: int, max_shift: float) -> float:
    """Returns `mu` for a picture of so many patches.

    Args:
        config: The scheduler's configuration.
        patches: Rows times columns of patches.
        max_shift: The pipeline's default for the option of this name.
    """
    defaults = {**SHIFT, "max_shift": max_shift}
    shift = {name: config.get(name, value) for name, value in defaults.items()}
    first, last = shift["base_image_seq_len"], shift["max_image_seq_len"]
    slope = (shift["max_shift"] - shift["base_shift"]) / (last - first)
    return float(patches * slope + shift["base_shift"] - slope * first)
