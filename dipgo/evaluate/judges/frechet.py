"""Fréchet distance of a set of pictures to reference pictures, in the features of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from dipgo.common.errors import DipgoError, setting
from dipgo.common.picture_files import open_picture, read_picture
from dipgo.evaluate.judges.classifier import Classifier, scale_pixels
from dipgo.evaluate.metrics import to_tensor

FEWEST_PICTURES = 2

REMEDY = "take it out of the folder"

_CHUNK = 32
"""Pictures at a time, since reference sets are large."""


class ClassifierFeatures(nn.Module):
    """Computes the features f64[B, num_features] of u8[B, 3, size, size] that all heads read."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.num_features = classifier, classifier.num_features

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Returns the features in double precision."""
        return self.classifier.features(scale_pixels(pictures)).double()


class Distance:
    """The Fréchet distance to the reference pictures, whose statistics are computed once.

    Sets of few pictures lie farther away than large sets of the same distribution, so only sets of
    the same size may be compared.

    Source:
        Heusel et al. 2017, equation 6.
    """

    def __init__(self, metric: FrechetInceptionDistance, reference: Sequence[Path]) -> None:
        self._metric = metric
        for pictures in _read(reference):
            metric.update(to_tensor(pictures), real=True)

    def __call__(self, pictures: NDArray[np.uint8]) -> float:
        """Returns the distance of pictures u8[N, H, W, 3], N at least 2."""
        self._metric.reset()
        for start in range(0, len(pictures), _CHUNK):
            self._metric.update(to_tensor(pictures[start : start + _CHUNK]), real=False)
        return float(self._metric.compute())


def classifier_distance(classifier: Classifier, reference: Sequence[Path]) -> Distance:
    """Returns the distance in the features of a classifier."""
    features = ClassifierFeatures(classifier)
    metric = FrechetInceptionDistance(feature=features, reset_real_features=False)
    return Distance(metric, reference)


def inception_metric() -> FrechetInceptionDistance:
    """Returns the FID of the literature, of Inception's 2048 features.

    Raises:
        DipgoError: The package torch-fidelity or the network's weights are missing.
    """
    try:
        return FrechetInceptionDistance(feature=2048, reset_real_features=False)
    except ModuleNotFoundError:
        raise DipgoError(
            setting("fid"),
            found="no package torch-fidelity",
            expected="the Inception network that FID is defined by",
            remedy=f"pip install torch-fidelity, or leave {setting('fid')} out",
        ) from None
    except OSError as error:  # URLError is one: the network's weights are downloaded
        raise DipgoError(
            setting("fid"),
            found=f"no weights of the Inception network ({error})",
            expected="a network to download them from, the first time",
            remedy=f"connect, or leave {setting('fid')} out",
        ) from None


def find_reference(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Returns the PNG files in `folder`, each of `size` (height, width) in pixels.

    Raises:
        DipgoError: There are too few files, or one cannot be read or has another size.
    """
    paths = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if len(paths) < FEWEST_PICTURES:
        raise DipgoError(
            f"{setting('reference')} {folder}",
            found=f"{len(paths)} PNG files" if folder.is_dir() else "no such folder",
            expected=f"a folder with at least {FEWEST_PICTURES} PNG files",
            remedy="give the folder of the reference pictures",
        )
    for path in paths:
        with open_picture(path, where=str(path), remedy=REMEDY) as picture:
            width, height = picture.size
        if (height, width) != size:
            raise DipgoError(
                str(path),
                found=f"a picture of {height} x {width} pixels",
                expected=f"{size[0]} x {size[1]}, as the model draws",
                remedy="scale the reference pictures",
            )
    return paths


def _read(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Yields pictures u8[n, H, W, 3], a few at a time."""
    for start in range(0, len(paths), _CHUNK):
        chunk = [
            read_picture(path, where=str(path), remedy=REMEDY)
            for path in paths[start : start + _CHUNK]
        ]
        yield np.stack([np.asarray(picture, np.uint8) for picture in chunk])
