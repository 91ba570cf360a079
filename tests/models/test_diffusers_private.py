"""What `diffusers_private` relies on is in the diffusers that is installed; each name is a test."""

from __future__ import annotations

import inspect
from pathlib import Path

import diffusers
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.hooks import HookRegistry
from diffusers.utils import dummy_torch_and_scipy_objects as dummies
from torch import nn

from dipgo.models import diffusers_private
from tests.support.private_names import private_names, read

COMPILED = torch.compile(nn.Linear(1, 1), backend="eager")
CACHED = nn.Linear(1, 1)
HookRegistry.check_if_exists_or_initialize(CACHED)
OFFLOADED = add_hook_to_module(nn.Linear(1, 1), ModelHook())

FILE = Path(inspect.getfile(diffusers_private))
MEMBERS = {
    "_lora_loadable_modules": diffusers.StableDiffusionPipeline,
    "_compatibles": diffusers.DDIMScheduler,
    "_backends": dummies.LMSDiscreteScheduler,
    "_modules": nn.Linear(1, 1),
    "_orig_mod": COMPILED,
    "_compiled_call_impl": nn.Linear(1, 1),
    "_hf_hook": OFFLOADED,
    "_diffusers_hook": CACHED,
}


@pytest.mark.parametrize("name", MEMBERS)
def test_objects_have(name: str) -> None:
    assert hasattr(MEMBERS[name], name)


def test_every_private_name_has_its_test() -> None:
    assert {name for _, name in private_names(read(FILE), set())} == set(MEMBERS)


def test_every_function_says_what_it_relies_on() -> None:
    for name, function in inspect.getmembers(diffusers_private, inspect.isfunction):
        assert "Relies on" in (inspect.getdoc(function) or ""), name


def test_names_of_classes() -> None:
    assert "unet" in diffusers_private.lora_modules(diffusers.StableDiffusionXLPipeline)
    assert "PNDMScheduler" in diffusers_private.compatible_classes(diffusers.DDIMScheduler)
    assert diffusers_private.missing_packages(dummies.LMSDiscreteScheduler) == ["torch", "scipy"]
    assert diffusers_private.missing_packages(diffusers.DDIMScheduler) == []


def test_a_copy_has_its_own_children_and_the_same_weights() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    copied = diffusers_private.with_own_children(module)
    copied.add_module("more", nn.ReLU())
    assert [name for name, _ in module.named_children()] == ["0"]
    assert copied.get_submodule("0") is module[0]
