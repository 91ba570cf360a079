"""diffusers' own pipeline: eager, compiled, with caches; and the same pipeline by optimum."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from dipgo.compiler.sampler.probe import make_scheduler
from dipgo.models.source import load_source
from scripts.benchmarks.rivals.task import ROWS, NotPossible, Ready, Task

CACHE_INTERVAL = 3
"""DeepCache's own example; the attention caches are given the same."""
PROMPT = "a red circle"
DEMO = Path(__file__).parents[2] / "examples" / "demo" / "model"


def write_inputs(task: Task) -> None:
    """Noise of seed 0, and what the pipeline makes of a prompt; for an `arch:`, a random one."""
    source = load_source(task.model)
    generator = torch.Generator("cpu").manual_seed(0)
    config: Any = source.denoiser.config
    side = config.sample_size
    latents = torch.randn(1, config.in_channels, side, side, generator=generator)
    if source.pipeline is None:
        width = config.cross_attention_dim
        prompts = [torch.randn(1, source.tokens, width, generator=generator) for _ in ROWS]
    else:
        with torch.no_grad():
            pair = source.pipeline.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt="")
        prompts = [pair[1], pair[0]]
    negative, positive = (prompt.numpy() for prompt in prompts)
    path = Path(task.folder) / "inputs.npz"
    np.savez(path, latents=latents.numpy(), negative=negative, positive=positive)


def pipeline_of(task: Task, dtype: torch.dtype = torch.float32) -> Any:
    """Stable Diffusion's pipeline with the denoiser alone: no text encoder, no VAE."""
    from diffusers import StableDiffusionPipeline

    source = load_source(task.model)
    pipeline = StableDiffusionPipeline(
        unet=source.denoiser.to(dtype),
        scheduler=make_scheduler(source.scheduler, task.scheduler),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ready(task: Task, pipeline: Any, dtype: torch.dtype = torch.float32) -> Ready:
    """The pipeline, called as its users call it."""
    given = {name: torch.from_numpy(one).to(dtype) for name, one in task.inputs.items()}
    prompts = {"prompt_embeds": given["positive"]}
    if task.guidance:
        prompts["negative_prompt_embeds"] = given["negative"]

    def run(steps: int) -> np.ndarray:
        found = pipeline(
            **prompts,
            latents=given["latents"],
            num_inference_steps=steps,
            guidance_scale=task.guidance_scale,
            output_type="latent",
        ).images
        return np.asarray(torch.as_tensor(found).float().numpy())

    return Ready(lambda: run(task.steps), lambda: run(1))


def eager(task: Task) -> Ready:
    """As it is."""
    return ready(task, pipeline_of(task))


def eager_bf16(task: Task) -> Ready:
    """Weights and latents in bf16."""
    return ready(task, pipeline_of(task, torch.bfloat16), torch.bfloat16)


def compiled(task: Task) -> Ready:
    """`torch.compile` of the denoiser, in the warm-up."""
    pipeline = pipeline_of(task)
    pipeline.unet = torch.compile(pipeline.unet)
    return ready(task, pipeline)


def deepcache(task: Task) -> Ready:
    """The authors' package, at the interval of its own example."""
    _import("DeepCache", "pip install DeepCache")
    from DeepCache import DeepCacheSDHelper

    pipeline = pipeline_of(task)
    helper = DeepCacheSDHelper(pipe=pipeline)
    helper.set_params(cache_interval=CACHE_INTERVAL, cache_branch_id=0)
    helper.enable()
    return ready(task, pipeline)


def _with_hook(apply: Callable[[Any, Callable[[], int]], None]) -> Callable[[Task], Ready]:
    """Stable Diffusion's pipeline tells no timestep and resets no hooks, so that is done here."""

    def make(task: Task) -> Ready:
        from diffusers.hooks import HookRegistry

        pipeline, latest = pipeline_of(task), [0]

        def remember(module: Any, arguments: tuple[Any, ...]) -> None:
            latest[0] = int(arguments[1])

        pipeline.unet.register_forward_pre_hook(remember)
        apply(pipeline.unet, lambda: latest[0])
        loaded, hooks = ready(task, pipeline), HookRegistry.check_if_exists_or_initialize

        def fresh(run: Callable[[], Any]) -> Any:
            hooks(pipeline.unet).reset_stateful_hooks()
            return run()

        return Ready(lambda: fresh(loaded.run), lambda: fresh(loaded.warm_up))

    return make


def _pyramid(denoiser: Any, timestep: Callable[[], int]) -> None:
    from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast

    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=CACHE_INTERVAL,
        cross_attention_block_skip_range=CACHE_INTERVAL,
        current_timestep_callback=timestep,
    )
    apply_pyramid_attention_broadcast(denoiser, config)


def _faster(denoiser: Any, timestep: Callable[[], int]) -> None:
    from diffusers.hooks import FasterCacheConfig, apply_faster_cache

    config = FasterCacheConfig(
        spatial_attention_block_skip_range=CACHE_INTERVAL,
        current_timestep_callback=timestep,
        tensor_format="BCHW",
    )
    apply_faster_cache(denoiser, config)


def _first_block(denoiser: Any, timestep: Callable[[], int]) -> None:
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    try:
        apply_first_block_cache(denoiser, FirstBlockCacheConfig(threshold=0.05))
    except IndexError:  # it takes the first of no blocks
        raise NotPossible("it finds no transformer blocks in this denoiser") from None


def optimum(task: Task) -> Ready:
    """optimum-onnx's export of the same pipeline, on ONNX Runtime's CPU provider."""
    _import("optimum.onnxruntime", "pip install dipgo[optimum]")
    import onnxruntime
    from optimum.onnxruntime import ORTStableDiffusionPipeline

    exported = Path(task.folder) / "optimum"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    if not exported.exists():
        whole = _whole_pipeline(task)
        ORTStableDiffusionPipeline.from_pretrained(whole, export=True).save_pretrained(exported)
    pipeline = ORTStableDiffusionPipeline.from_pretrained(exported, session_options=options)
    pipeline.scheduler = make_scheduler(pipeline.scheduler, task.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return ready(task, pipeline)


def _whole_pipeline(task: Task) -> str:
    """What optimum's exporter wants: an `arch:` is given small parts that are never run."""
    from diffusers import DiffusionPipeline, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    source = load_source(task.model)
    if source.pipeline is not None:
        return task.model
    parts = DiffusionPipeline.from_pretrained(DEMO)
    width = cast(Any, source.denoiser.config).cross_attention_dim
    config = CLIPTextConfig(vocab_size=len(parts.tokenizer), hidden_size=width, num_hidden_layers=1)
    whole = Path(task.folder) / "pipeline"
    StableDiffusionPipeline(
        unet=source.denoiser,
        scheduler=source.scheduler,
        vae=parts.vae,
        text_encoder=CLIPTextModel(config),
        tokenizer=parts.tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(whole)
    return str(whole)


def _import(module: str, remedy: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise NotPossible(f"{error}: {remedy}") from None


VARIANTS: dict[str, Callable[[Task], Ready]] = {
    "eager": eager,
    "eager bf16": eager_bf16,
    "torch.compile": compiled,
    "DeepCache": deepcache,
    "pyramid attention": _with_hook(_pyramid),
    "FasterCache": _with_hook(_faster),
    "first block": _with_hook(_first_block),
    "optimum": optimum,
}
