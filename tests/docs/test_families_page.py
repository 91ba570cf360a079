"""The pages on families: all are listed, and the code of the page on adding one does its work."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.models.adapted import OPTIONAL
from dipgo.models.families.stable_diffusion import UNetFamily
from dipgo.models.registry import (
    REGISTERED,
    built_in_families,
    find_family,
    find_presets,
    register_family,
)
from dipgo.models.source import load_source

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide" / "families.md").read_text()
ADDING = (DOCS / "internals" / "add-a-family.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", ADDING, re.DOTALL)
TOLERANCE = 1e-5
"""Largest error, float32 kernels of another library, of pictures of unit size."""


@pytest.fixture
def _nothing_stays_registered() -> Iterator[None]:
    before = list(REGISTERED)
    yield
    REGISTERED[:] = before


def test_all_families_and_presets_are_listed() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for family in built_in_families():
        (row,) = (row for row in rows if row.startswith(f"| {family.denoisers} |"))
        assert all(f"`{pattern}`" in row or "as above" in row for pattern in family.default_blocks)
        assert all(f"`{pipeline}`" in PAGE + ADDING for pipeline in family.pipelines)
    table = "\n".join(rows)
    assert {f"arch:{name}" for name in find_presets()} == set(re.findall(r"arch:[\w-]+", table))


def test_all_that_a_family_may_say_is_listed() -> None:
    table = ADDING[ADDING.index("| member |") :]
    for name in OPTIONAL:
        assert f"`{name}" in table or name in ("denoisers", "default_blocks"), name


def test_the_adapter_is_short() -> None:
    (adapter,) = (code for code in CODE if "register_family" in code)
    assert len(adapter.splitlines()) <= 30


@torch.no_grad()
@pytest.mark.usefixtures("_nothing_stays_registered")
def test_the_code_gives_what_the_scheduler_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The denoiser called eagerly, with guidance in diffusers' form."""
    (tmp_path / "page.py").write_text("\n".join(CODE))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = runpy.run_path("page.py")
    denoiser, scheduler = names["pipeline"].unet, names["pipeline"].scheduler
    inputs = names["inputs"]
    latents, colour = torch.from_numpy(inputs["latents"]), torch.from_numpy(inputs["colour"])
    scheduler.set_timesteps(4)
    for timestep in scheduler.timesteps:
        free, bound = denoiser(torch.cat([latents] * 2), timestep, colour).chunk(2)
        guided = free + inputs["guidance_scale"] * (bound - free)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    assert np.abs(names["picture"] - latents.numpy()).max() < TOLERANCE * latents.abs().max()
    assert type(find_family(denoiser)).__name__ == "PainterFamily"
    assert load_source("arch:painter").denoiser.config.width == 16


@pytest.mark.usefixtures("_nothing_stays_registered")
def test_a_family_that_is_registered_comes_first() -> None:
    class Mine(UNetFamily):
        denoisers = "everything"

        def fits(self, denoiser: object) -> bool:
            return True

    register_family(Mine())
    assert isinstance(find_family(torch.nn.Linear(1, 1)), Mine)


class _Half:
    denoisers = "Half"
    default_blocks = ()

    def fits(self, denoiser: object) -> bool:
        return False


@pytest.mark.parametrize(
    ("given", "found"),
    [(_Half(), "an object without latent_shape, conditioning, predict"), (UNetFamily, "a class")],
)
def test_what_is_no_adapter_is_refused(given: object, found: str) -> None:
    with pytest.raises(DipgoError, match=f"^family .*: found {found}; .*add-a-family.md"):
        register_family(given)  # type: ignore[arg-type]
    assert given not in REGISTERED


def test_the_error_for_a_denoiser_without_adapter_says_how_to_bring_one() -> None:
    with pytest.raises(DipgoError, match=r"docs/internals/add-a-family\.md"):
        find_family(torch.nn.Linear(1, 1))
