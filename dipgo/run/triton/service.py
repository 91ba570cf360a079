"""Answers a server's requests with an export directory: named arrays in, named arrays out.

Nothing of Triton's is imported. The server has checked names, types and shapes against
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
from dipgo.engines.load import load
from dipgo.engines.onnxruntime.session import SessionSettings, check_provider
from dipgo.engines.runner import Runner
from dipgo.run.pipeline import Pipeline
from dipgo.run.triton.layout import CONFIG_FILE, INSTANCE_KINDS, takes_prompts

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

Service: TypeAlias = Callable[[Arrays], Arrays]
"""Answers one request. Raises DipgoError."""


def load_service(export: Path, args: Mapping[str, str]) -> Service:
    """The service of an export directory; `args` are what Triton gives `initialize`.

    Raises DipgoError.
    """
    settings = settings_of(args)
    runner = load(export, provider=settings.provider, threads=settings.threads)
    if not takes_prompts(runner.export.manifest):
        return lambda arrays: answer_plan(runner, arrays)
    pipeline = Pipeline(runner)
    return lambda arrays: answer_prompts(pipeline, arrays)


def settings_of(args: Mapping[str, str]) -> SessionSettings:
    """The parameters `provider` (cpu) and `threads` (0) of config.pbtxt. Raises DipgoError."""
    parameters = json.loads(args["model_config"]).get("parameters", {})
    given = {name: value["string_value"] for name, value in parameters.items()}
    provider, threads = given.get("provider", "cpu"), given.get("threads", "0")
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
    """Else Triton would count on one device while the engines take another."""
    kind, device = args["model_instance_kind"], args["model_instance_device_id"]
    expected = INSTANCE_KINDS[provider]
    if kind != expected or (kind == "GPU" and device != "0"):
        gpus = " with gpus: [ 0 ]" if expected == "GPU" else ""
        raise DipgoError(
            f"{CONFIG_FILE}, instance_group",
            found=f"KIND_{kind}, device {device}, for the provider {provider}",
            expected=f"KIND_{expected}{gpus}",
            remedy="change the instance_group, or the parameter provider",
        )


def answer_plan(runner: Runner, arrays: Arrays) -> Arrays:
    """The runner's own inputs, scalars as vectors of one, to `latents` f32[B, C, h, w]."""
    scalars = {name for name, kind in runner.inputs.items() if kind.shape == ()}
    return runner.run(
        {
            name: array.reshape(()) if name in scalars and array.size == 1 else array
            for name, array in arrays.items()
        }
    )


def answer_prompts(pipeline: Pipeline, arrays: Arrays) -> Arrays:
    """`image` u8[H, W, 3], or u8[B, H, W, 3] of an export for several pictures."""
    arguments = {name: _READERS[name](name, array) for name, array in arrays.items()}
    pictures = np.stack([np.asarray(one) for one in pipeline(**arguments).images])
    return {"image": pictures[0] if pipeline.manifest.batch == 1 else pictures}


def _texts(name: str, array: NDArray[Any]) -> list[str]:
    """Triton's strings are bytes of any kind."""
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
