"""Describes an export directory, besides its plan, for `inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dipgo.common.links import check_within
from dipgo.common.typed_json import decode_json, read_file
from dipgo.engines.contents import built_targets
from dipgo.engines.export_directory import ExportDirectory
from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER, EngineManifest
from dipgo.ir.manifest.records import WEIGHTS_FILE, Manifest
from dipgo.ir.misfit import fitted_facts
from dipgo.ir.plan.cost import block_calls, plan_cost, step_patterns
from dipgo.ir.plan.plan import evaluations

MIB = 1 << 20


def export_facts(export: ExportDirectory) -> dict[str, str]:
    """Returns the facts of an export by name, in the order in which they are shown.

    Raises:
        DipgoError: The export's engines are damaged.
    """
    plan, manifest = export.plan, export.manifest
    cost = plan_cost(plan)
    return {
        "model": f"{manifest.model.class_name} of {manifest.model.source}",
        "precision": _precision(manifest),
        **({"sizes": " ".join(manifest.sizes)} if manifest.sizes else {}),
        "sampler": f"{manifest.sampler.scheduler_class}, {plan.num_inference_steps} steps",
        **(fitted_facts(manifest.fitted) if manifest.fitted else {}),
        "evaluations": f"{evaluations(plan)} of {len(plan.steps)}",
        "block calls": f"{block_calls(plan)}, in {step_patterns(plan)} step patterns",
        "segments": " ".join(callee.name for callee in plan.callees),
        "MACs kept": f"{cost.kept:.4f}, with attention {cost.kept_with_attention:.4f}",
        "weights": f"{manifest.files[WEIGHTS_FILE].nbytes / MIB:.1f} MiB",
        "directory": f"{sum(file.nbytes for file in manifest.files.values()) / MIB:.1f} MiB",
        **{built.target: _engines(built) for built in _built(export.path)},
    }


def _precision(manifest: Manifest) -> str:
    """Returns the precision with its error, if that was measured while exporting."""
    if manifest.precision == "fp32":
        return "fp32"
    kept = f"{manifest.precision}; in fp32: {', '.join(manifest.kept_fp32)}"
    if not manifest.numerics:
        return f"{kept}; not checked"
    name, worst = max(manifest.numerics.items(), key=lambda item: item[1].error)
    return f"{kept}; at most {worst.error:.1e} from fp32 ({name})"


def _built(path: Path) -> Iterator[EngineManifest]:
    folders = [path / ENGINES_FOLDER / target for target in built_targets(path)]
    for file in (folder / ENGINES_FILE for folder in folders if (folder / ENGINES_FILE).exists()):
        check_within(file, path)
        content = read_file(file, expected="the manifest of built engines")
        yield decode_json(content, EngineManifest, name=str(file), remedy="build the engines again")


def _engines(built: EngineManifest) -> str:
    nbytes = sum(record.nbytes for record in built.engines.values())
    made_for = built.gpu or ", ".join(built.compute_capabilities)
    for_whom = f", for {made_for}" if made_for else ""
    size = f"{len(built.engines)} engines, {nbytes / MIB:.1f} MiB"
    return f"{size}, by {built.library_version}{for_whom}"
