"""The pipeline's other parts as graphs: text encoders and VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import fx, nn

from dipgo.common.errors import DipgoError
from dipgo.compiler.compile import Compiled
from dipgo.compiler.request import Prepared
from dipgo.compiler.trace.dtypes import tensor_type
from dipgo.compiler.trace.precision import FP32, Precision
from dipgo.compiler.trace.trace import trace
from dipgo.ir.graph import Dependence
from dipgo.ir.types import Value
from dipgo.models.families.unet_inputs import MASK
from dipgo.models.family import PipelinePart
from dipgo.models.model import SizedModel
from dipgo.models.text_encoding import TextEncoding
from dipgo.models.vae import example_picture

TEXT_ENCODER, IMAGE_ENCODER = "text_encoder", "image_encoder"

VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"

PrecisionOf: TypeAlias = Callable[[str], Precision]


@dataclass(frozen=True)
class Part:
    """A graph to lower, with an example of each of its inputs."""

    name: str
    module: fx.GraphModule
    examples: tuple[torch.Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    precision: Precision
    source: nn.Module
    """The module that was traced."""
    exact: fx.GraphModule
    """The same graph with its weights in fp32, to be run by `dipgo.compiler.oracle.Exact`."""


def make_parts(prepared: Prepared, compiled: Compiled, precision_of: PrecisionOf) -> list[Part]:
    """Returns the pipeline's other parts; an architecture alone has no parts."""
    if prepared.source.pipeline is None:
        return []
    model = prepared.source.at(prepared.geometry)
    state = next(value for value in compiled.plan.inputs if value.name == compiled.plan.state)
    latents = torch.zeros(state.type.shape)
    from_image = prepared.schedule.strength is not None or MASK in model.conditioning
    parts = [
        trace_part(part, precision_of(part.name)) for part in _parts_of(model, latents, from_image)
    ]
    wanted = {value.name: value.type.shape for value in compiled.plan.inputs}
    for value in (value for part in parts for value in part.outputs):
        if value.type.shape != wanted.get(value.name, value.type.shape):
            raise DipgoError(
                f"model {prepared.source.name}, {value.name}",
                found=f"{list(value.type.shape)} from the pipeline's encoders",
                expected=f"{list(wanted[value.name])}, which the denoiser takes",
                remedy="use encoders and options of the pipeline that belong to its denoiser",
            )
    return parts


def _parts_of(
    model: SizedModel, latents: torch.Tensor, from_image: bool = False
) -> Iterator[PipelinePart]:
    """Yields the models of a pipeline besides its denoiser.

    A text encoder is yielded only if its outputs are the denoiser's conditioning, a VAE encoder
    only if a run starts from pictures.

    Args:
        model: The sized model; it has a pipeline.
        latents: An example of the state, f32[B, C, h, w] for pictures.
        from_image: Whether a run starts from pictures.
    """
    encoding, vae = model.text_encoding, model.vae
    if encoding is not None and set(encoding.outputs) <= set(model.conditioning):
        yield text_encoder_part(encoding, model.geometry.rows)
    yield from model.parts(latents)
    if vae is not None and from_image:
        picture = {"image": example_picture(vae, latents)}
        encoder = model.encoder(vae)
        yield PipelinePart(VAE_ENCODER, encoder, picture, (encoder.output,))
    if vae is not None:
        decoder = model.decoder(vae, latents)
        yield PipelinePart(VAE_DECODER, decoder, {"latents": latents}, ("image",))


def text_encoder_part(encoding: TextEncoding, rows: int) -> PipelinePart:
    """Returns all text encoders of a pipeline as one part, for `rows` rows.

    Its example is an empty text in each row: a mask of zeros would leave nothing to attend to.
    """
    examples = encoding.tokenize([""] * rows)
    return PipelinePart(TEXT_ENCODER, encoding.module, examples, encoding.outputs)


def trace_part(part: PipelinePart, precision: Precision = FP32) -> Part:
    """Returns the part as a graph that computes in `precision`; its inputs keep their types.

    It is traced like a denoiser without blocks, and all its inputs count as state. A second output
    takes the place of the unconditional half of a denoiser's output.
    """
    module, examples = part.module, part.examples
    typed = Precision(precision.name)  # modules to keep in fp32 are the denoiser's
    traced = trace(
        module.eval(),
        examples,
        dict.fromkeys(examples, Dependence.STATE),
        (),
        model_class=type(module).__name__,
        config_sha256="",
        prefix=f"{module.wrapped}.",
        precision=typed,
    )
    graph = traced.graph
    results = [result for result in (graph.output, graph.unconditional) if result is not None]
    nodes = [node.name for node in graph.nodes]
    return Part(
        part.name,
        traced.module(nodes, list(examples), results),
        tuple(examples.values()),
        tuple(Value(name, tensor_type(tensor)) for name, tensor in examples.items()),
        tuple(
            Value(name, graph.types[result])
            for name, result in zip(part.outputs, results, strict=True)
        ),
        typed,
        module,
        traced.module(nodes, list(examples), results, exact=True),
    )
