"""Reads the prompts of a call, texts or their embeddings, and refuses what a run would ignore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dipgo.common.errors import DipgoError, setting
from dipgo.engines.runner import Runner
from dipgo.ir.manifest.records import Manifest
from dipgo.run.arguments import EMBEDDED_SCALES, negatives_of, prompts_of
from dipgo.run.fitted import negative_prompt_of
from dipgo.run.pictures import pictures_in
from dipgo.run.prompt_embeds import GivenEmbeds
from dipgo.run.prompts import Conditioning, Negative, Prompt


def prompts_of_call(
    condition: Conditioning, prompt: Any, embeds: GivenEmbeds, image: Any
) -> list[Prompt]:
    """Returns the prompts of a call, or their embeddings; one None a picture without any.

    Raises:
        DipgoError: They are of a wrong type, or there are both.
    """
    if embeds.is_none:
        return [None] * pictures_in(image) if prompt is None else prompts_of(prompt)
    _check_one("prompt", prompt)
    return list(condition.read_embeds(embeds))


def negatives_of_call(
    condition: Conditioning,
    manifest: Manifest,
    negative_prompt: Any,
    embeds: GivenEmbeds,
    count: int,
) -> list[Negative] | None:
    """Returns a negative prompt for each of `count` prompts, or its embeddings; None for none.

    Raises:
        DipgoError: They are of a wrong type or number, or there are both.
    """
    if embeds.is_none:
        own = negative_prompt_of(manifest) if negative_prompt is None else negative_prompt
        texts = negatives_of(own, count)
        return None if texts is None else list(texts)
    _check_one("negative_prompt", negative_prompt)
    negatives = condition.read_embeds(embeds, "negative_")
    if len(negatives) != count:
        raise DipgoError(
            setting("negative_prompt_embeds"),
            found=f"{len(negatives)} rows",
            expected=f"as many as prompts: {count}",
            remedy="give one for each prompt",
        )
    return list(negatives)


def _check_one(name: str, value: object) -> None:
    """Refuses a prompt besides its embeddings."""
    if value is not None:
        raise DipgoError(
            setting(name),
            found="one besides its embeddings",
            expected="one of the two",
            remedy="leave one out",
        )


def check_used(
    runner: Runner,
    condition: Conditioning,
    prompts: Sequence[Prompt],
    negatives: Sequence[Negative] | None,
    scale: object,
) -> None:
    """Refuses prompts, negative prompts and scales that a run would have to ignore.

    Raises:
        DipgoError: One of them is of no use to the export, or there is no prompt.
    """
    if not prompts:
        raise DipgoError("prompt", found="none", expected="at least one", remedy="give one")
    condition.check(prompts, negatives)
    guided, has_negatives = runner.export.manifest.guidance, any(negatives or ())
    if has_negatives and guided and not condition.takes_negatives:
        raise DipgoError(
            "negative_prompt",
            found="one for a model whose prompts are no texts",
            expected="none",
            remedy="leave it out",
        )
    takes_scale = guided or not EMBEDDED_SCALES.keys().isdisjoint(runner.inputs)
    if (scale is not None and not takes_scale) or (has_negatives and not guided):
        raise DipgoError(
            str(runner.export.path),
            found="a guidance scale or a negative prompt for an export without guidance",
            expected="neither",
            remedy="leave them out, or export with guidance",
        )
