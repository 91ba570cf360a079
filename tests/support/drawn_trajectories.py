"""Draws schedulers with options, steps, strengths and tasks, and runs them by diffusers and by us.

diffusers' own pipeline runs a tiny denoiser. We read the sampler off with the same settings, and
carry its recurrence out with the same denoiser, noise and conditioning.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import (
    DDPMPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from dipgo.common.errors import DipgoError
from dipgo.common.warn import DipgoWarning
from dipgo.common.torch_noise import PictureNoise
from dipgo.compiler.front import fit_schedule
from dipgo.compiler.request import Schedule
from dipgo.compiler.sampler.schedulers import choose_scheduler
from dipgo.ir.sampler import Sampler, Term
from dipgo.models.guided import guided_denoiser
from dipgo.models.model import Source
from dipgo.models.source import load_source
from dipgo.run.latents import draw_latents
from tests.support.compare import relative_error
from tests.support.tiny_pipeline import tiny_vae

SIDE, TOKENS, WIDTH = 8, 3, 8
"""Height and width in latents, and the shape of the text's hidden states."""

PIXELS = 4 * SIDE

SEED, SCALE = 5, 3.0

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """A pipeline of diffusers around a tiny model, and the arguments to call it with."""

    pipeline: Any
    call: dict[str, Any]
    conditioning: Tensors
    from_picture: bool = False
    takes_mask: bool = False
    takes_eta: bool = False
    global_noise: bool = False
    """Whether its scheduler draws from torch's global generator."""


@dataclass(frozen=True)
class Case:
    """A drawn trajectory."""

    task: str
    scheduler: str
    options: dict[str, Any]
    steps: int
    strength: float | None = None
    eta: float = 0.0

    def make_scheduler(self) -> Any:
        return getattr(diffusers, self.scheduler)(**self.options)


def _text(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, TOKENS, WIDTH)


def _unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=2,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        **more,
    )


def _stable_diffusion(cls: Any, unet: Any, **more: Any) -> Any:
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    encoders = {"text_encoder": None, "tokenizer": None}
    return cls(vae=tiny_vae(), unet=unet, scheduler=None, **encoders, **parts, **more)


def _unet_task(cls: Any, **flags: Any) -> Task:
    text, none = _text(), _text()
    call = {"prompt_embeds": text, "negative_prompt_embeds": none, "guidance_scale": SCALE}
    unet = _unet(in_channels=9 if flags.get("takes_mask") else 4)
    conditioning = {"encoder_hidden_states": torch.cat([none, text])}
    return Task(_stable_diffusion(cls, unet), call, conditioning, takes_eta=True, **flags)


def _lcm_task(cls: Any, **flags: Any) -> Task:
    text = _text()
    pipeline = _stable_diffusion(cls, _unet(time_cond_proj_dim=6))
    scale = pipeline.get_guidance_scale_embedding(torch.tensor([SCALE - 1]), 6)
    call = {"prompt_embeds": text, "guidance_scale": SCALE}
    conditioning = {"encoder_hidden_states": text, "timestep_cond": scale}
    return Task(pipeline, call, conditioning, **flags)


def _sd3_task(cls: Any, **flags: Any) -> Task:
    transformer = SD3Transformer2DModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=8,
        pooled_projection_dim=5,
        pos_embed_max_size=8,
    )
    names = [f"{part}{suffix}" for part in ("text_encoder", "tokenizer") for suffix in SUFFIXES]
    parts = dict.fromkeys(names)
    vae = tiny_vae()
    vae.register_to_config(shift_factor=0.2)
    pipeline = cls(transformer=transformer, vae=vae, scheduler=None, **parts)
    text, none, pooled, no_pooled = _text(), _text(), torch.randn(1, 5), torch.randn(1, 5)
    call = {"prompt_embeds": text, "negative_prompt_embeds": none, "guidance_scale": SCALE}
    call |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": no_pooled}
    conditioning = {
        "encoder_hidden_states": torch.cat([none, text]),
        "pooled_projections": torch.cat([no_pooled, pooled]),
    }
    return Task(pipeline, call, conditioning, global_noise=True, **flags)


SUFFIXES = ("", "_2", "_3")


def _flux_task() -> Task:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=5,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    pipeline = FluxPipeline(
        transformer=transformer, vae=tiny_vae(), scheduler=None, **dict.fromkeys(parts)
    )
    text, pooled = _text(), torch.randn(1, 5)
    call = {"prompt_embeds": text, "pooled_prompt_embeds": pooled, "guidance_scale": SCALE}
    conditioning = {"encoder_hidden_states": text, "pooled_projections": pooled}
    conditioning |= {"guidance": torch.tensor([SCALE])}
    return Task(pipeline, call, conditioning, global_noise=True)


