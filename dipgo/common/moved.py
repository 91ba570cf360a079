"""Forwards import paths of dipgo 0.1 to where the definitions live now, for one release."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

# Each line is an old module: its path below dipgo, then where its definitions are today.
_LINES = """
arithmetic compiler.oracle
build_arguments engines.options
cli common.cli common.progress export.settings models.options
conditioning run.prompts
constants compiler.trace.fold_constants
costs compiler.trace.macs
drawn_inputs run.latents
engine_manifest ir.manifest.engines
engines.backend engines.targets
engines.cuda engines.tensorrt.cuda
engines.engine_dir engines.engine_directory
engines.export_dir engines.export_directory
engines.parts engines.runner
engines.profiles engines.shape_profiles
engines.tensorrt.build_engine engines.tensorrt.build_worker
engines.tensorrt.processes engines.tensorrt.worker
engines.tensorrt.refit_engine engines.tensorrt.refit_worker
errors common.errors
evaluation evaluate
evaluation.api evaluate.api
evaluation.cache evaluate.cache
evaluation.checks evaluate.checks evaluate.judges.load
evaluation.clip evaluate.judges.clip
evaluation.distance evaluate.judges.frechet
evaluation.generate evaluate.draw
evaluation.intervals evaluate.metrics
evaluation.judge evaluate.judges.classifier
evaluation.judges evaluate.judges.load
evaluation.measure evaluate.measure
evaluation.metrics evaluate.metrics
evaluation.packages common.packages
evaluation.pairs evaluate.pairs
evaluation.plot evaluate.plot
evaluation.report evaluate.report
evaluation.table evaluate.report
evaluation.variants evaluate.variants
export.attention_masks export.lower.attention_masks
export.combine export.lower.combine
export.compile compiler.compile compiler.request
export.decompose export.lower.openvino_opset
export.hidden_weights export.lower.hide_weights
export.lower_lanes export.lower.callee
export.numerics export.precision.compare
export.packages common.packages
export.pipeline_record export.manifest
export.prepare compiler.request
export.refit_checks export.refitting.checks
export.refit_engines export.refitting.engines
export.torch_programs export.lower.torch_program
export.trial export.precision.trial
export.triton run.triton.write
export.variants export.sizes
export.weights export.lower.weights
export_facts engines.describe
further_inputs run.extra_inputs
gap_filters ir.subnet.gap_filters
gate_pickle ir.subnet.published
granularity compiler.split_blocks
graph ir.graph ir.types
hashes common.hashes
hub run.hub
image_input run.pictures
interpret compiler.oracle
json_file common.typed_json
lanes compiler.trace.vectorize
late_start compiler.sampler.start
machine common.machine
manifest ir.manifest.records
manifest_file ir.manifest.file
manifest_plan ir.manifest.convert
model_repository run.triton.layout
models.arch models.presets
models.controlnet models.families.controlnet
models.dit models.families.dit
models.fingerprint models.source
models.flux models.families.flux
models.lcm models.families.lcm
models.pipeline_parts models.vae
models.pixart models.families.pixart
models.reuse_filter models.gap_functions
models.sd3 models.families.sd3
models.sdxl models.families.sdxl
models.svd models.families.svd
models.text_encoders models.text_encoding models.families.stable_diffusion models.families.sdxl
    models.families.sd3 models.families.pixart models.families.flux models.registry
