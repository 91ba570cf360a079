"""Answers a server's requests with an export directory: named arrays in, named arrays out.

This module imports nothing of Triton's. The server has checked names, types and shapes against
config.pbtxt before a request comes here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError
from dipgo.engines.finite import check_finite
from dipgo.engines.load import load
from dipgo.engines.onnxruntime.session import SessionSettings, check_provider
from dipgo.engines.runner import Runner
from dipgo.run.pipeline import Pipeline
from dipgo.run.triton.layout import CONFIG_FILE, INSTANCE_KINDS, takes_prompts

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

Service: TypeAlias = Callable[[Arrays], Arrays]
"""A function that answers one request, or raises DipgoError."""


def load_service(export: Path, args: Mapping[str, str]) -> Service:
    """Returns the service of an export directory.

    Args:
        export: The export directory.
        args: The arguments of Triton's `initialize`.

    Raises:
        DipgoError: The export cannot be loaded as config.pbtxt says.
    """
    settings = settings_of(args)
    runner = load(export, provider=settings.provider, threads=settings.threads)
    if not takes_prompts(runner.export.manifest):
        return lambda arrays: answer_plan(runner, arrays)
    pipeline = Pipeline(runner)
    return lambda arrays: answer_prompts(pipeline, arrays)


def settings_of(args: Mapping[str, str]) -> SessionSettings:
    """Reads the parameters `provider` (default cpu) and `threads` (default 0) of config.pbtxt.

    Raises:
        DipgoError: A parameter is wrong, or does not match the instance group.
    """
    parameters = json.loads(args["model_config"]).get("parameters", {})
    settings = {name: value["string_value"] for name, value in parameters.items()}
    provider, threads = settings.get("provider", "cpu"), settings.get("threads", "0")
    check_provider(provider)
    if not threads.isdecimal():
        raise DipgoError(
            f"{CONFIG_FILE}, parameter threads",
            found=repr(threads),
            expected="a whole number, at least 0",
            remedy="0 takes every core",
        )
    _check_instance(provider, args)
    return SessionSettings(provider, int(threads))


def _check_instance(provider: str, args: Mapping[str, str]) -> None:
    """Checks that Triton counts on the device that the engines use."""
    instance_kind, device = args["model_instance_kind"], args["model_instance_device_id"]
    expected = INSTANCE_KINDS[provider]
    if instance_kind != expected or (instance_kind == "GPU" and device != "0"):
        gpus = " with gpus: [ 0 ]" if expected == "GPU" else ""
        raise DipgoError(
            f"{CONFIG_FILE}, instance_group",
            found=f"KIND_{instance_kind}, device {device}, for the provider {provider}",
            expected=f"KIND_{expected}{gpus}",
            remedy="change the instance_group, or the parameter provider",
        )


def answer_plan(runner: Runner, arrays: Arrays) -> Arrays:
    """Runs the plan on the runner's own inputs, scalars as vectors of one element.

    Returns:
        `latents` f32[B, C, h, w].

    Raises:
        DipgoError: An input does not fit, or numbers of the result are infinite or NaN.
    """
    scalars = {name for name, tensor_type in runner.inputs.items() if tensor_type.shape == ()}
    answer = runner.run(
        {
            name: array.reshape(()) if name in scalars and array.size == 1 else array
            for name, array in arrays.items()
        }
    )
    return {name: check_finite(name, array) for name, array in answer.items()}


DEFAULT_SEED = 0
"""Of requests without a seed: an answer has no place to say which was drawn."""


def answer_prompts(pipeline: Pipeline, arrays: Arrays) -> Arrays:
    """Runs the pipeline on prompts.

    Returns:
        `image` u8[H, W, 3], or u8[B, H, W, 3] from an export for several pictures.
    """
    arguments = {name: _READERS[name](name, array) for name, array in arrays.items()}
    made = pipeline(**{"seed": DEFAULT_SEED, **arguments})
    pictures = np.stack([np.asarray(picture) for picture in made.images])
    return {"image": pictures[0] if pipeline.manifest.batch == 1 else pictures}


def _texts(name: str, array: NDArray[Any]) -> list[str]:
    """Decodes Triton's strings, which may be any bytes."""
    try:
        return [text.decode() for text in array]
    except UnicodeDecodeError as error:
        raise DipgoError(
            f"input {name}",
            found=f"bytes that are no text ({error.reason} at {error.start})",
            expected="UTF-8",
            remedy="encode the text as UTF-8",
        ) from None


def _number(name: str, array: NDArray[Any]) -> Any:
    return array.item()


_READERS: Mapping[str, Callable[[str, NDArray[Any]], Any]] = {
    "prompt": _texts,
    "negative_prompt": _texts,
    "seed": _number,
    "guidance_scale": _number,
}
