"""A bfloat16 working copy of a model: fast products on a CPU, float32 weights kept apart."""

from __future__ import annotations

import copy

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional


class Float32AttentionProcessor:
    """Attention whose product and softmax run in float32: CPU kernels for bfloat16 are slow."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        query, key, value = (x.float().unflatten(2, (attn.heads, -1)) for x in projected)
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        rows = mixed.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        result: Tensor = attn.to_out[0](rows)
        return result


class Float32GroupNorm(nn.GroupNorm):
    """Group norm computed in float32: the CPU kernel for bfloat16 is slow."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return functional.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def working_copy(model: nn.Module) -> nn.Module:
    """A bfloat16 copy of `model` to run forward and backward in."""
    work = copy.deepcopy(model).bfloat16()
    for module in work.modules():
        if isinstance(module, UNet2DConditionModel):
            module.set_attn_processor(Float32AttentionProcessor())
        if isinstance(module, nn.GroupNorm):
            module.__class__ = Float32GroupNorm
    return work


def take_gradients(model: nn.Module, work: nn.Module) -> None:
    """Move the gradients of the working copy to the float32 weights."""
    for weight, working in zip(model.parameters(), work.parameters(), strict=True):
        weight.grad = None if working.grad is None else working.grad.float()
        working.grad = None


@torch.no_grad()
def give_weights(model: nn.Module, work: nn.Module) -> None:
    """Round the float32 weights into the working copy."""
    torch._foreach_copy_(list(work.parameters()), list(model.parameters()))
