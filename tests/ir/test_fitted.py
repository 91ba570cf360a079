"""What a SubNet was fitted for: its place in files, and the words where something else is done."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError, named
from dipgo.ir.fitted import Fitted, LoraRecord, MeasuredError, fitted_of_provenance
from dipgo.ir.misfit import UNMEASURED, Use, fitted_facts, misfits, negative_misfit, scale_misfit
from dipgo.ir.subnet.subnet import SubNet
from tests.ir.test_subnet import load_with

LORA = LoraRecord("style.safetensors", "ab12", 0.5)
ERRORS = tuple(
    MeasuredError(scale, error)
    for scale, error in ((12.0, 0.344), (1.0, 0.08), (5.0, 0.0142), (7.5, 0.0434))
)
SEARCHED = Fitted((5.0, 5.0), (4, 16, 16), errors=ERRORS)
WIDE = Fitted(
    (3.0, 9.0), (4, 16, 16), loras=(LORA,), errors=(MeasuredError(6.0, 0.02),), pictures=8
)
USE = Use(True, (4, 16, 16), None, ())

scales = st.floats(1, 100, allow_nan=False)
errors = st.builds(MeasuredError, st.none() | scales, st.none() | st.floats(0, 1e6), st.booleans())
fitteds = st.builds(
    Fitted,
    st.none() | st.tuples(scales, scales).map(lambda pair: (min(pair), max(pair))),
    st.none() | st.lists(st.integers(1, 512), max_size=4).map(tuple),
    st.none() | st.text(),
    st.none() | st.floats(0.01, 1),
    st.lists(st.builds(LoraRecord, st.text(), st.text(), st.floats(-9, 9))).map(tuple),
    st.lists(errors, max_size=5).map(tuple),
    st.integers(0, 1000),
)


def _plain(line: str | None) -> str:
    assert line is not None
    return named(line, str)


@given(fitteds)
def test_it_goes_round_through_a_file(tmp_path_factory: Any, fitted: Fitted) -> None:
    folder = tmp_path_factory.mktemp("fitted")
    subnet = load_with(folder, fitted=json.loads(json.dumps(_as_json(fitted))))
    assert subnet.fitted == fitted
    subnet.save(folder / "again.json")
    assert SubNet.load(folder / "again.json") == subnet


def _as_json(fitted: Fitted) -> Any:
    import msgspec

    return msgspec.to_builtins(fitted)


@pytest.mark.parametrize(
    ("fitted", "fragment"),
    [
        ({"guidance": [9, 3]}, "fitted, guidance: found 9 to 3"),
        ({"guidance": [0.5, 3]}, "fitted, guidance: found 0.5 to 3"),
        ({"guidance": [3]}, "fitted"),
        ({"guidance": 5}, "fitted"),
        ({"errors": [{"guidance": 5, "error": -0.1}]}, "fitted"),
        ({"strength": 2}, "fitted"),
        ({"latents": [4, 0]}, "fitted"),
        ({"scale": 5}, "scale"),
    ],
)
def test_a_file_that_says_it_wrongly_is_refused(fitted: Any, fragment: str, tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=re.escape(fragment)):
        load_with(tmp_path, fitted=fitted)


def test_older_files_say_it_in_their_provenance(tmp_path: Path) -> None:
    searched = {"method": "dipgo", "guidance": True, "guidance_scale": 5.0}
    subnet = load_with(tmp_path, provenance=searched)
    assert (subnet.fitted, subnet.fitted_for) == (None, Fitted((5.0, 5.0)))
    lora = {"name": "style.safetensors", "sha256": "ab12", "scale": 0.5}
    with_lora = fitted_of_provenance(searched | {"loras": [lora]})
    assert with_lora == Fitted((5.0, 5.0), loras=(LORA,))
    own = load_with(tmp_path, provenance=searched, fitted={"guidance": [3, 9]})
    assert own.fitted_for == Fitted((3.0, 9.0))


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"method": "deepcache"},
        {"guidance": False, "guidance_scale": 5.0},
        {"guidance": True, "guidance_scale": "much"},
        {"guidance": True, "guidance_scale": 1e999},
        {"guidance": True, "guidance_scale": 5, "loras": "style"},
    ],
)
def test_other_provenances_say_nothing(provenance: dict[str, Any]) -> None:
    assert fitted_of_provenance(provenance) is None


@given(fitteds, scales)
def test_a_scale_is_named_where_it_was_not_fitted_for(fitted: Fitted, scale: float) -> None:
    line = scale_misfit(fitted, scale)
    nearest = fitted.nearest_scale(scale)
    if fitted.guidance is None or math.isclose(nearest, scale, rel_tol=1e-6):
        assert line is None
        return
    assert f"guidance_scale: found {scale:g}; the SubNet was fitted for " in _plain(line)
    assert f"{nearest:g}" in _plain(line)
    measured = [
        each.guidance
        for each in fitted.errors
        if each.guidance is not None and not each.negative_prompts
    ]
    assert (UNMEASURED in _plain(line)) == (not measured)
    for side in (
        [each for each in measured if each <= scale],
        [each for each in measured if each >= scale],
    ):
        if side and scale not in measured:
            closest = max(side) if side[0] < scale else min(side)
            assert f" at {closest:g}" in _plain(line)


def test_the_price_of_a_scale() -> None:
    begin = "guidance_scale: found {}; the SubNet was fitted for 5; latent error against dense "
    prices = {
        12.0: "0.0142 at 5, 0.344 at 12",
        10.0: "0.0142 at 5, 0.0434 at 7.5, 0.344 at 12",
        20.0: "0.0142 at 5, 0.344 at 12",
        5.0001: "0.0142 at 5, 0.0434 at 7.5",
    }
    for scale, price in prices.items():
        assert _plain(scale_misfit(SEARCHED, scale)) == begin.format(f"{scale:g}") + price
    assert _plain(scale_misfit(WIDE, 12.0)).endswith(
        "the SubNet was fitted for 3 to 9; latent error against dense 0.02 at 6 (8 pictures)"
    )
    for fits in (scale_misfit(SEARCHED, 5.0), scale_misfit(WIDE, 7.5), scale_misfit(None, 12.0)):
        assert fits is None
    assert scale_misfit(SEARCHED, 5.0 + 1e-7) is None  # a number that was in float32


def test_a_negative_prompt() -> None:
    assert _plain(negative_misfit(SEARCHED, ["", "dark"])) == (
        f"negative_prompt: found 'dark'; the SubNet was fitted for none; {UNMEASURED}"
    )
    measured = Fitted((5.0, 5.0), errors=(*ERRORS, MeasuredError(5.0, 0.03, negative_prompts=True)))
    assert _plain(negative_misfit(measured, ["dark"])).endswith(
        "; latent error against dense 0.0142 at 5, 0.03 at 5 with negative prompts"
    )
    own = Fitted((5.0, 5.0), negative_prompt="dark")
    assert negative_misfit(own, ["dark", "dark"]) is None
    assert "found ''; the SubNet was fitted for 'dark'" in _plain(negative_misfit(own, [""]))
    assert negative_misfit(SEARCHED, ["", ""]) is None
    assert negative_misfit(None, ["dark"]) is None


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (USE, []),
        (Use(False, USE.latents, None, ()), ["guidance: found none; the SubNet was fitted for 5"]),
        (
            Use(True, (4, 24, 16), None, ()),
            ["latents: found 4x24x16; the SubNet was fitted for 4x"],
        ),
        (Use(True, USE.latents, 0.6, ()), ["strength: found 0.6; the SubNet was fitted for none"]),
        (
            Use(True, USE.latents, None, (LORA,)),
            ["loras: found style.safetensors at 0.5; the SubNet was fitted for none"],
        ),
        (Use(False, (1,), 0.6, (LORA,)), ["guidance", "latents", "strength", "loras"]),
    ],
)
def test_what_all_runs_of_an_export_share(use: Use, expected: list[str]) -> None:
    lines = list(map(_plain, misfits(SEARCHED, use)))
    assert len(lines) == len(expected)
    for line, begin in zip(lines, expected, strict=True):
        assert line.startswith(begin)
        assert line.endswith(UNMEASURED)
    assert list(misfits(None, use)) == []


def test_what_is_shown_of_it() -> None:
    assert fitted_facts(SEARCHED) == {
        "fitted for": "guidance 5, latents 4x16x16",
        "latent error": "0.344 at 12, 0.08 at 1, 0.0142 at 5, 0.0434 at 7.5",
    }
    assert fitted_facts(WIDE) == {
        "fitted for": "guidance 3 to 9, latents 4x16x16, LoRAs style.safetensors at 0.5",
        "latent error": "0.02 at 6 (8 pictures)",
    }
    assert fitted_facts(Fitted(None, strength=0.6)) == {"fitted for": "no guidance, strength 0.6"}
