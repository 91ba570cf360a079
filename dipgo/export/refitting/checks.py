"""Checks that a model differs from the exported one in nothing but weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dipgo.common.errors import DipgoError, setting
from dipgo.common.hashes import sha256_of
from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.compiler.sampler.schedulers import OPTIONS
from dipgo.compiler.trace.trace import Traced
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export.parts import Part
from dipgo.ir.graph import Node
from dipgo.ir.manifest.records import REMEDY, Manifest
from dipgo.ir.plan.nodes import Callee
from dipgo.ir.plan.plan import Plan
from dipgo.models.model import Source

WHERE = setting("model")

COSTS = ("macs", "attention_macs", "parameters")
"""Costs of a node by which it differs from another node of the same name."""


def check_refittable(old: ExportDirectory) -> None:
    """Checks that an export can be refitted.

    Raises:
        DipgoError: It is of an earlier version, whose graphs may have folded weights.
    """
    if not old.manifest.refittable:
        raise DipgoError(
            str(old.path),
            found="an export of an earlier version, whose graphs depend on their weights",
            expected="one whose graphs hold for any weights",
            remedy="export again with this version of dipgo",
        )


def check_unchanged(old: ExportDirectory, files: Iterable[str]) -> None:
    """Checks files of an export against their hashes.

    Raises:
        DipgoError: A file is not the one that was exported.
    """
    for name in files:
        listed = old.manifest.files[name].sha256
        if sha256_of(old.path / name) != listed:
            raise DipgoError(
                str(old.path / name),
                found="another file than was exported",
                expected=f"sha256 {listed[:12]}…",
                remedy=REMEDY,
            )


def check_same_scheduler(manifest: Manifest, source: Source) -> None:
    """Checks that the model has the export's scheduler, whose numbers are in the plan.

    Raises:
        DipgoError: The scheduler is another.
    """
    chosen = make_scheduler(source.scheduler, manifest.sampler.scheduler_class)
    config = msgspec.json.decode(msgspec.json.encode(dict(chosen.config)))
    for key, value in manifest.sampler.config.items():
        if key not in OPTIONS and config.get(key, value) != value:
            raise DipgoError(
                f"{WHERE}, scheduler.{key}",
                found=f"{config[key]!r} in {source.name}",
                expected=f"{value!r}, of which the plan was made",
                remedy="export this model again",
            )


def check_same_parts(manifest: Manifest, source: Source, parts: Sequence[Part]) -> None:
    """Checks the models around the denoiser, and their inputs.

    An architecture alone has no text encoder; a pipeline may have been saved without.

    Raises:
        DipgoError: `parts`, or the inputs of a part, differ from those that were exported.
    """
    names = {part.name for part in parts}
    if names != set(manifest.parts) or (source.pipeline is None) != (manifest.pipeline is None):
        raise DipgoError(
            WHERE,
            found=f"{source.name}, with {_listed(names)} around its denoiser",
            expected=f"a model with {_listed(manifest.parts)} around it, as was exported",
            remedy="give the whole pipeline, or export this model again",
        )
    for part in parts:
        record = manifest.parts[part.name]
        if [str(value.type) for value in part.inputs] != [value.type for value in record.inputs]:
            raise unlike(f"the {part.name}", "other inputs")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(name.replace("_", " ") for name in names)) or "nothing"


def check_same_graph(plan: Plan, traced: Traced) -> None:
    """Checks that each segment consists of the nodes that it was made of.

    Their names are numbered, and another version of a library might number them otherwise.

    Raises:
        DipgoError: A segment has other nodes, types or costs.
    """
    graph = traced.graph
    of_gaps = [graph.gap_function.node] if graph.gap_function else []
    nodes = {part.name: part for node in (*graph.nodes, *of_gaps) for part in (node, *node.parts)}
    for callee in plan.callees:
        if not _is_same(callee, nodes, traced):
            raise unlike(f"segment {callee.name}", "other nodes, types or costs")


def _is_same(callee: Callee, nodes: Mapping[str, Node], traced: Traced) -> bool:
    members = [nodes.get(name) for name in callee.members or (callee.name,)]
    known = [node for node in members if node is not None]
    costs = [sum(getattr(node, cost) for node in known) for cost in COSTS]
    return (
        len(known) == len(members)
        and costs == [getattr(callee, cost) for cost in COSTS]
        and all(
            traced.graph.types.get(value.name, value.type) == value.type for value in callee.inputs
        )
    )


def unlike(where: str, found: str) -> DipgoError:
    """Returns the error for a model of the same architecture that is not the same graph."""
    return DipgoError(
        where,
        found=f"{found} than when it was exported",
        expected="the same graph from the same architecture",
        remedy="export this model again",
    )
