"""`export`: from a model and a SubNet to a directory from which engines run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.common.files import check_destination, staged_directory
from dipgo.common.lazy import import_name
from dipgo.compiler.compile import compile_plan
from dipgo.compiler.passes import OPTIMISE, Pass, find_passes
from dipgo.compiler.request import DENSE, Progress, Request, prepare, silent
from dipgo.compiler.trace.precision import Precision
from dipgo.engines.targets import DEFAULT_TARGET, TARGETS, Target, find_builder
from dipgo.engines.tensorrt.build import DEFAULT_BUILD, BuildOptions
from dipgo.export.destination import may_replace
from dipgo.export.precision.trial import choose_parts
from dipgo.export.sizes import Size, Variant, make_variants
from dipgo.export.writer import Writer
from dipgo.ir.subnet.subnet import SubNet
from dipgo.ir.types import PrecisionName
from dipgo.models.lora import Lora

PASS_NAMES = tuple(one.name for one in OPTIMISE)


def export(
    model: Any,
    subnet: SubNet | str | Path = DENSE,
    out: str | Path = "out",
    *,
    steps: int | None = None,
    scheduler: str | None = None,
    eta: float = 0.0,
    blocks: tuple[str, ...] = (),
    batch: int = 1,
    height: int = 0,
    width: int = 0,
    guidance: bool | None = None,
    loras: Sequence[Lora] = (),
    strength: float | None = None,
    also_sizes: Sequence[Size] = (),
    target: str = DEFAULT_TARGET,
    precision: PrecisionName = "fp32",
    keep_fp32: Sequence[str] = (),
    check_numerics: bool = True,
    passes: Sequence[str] = PASS_NAMES,
    build: BuildOptions = DEFAULT_BUILD,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes an export directory and returns its path; on any error nothing is written.

    `model` is a path, a Hub id, an `arch:` name or a loaded diffusers pipeline; `subnet` a
    SubNet, its path or "dense". `height` and `width` are in pixels, 0 for the model's own.
    `eta`, 0 to 1, is how much noise a scheduler draws that takes one, such as DDIM.
    `guidance` is classifier-free guidance, by two predictions: None where the pipeline has it.
    With a `strength`, 0 to 1, the last share of the steps is run, from a picture.
    `loras` are .safetensors files, or pairs of one and a scale, that are fused into the weights.
    The same graphs serve `also_sizes`, further (height, width) in pixels or (batch, height,
    width); calls are not batched then.
    `passes` are names, to run in this order. Modules that `keep_fp32` matches stay in fp32
    whatever the precision; `check_numerics` compares every segment with fp32 on a trajectory.
    The targets `tensorrt` and `tensorrt-rtx` add engines, built as `build` says, the target
    `torch` adds programs of PyTorch's. The graphs of the target `openvino` have older operators
    for those that ONNX Runtime's OpenVINO provider lacks. The target `triton` is a Triton model
    repository around an export directory.
    Raises DipgoError.
    """
    out = Path(out)
    row = _check_target(target, build)
    typed = Precision(precision, tuple(keep_fp32))
    chosen = _passes_for(passes, also_sizes)
    _check_slots_are_allocated(chosen)
    check_destination(out, force, may_replace)
    request = Request(
        subnet,
        steps,
        scheduler,
        blocks,
        batch=batch,
        height=height,
        width=width,
        guidance=guidance,
        eta=eta,
        loras=tuple(loras),
        strength=strength,
    )
    prepared = prepare(model, request, progress)
    with progress("trace, unroll, optimise the plan"):
        compiled = compile_plan(
            prepared.source, prepared.schedule, prepared.geometry, chosen, precision=typed
        )
    parts, numerics = choose_parts(prepared, compiled, check_numerics, progress)
    first = Variant("", prepared.geometry, compiled, parts)
    variants = make_variants(prepared, first, also_sizes, chosen, progress)
    with staged_directory(out, force, may_replace) as staging:
        writer = Writer(prepared.source, variants, numerics, staging, progress)
        writer.write(row)
        if row.builder:
            with progress(f"build the engines for {target}"):
                find_builder(target).build(staging, build, lambda name: None)
        if row.finish:
            import_name(row.finish)(staging)
    return out


def _passes_for(names: Sequence[str], also_sizes: Sequence[Size]) -> Sequence[Pass]:
    """Lanes and sizes cannot both be symbolic: for several sizes nothing is batched."""
    chosen = find_passes(names)
    return [one for one in chosen if not one.needs_one_size] if also_sizes else chosen


def _check_target(target: str, build: BuildOptions) -> Target:
    """Returns the target's row; checks before hours of work that its engines can be built."""
    if target not in TARGETS:
        raise DipgoError(
            "--target", found=target, expected=" or ".join(TARGETS), remedy="leave --target out"
        )
    if TARGETS[target].builder:
        find_builder(target).check(build)
    return TARGETS[target]


def _check_slots_are_allocated(passes: Sequence[Pass]) -> None:
    """Engines write to slots, and no other pass may come after these are allocated."""
    if not passes or not passes[-1].makes_slots:
        raise DipgoError(
            "--passes",
            found=f"{passes[-1].name if passes else 'no pass'} as the last",
            expected="allocate_slots as the last: engines write to slots",
            remedy="add allocate_slots to the end",
        )
