"""What refitting asks of export and model: that nothing differs but weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dipgo.common.errors import DipgoError, setting
from dipgo.common.files import sha256_of
from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.compiler.sampler.schedulers import OPTIONS
from dipgo.compiler.trace.trace import Traced
from dipgo.engines.export_directory import ExportDirectory
from dipgo.export.parts import Part
from dipgo.ir.graph import Node
from dipgo.ir.manifest.records import REMEDY, Manifest
from dipgo.ir.plan.nodes import Callee
from dipgo.ir.plan.plan import Plan
from dipgo.models.source import Source

WHERE = setting("model")

COSTS = ("macs", "attention_macs", "parameters")
"""Of a node, by which one is told from another of the same name."""


def check_refittable(old: ExportDirectory) -> None:
    """Raises DipgoError for one of an earlier version, in whose graphs weights may be folded."""
    if not old.manifest.refittable:
        raise DipgoError(
            str(old.path),
            found="an export of an earlier version, whose graphs depend on their weights",
            expected="one whose graphs hold for any weights",
            remedy="export again with this version of dipgo",
        )


def check_unchanged(old: ExportDirectory, files: Iterable[str]) -> None:
    """Raises DipgoError where one of these files is not what was exported."""
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
    """Raises DipgoError for a model that needs another: the plan's numbers are the scheduler's."""
    chosen = make_scheduler(source.scheduler, manifest.sampler.scheduler_class)
    config = msgspec.json.decode(msgspec.json.encode(dict(chosen.config)))
    for key, value in manifest.sampler.config.items():
        if key not in OPTIONS and config.get(key, value) != value:
            raise DipgoError(
                f"{WHERE}, scheduler.{key}",
                found=f"{config[key]!r} in {source.name}",
                expected=f"{value!r}, of which the plan was made",
                remedy="export this model anew",
            )


def check_same_parts(manifest: Manifest, source: Source, parts: Sequence[Part]) -> None:
    """Raises DipgoError for other `parts`, or other inputs of one, than were exported.

    An architecture alone has no text encoder; a pipeline may be saved without.
    """
    names = {part.name for part in parts}
    if names != set(manifest.parts) or (source.pipeline is None) != (manifest.pipeline is None):
        raise DipgoError(
            WHERE,
            found=f"{source.name}, with {_listed(names)} around its denoiser",
            expected=f"a model with {_listed(manifest.parts)} around it, as was exported",
            remedy="give the whole pipeline, or export this model anew",
        )
    for part in parts:
        record = manifest.parts[part.name]
        if [str(one.type) for one in part.inputs] != [one.type for one in record.inputs]:
            raise unlike(f"the {part.name}", "other inputs")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(name.replace("_", " ") for name in names)) or "nothing"


def check_same_graph(plan: Plan, traced: Traced) -> None:
    """Raises DipgoError where a segment's nodes are not those that it was made of.

    Their names are numbered, and another version of a library might number them otherwise.
    """
    graph = traced.graph
    filters = [graph.reuse_filter.node] if graph.reuse_filter else []
    nodes = {one.name: one for node in (*graph.nodes, *filters) for one in (node, *node.parts)}
    for callee in plan.callees:
        if not _is_same(callee, nodes, traced):
            raise unlike(f"segment {callee.name}", "other nodes, types or costs")


def _is_same(callee: Callee, nodes: Mapping[str, Node], traced: Traced) -> bool:
    members = [nodes.get(name) for name in callee.members or (callee.name,)]
    found = [one for one in members if one is not None]
    costs = [sum(getattr(one, kind) for one in found) for kind in COSTS]
    return (
        len(found) == len(members)
        and costs == [getattr(callee, kind) for kind in COSTS]
        and all(traced.graph.types.get(one.name, one.type) == one.type for one in callee.inputs)
    )


def unlike(where: str, found: str) -> DipgoError:
    """What to raise for a model of the same architecture that is not the same graph."""
    return DipgoError(
        where,
        found=f"{found} than when it was exported",
        expected="the same graph from the same architecture",
        remedy="export this model anew",
    )