models.tracing compiler.trace.source
models.unconditional models.families.unconditional
models.unet models.families.stable_diffusion
models.unet_inputs models.families.unet_inputs
models.video_encoders models.families.svd
noise common.torch_noise
numpy_types ir.types
partition compiler.trace.partition
passes compiler.passes
passes.allocate_slots compiler.passes.allocate_slots
passes.batch_calls compiler.passes.batch_calls
passes.conditions compiler.passes.manager
passes.ejection_search compiler.passes.ejection_search
passes.eliminate_dead_calls compiler.passes.eliminate_dead_calls
passes.fold_timesteps compiler.passes.fold_timesteps
passes.form_segments compiler.passes.form_segments
passes.fuse_steps compiler.passes.fuse_steps
passes.hoist_prompt_work compiler.passes.hoist_prompt_work
passes.live_ranges compiler.passes.live_ranges
passes.manager compiler.passes.manager
passes.number_values compiler.passes.number_values
passes.rows compiler.passes.lane_rows
passes.terms ir.plan.nodes
patterns ir.block_patterns
pipeline run.pipeline run.pictures
pipeline_arguments run.arguments run.callbacks run.latents
plan ir.plan.plan ir.plan.nodes
plan_check ir.plan.verify
plan_cost ir.plan.cost ir.plan.plan
plan_file ir.plan.parse
plan_parser ir.plan.parse
plan_text ir.plan.plan
precision compiler.trace.precision
prompt_file common.files
recurrence compiler.sampler.recurrence
request_arguments export.settings models.options
safe_pickle common.safe_pickle
sampler ir.sampler
sampler_check compiler.sampler.linearity compiler.sampler.start
samplers compiler.sampler.probe compiler.sampler.linearity
scheduler_draws compiler.sampler.trajectory
scheduler_names compiler.sampler.schedulers
scheduler_run compiler.sampler.trajectory compiler.sampler.start
schedules.at_kept schedules.base
schedules.branches schedules.deepcache
schedules.key_steps schedules.faster_diffusion
schedules.table schedules.base
search.budget search.cost.budget
search.call_flow search.cost.count_calls
search.cascade search.cost.cascade
search.changes schedules.activation_changes
search.exchange search.refine.exchange
search.finite search.guards
search.gaps search.fit_gaps
search.gates search.gradient.parameters
search.moves search.refine.moves
search.optimise search.gradient.optimise
search.packages common.packages
search.progress search.log
search.pruner search.gradient.parameters
search.regular_rows search.refine.initial_gates
search.reuse search.fit_gaps
search.select search.cost.select
search.sparsity search.gradient.sparsity
search.train_reuse search.refine.train_gap_weights
search.trajectories search.refine.hard_trajectories
search.walk search.supernet.trajectory_state
search_arguments search.options
sizes compiler.trace.symbolic_sizes
staging common.files common.staged ir.manifest.file run.triton.layout export.destination
subnet ir.subnet.subnet
subnet_check ir.subnet.rules
subnet_cut ir.subnet.truncate
subnet_file ir.subnet.file
tables compiler.oracle
target_arguments engines.options
timing engines.timing
torch_types compiler.trace.dtypes
trace compiler.trace.trace
triton run.triton
triton.service run.triton.service
unroll compiler.unroll compiler.fit
video_input run.video
"""


def moved_modules() -> dict[str, tuple[str, ...]]:
    """Returns today's modules by the path that a module had in dipgo 0.1."""
    rows = (line.split() for line in _LINES.replace("\n    ", " ").strip().splitlines())
    return {f"dipgo.{old}": tuple(f"dipgo.{new}" for new in homes) for old, *homes in rows}


class _Forwarder:
    """Turns imports that no other finder resolves into modules that forward their names.

    It is a finder and a loader without their base classes, which `import dipgo` would wait for:
    `importlib.abc` imports `tempfile`.
    """

    def __init__(self) -> None:
        self._homes: dict[str, tuple[str, ...]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns a spec for paths of dipgo 0.1, else None."""
        if not fullname.startswith("dipgo."):
            return None
        self._homes = self._homes or moved_modules()
        if fullname not in self._homes:
            return None
        return ModuleSpec(fullname, cast("Loader", self), is_package=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves it to Python to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Makes the module forward every attribute, with a warning that its path is old."""
        forward(module, *self._homes[module.__name__])


def forward(module: ModuleType, *homes: str) -> None:
    """Makes `module` look up missing names in `homes`, in that order, with a warning."""

    def look_up(name: str) -> Any:
        modules = [vars(importlib.import_module(home)) for home in homes]
        holders = [names for names in modules if name in names and not name.startswith("__")]
        if not holders:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        defining = (m for m in holders if getattr(m[name], "__module__", None) == m["__name__"])
        holder = next(defining, holders[0])
        warnings.warn(
            f"{module.__name__}.{name} is now {holder['__name__']}.{name}; "
            "the old path goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return holder[name]

    module.__dict__["__getattr__"] = look_up


def install() -> None:
    """Adds the forwarder after all other finders, once in a process."""
    if not any(isinstance(finder, _Forwarder) for finder in sys.meta_path):
        sys.meta_path.append(_Forwarder())
