"""Records of the engines' manifest, `engines/<target>/engines.json` of an export directory."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from dipgo.ir.manifest.names import END, Count, FileName, Nbytes

ENGINES_FOLDER = "engines"

ENGINES_FILE = "engines.json"

ENGINES_FORMAT: Literal["dipgo.engines"] = "dipgo.engines"

ENGINES_VERSION: Literal[1] = 1

TargetName: TypeAlias = Annotated[str, Meta(pattern=rf"^[a-z][a-z0-9-]{{0,49}}{END}")]
"""A target's name, as in `--target`, and its folder's; dipgo.engines.targets lists them."""

ComputeCapability: TypeAlias = Annotated[str, Meta(pattern=rf"^\d{{1,3}}\.\d{{1,3}}{END}")]
"""A compute capability as NVIDIA writes it: `8.6`."""


class RangeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shapes that an engine takes for one input; it is tuned for `opt`."""

    min: list[Count]
    opt: list[Count]
    max: list[Count]


class EngineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine. `key` hashes all that it was built from and for: graph, weights, flags, GPU.

    `profile` has the inputs whose shape is not fixed in the graph. `weights` names the tensors of
    the export's weights file that an engine without its own weights takes after the inputs.
    """

    file: FileName
    nbytes: Nbytes
    sha256: str
    key: str
    profile: dict[str, RangeRecord]
    weights: list[str] = []


class EngineManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`engines.json`. `engines` is by the names of segments, linear combinations and parts.

    `plan_sha256` is the hash of the export's `plan.json`. `gpu` names the GPU that the engines
    were tuned on; it is None if they were built without a GPU, for `compute_capabilities`.
    `refittable` engines accept other weights.
    """

    format: Literal["dipgo.engines"]
    version: Literal[1]
    dipgo: str
    target: TargetName
    library_version: str
    compute_capabilities: list[ComputeCapability]
    gpu: str | None
    plan_sha256: str
    engines: dict[str, EngineRecord]
    refittable: bool = False


def encode_engines(manifest: EngineManifest) -> bytes:
    """Returns the manifest as indented JSON; equal manifests give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
