"""Prompts become the plan's conditioning, by what an export's manifest says of its pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.runner import Part, Runner
from dipgo.ir.manifest.records import ClassesRecord, PipelineRecord, TokenizerRecord
from dipgo.ir.types import TensorType, numpy_dtype
from dipgo.run.arguments import EMBEDDED_SCALES

Arrays: TypeAlias = dict[str, NDArray[Any]]

Prompt: TypeAlias = str | int | None
"""A text, a class by name or label, or None for a model that takes none."""

CLASS_LABELS = "class_labels"

OTHERS = ("latents", "guidance_scale", *EMBEDDED_SCALES)
"""Inputs of plans that are no conditioning by a prompt."""


class Conditioning(Protocol):
    """How an export turns a batch of prompts into inputs of its plan."""

    takes_negatives: bool
    """Whether there are prompts of what pictures should not show."""
    gives: Collection[str]
    """Inputs of the plan that it makes; any others are for the caller to give."""

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises DipgoError for a prompt that is none of this export's."""

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[str] | None) -> Arrays:
        """Inputs of the plan for as many prompts as a batch; `negatives` None is none given."""


def conditioning_of(runner: Runner) -> tuple[Conditioning, PipelineRecord]:
    """By what the plan takes and the export has. Raises DipgoError for a denoiser alone."""
    manifest = runner.export.manifest
    pipeline = manifest.pipeline
    if pipeline is None:
        raise _no_pipeline(runner)
    if pipeline.classes is not None and conditioning_inputs(runner).keys() == {CLASS_LABELS}:
        return Labels(runner, pipeline.classes), pipeline
    if "text_encoder" in manifest.parts:
        return Texts(runner, pipeline), pipeline
    return NoPrompt(), pipeline


def conditioning_inputs(runner: Runner) -> dict[str, TensorType]:
    """Types of what the plan takes besides noise and guidance scales."""
    others = {*OTHERS, *(draw.value for draw in runner.export.plan.draws)}
    return {name: kind for name, kind in runner.inputs.items() if name not in others}


def _no_pipeline(runner: Runner) -> DipgoError:
    return DipgoError(
        str(runner.export.path),
        found="an export of a denoiser alone",
        expected="an export of a whole pipeline, of a family that docs/guide/families.md lists",
        remedy="export such a pipeline, or run the plan alone with dipgo.engines.load",
    )


class NoPrompt:
    """Of an unconditional model, or of one whose conditioning is no text: the caller gives it."""

    takes_negatives = False
    gives: Collection[str] = ()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises DipgoError for any."""
        for prompt in prompts:
            if prompt is not None:
                raise DipgoError(
                    f"prompt {prompt!r}",
                    found="a prompt for a model that takes none",
                    expected="none",
                    remedy="leave it out",
                )

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[str] | None) -> Arrays:
        """Nothing."""
        return {}


class Labels:
    """Class labels, or names of classes, to `class_labels` i64[rows]."""

    takes_negatives = False
    gives: Collection[str] = (CLASS_LABELS,)

    def __init__(self, runner: Runner, classes: ClassesRecord) -> None:
        self._classes, self._guidance = classes, runner.export.manifest.guidance

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises DipgoError for what is no class."""
        for prompt in prompts:
            self._label(prompt)

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[str] | None) -> Arrays:
        """The unconditional rows carry the label one beyond the last class."""
        labels = [self._label(prompt) for prompt in prompts]
        none = [self._classes.count] * len(labels) if self._guidance else []
        return {CLASS_LABELS: np.asarray(none + labels, np.int64)}

    def _label(self, prompt: Prompt) -> int:
        text = str(prompt).strip()
        number = int(text) if text.isdecimal() else self._classes.names.get(text)
        if number is None or not 0 <= number < self._classes.count:
            names = ", or a class's name" if self._classes.names else ""
            raise DipgoError(
                f"prompt {prompt!r}",
                found="no class of the model",
                expected=f"a number from 0 to {self._classes.count - 1}{names}",
                remedy="correct it",
            )
        return number


class Texts:
    """Texts to what the text encoder yields, and masks and sizes beside it."""

    takes_negatives = True

    def __init__(self, runner: Runner, pipeline: PipelineRecord) -> None:
        export, manifest = runner.export, runner.export.manifest
        self._inputs, self._pipeline = runner.inputs, pipeline
        self._guidance, self._batch = manifest.guidance, manifest.batch
        self._encoder = Part(runner, "text_encoder")
        masks = {one.mask for one in manifest.tokenizers}
        self.gives: Collection[str] = {*self._encoder.outputs, *masks, *pipeline.fixed}
        self._tokenizers = [
            TextTokens(str(export.path / one.file), one) for one in manifest.tokenizers
        ]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises DipgoError for what is no text."""
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise DipgoError(
                    f"prompt {prompt!r}",
                    found=f"what is no text ({type(prompt).__name__})",
                    expected="a str, or several",
                    remedy="give the prompt as text",
                )

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[str] | None) -> Arrays:
        """Rows are those of the negatives, if the export is guided, then those of the prompts."""
        texts = [str(prompt) for prompt in prompts]
        if self._guidance:
            texts = [*(negatives or [""] * len(texts)), *texts]
        tokens: Arrays = {}
        for one in self._tokenizers:
            tokens |= one.encode(texts)
        found = self._encoder({name: tokens[name] for name in self._encoder.inputs})
        if self._guidance and negatives is None and self._pipeline.zeros_without_negative:
            for array in found.values():
                array[: self._batch] = 0.0
        return {**self._direct(tokens, len(texts)), **found}

    def _direct(self, tokens: Mapping[str, NDArray[Any]], rows: int) -> Arrays:
        """What does not pass through the text encoder, of the types that the plan has."""
        fixed = {name: np.asarray([row] * rows) for name, row in self._pipeline.fixed.items()}
        return {
            name: array.astype(numpy_dtype(self._inputs[name].dtype))
            for name, array in {**tokens, **fixed}.items()
            if name in self._inputs
        }


class TextTokens:
    """A tokenizer of the export, as its record says that texts go through it."""

    def __init__(self, path: str, record: TokenizerRecord) -> None:
        from tokenizers import Tokenizer

        self._record = record
        self._tokenizer = Tokenizer.from_file(path)
        self._tokenizer.enable_truncation(record.length)
        self._tokenizer.enable_padding(
            length=record.length, pad_id=record.pad_id, direction=record.padding_side
        )

    def encode(self, texts: Sequence[str]) -> Arrays:
        """Ids and, where the model takes it, mask, i64[rows, length], by their names."""
        lower = self._record.lower
        given = [text.lower().strip() if lower else text for text in texts]
        found = self._tokenizer.encode_batch(given)
        named = {self._record.ids: np.asarray([one.ids for one in found], np.int64)}
        if self._record.mask:
            mask = np.asarray([one.attention_mask for one in found], np.int64)
            named[self._record.mask] = mask
        return named