def _dit_task() -> Task:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=SIDE,
        num_embeds_ada_norm=1000,
        norm_num_groups=2,
    )
    pipeline = DiTPipeline(transformer, tiny_vae(), None)
    labels = {"class_labels": torch.tensor([1000, 3])}
    return Task(pipeline, {"class_labels": [3], "guidance_scale": SCALE}, labels, global_noise=True)


def _unconditional_task(predicted: int) -> Task:
    unet = UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=predicted,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
    )
    pipeline = DDPMPipeline(unet, diffusers.DDPMScheduler())
    return Task(pipeline, {}, {})


TASKS: dict[str, Callable[[], Task]] = {
    "text": lambda: _unet_task(StableDiffusionPipeline),
    "picture": lambda: _unet_task(StableDiffusionImg2ImgPipeline, from_picture=True),
    "inpainting": lambda: _unet_task(StableDiffusionInpaintPipeline, takes_mask=True),
    "lcm text": lambda: _lcm_task(LatentConsistencyModelPipeline),
    "lcm picture": lambda: _lcm_task(LatentConsistencyModelImg2ImgPipeline, from_picture=True),
    "sd3 text": lambda: _sd3_task(StableDiffusion3Pipeline),
    "sd3 picture": lambda: _sd3_task(StableDiffusion3Img2ImgPipeline, from_picture=True),
    "flux": _flux_task,
    "dit": _dit_task,
    "unconditional": lambda: _unconditional_task(3),
    "unconditional, variance": lambda: _unconditional_task(6),
}


@cache
def task(name: str) -> Task:
    """Returns a task; its model is made once."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = TASKS[name]()
    for part in made.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    made.pipeline.set_progress_bar_config(disable=True)
    return made


CHOICES: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "use_karras_sigmas": (True,),
    "use_exponential_sigmas": (True,),
    "use_beta_sigmas": (True,),
    "use_flow_sigmas": (True,),
    "use_lu_lambdas": (True,),
    "rescale_betas_zero_snr": (True,),
    "final_sigmas_type": ("zero", "sigma_min"),
    "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"),
    "solver_type": ("midpoint", "heun", "bh1", "bh2"),
    "solver_order": (1, 2, 3),
    "lower_order_final": (False, True),
    "euler_at_final": (True,),
    "variance_type": ("fixed_small", "fixed_large", "learned", "learned_range"),
    "invert_sigmas": (True,),
    "use_dynamic_shifting": (True,),
    "time_shift_type": ("exponential", "linear"),
    "shift": (1.0, 3.0),
    "flow_shift": (3.0,),
    "stochastic_sampling": (True,),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "thresholding": (True,),
    "skip_prk_steps": (True, False),
    "set_alpha_to_one": (False, True),
    "steps_offset": (0, 1),
    "beta_schedule": ("linear", "scaled_linear"),
}
"""Values of the options of schedulers."""

OTHER_STEPS = (
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "CogVideoXDPMScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "KarrasVeScheduler",
    "RePaintScheduler",
    "SCMScheduler",
    "ScoreSdeVeScheduler",
    "VQDiffusionScheduler",
)
"""Schedulers of other loops than a denoiser's."""


def scheduler_names() -> list[str]:
    """Returns the schedulers that diffusers has for this environment."""
    names = []
    for name in sorted(dir(diffusers)):
        if not name.endswith("Scheduler") or name.startswith("Flax") or name in OTHER_STEPS:
            continue
        cls = getattr(diffusers, name)
        if isinstance(cls, type) and not getattr(cls, "_backends", ()):
            names.append(name)
    return names


def draw_cases(count: int, seed: int, **fixed: Any) -> Iterator[Case]:
    """Yields drawn cases, of which a scheduler's own constructor takes the options."""
    chance = random.Random(seed)
    names = scheduler_names()
    while count:
        case = draw_case(chance, names, **fixed)
        try:
            case.make_scheduler()
        except (ValueError, NotImplementedError, TypeError):  # options that exclude one another
            continue
        count -= 1
        yield case


