"""Launches: the plan as a flat list, checked with memory of plain bytes and no engine at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.launches import ALIGNMENT, ARENA, LaunchList, aligned, list_launches
from dipgo.engines.shape_profiles import ShapeRange, profiles_of
from dipgo.ir.plan.nodes import Call
from tests.support.sample_exports import NAMES


@pytest.fixture(params=NAMES)
def opened(request: pytest.FixtureRequest, sample_exports: dict[str, Path]) -> ExportDirectory:
    return ExportDirectory.open(sample_exports[request.param])


@pytest.fixture
def launches(opened: ExportDirectory) -> LaunchList:
    return list_launches(opened.plan, opened.tables)


def test_every_binding_lies_within_its_region(launches: LaunchList) -> None:
    for launch in launches.launches:
        for one in (*launch.inputs, *launch.outputs):
            end = one.place.offset + one.type.nbytes
            assert end <= launches.regions[one.place.region]


def test_contents_fill_their_regions(launches: LaunchList) -> None:
    for name, content in launches.contents.items():
        assert content.nbytes == launches.regions[name]


def test_nothing_writes_to_contents_or_inputs(launches: LaunchList) -> None:
    written = {one.place.region for launch in launches.launches for one in launch.outputs}
    assert not written & {*launches.contents, *(f"input {name}" for name in launches.inputs)}


def test_what_is_not_in_the_arena_is_aligned(launches: LaunchList) -> None:
    """Rows of tables and coefficients too: kernels count on it."""
    for launch in launches.launches:
        for one in (*launch.inputs, *launch.outputs):
            if one.place.region != ARENA:
                assert one.place.offset % ALIGNMENT == 0


def test_one_launch_a_call_and_one_fewer_than_terms(opened: ExportDirectory) -> None:
    plan = opened.plan
    launches = list_launches(plan, opened.tables).launches
    sums = [one for one in plan.statements if not isinstance(one, Call)]
    expected = len(plan.calls) + sum(max(1, len(one.terms) - 1) for one in sums)
    assert len(launches) == expected
    assert [launch.segment for launch in launches if launch.segment] == [
        call.callee for call in plan.calls
    ]


def test_profiles_hold_every_shape(opened: ExportDirectory) -> None:
    launches = list_launches(opened.plan, opened.tables).launches
    profiles = profiles_of(launches)
    widths = {
        callee.name: {call.width for call in opened.plan.calls if call.callee == callee.name}
        for callee in opened.plan.callees
    }
    for launch in launches:
        for one in launch.inputs:
            profile = profiles[launch.engine].get(one.tensor)
            assert profile is None or profile.holds(one.type.shape)
    for name, seen in widths.items():
        assert bool(profiles[name]) == (len(seen) > 1)


def test_a_range_does_not_hold_what_is_outside() -> None:
    sizes = ShapeRange((1, 4), (2, 4), (3, 4))
    assert sizes.holds((3, 4))
    assert not sizes.holds((4, 4))
    assert not sizes.holds((2, 5))


@pytest.mark.parametrize(("nbytes", "expected"), [(0, 0), (1, 256), (256, 256), (257, 512)])
def test_aligned(nbytes: int, expected: int) -> None:
    assert aligned(nbytes) == expected
