"""Loads the judges, which measure pictures beyond their likeness to dense's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, setting
from dipgo.evaluate.judges.classifier import (
    Classifier,
    load_classifier,
    read_correctly,
    read_labels,
)
from dipgo.evaluate.judges.clip import ClipScore, load_clip
from dipgo.evaluate.judges.frechet import (
    Distance,
    classifier_distance,
    find_reference,
    inception_metric,
)
from dipgo.evaluate.metrics import to_tensor
from dipgo.evaluate.pairs import Pair


def check_picture_size(classifier: Classifier, size: tuple[int, int]) -> None:
    """Checks that the classifier reads pictures of `size` (height, width) in pixels.

    Raises:
        DipgoError: It reads pictures of another size.
    """
    side = classifier.picture_size
    if size != (side, side):
        raise DipgoError(
            setting("classifier"),
            found=f"a classifier of {side} x {side} pixels",
            expected=f"{size[0]} x {size[1]}, as the model draws",
            remedy="use a classifier that was trained at that size",
        )


_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges that were requested; `labels` are the values that each picture must show."""

    classifier: Classifier | None
    labels: tuple[Mapping[str, str], ...]
    frechet: Distance | None
    fid: Distance | None
    clip: ClipScore | None
    reference_pictures: int

    def read(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
        """Returns for each head which of u8[N, H, W, 3] are read correctly: bool[N]."""
        assert self.classifier is not None
        hits = [
            read_correctly(
                self.classifier,
                to_tensor(pictures[start : start + _CHUNK]),
                self.labels[start : start + _CHUNK],
            )
            for start in range(0, len(pictures), _CHUNK)
        ]
        return {head: np.concatenate([chunk[head] for chunk in hits]) for head in hits[0]}


def make_judges(
    pairs: Sequence[Pair],
    size: tuple[int, int],
    classifier: Path | None,
    reference: Path | None,
    clip_model: str | None,
    fid: bool,
) -> Judges:
    """Loads the judges that were requested.

    Args:
        pairs: Pairs, whose prompts the classifier must be able to judge.
        size: Height and width of the pictures in pixels.
        classifier: Folder of a classifier, or None.
        reference: Folder of PNG files, or None.
        clip_model: Folder or Hub id of a CLIP model, or None.
        fid: Whether to compute FID to the reference.

    Raises:
        DipgoError: A judge cannot be loaded, or does not fit the pictures or prompts.
    """
    judge = load_classifier(classifier) if classifier else None
    labels: tuple[Mapping[str, str], ...] = ()
    if judge:
        check_picture_size(judge, size)
        labels = tuple(read_labels(judge.heads, pair.prompt) for pair in pairs)
    paths = find_reference(reference, size) if reference else []
    return Judges(
        classifier=judge,
        labels=labels,
        fid=Distance(inception_metric(), paths) if fid else None,
        frechet=classifier_distance(judge, paths) if judge and paths else None,
        clip=load_clip(clip_model) if clip_model else None,
        reference_pictures=len(paths),
    )
