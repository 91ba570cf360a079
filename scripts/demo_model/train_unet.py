"""Trains the U-Net together with the text encoder on latents encoded once."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTokenizer

from scripts.demo_model.bf16 import give_weights, take_gradients, working_copy
from scripts.demo_model.common import minutes_since, set_learning_rate
from scripts.demo_model.latents import Latents, encode_set
from scripts.demo_model.networks import Denoiser, build_denoiser, build_scheduler
from scripts.demo_model.parallel import average_gradients, spawn
from scripts.demo_model.pipeline_files import save_pipeline
from scripts.harness import run_script, script_parser

N_PICTURES = 16_000
SNR_CAP = 5.0
NOISY_PART = 0.75
EMA_DECAY = 0.998
PEAK_RATE = 1e-3
MINUTES = 40.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how to train; `start` is a pipeline folder to go on from."""

    minutes: float = MINUTES
    batch: int = 64
    warm_up: int = 100
    save_every_minutes: float = 5.0
    seed: int = 0
    start: Path | None = None


def loss_weights(alphas_cumprod: Tensor) -> Tensor:
    """Weights f32[T] for epsilon prediction.

    Little noise: min-SNR (Hang et al. 2023, section 3.4). Much noise: 1/sqrt(SNR), for there the
    place of the shape is decided, and an error in epsilon grows by that factor in the picture.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return (SNR_CAP / snr).clamp(max=1) * snr.rsqrt().clamp(min=1)


def random_timesteps(n: int, n_timesteps: int) -> Tensor:
    """i64[n]: half from all timesteps, half from the noisiest part."""
    low = torch.where(torch.rand(n) < 0.5, 0, int(NOISY_PART * n_timesteps))
    return low + (torch.rand(n) * (n_timesteps - low)).long()


def denoising_loss(model: nn.Module, latents: Tensor, ids: Tensor, alphas: Tensor) -> Tensor:
    timesteps = random_timesteps(len(latents), len(alphas))
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    found = model(noisy.bfloat16(), timesteps, ids).float()
    errors = (found - noise).square().mean((1, 2, 3))
    loss: Tensor = (loss_weights(alphas)[timesteps] * errors).mean()
    return loss


@torch.no_grad()
def update_ema(ema: Denoiser, model: Denoiser, step: int) -> None:
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def train_unet(out: Path, vae_folder: Path, tokenizer_folder: Path, plan: Plan) -> None:
    """Train within the wall-clock budget, one process a core; save averaged weights to `out`."""
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    data = encode_set(vae, tokenizer, N_PICTURES, plan.seed)
    spawn(_train_worker, os.cpu_count() or 1, out, vae, tokenizer, data, plan)


def _train_worker(
    out: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, data: Latents, plan: Plan
) -> None:
    torch.manual_seed(plan.seed)
    model = build_denoiser(tokenizer, plan.start)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub
    torch.manual_seed(plan.seed + 1 + dist.get_rank())
    trainer = Trainer(model, plan)
    losses: list[float] = []
    saved = 0
    while trainer.share < 1:
        losses.append(trainer.step(data))
        if dist.get_rank() != 0:
            continue
        if trainer.n_steps % 50 == 0:
            mean = float(np.mean(losses[-50:]))
            print(f"unet step {trainer.n_steps} {trainer.share:.1%} loss {mean:.4f}", flush=True)
        if trainer.share * plan.minutes / plan.save_every_minutes > saved + 1:
            saved += 1
            save_pipeline(out, vae, tokenizer, trainer.ema)
    if dist.get_rank() == 0:
        save_pipeline(out, vae, tokenizer, trainer.ema)
        print(f"unet: {len(losses)} steps of {plan.batch}, loss {np.mean(losses[-500:]):.4f}")


class Trainer:
    """The float32 weights, their bfloat16 working copy, their average, and the optimizer."""

    def __init__(self, model: Denoiser, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.work = working_copy(model)
        self.ema = copy.deepcopy(model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01)
        self.alphas = build_scheduler().alphas_cumprod
        self.started = time.monotonic()
        self.n_steps, self.share = 0, 0.0

    def step(self, data: Latents) -> float:
        """Take one step on a batch of `data` and return the loss; sets the share spent."""
        plan = self.plan
        rows = data.batch(plan.batch // dist.get_world_size())
        loss = denoising_loss(self.work, *rows, self.alphas)
        torch.autograd.backward(loss)
        take_gradients(self.model, self.work)
        spent = minutes_since(self.started) / plan.minutes
        mean_loss, share = average_gradients(self.model, loss.item(), spent)
        self.share = min(share, 1.0)
        set_learning_rate(self.optimizer, PEAK_RATE, self.n_steps, self.share, plan.warm_up)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        give_weights(self.model, self.work)
        update_ema(self.ema, self.model, self.n_steps)
        self.n_steps += 1
        return mean_loss


def main(arguments: list[str]) -> None:
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--vae", type=Path, default=Path("out/demo-train/vae"))
    parser.add_argument("--tokenizer", type=Path, default=Path("out/demo-train/tokenizer"))
    parser.add_argument("--out", type=Path, default=Path("out/demo-train/model"))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--start", type=Path, help="a pipeline folder to go on from")
    args = parser.parse_args(arguments)
    train_unet(args.out, args.vae, args.tokenizer, Plan(minutes=args.minutes, start=args.start))


if __name__ == "__main__":
    run_script(main)
