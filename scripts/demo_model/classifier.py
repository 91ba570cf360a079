"""The judge: a small convolutional network that names colour, shape, size and place."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scripts.demo_model.shapes import HEADS


class Classifier(nn.Module):
    """Pictures f32[B, 3, 64, 64] in [-1, 1] to one row of logits for each head."""

    def __init__(self, heads: dict[str, tuple[str, ...]], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        layers: list[nn.Module] = []
        for c_in, c_out in zip((3, *channels), channels, strict=False):
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=2, padding=1),
                nn.GroupNorm(8, c_out),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers)
        flat = channels[-1] * (64 >> len(channels)) ** 2
        self.logits = nn.ModuleDict(
            {name: nn.Linear(flat, len(values)) for name, values in heads.items()}
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.body(pictures).flatten(1)
        return {name: head(features) for name, head in self.logits.items()}

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> dict[str, list[str]]:
        """The name each head gives to each of f32[B, 3, 64, 64] in [-1, 1]."""
        return {
            name: [self.heads[name][i] for i in row.argmax(1).tolist()]
            for name, row in self(pictures).items()
        }


def build_classifier() -> Classifier:
    return Classifier(HEADS, (16, 32, 64, 64))


def save_classifier(model: Classifier, folder: Path) -> None:
    """Write config.json and model.safetensors (float16)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"heads": model.heads, "channels": model.channels, "picture_size": 64}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: w.half().contiguous() for name, w in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_classifier(folder: Path) -> Classifier:
    """Load in float32, ready to predict."""
    config = json.loads((folder / "config.json").read_text())
    heads = {name: tuple(values) for name, values in config["heads"].items()}
    model = Classifier(heads, tuple(config["channels"]))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: w.float() for name, w in weights.items()})
    return model.eval()
