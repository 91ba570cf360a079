"""The demo's judge: reads colour, shape, size and place off pictures of 64 x 64 pixels."""

from __future__ import annotations

from dipgo.evaluate.judges.classifier import Classifier
from scripts.demo_model.shapes import HEADS, PICTURE_SIZE


def build_classifier() -> Classifier:
    """Four strided convolutions, four heads; not trained yet."""
    return Classifier(HEADS, (16, 32, 64, 64), PICTURE_SIZE)
