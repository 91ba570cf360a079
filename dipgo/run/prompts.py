"""Turns prompts into the plan's conditioning, as an export's manifest describes its pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.cut_texts import warn_of_cuts
from dipgo.common.errors import DipgoError, close_to, setting
from dipgo.engines.runner import Part, Runner
from dipgo.ir.manifest.records import ClassesRecord, PipelineRecord
from dipgo.ir.types import TensorType, numpy_dtype
from dipgo.run.arguments import EMBEDDED_SCALES, check_text, shown
from dipgo.run.prompt_embeds import Embedded, GivenEmbeds, read_embeds
from dipgo.run.tokens import TextTokens

Arrays: TypeAlias = dict[str, NDArray[Any]]

Prompt: TypeAlias = str | int | Embedded | None
"""A text or its embeddings, a class by name or label, or None for a model without prompts."""

Negative: TypeAlias = str | Embedded
"""A text, or its embeddings, of what a picture should not show."""

CLASS_LABELS = "class_labels"

LONGEST_LABEL = 18
"""Digits of a class's number, at most."""

OTHERS = ("latents", "guidance_scale", *EMBEDDED_SCALES)
"""Inputs of plans that are not conditioning by a prompt."""


class Conditioning(Protocol):
    """Turns a batch of prompts into inputs of an export's plan."""

    takes_negatives: bool
    """True if there are negative prompts: texts of what pictures should not show."""
    gives: Collection[str]
    """Inputs of the plan that it makes; the caller provides all others."""

    def check(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> None:
        """Checks prompts and negative prompts before a run, and warns of what it does not read.

        Raises:
            DipgoError: A prompt is not of the type that this export takes.
        """

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> Arrays:
        """Returns inputs of the plan for a batch of prompts; `negatives` may be None."""

    def read_embeds(self, given: GivenEmbeds, prefix: str = "") -> list[Embedded]:
        """Returns a prompt for each row of embeddings.

        Args:
            given: The embeddings.
            prefix: What the names of the arguments begin with: `negative_` for negative prompts.

        Raises:
            DipgoError: The model takes none, or an array is missing or of another shape or type.
        """


def conditioning_of(runner: Runner) -> tuple[Conditioning, PipelineRecord]:
    """Returns the conditioning for an export, and the record of its pipeline.

    Raises:
        DipgoError: The export is of a denoiser alone.
    """
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
    """Returns the types of the plan's inputs besides noise and guidance scales."""
    others = {*OTHERS, *(draw.value for draw in runner.export.plan.draws)}
    return {name: tensor_type for name, tensor_type in runner.inputs.items() if name not in others}


def _no_pipeline(runner: Runner) -> DipgoError:
    return DipgoError(
        str(runner.export.path),
        found="an export of a denoiser alone",
        expected="an export of a whole pipeline, of a family that docs/guide/families.md lists",
        remedy="export such a pipeline, or run the plan alone with dipgo.engines.load",
    )


class _NoTexts:
    """Conditioning that has no embeddings of texts."""

    def read_embeds(self, given: GivenEmbeds, prefix: str = "") -> list[Embedded]:
        """Refuses embeddings.

        Raises:
            DipgoError: Always.
        """
        raise DipgoError(
            setting(f"{prefix}prompt_embeds"),
            found="embeddings for a model whose prompts are no texts",
            expected="none",
            remedy="leave them out",
        )


class NoPrompt(_NoTexts):
    """Takes no prompts: the model is unconditional, or the caller provides its conditioning."""

    takes_negatives = False
    gives: Collection[str] = ()

    def check(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> None:
        """Refuses every prompt.

        Raises:
            DipgoError: There is a prompt.
        """
        for prompt in prompts:
            if prompt is not None:
                raise DipgoError(
                    f"prompt {shown(prompt)}",
                    found="a prompt for a model that takes none",
                    expected="none",
                    remedy="leave it out",
                )

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> Arrays:
        """Returns no inputs."""
        return {}


class Labels(_NoTexts):
    """Turns class labels, or names of classes, into `class_labels` i64[rows]."""

    takes_negatives = False
    gives: Collection[str] = (CLASS_LABELS,)

    def __init__(self, runner: Runner, classes: ClassesRecord) -> None:
        self._classes, self._guidance = classes, runner.export.manifest.guidance

    def check(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> None:
        """Checks that every prompt is a class.

        Raises:
            DipgoError: A prompt is not a class.
        """
        for prompt in prompts:
            self._label(prompt)

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> Arrays:
        """Returns the labels; unconditional rows have the label after that of the last class."""
        labels = [self._label(prompt) for prompt in prompts]
        none = [self._classes.count] * len(labels) if self._guidance else []
        return {CLASS_LABELS: np.asarray(none + labels, np.int64)}

    def _label(self, prompt: Prompt) -> int:
        number = self._number(prompt)
        if number is None or not 0 <= number < self._classes.count:
            names = ", or a class's name" if self._classes.names else ""
            raise DipgoError(
                f"prompt {shown(prompt)}",
                found="no class of the model",
                expected=f"a number from 0 to {self._classes.count - 1}{names}",
                remedy=close_to(prompt, self._classes.names),
            )
        return number

    def _number(self, prompt: Prompt) -> int | None:
        if isinstance(prompt, int) and not isinstance(prompt, bool):
            return prompt
        text = prompt.strip() if isinstance(prompt, str) else ""
        if text.isdecimal() and len(text) <= LONGEST_LABEL:
            return int(text)
        return self._classes.names.get(text)


class Texts:
    """Turns texts into outputs of the text encoder, masks and sizes."""

    takes_negatives = True

    def __init__(self, runner: Runner, pipeline: PipelineRecord) -> None:
        export, manifest = runner.export, runner.export.manifest
        self._inputs, self._pipeline = runner.inputs, pipeline
        self._guidance, self._batch = manifest.guidance, manifest.batch
        self._encoder = Part(runner, "text_encoder")
        self._masks = {record.mask for record in manifest.tokenizers}
        self.gives: Collection[str] = {*self._encoder.outputs, *self._masks, *pipeline.fixed}
        self._tokenizers = [
            TextTokens(str(export.path / record.file), record) for record in manifest.tokenizers
        ]

    def check(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> None:
        """Checks that every prompt is a text, and warns of texts that are longer than is read.

        Raises:
            DipgoError: A prompt is not a text, or has no encoding.
        """
        for where, given in (("prompt", prompts), ("negative_prompt", negatives or ())):
            texts = [text for text in given if not isinstance(text, Embedded)]
            for text in texts:
                check_text(where, text)
            for text in dict.fromkeys(map(str, texts)):
                warn_of_cuts(where, text, (one.cut(text) for one in self._tokenizers))

    def __call__(self, prompts: Sequence[Prompt], negatives: Sequence[Negative] | None) -> Arrays:
        """Returns rows of the negatives, if the export is guided, then rows of the prompts."""
        rows = list(prompts)
        if self._guidance:
            rows = [*(negatives or [""] * len(rows)), *rows]
        texts = ["" if isinstance(row, Embedded) else str(row) for row in rows]
        tokens: Arrays = {}
        for tokenizer in self._tokenizers:
            tokens |= tokenizer.encode(texts)
        encoded = self._encoder({name: tokens[name] for name in self._encoder.inputs})
        if self._guidance and negatives is None and self._pipeline.zeros_without_negative:
            for array in encoded.values():
                array[: self._batch] = 0.0
        inputs = {**self._direct(tokens, len(rows)), **encoded}
        for index, row in enumerate(rows):
            for name, values in row.rows.items() if isinstance(row, Embedded) else ():
                inputs[name][index] = values
        return inputs

    def read_embeds(self, given: GivenEmbeds, prefix: str = "") -> list[Embedded]:
        """Returns a prompt for each row of embeddings.

        Raises:
            DipgoError: An array is missing, or is of another shape or type.
        """
        masks = {name: self._inputs[name] for name in self._masks if name in self._inputs}
        return read_embeds(given, self._encoder.outputs, masks, prefix)

    def _direct(self, tokens: Mapping[str, NDArray[Any]], rows: int) -> Arrays:
        """Returns the inputs that do not pass through the text encoder, in the plan's types."""
        unconditional = rows - self._batch if self._guidance else 0
        conditional, fixed = self._pipeline.fixed, dict[str, NDArray[Any]]()
        halves = {**conditional, **(self._pipeline.fixed_unconditional or {})}
        for name, row in conditional.items():
            each = [halves[name]] * unconditional + [row] * (rows - unconditional)
            fixed[name] = np.asarray(each)
        return {
            name: array.astype(numpy_dtype(self._inputs[name].dtype))
            for name, array in {**tokens, **fixed}.items()
            if name in self._inputs
        }
