"""Variants: the SubNets and dense that draw pictures, and the keys of their cached results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from torch import nn

from dipgo.common.version import __version__
from dipgo.compiler.settings import ScheduleSettings
from dipgo.compiler.trace.patches import find_patches
from dipgo.evaluate.pairs import Pair
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.model import Source
from dipgo.models.source import add_weights

NO_SWITCHES = ("training", "name_or_path")
"""Plain attributes of modules on which no picture depends."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A SubNet, or dense if `subnet` is None.

    `scheduler` None stands for the SubNet's, else the model's own.
    """

    name: str
    subnet: SubNet | None
    steps: int
    scheduler: str | None

    @classmethod
    def of_subnet(cls, name: str, subnet: SubNet, scheduler: str | None) -> Variant:
        """Returns the variant of a SubNet; `scheduler` is for a SubNet that names none."""
        return cls(
            name, subnet, subnet.num_inference_steps, None if subnet.scheduler else scheduler
        )

    @property
    def schedule(self) -> ScheduleSettings:
        """The compiler's settings besides the SubNet."""
        return ScheduleSettings(steps=self.steps, scheduler=self.scheduler)

    def describe(self) -> dict[str, Any]:
        """Returns all that its pictures depend on: not its name, nor the SubNet's provenance."""
        subnet = self.subnet
        gates = subnet and {
            "timesteps": subnet.timesteps,
            "blocks": subnet.blocks,
            "gates": ["".join("01"[int(gate)] for gate in row) for row in subnet.gates],
            "backup": subnet.backup,
            "scheduler": subnet.scheduler and subnet.scheduler.class_name,
            "prior_noise": subnet.prior_noise and asdict(subnet.prior_noise),
            **_gap_facts(subnet),
        }
        return {"steps": self.steps, "scheduler": self.scheduler, "subnet": gates}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all variants share; a run draws `batch` pictures, a timed run `time_batch`."""

    pairs: tuple[Pair, ...]
    guidance: float
    batch: int
    time_batch: int
    threads: int = 0


def _gap_facts(subnet: SubNet) -> dict[str, Any]:
    """Returns what the gap rules say; `reuse` is there without a rule, as in older keys."""
    facts: dict[str, Any] = {"reuse": None}
    for rule in subnet.gaps:
        facts |= rule.facts()
    return facts


def variant_key(model: str, variant: Variant, settings: Settings, batch: int) -> str:
    """Returns the name of a variant's results; `model` is a `model_fingerprint`."""
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
    """Returns 24 hexadecimal digits that identify plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def model_fingerprint(source: Source) -> str:
    """Returns the sha256 of all weights, configurations and switches that pictures depend on.

    A model with foreign code in it has another one in every process: code cannot be compared.
    """
    pipeline = source.pipeline
    assert pipeline is not None, "checked before"
    fingerprint = hashlib.sha256()
    for part in (source.denoiser, pipeline.text_encoder, pipeline.vae):
        fingerprint.update(_config(part))
        add_weights(fingerprint, part)
        fingerprint.update(_text([*_switches(part)]))
        if any(find_patches(part)):
            fingerprint.update(uuid4().bytes)
    fingerprint.update(type(pipeline.scheduler).__name__.encode() + _config(pipeline.scheduler))
    fingerprint.update(_text(pipeline.tokenizer.get_vocab()))
    return fingerprint.hexdigest()


def _switches(part: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields plain attributes of modules and processors: FreeU's factors, an adapter's scale."""
    for path, module in part.named_modules():
        processor = getattr(module, "processor", None)
        facts = {"class": type(module).__name__, "processor": type(processor).__name__}
        for holder in (module, processor):
            for name, value in getattr(holder, "__dict__", {}).items():
                table = isinstance(value, dict) and not name.startswith("_")  # those are torch's
                plain = table or isinstance(value, int | float | str | list | tuple)
                if plain and name not in NO_SWITCHES:
                    facts[name] = str(value)
        yield path, facts


def _config(part: Any) -> bytes:
    """Encodes a configuration, except private entries such as the path it was loaded from."""
    config = part.config if isinstance(part.config, dict) else part.config.to_dict()
    return _text({key: value for key, value in config.items() if not key.startswith("_")})


def _text(facts: Any) -> bytes:
    return json.dumps(facts, sort_keys=True, default=str).encode()


def _onnxruntime_version() -> str:
    import onnxruntime

    installed: str = onnxruntime.__version__
    return installed
