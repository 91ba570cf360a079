"""Draws what a user may ask for: a pipeline, its scheduler, a task, a SubNet, a call."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from typing import Any

SIDES = (32, 40, 48, 64)
"""Heights and widths in pixels: four a latent pixel, and diffusers wants multiples of eight."""

TASKS: dict[str, tuple[str, ...]] = {
    "sd": ("text", "text", "image", "inpaint", "controlnet", "ip-adapter"),
    "sdxl": ("text", "text", "image", "inpaint", "controlnet"),
    "sd3": ("text", "text", "image"),
    "flux": ("text", "text", "text", "image"),
    "pixart-alpha": ("text",),
    "pixart-sigma": ("text",),
    "lcm": ("text", "image"),
    "dit": ("class",),
    "unconditional": ("none",),
}
"""The tasks of each family; one that stands twice is drawn twice as often."""

FLOW = ("sd3", "flux")
"""Families that predict a flow, with schedulers of their own."""

WITHOUT_LORA = ("pixart-alpha", "pixart-sigma")
"""Families whose pipeline in diffusers loads none."""

NOISE_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "DDIMInverseScheduler",
)
FLOW_SCHEDULERS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
)

SCHEDULER_OPTIONS: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "use_karras_sigmas": (True,),
    "use_exponential_sigmas": (True,),
    "use_beta_sigmas": (True,),
    "final_sigmas_type": ("zero", "sigma_min"),
    "solver_order": (1, 2, 3),
    "solver_type": ("midpoint", "heun", "bh1", "bh2", "logrho"),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"),
    "lower_order_final": (False,),
    "euler_at_final": (True,),
    "rescale_betas_zero_snr": (True,),
    "set_alpha_to_one": (False,),
    "skip_prk_steps": (True,),
    "steps_offset": (0, 1),
    "clip_sample": (True,),
    "thresholding": (True,),
    "variance_type": ("fixed_small", "fixed_large", "learned_range"),
    "interpolation_type": ("log_linear",),
    "timestep_type": ("continuous",),
    "predict_x0": (False,),
    "shift": (1.0, 3.0, 6.0),
    "use_dynamic_shifting": (True,),
    "invert_sigmas": (True,),
    "stochastic_sampling": (True,),
    "shift_terminal": (0.1,),
    "time_shift_type": ("linear",),
}
"""Values besides the default that an option of a scheduler is given, where its class has it."""

FEW, SELDOM = 0.15, 0.02
"""The shares of draws that have what is rare, and what is refused or runs nowhere."""

REFUSED = ("clip_sample", "thresholding", "rescale_betas_zero_snr", "invert_sigmas")
"""Options with which most steps are no linear map, or most schedulers fail."""


@dataclass(frozen=True, slots=True)
class SubNetDraw:
    """A random table of gates over modules that match `patterns`; `share` of the gates is on."""

    patterns: tuple[str, ...]
    backups: tuple[str, ...]
    share: float
    whole_rows: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Draw:
    """A pipeline, how it is exported, and the call that is compared with diffusers.

    `height` and `width` are in pixels. `weights` is the type that the pipeline is loaded in.
    `strength` is for pictures to start from; `subnet` is None for the dense model.
    """

    seed: int
    family: str
    task: str
    scheduler: str
    options: dict[str, Any]
    steps: int
    guidance_scale: float
    guidance: bool
    eta: float
    strength: float
    height: int
    width: int
    batch: int
    prompts: tuple[str, ...]
    negative: tuple[str, ...] | None
    pictures_each: int
    seeds: tuple[int, ...] | int
    lora: bool
    inversion: int
    odd: str
    weights: str
    precision: str
    saved: bool
    subnet: SubNetDraw | None


ODD: dict[str, tuple[str, ...]] = {
    "sd": ("v", "no-mid", "one-level", "wide-text", "scale-shift", "tiny-vae", "fast-tokenizer"),
    "sdxl": ("normalised", "zeros-off", "tiny-vae"),
    "sd3": ("t5", "qk-norm", "dual"),
    "flux": ("schnell", "single"),
    "unconditional": ("gray", "attention"),
    "dit": ("sigma-free",),
}
"""Variants of a family's model, by names that `pipelines` knows."""


def draw_case(seed: int) -> Draw:
    """Returns the draw of a seed, which is always the same."""
    draw = random.Random(seed)
    family = draw.choice([name for name, tasks in TASKS.items() for _ in tasks])
    task = draw.choice(TASKS[family])
    count = draw.choice((1, 1, 1, 2, 3))
    guidance_scale = draw.choice((0.0, 1.0, 1.5, 3.0, 5.0, 7.5, 7.5, 12.0))
    scheduler, options = _draw_scheduler(draw, family)
    pictures_each = 2 if draw.random() < FEW else 1
    texts = task not in ("class", "none")
    return Draw(
        seed=seed,
        family=family,
        task=task,
        scheduler=scheduler,
        options=options,
        steps=draw.choice((1, 2, 3, 3, 4, 4, 5, 6)),
        guidance_scale=guidance_scale,
        guidance=draw.random() > FEW,
        eta=draw.choice((0.0, 0.0, 0.0, 0.5, 1.0)),
        strength=draw.choice((0.3, 0.5, 0.7, 0.8, 1.0)),
        height=draw.choice(SIDES),
        width=draw.choice(SIDES),
        batch=draw.choice((1, 1, 2, 3)),
        prompts=tuple(draw_text(draw) for _ in range(count)),
        negative=_draw_negative(draw, count) if texts else None,
        pictures_each=pictures_each,
        seeds=_draw_seeds(draw, count * pictures_each),
        lora=texts and draw.random() < FEW and family not in WITHOUT_LORA,
        inversion=draw.choice((1, 3)) if texts and draw.random() < FEW else 0,
        odd=draw.choice(ODD[family]) if family in ODD and draw.random() < 2 * FEW else "",
        weights=draw.choice(("fp16", "bf16")) if draw.random() < FEW else "fp32",
        precision="fp16" if draw.random() < FEW else "fp32",
        saved=draw.random() < 2 * FEW,
        subnet=_draw_subnet(draw, family) if draw.random() < 0.7 else None,
    )


