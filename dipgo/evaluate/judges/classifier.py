"""Classifier: a small convolutional network that reads a picture's caption off it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dipgo.common.errors import DipgoError, setting
from dipgo.common.regular_files import check_file
from dipgo.common.typed_json import decode_json, read_file, write_text

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

GROUPS = 8

MOST = 1 << 16
"""Pixels of a side, and channels."""

Heads = Mapping[str, tuple[str, ...]]
"""The values that every head, such as colour, chooses from."""


class ClassifierConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The content of `config.json`.

    Pictures are square with a side of `picture_size` pixels; channels are multiples of 8.
    """

    heads: dict[str, tuple[str, ...]]
    channels: Annotated[tuple[Annotated[int, Meta(ge=GROUPS, le=MOST)], ...], Meta(max_length=16)]
    picture_size: Annotated[int, Meta(ge=1, le=MOST)]


class Classifier(nn.Module):
    """Classifies pictures f32[B, 3, size, size] in [-1, 1]: logits for each head."""

    def __init__(self, heads: Heads, channels: tuple[int, ...], picture_size: int = 64) -> None:
        super().__init__()
        self.heads, self.channels, self.picture_size = dict(heads), channels, picture_size
        layers: list[nn.Module] = []
        side = picture_size
        for c_in, c_out in zip((3, *channels), channels, strict=False):
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=2, padding=1),
                nn.GroupNorm(GROUPS, c_out),
                nn.SiLU(),
            ]
            side = (side + 1) // 2
        self.body = nn.Sequential(*layers)
        self.num_features = channels[-1] * side**2
        self.logits = nn.ModuleDict(
            {name: nn.Linear(self.num_features, len(values)) for name, values in heads.items()}
        )

    def features(self, pictures: Tensor) -> Tensor:
        """Returns f32[B, num_features], from which all heads read."""
        features: Tensor = self.body(pictures).flatten(1)
        return features

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Returns logits f32[B, values] of each head."""
        features = self.features(pictures)
        return {name: head(features) for name, head in self.logits.items()}

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> dict[str, list[str]]:
        """Returns each head's value for each of f32[B, 3, size, size] in [-1, 1]."""
        return {
            name: [self.heads[name][i] for i in row.argmax(1).tolist()]
            for name, row in self(pictures).items()
        }


def scale_pixels(pictures: Tensor) -> Tensor:
    """Returns u8[N, 3, H, W] as the classifier's input: f32 in [-1, 1], channels last in memory."""
    return pictures.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def save_classifier(model: Classifier, folder: Path) -> None:
    """Writes config.json and model.safetensors (float16)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = ClassifierConfig(model.heads, model.channels, model.picture_size)
    text = msgspec.json.format(msgspec.json.encode(config), indent=2).decode()
    weights = {name: w.half().contiguous() for name, w in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_text(folder / CONFIG_FILE, text + "\n")


def load_classifier(folder: Path) -> Classifier:
    """Loads a classifier in float32, ready to predict.

    Raises:
        DipgoError: The folder does not hold a classifier.
    """
    expected = f"a classifier's folder, with {CONFIG_FILE} and {WEIGHTS_FILE}"
    path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    data = read_file(path, expected=expected)
    config = decode_json(data, ClassifierConfig, name=str(path), remedy="use a classifier's folder")
    check_file(weights_path, expected=expected, most=None)
    try:
        with torch.device("meta"):  # so that only the file decides how large it is
            model = Classifier(config.heads, config.channels, config.picture_size)
        weights = load_file(weights_path)
        model.load_state_dict({name: w.float() for name, w in weights.items()}, assign=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError) as error:
        raise DipgoError(
            str(folder),
            found=f"weights that do not fit {CONFIG_FILE} ({str(error).splitlines()[0]})",
            expected=expected,
            remedy="use a folder that save_classifier has written",
        ) from None
    return model.eval()


def read_labels(heads: Heads, prompt: str) -> dict[str, str]:
    """Returns for every head the only value that the prompt contains, as whole words.

    Raises:
        DipgoError: The prompt contains no value of a head, or several.
    """
    return {head: _only_value(head, values, prompt) for head, values in heads.items()}


def _only_value(head: str, values: Sequence[str], prompt: str) -> str:
    named = [word for word in values if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.I)]
    if len(named) != 1:
        raise DipgoError(
            f"prompt {prompt!r}, head {head}",
            found=" and ".join(named) or "none of its values",
            expected=f"exactly one of {', '.join(values)}",
            remedy=f"use prompts that it can judge, or leave {setting('classifier')} out",
        )
    return named[0]


def read_correctly(
    classifier: Classifier, pictures: Tensor, labels: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.bool_]]:
    """Returns for each head which of u8[N, 3, size, size] are read as `labels` say: bool[N]."""
    predicted = classifier.predict(scale_pixels(pictures))
    return {
        head: np.array([value == label[head] for value, label in zip(values, labels, strict=True)])
        for head, values in predicted.items()
    }
