"""The networks of the pipeline that the U-Net stage trains, and the noise schedule."""

from __future__ import annotations

from pathlib import Path

from diffusers import PNDMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 96


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """SD-1.5's blocks with small channels."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 48, 80, 112),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def build_scheduler() -> PNDMScheduler:
    """The scheduler config of SD-1.5."""
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    scheduler.register_to_config(clip_sample=False)  # read by DDIMScheduler.from_config
    return scheduler


class Denoiser(nn.Module):
    """The text encoder and the U-Net, trained as one."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The noise f32[B, 4, 16, 16] found in `noisy`, given ids i64[B, 16]."""
        hidden = self.text_encoder(ids).last_hidden_state
        noise: Tensor = self.unet(noisy, timesteps, hidden).sample
        return noise


def build_denoiser(tokenizer: CLIPTokenizer, start: Path | None) -> Denoiser:
    """New weights, or those of the pipeline in `start`."""
    if start is None:
        return Denoiser(build_text_encoder(tokenizer), build_unet())
    text_encoder = CLIPTextModel.from_pretrained(start / "text_encoder")
    return Denoiser(text_encoder, UNet2DConditionModel.from_pretrained(start / "unet")).float()
