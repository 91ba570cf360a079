"""The classifier that judges pictures, and the captions that it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.evaluate.judges.classifier import (
    Classifier,
    load_classifier,
    read_labels,
    save_classifier,
)
from tests.support.tiny_evaluation import (
    HEADS,
)


def test_labels_are_whole_words() -> None:
    heads = {"colour": ("red", "dark red"), "place": ("at the top left", "in the center")}
    found = read_labels({"colour": ("red", "blue")} | {"place": heads["place"]}, _PLACED)
    assert found == {"colour": "red", "place": "at the top left"}
    with pytest.raises(DipgoError, match="head colour: found red and dark red"):
        read_labels(heads, "A dark red ring at the top left")


_PLACED = "A hundred Red rings, at the top left"


def test_classifier_of_any_size(tmp_path: Path) -> None:
    model = Classifier(HEADS, (8, 16), 37)
    save_classifier(model, tmp_path)
    loaded = load_classifier(tmp_path)
    pictures = torch.randn(2, 3, 37, 37)
    assert loaded.features(pictures).shape == (2, loaded.num_features)
    assert {name: one.shape for name, one in loaded(pictures).items()} == dict.fromkeys(
        HEADS, (2, 2)
    )
