"""The data of the U-Net stage: drawings and captions, encoded once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from scripts.demo_model.common import draw_set, to_tensor
from scripts.demo_model.shapes import split_scenes

CAPTION_DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class Latents:
    """Posterior mean and standard deviation f32[N, 4, 16, 16], scaled, and ids i64[N, 16]."""

    mean: Tensor
    std: Tensor
    ids: Tensor
    empty_ids: Tensor

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        """(latents f32[n, 4, 16, 16], ids i64[n, 16]); some captions are emptied."""
        rows = torch.randint(len(self.mean), (n,))
        latents = self.mean[rows] + self.std[rows] * torch.randn(n, *self.mean.shape[1:])
        dropped = torch.rand(n, 1) < CAPTION_DROPOUT
        return latents, torch.where(dropped, self.empty_ids, self.ids[rows])


@torch.no_grad()
def encode_set(vae: AutoencoderKL, tokenizer: CLIPTokenizer, n: int, seed: int) -> Latents:
    """Draw n training pictures and encode them and their captions."""
    scenes, pictures = draw_set(split_scenes()[0], n, seed)
    vae.to(memory_format=torch.channels_last)
    scale = vae.config.scaling_factor
    means, stds = [], []
    for start in range(0, n, 128):
        latent = vae.encode(to_tensor(pictures[start : start + 128])).latent_dist
        means.append(latent.mean * scale)
        stds.append(latent.std * scale)
    ids = _tokenize(tokenizer, [scene.caption for scene in scenes])
    return Latents(torch.cat(means), torch.cat(stds), ids, _tokenize(tokenizer, [""]))


def _tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    known = {
        caption: tokenizer(caption, padding="max_length", truncation=True).input_ids
        for caption in dict.fromkeys(captions)
    }
    return torch.tensor([known[caption] for caption in captions])
