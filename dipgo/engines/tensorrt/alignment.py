"""Alignment: TensorRT wants every tensor at a multiple of 256 bytes, lanes lie where they lie.

Lanes follow one another without gaps, so that one of several, read by itself, can begin anywhere.
Such a tensor is copied to or from a place of its own. The sizes of real models are multiples of
256 bytes, and then nothing is copied.

Source: the documentation of IExecutionContext::setTensorAddress.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dipgo.engines.launches import ALIGNMENT, Binding, Launch, LaunchList, Place


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes to be copied on the device."""

    source: Place
    target: Place
    nbytes: int


@dataclass(frozen=True, slots=True)
class AlignedLaunch:
    """A launch all of whose tensors are aligned, with the copies that make it so."""

    before: tuple[Copy, ...]
    launch: Launch
    after: tuple[Copy, ...]


@dataclass(frozen=True)
class AlignedLaunches:
    """`regions` are those of the list, and those that copies need."""

    launches: tuple[AlignedLaunch, ...]
    regions: Mapping[str, int]

    def __iter__(self) -> Iterator[AlignedLaunch]:
        return iter(self.launches)


def align(launches: LaunchList) -> AlignedLaunches:
    """The same launches on aligned tensors, if every region begins at a multiple of 256."""
    regions: dict[str, int] = dict(launches.regions)
    return AlignedLaunches(tuple(_align(launch, regions) for launch in launches.launches), regions)


def _align(launch: Launch, regions: dict[str, int]) -> AlignedLaunch:
    """Launches run one after another, so the places of one serve the next as well."""
    places = iter(range(len(launch.inputs) + len(launch.outputs)))

    def moved(one: Binding) -> Binding:
        if one.place.offset % ALIGNMENT == 0:
            return one
        region = f"aligned {next(places)}"
        regions[region] = max(regions.get(region, 0), one.type.nbytes)
        return replace(one, place=Place(region))

    inputs, outputs = (tuple(map(moved, side)) for side in (launch.inputs, launch.outputs))
    before = _copies(launch.inputs, inputs)
    after = tuple(Copy(c.target, c.source, c.nbytes) for c in _copies(launch.outputs, outputs))
    return AlignedLaunch(before, replace(launch, inputs=inputs, outputs=outputs), after)


def _copies(old: tuple[Binding, ...], new: tuple[Binding, ...]) -> tuple[Copy, ...]:
    return tuple(
        Copy(one.place, other.place, one.type.nbytes)
        for one, other in zip(old, new, strict=True)
        if one.place != other.place
    )