def draw_case(chance: random.Random, names: list[str], **fixed: Any) -> Case:
    name = fixed.get("scheduler") or chance.choice(names)
    if "task" in fixed:  # more often those that the task is for
        weights = [1 + 4 * _tasks_of(name).count(fixed["task"]) for name in names]
        (name,) = chance.choices(names, weights)
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    options: dict[str, Any] = {
        option: False for option in ("clip_sample", "clip_denoised") if option in parameters
    }
    allowed = [option for option in CHOICES if option in parameters]
    for option in chance.sample(allowed, min(len(allowed), chance.choice((0, 1, 2, 3)))):
        options[option] = chance.choice(CHOICES[option])
    task_name = fixed.get("task") or chance.choice(_tasks_of(name))
    takes = TASK_FLAGS[task_name]
    strength = chance.choice((0.3, 0.5, 0.8, 1.0)) if "picture" in takes else None
    if "mask" in takes:
        strength = chance.choice((None, 0.5, 0.8, 1.0))
    eta = chance.choice((0.0, 0.6)) if "eta" in takes else 0.0
    if "eta" not in inspect.signature(getattr(diffusers, name).step).parameters:
        eta = 0.0
    steps = chance.choice((1, 2, 3, 4, 5, 7, 10, 13, 20))
    return Case(task_name, name, options, steps, strength, eta)


TASK_FLAGS: dict[str, tuple[str, ...]] = {
    "text": ("eta",),
    "picture": ("picture", "eta"),
    "inpainting": ("mask", "eta"),
    "lcm text": (),
    "lcm picture": ("picture",),
    "sd3 text": (),
    "sd3 picture": ("picture",),
    "flux": (),
    "dit": (),
    "unconditional": (),
    "unconditional, variance": (),
}


def _tasks_of(scheduler: str) -> list[str]:
    """Returns tasks, those more often that the scheduler is made for."""
    flow = ["sd3 text", "sd3 picture", "flux"]
    lcm = ["lcm text", "lcm picture"]
    others = ["text", "picture", "picture", "inpainting", "inpainting", "dit"]
    others += ["unconditional", "unconditional, variance"]
    if "Flow" in scheduler or "LTX" in scheduler:
        return 4 * flow + lcm + others
    if scheduler.startswith(("LCM", "TCD")):
        return 4 * lcm + flow + others
    return flow + lcm + 2 * others


@dataclass(frozen=True)
class Outcome:
    """What came of a case: diffusers' latents or error, and ours."""

    case: Case
    expected: torch.Tensor | Exception
    found: torch.Tensor | Exception
    warned: bool = False
    """Whether we say that the pipeline uses the scheduler in another way than is meant."""

    @property
    def error(self) -> float:
        assert isinstance(self.expected, torch.Tensor)
        assert isinstance(self.found, torch.Tensor)
        return relative_error(self.found, self.expected)

    def verdict(self, tolerance: float) -> str:
        """Returns agrees, refused, warned, both (fail), accepted, wrong or crash.

        Refused is what diffusers runs, accepted what it cannot run, or not to finite numbers.
        """
        if isinstance(self.found, Exception):
            if not isinstance(self.found, DipgoError):
                return "crash"
            return "both" if isinstance(self.expected, Exception) else "refused"
        if isinstance(self.expected, Exception):
            return "accepted"
        if self.warned:
            return "warned"
        return "agrees" if self.error <= tolerance else "wrong"


@torch.no_grad()
def compare(case: Case) -> Outcome:
    """Runs a case by diffusers' pipeline and by ours."""
    expected = _result(run_diffusers, case)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = _result(run_ours, case)
    is_warned = any(issubclass(one.category, DipgoWarning) for one in warned)
    return Outcome(case, expected, found, is_warned)


def _result(run: Callable[[Case], torch.Tensor], case: Case) -> torch.Tensor | Exception:
    state = torch.random.get_rng_state()
    try:
        result = run(case)
    except Exception as error:
        return error
    finally:
        torch.random.set_rng_state(state)
    return result if result.isfinite().all() else ValueError("latents that are not finite")


def _picture() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a picture f32[1, 3, H, W] and a mask f32[1, 1, H, W], in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 3, PIXELS, PIXELS, generator=generator)
    return picture, (torch.rand(1, 1, PIXELS, PIXELS, generator=generator) > 0.5).float()


class _Steps:
    """Records what a scheduler's steps return, as a pipeline calls them."""

    def __init__(self, scheduler: Any) -> None:
        self.latest: Any = None
        step = scheduler.step

        def recorded(*arguments: Any, **keywords: Any) -> Any:
            self.latest = step(*arguments, **keywords)
            return self.latest

        recorded.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
        scheduler.step = recorded


