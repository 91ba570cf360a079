"""Aligns tensors: TensorRT wants them at multiples of 256 bytes, and lanes may begin anywhere.

Lanes follow one another without gaps, so that a single lane of several may begin at any byte. Such
a tensor is copied to or from an aligned place. The sizes of real models are multiples of 256 bytes,
and then nothing is copied.

Source:
    The documentation of IExecutionContext::setTensorAddress.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dipgo.engines.launches import ALIGNMENT, Binding, Launch, LaunchList, Place


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of bytes on the device."""

    source: Place
    target: Place
    nbytes: int


@dataclass(frozen=True, slots=True)
class AlignedLaunch:
    """A launch whose tensors are all aligned, with the copies that make it so."""

    before: tuple[Copy, ...]
    launch: Launch
    after: tuple[Copy, ...]


@dataclass(frozen=True)
class AlignedLaunches:
    """Aligned launches with their `regions`: those of the list, and those that copies need."""

    launches: tuple[AlignedLaunch, ...]
    regions: Mapping[str, int]

    def __iter__(self) -> Iterator[AlignedLaunch]:
        return iter(self.launches)


def align(launches: LaunchList) -> AlignedLaunches:
    """Returns the same launches on aligned tensors.

    Every region must begin at a multiple of 256 bytes.
    """
    regions: dict[str, int] = dict(launches.regions)
    return AlignedLaunches(tuple(_align(launch, regions) for launch in launches.launches), regions)


def _align(launch: Launch, regions: dict[str, int]) -> AlignedLaunch:
    """Aligns one launch; launches run one after another, so all share the places of copies."""
    places = iter(range(len(launch.inputs) + len(launch.outputs)))

    def moved(binding: Binding) -> Binding:
        if binding.place.offset % ALIGNMENT == 0:
            return binding
        region = f"aligned {next(places)}"
        regions[region] = max(regions.get(region, 0), binding.type.nbytes)
        return replace(binding, place=Place(region))

    inputs, outputs = (tuple(map(moved, side)) for side in (launch.inputs, launch.outputs))
    before = _copies(launch.inputs, inputs)
    after = tuple(Copy(c.target, c.source, c.nbytes) for c in _copies(launch.outputs, outputs))
    return AlignedLaunch(before, replace(launch, inputs=inputs, outputs=outputs), after)


def _copies(old: tuple[Binding, ...], new: tuple[Binding, ...]) -> tuple[Copy, ...]:
    return tuple(
        Copy(before.place, after.place, before.type.nbytes)
        for before, after in zip(old, new, strict=True)
        if before.place != after.place
    )
