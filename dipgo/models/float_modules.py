"""Copies a pipeline's modules with weights in float32, the type in which every model is traced.

Model cards load pipelines in float16 or bfloat16, and files may store one part in another type than
the rest. Narrow floats are float32 numbers too, so that nothing is lost; a narrow export rounds
them to the same numbers again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dipgo.common.errors import DipgoError
from dipgo.models.own_copy import own_copy


def with_float_modules(pipeline: Any) -> Any:
    """Returns the pipeline if all its modules are of float32, else a copy whose modules are.

    The pipeline that is passed in and its modules stay as they are; modules of float32 and tensors
    that are no floats are in the copy too.

    Raises:
        DipgoError: A module's weights are quantised, or are not there, or its code holds modules of
            the pipeline.
    """
    found = {name: part for name, part in vars(pipeline).items() if isinstance(part, nn.Module)}
    for name, module in found.items():
        _check_weights(name, module)
    others = {name: module for name, module in found.items() if _is_other(module)}
    if not others:
        return pipeline
    copied = copy.copy(pipeline)
    for name, module in others.items():
        setattr(copied, name, float_module(module, name))
    return copied


def float_module(module: nn.Module, name: str) -> nn.Module:
    """Returns a copy whose floating-point tensors are of float32; other tensors are shared.

    A tensor that the module holds in several places is one tensor in the copy.

    Raises:
        DipgoError: As of `own_copy`; it names the module by `name`.
    """
    made: dict[int, Any] = {}
    for tensor in _tensors(module):
        if type(tensor) in (Tensor, nn.Parameter) and id(tensor) not in made:
            made[id(tensor)] = _float_tensor(tensor)
    return own_copy(module, name, made)


def _check_weights(name: str, module: nn.Module) -> None:
    for path, weight in module.named_parameters():
        problem = ""
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            problem = f"a quantised weight ({type(weight).__name__} of {weight.dtype})"
        elif weight.is_meta:
            problem = "a weight without numbers, on the device meta"
        if problem:
            raise DipgoError(
                f"{name}, {path}",
                found=problem,
                expected="weights of floating-point numbers",
                remedy="load the pipeline without quantisation and offloading",
            )


def _float_tensor(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    numbers = tensor.detach().float()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(numbers, requires_grad=tensor.requires_grad)
    return numbers


def _is_other(module: nn.Module) -> bool:
    """Returns whether the module has a parameter or buffer of another float type."""
    tensors = (*module.parameters(), *module.buffers())
    return any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yields parameters, buffers and plain attributes that are tensors."""
    for part in module.modules():
        yield from part.parameters(recurse=False)
        yield from part.buffers(recurse=False)
        yield from (value for value in vars(part).values() if isinstance(value, Tensor))