def _draw_scheduler(draw: random.Random, family: str) -> tuple[str, dict[str, Any]]:
    """Returns a class of diffusers and options that it may have."""
    if family == "lcm":
        name = "LCMScheduler"
    elif family in FLOW:
        name = draw.choice(FLOW_SCHEDULERS)
    elif family == "unconditional":  # its pipelines know no other
        name = draw.choice(("DDIMScheduler", "DDPMScheduler"))
    else:
        name = draw.choice(NOISE_SCHEDULERS)
    options = {
        key: draw.choice(values)
        for key, values in SCHEDULER_OPTIONS.items()
        if draw.random() < (SELDOM if key in REFUSED else FEW)
    }
    return name, options


def _draw_negative(draw: random.Random, count: int) -> tuple[str, ...] | None:
    if draw.random() < 0.5:
        return None
    return tuple(draw_text(draw) for _ in range(draw.choice((1, count))))


def _draw_seeds(draw: random.Random, count: int) -> tuple[int, ...] | int:
    """Returns one seed for all pictures, or one for each."""
    if draw.random() < 0.6:
        return draw.randrange(1000)
    return tuple(draw.randrange(1000) for _ in range(count))


PATTERNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "unet": (
        ("down_blocks.*", "mid_block", "up_blocks.*"),
        ("down_blocks.*.resnets.*", "up_blocks.*.resnets.*"),
        ("down_blocks.*.resnets.*", "down_blocks.*.attentions.*", "up_blocks.*.attentions.*"),
        ("down_blocks.*.attentions.*.transformer_blocks.*", "mid_block"),
        ("up_blocks.*.attentions.*.transformer_blocks.*.attn1",),
        ("up_blocks.*.resnets.*.conv1", "down_blocks.*.downsamplers.*"),
    ),
    "transformer": (
        ("transformer_blocks.*",),
        ("transformer_blocks.*.attn",),
        ("transformer_blocks.*.attn1", "transformer_blocks.*.ff"),
        ("transformer_blocks.*", "single_transformer_blocks.*"),
    ),
}


def _draw_subnet(draw: random.Random, family: str) -> SubNetDraw:
    unet = family in ("sd", "sdxl", "lcm", "unconditional")
    backups = draw.choice((("output",), ("output",), ("output", "delta", "identity")))
    return SubNetDraw(
        patterns=draw.choice(PATTERNS["unet" if unet else "transformer"]),
        backups=backups,
        share=draw.choice((0.0, 0.2, 0.5, 0.8)),
        whole_rows=draw.random() < 0.3,
        seed=draw.randrange(2**31),
    )


PIECES = (
    "a red circle", "Two Dogs", " ", "  ", "\t", "\n", "'s", "don't", "1234567", "!!!", "#$%&",
    "ünïcödé", "e\u0301", "漢字かな交じり", "한국어", "العربية", "हिन्दी", "עברית", "ไทย",
    "👩‍👩‍👧‍👦", "👍🏽", "🇫🇷", "\u200b", "\u00ad", "\ufeff", "\u202e", "\x00", "\x07", "\x85",
    "\u00a0", "<|endoftext|>", "<|startoftext|>", "</s>", "<pad>", "<unk>", "&amp;", "(a:1.3)", "_",
    "ﬁ", "½", "<new>", "\ud7ff", "\U0010ffff",
)  # fmt: skip


def draw_text(draw: random.Random) -> str:
    """Returns a prompt: plain, empty, long, of any script, with emoji and control characters."""
    kind = draw.random()
    if kind < 0.3:
        return draw.choice(("a red circle", "a photo of a cat, 4k", "Blue."))
    if kind < 0.4:
        return ""
    if kind < 0.5:
        return "".join(_draw_character(draw) for _ in range(draw.randint(1, 12)))
    count = draw.randint(1, 5) if kind < 0.9 else 30
    return draw.choice(("", " ")).join(draw.choice(PIECES) for _ in range(count))


def _draw_character(draw: random.Random) -> str:
    """Returns any character of Unicode that is assigned and no surrogate."""
    while True:
        character = chr(draw.randrange(draw.choice((0x250, 0x3000, 0x20000))))
        if unicodedata.category(character) not in ("Cs", "Cn"):
            return character
