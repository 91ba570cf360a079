"""Evaluates quality, cost and speed of SubNets against dense, on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dipgo.common.arguments import check_names, check_texts, checks_arguments, with_new_names
from dipgo.common.machine import describe_machine
from dipgo.compiler.settings import DENSE
from dipgo.evaluate.cache import only_evaluation
from dipgo.evaluate.checks import (
    check_dense,
    check_draws_pictures,
    check_variant,
    read_subnets,
)
from dipgo.evaluate.draw import Progress, Studio
from dipgo.evaluate.fitted import guidance_of, warn_of_unfit
from dipgo.evaluate.judges.load import Judges, make_judges
from dipgo.evaluate.measure import SSIM, dense_time, measure, timed
from dipgo.evaluate.pairs import make_pairs
from dipgo.evaluate.report import Report, Result, Timed
from dipgo.evaluate.settings import EvaluationSettings
from dipgo.evaluate.variants import Settings, Variant, model_fingerprint
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.as_found import leaves_as_found
from dipgo.models.model import Source
from dipgo.models.source import load_source

SHOW_NOTHING = Progress()


@checks_arguments
@leaves_as_found
def evaluate(
    model: Any,
    subnets: Mapping[str, SubNet | str | Path],
    dense: tuple[int, str | None],
    prompts: Sequence[str],
    *,
    cache: str | Path,
    progress: Progress = SHOW_NOTHING,
    **settings: Any,
) -> Report:
    """Draws the same pictures with dense and with every SubNet, and measures them.

    Args:
        model: The model, as for `export`.
        subnets: SubNets or their files by name; those that name no scheduler have dense's.
        dense: The number of steps and the scheduler (None: the model's own) that all are compared
            with.
        prompts: Held-out prompts.
        cache: Folder that keeps every SubNet's result, which the same call uses again.
        progress: How progress is shown.
        **settings: Fields of `EvaluationSettings`, such as `pairs`, `guidance_scale` or
            `classifier`.

    Raises:
        DipgoError: An input is wrong, or another evaluation is writing to `cache`; where possible
            before the first picture is drawn.
    """
    settings = with_new_names(settings, {"guidance": "guidance_scale"}, "evaluate")
    check_names(settings, [item.name for item in fields(EvaluationSettings)], "evaluate")
    asked = EvaluationSettings(**settings)
    loaded, (steps, scheduler) = read_subnets(subnets), check_dense(dense)
    pairs = make_pairs(check_texts("prompts", prompts), asked.pairs, asked.seed)
    with progress.stage("load the model and the judges"):
        source = load_source(model, asked.loras)
        shared = Settings(
            pairs,
            guidance_of(asked.guidance_scale, source, loaded),
            asked.batch,
            asked.time_batch or asked.batch,
            asked.threads,
        )
        size = check_draws_pictures(source)
        reference = Variant(DENSE, None, steps, scheduler)
        variants = [Variant.of_subnet(name, subnet, scheduler) for name, subnet in loaded.items()]
        for variant in (reference, *variants):
            check_variant(variant, source)
        judges = make_judges(
            shared.pairs,
            size,
            _path(asked.classifier),
            _path(asked.reference),
            _text(asked.clip_model),
            asked.fid,
        )
        fingerprint = model_fingerprint(source)
    warn_of_unfit(loaded, source, shared.guidance)
    with only_evaluation(Path(cache)):
        studio = Studio(source, fingerprint, shared, Path(cache), progress)
        results = _results(studio, reference, variants, shared, judges, asked.time_repeats)
    return _report(source, fingerprint, shared, judges, results)


def _results(
    studio: Studio,
    dense: Variant,
    variants: Sequence[Variant],
    settings: Settings,
    judges: Judges,
    repeats: int,
) -> list[Result]:
    """Returns the results of dense, then of every SubNet.

    Pictures of at most two variants are in memory at a time.
    """
    dense_drawn = studio.draw(dense)
    results: list[Result] = []
    all_times = []
    first: Sequence[float] | None = None
    for variant in variants:
        drawn = studio.draw(variant)
        time: Timed | None = None
        if repeats:
            all_times.append(studio.time(variant, dense, repeats))
            time = timed(all_times[-1])
        studio.discard(variant)
        with studio.progress.stage(f"measure {variant.name}"):
            result = measure(variant, drawn, dense_drawn, first, settings, judges, time)
        first = first or result.metrics[SSIM].values
        results.append(result)
    studio.discard(dense)
    with studio.progress.stage("measure dense"):
        time = dense_time(all_times)
        of_dense = measure(dense, dense_drawn, dense_drawn, None, settings, judges, time)
    return [of_dense, *results]


def _report(
    source: Source, fingerprint: str, settings: Settings, judges: Judges, results: list[Result]
) -> Report:
    dense, *others = results
    return Report(
        machine=describe_machine(),
        model=_name(source),
        model_sha256=fingerprint,
        guidance=settings.guidance,
        batch=settings.batch,
        time_batch=settings.time_batch,
        threads=settings.threads,
        pairs=settings.pairs,
        reference_pictures=judges.reference_pictures,
        dense=dense,
        subnets=tuple(others),
    )


def _name(source: Source) -> str:
    """Returns the model's name and its LoRAs: `model, style.safetensors at 0.5`."""
    return ", ".join([source.name, *(f"{lora.name} at {lora.scale:g}" for lora in source.loras)])


def _path(value: str | Path | None) -> Path | None:
    return Path(value) if value else None


def _text(value: str | Path | None) -> str | None:
    return str(value) if value else None
