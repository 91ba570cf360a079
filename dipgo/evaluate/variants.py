"""Variants: what is drawn with, a SubNet or dense, and the key that its results are kept by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from dipgo.common.options import wrong
from dipgo.common.version import __version__
from dipgo.compiler.settings import ScheduleSettings
from dipgo.evaluate.pairs import Pair
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.source import Source, add_weights


@dataclass(frozen=True, slots=True)
class Variant:
    """A SubNet, or with None every gate on. `scheduler` None stands for the SubNet's, else the
    model's own.
    """

    name: str
    subnet: SubNet | None
    steps: int
    scheduler: str | None

    @classmethod
    def of_subnet(cls, name: str, subnet: SubNet, scheduler: str | None) -> Variant:
        """`scheduler` is for a SubNet that names none."""
        return cls(
            name, subnet, subnet.num_inference_steps, None if subnet.scheduler else scheduler
        )

    @property
    def schedule(self) -> ScheduleSettings:
        """What a compiler is told of it besides the SubNet."""
        return ScheduleSettings(steps=self.steps, scheduler=self.scheduler)

    def describe(self) -> dict[str, Any]:
        """All that its pictures depend on; not the name, nor what a SubNet says of its making."""
        subnet = self.subnet
        gates = subnet and {
            "timesteps": subnet.timesteps,
            "blocks": subnet.blocks,
            "gates": ["".join("01"[int(gate)] for gate in row) for row in subnet.gates],
            "backup": subnet.backup,
            "scheduler": subnet.scheduler and subnet.scheduler.class_name,
            "prior_noise": subnet.prior_noise and asdict(subnet.prior_noise),
            "reuse": _weights(subnet),
        }
        if gates and subnet and subnet.reuse_filters:
            gates["reuse_filters"] = [
                [one.rows, one.stacked(one.terms, one.unconditional is not None).tolist()]
                for one in subnet.reuse_filters
            ]
        return {"steps": self.steps, "scheduler": self.scheduler, "subnet": gates}


@dataclass(frozen=True, slots=True)
class Settings:
    """What all variants share. `batch` pictures are drawn a run, `time_batch` timed."""

    pairs: tuple[Pair, ...]
    guidance: float
    batch: int
    time_batch: int
    threads: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise wrong("batch", self.batch, "a number of at least 1")


def _weights(subnet: SubNet) -> object:
    halves = subnet.reuse_unconditional
    return (subnet.reuse, halves) if halves else subnet.reuse


def variant_key(model: str, variant: Variant, settings: Settings, batch: int) -> str:
    """The name of a variant's results; `model` is a `model_fingerprint`."""
    return digest(
        {
            "model": model,
            "variant": variant.describe(),
            "pairs": [(pair.prompt, pair.seed) for pair in settings.pairs],
            "guidance": settings.guidance,
            "batch": batch,
            "versions": [__version__, version("torch"), _onnxruntime_version()],
        }
    )


def digest(facts: Any) -> str:
    """24 hexadecimal digits that stand for plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def model_fingerprint(source: Source) -> str:
    """sha256 of all weights and configurations that pictures depend on."""
    pipeline = source.pipeline
    assert pipeline is not None, "checked before"
    found = hashlib.sha256()
    for part in (source.denoiser, pipeline.text_encoder, pipeline.vae):
        found.update(_config(part))
        add_weights(found, part)
    found.update(type(pipeline.scheduler).__name__.encode() + _config(pipeline.scheduler))
    found.update(_text(pipeline.tokenizer.get_vocab()))
    return found.hexdigest()


def _config(part: Any) -> bytes:
    """Without private entries, such as the path that it was loaded from."""
    config = part.config if isinstance(part.config, dict) else part.config.to_dict()
    return _text({key: value for key, value in config.items() if not key.startswith("_")})


def _text(facts: Any) -> bytes:
    return json.dumps(facts, sort_keys=True, default=str).encode()


def _onnxruntime_version() -> str:
    import onnxruntime

    found: str = onnxruntime.__version__
    return found