def run_diffusers(case: Case) -> torch.Tensor:
    """Returns the latents of diffusers' pipeline."""
    made = task(case.task)
    pipeline, call = made.pipeline, dict(made.call)
    pipeline.scheduler = case.make_scheduler()
    steps = _Steps(pipeline.scheduler)
    torch.manual_seed(SEED)
    generator = None if made.global_noise else torch.Generator().manual_seed(SEED)
    picture, mask = _picture()
    if made.takes_mask:
        call |= {"image": picture, "mask_image": mask, "height": PIXELS, "width": PIXELS}
        call["strength"] = 1.0 if case.strength is None else case.strength
    elif made.from_picture:
        call |= {"image": picture, "strength": case.strength}
    if made.takes_eta:
        call["eta"] = case.eta
    if case.task == "flux":
        call |= {"height": PIXELS, "width": PIXELS}
    if "embeds" in " ".join(call):
        call["output_type"] = "latent"
    pipeline(num_inference_steps=case.steps, generator=generator, **call)
    latest = steps.latest
    result: torch.Tensor = latest[0] if isinstance(latest, tuple) else latest.prev_sample
    return result.chunk(2)[0] if case.task == "dit" else result


def sampler_of(case: Case) -> tuple[Source, Any, Sampler]:
    """Returns our reading of a case's model and scheduler, as `export` makes it."""
    made = task(case.task)
    made.pipeline.scheduler = case.make_scheduler()
    source = load_source(made.pipeline)
    schedule = Schedule(None, case.steps, None, (), case.eta or None, case.strength)
    geometry = source.geometry(1, *((PIXELS, PIXELS) if case.task == "flux" else (0, 0)))
    source.check_geometry(geometry, from_picture=case.strength is not None)
    choose_scheduler(source.scheduler, schedule)
    return source, geometry, fit_schedule(source, schedule, geometry).sampler


def run_ours(case: Case) -> torch.Tensor:
    """Returns the latents of the sampler's recurrence, around the same denoiser."""
    made = task(case.task)
    source, geometry, sampler = sampler_of(case)
    sized = source.at(geometry)
    noise, shape = PictureNoise(SEED), sized.latent_shape[1:]
    picture, mask = _picture()
    vae = getattr(made.pipeline, "vae", None)
    start = _encoded(vae, 2 * picture - 1, noise) if sampler.start.strength is not None else 0.0
    packed = (SIDE // 2, SIDE // 2) if case.task == "flux" else None
    first = torch.from_numpy(draw_latents(noise, 1, shape, packed))
    first = sampler.start.image_scale * start + np.float32(sampler.start.noise_scale) * first
    conditioning = dict(made.conditioning)
    if made.takes_mask:
        masked = _encoded(vae, (2 * picture - 1) * (mask < 0.5), noise)
        small = torch.nn.functional.interpolate(mask, size=(SIDE, SIDE))
        conditioning |= {"mask": small.repeat(2, 1, 1, 1)}
        conditioning |= {"masked_image_latents": masked.repeat(2, 1, 1, 1)}
    rows = 2 if case.task == "dit" else 1  # DiT's pipeline draws for both halves of guidance
    drawn = noise.draw_those((rows, *shape), {index - 1 for index in sampler.draws})
    draws = {index + 1: torch.from_numpy(array[:1]) for index, array in drawn.items()}
    module = guided_denoiser(source.family, source.denoiser, geometry)
    rest = [conditioning[name] for name in module.names]
    rest += [torch.tensor(SCALE)] if geometry.guidance else []

    def model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        prediction: torch.Tensor = module(latents, torch.tensor(timestep), *rest)[0]
        return prediction

    return carry_out(sampler, first, model, draws)


def _encoded(vae: Any, picture: torch.Tensor, noise: PictureNoise) -> torch.Tensor:
    posterior = vae.encode(picture, return_dict=False)[0]
    drawn = torch.from_numpy(noise.draw(tuple(posterior.mean.shape)))
    sample = posterior.mean + posterior.std * drawn
    scaled: torch.Tensor = (sample - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return scaled


def carry_out(
    sampler: Sampler, noise: torch.Tensor, model: Any, draws: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Returns the final latents of a recurrence, computed in float32 as plans are."""
    values: dict[str, Any] = {"noise": [noise], "input": [], "output": [], "draw": draws}

    def total(terms: tuple[Term, ...]) -> torch.Tensor:
        parts = [term.coefficient * values[term.kind][term.index] for term in terms]
        return torch.stack(parts).sum(dim=0)

    for row, terms in zip(sampler.rows, sampler.inputs, strict=True):
        values["input"].append(total(terms))
        values["output"].append(model(values["input"][-1], sampler.timesteps[row]))
    return total(sampler.result)
