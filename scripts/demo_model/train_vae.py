"""Trains the autoencoder: 64x64 pictures to 16x16x4 latents and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from scripts.demo_model.common import draw_set, progress, set_learning_rate, to_tensor
from scripts.demo_model.shapes import all_scenes, split_scenes
from scripts.harness import run_script, script_parser

KL_WEIGHT = 3e-4
VAE_RATE = 2e-3
DECODER_RATE = 7e-4
DECODER_NOISE = 0.05
N_PICTURES = 12_000


def build_vae() -> AutoencoderKL:
    """An SD-style autoencoder with three levels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
    )


def _picture_loss(error: Tensor) -> Tensor:
    return error.abs().mean() + 2 * error.square().mean()


def vae_loss(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Reconstruction and KL loss of f32[B, 3, 64, 64] in [-1, 1]."""
    posterior = vae.encode(pictures).latent_dist
    error = vae.decode(posterior.sample()).sample - pictures
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    loss: Tensor = _picture_loss(error) + KL_WEIGHT * kl
    return loss


def decoder_loss(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Reconstruction loss from fixed latents, with a little noise added to them."""
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.sample()
        spread = DECODER_NOISE / vae.config.scaling_factor
        latents += spread * torch.randn_like(latents)
    return _picture_loss(vae.decode(latents).sample - pictures)


def _fit(
    vae: AutoencoderKL,
    weights: list[nn.Parameter],
    loss_of: Callable[[AutoencoderKL, Tensor], Tensor],
    rate: float,
    minutes: float,
    batch: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    _, drawn = draw_set(split_scenes()[0], N_PICTURES, seed)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-4)
    vae.train().to(memory_format=torch.channels_last)
    for step, share in progress(minutes):
        set_learning_rate(optimizer, rate, step, share)
        loss = loss_of(vae, to_tensor(drawn[rng.integers(0, len(drawn), batch)]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{loss_of.__name__} step {step} {share:.0%} {loss:.4f}", flush=True)
    vae.eval()


def train_vae(out: Path, minutes: float, batch: int = 32, seed: int = 0) -> None:
    """Train both halves within the wall-clock budget; save to `out` in float32."""
    torch.manual_seed(seed)
    vae = build_vae()
    _fit(vae, list(vae.parameters()), vae_loss, VAE_RATE, minutes, batch, seed)
    check = to_tensor(draw_set(all_scenes(), 512, seed + 1)[1])
    set_scaling_factor(vae, check)
    report_errors(vae, check)
    vae.save_pretrained(out)


def train_decoder(folder: Path, minutes: float, batch: int = 32, seed: int = 2) -> None:
    """Train the decoder in `folder` further; the encoder, and so the latents, stay as they are."""
    vae = AutoencoderKL.from_pretrained(folder)
    weights = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    _fit(vae, weights, decoder_loss, DECODER_RATE, minutes, batch, seed)
    report_errors(vae, to_tensor(draw_set(all_scenes(), 512, seed + 1)[1]))
    vae.save_pretrained(folder)


@torch.no_grad()
def set_scaling_factor(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Make the scaled latents have a standard deviation of one."""
    latents = vae.encode(pictures).latent_dist.sample()
    vae.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 5))


@torch.no_grad()
def report_errors(vae: AutoencoderKL, pictures: Tensor) -> float:
    """Print the mean absolute error of decode(encode(x)) in 8-bit levels, and the scaling."""
    decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    levels = float((decoded - pictures).abs().mean() * 127.5)
    print(f"vae error {levels:.2f} / 255, scaling {vae.config.scaling_factor}", flush=True)
    return levels


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo-train/vae"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--decoder-minutes", type=float, default=4.0)
    args = parser.parse_args(arguments)
    if args.minutes > 0:
        train_vae(args.out, args.minutes)
    train_decoder(args.out, args.decoder_minutes)


if __name__ == "__main__":
    run_script(main)
