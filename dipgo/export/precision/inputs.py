"""Makes the inputs of a trial: noise, a prompt and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dipgo.common.torch_noise import initial_noise
from dipgo.compiler.compile import Compiled
from dipgo.compiler.oracle import Exact
from dipgo.compiler.request import Prepared
from dipgo.export.parts import IMAGE_ENCODER, TEXT_ENCODER, VAE_ENCODER, Part
from dipgo.models.model import SizedModel

PROMPT = "a photograph of a red house by the sea"

GUIDANCE_SCALE = 7.5


@dataclass(frozen=True)
class TrialInputs:
    """The inputs of a run by name, and of each part by the part's name, in the part's order."""

    run: dict[str, torch.Tensor]
    parts: dict[str, list[torch.Tensor]]


@torch.no_grad()
def trial_inputs(prepared: Prepared, compiled: Compiled, parts: Sequence[Part]) -> TrialInputs:
    """Returns noise of seed 0, a prompt if there is a text encoder, and a picture.

    Args:
        prepared: The model, schedule and sizes.
        compiled: The plan and the graph it was made from.
        parts: The pipeline's other parts.
    """
    model, plan = prepared.source.at(prepared.geometry), compiled.plan
    generator = torch.Generator().manual_seed(0)
    inputs: dict[str, torch.Tensor] = {}
    for value in plan.inputs:
        tensor_type = value.type
        inputs[value.name] = (
            torch.randn(tensor_type.shape, generator=generator)
            if tensor_type.dtype == "f32"
            else torch.zeros(tensor_type.shape, dtype=torch.int64)
        )
    if "guidance_scale" in inputs:
        inputs["guidance_scale"] = torch.tensor(GUIDANCE_SCALE)
    picture, part_inputs = _picture(parts), dict[str, list[torch.Tensor]]()
    for part in parts:
        tokens = _token_ids(model, part) if part.name == TEXT_ENCODER else {}
        arguments = [tokens[value.name] for value in part.inputs] if tokens else [*part.examples]
        names = [value.name for value in part.outputs]
        if set(names) <= set(inputs):
            inputs |= dict(zip(names, Exact(part.exact).run(*arguments), strict=True))
            masks = {name: ids for name, ids in tokens.items() if name in inputs}
            inputs |= {name: mask.to(inputs[name].dtype) for name, mask in masks.items()}
        is_of_picture = part.name in (VAE_ENCODER, IMAGE_ENCODER)
        part_inputs[part.name] = [picture] if is_of_picture else arguments
    inputs |= model.fixed_rows()
    state = torch.from_numpy(initial_noise(0, inputs[plan.state].shape))
    inputs[plan.state] = state * compiled.sampler.init_noise_sigma
    return TrialInputs(inputs, part_inputs)


def _token_ids(model: SizedModel, part: Part) -> dict[str, torch.Tensor]:
    """Returns the tokens of PROMPT, after an empty prompt for each unconditional row."""
    rows, _ = part.examples[0].shape
    texts = ([""] * (rows // 2) + [PROMPT] * rows)[:rows]
    encoding = model.text_encoding
    assert encoding is not None, "a text encoder that is not known"
    return encoding.tokenize(texts)


def _picture(parts: Sequence[Part]) -> torch.Tensor:
    """Returns a picture of random colours in the size of the VAE encoder, or an empty tensor."""
    shapes = [part.examples[0].shape for part in parts if part.name == VAE_ENCODER]
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shapes[0] if shapes else (0,), generator=generator) * 2 - 1
