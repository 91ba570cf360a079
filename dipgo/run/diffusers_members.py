"""Answers for members that diffusers' pipelines have, and a pipeline from an export has not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipgo.common.errors import DipgoError, setting


class MemberError(DipgoError, AttributeError):
    """The error for a member that only diffusers' pipelines have; `hasattr` answers False."""


ON_DEVICE = (
    'leave it out: the device is chosen by from_export(OUT, target="torch") or '
    'from_export(OUT, provider="cuda")'
)
OF_EXPORT = "leave it out, or export again with another; pipeline.manifest says what the export has"
REFIT = "give the export other weights: python -m dipgo.refit OUT --model M --lora FILE --out NEW"
WITHOUT = "leave it out: an export needs no such setting"

MEMBERS: Mapping[str, str] = {
    **dict.fromkeys(("to", "cuda", "cpu", "device"), ON_DEVICE),
    **dict.fromkeys(("half", "float", "dtype"), f"{OF_EXPORT} ({setting('precision')})"),
    **dict.fromkeys(("scheduler", "unet", "transformer", "controlnet", "vae"), OF_EXPORT),
    **dict.fromkeys(("text_encoder", "text_encoder_2", "text_encoder_3"), OF_EXPORT),
    **dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3", "components"), OF_EXPORT),
    **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder", "config"), OF_EXPORT),
    **dict.fromkeys(("load_lora_weights", "fuse_lora", "unfuse_lora", "set_adapters"), REFIT),
    **dict.fromkeys(("unload_lora_weights", "load_textual_inversion"), REFIT),
    **dict.fromkeys(("load_ip_adapter", "set_ip_adapter_scale"), OF_EXPORT),
    "save_pretrained": "copy the export directory, or push_to_hub it",
    "encode_prompt": "give prompt_embeds that another program has made, or the prompt",
    "set_progress_bar_config": "leave it out: no progress is shown; on_step says where a run is",
    "from_pipe": f"export the other pipeline; {WITHOUT}",
}
"""Members of diffusers' pipelines, with what to do."""

SWITCHES = ("enable_", "disable_")
"""What the names of memory and speed settings of diffusers' pipelines begin with."""


class WithoutDiffusersMembers:
    """A class that says, of members of diffusers' pipelines, what to do in their place."""

    def __getattr__(self, name: str) -> Any:
        self._refuse(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        self._refuse(name)  # `pipeline.scheduler = …` would change nothing
        super().__setattr__(name, value)

    def _refuse(self, name: str) -> None:
        remedy = MEMBERS.get(name, WITHOUT if name.startswith(SWITCHES) else None)
        if remedy is not None:
            raise MemberError(
                f"{type(self).__name__}.{name}",
                found="a member of diffusers' pipelines",
                expected="what help(dipgo.Pipeline) lists: an export is fixed",
                remedy=remedy,
            )
