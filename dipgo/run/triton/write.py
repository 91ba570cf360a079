"""Makes a Triton model repository of an export directory, for `--target triton`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from dipgo.common.version import __version__
from dipgo.ir.manifest.file import read_manifest
from dipgo.run.triton.layout import (
    CONFIG_FILE,
    EXPORT_FOLDER,
    INSTANCE_KINDS,
    MODEL_FILE,
    MODEL_NAME,
    Port,
    Signature,
    signature_of,
)

# The source is read by path: the module can be imported in the server only.
MODEL_SOURCE = Path(__file__).with_name("model.py")

CONFIG = """\
# Written by dipgo {version}. A model's name is that of its folder.
name: "{name}"
backend: "python"
# An export is for one batch size: dims are whole shapes.
max_batch_size: 0
{ports}
# Of ONNX Runtime; 0 takes every core.
parameters {{ key: "threads" value: {{ string_value: "0" }} }}
# Change both or neither: cpu and KIND_CPU, or cuda and KIND_GPU with gpus: [ 0 ].
parameters {{ key: "provider" value: {{ string_value: "{provider}" }} }}
instance_group [ {{ count: 1 kind: KIND_{kind}{gpus} }} ]
"""


def write_model_repository(directory: Path, name: str = MODEL_NAME, provider: str = "cpu") -> None:
    """Turns the export directory at `directory` into a model repository of one model.

    The export's files move into it; nothing is copied. The change is not atomic, so `directory`
    should be a staged directory.
    """
    signature = signature_of(read_manifest(directory))
    files = list(directory.iterdir())
    model = directory / name
    export = model / EXPORT_FOLDER
    export.mkdir(parents=True)
    for file in files:
        file.rename(export / file.name)
    shutil.copyfile(MODEL_SOURCE, model / MODEL_FILE)
    (model / CONFIG_FILE).write_text(config_text(signature, name, provider))


def config_text(signature: Signature, name: str, provider: str) -> str:
    """Returns config.pbtxt: a `ModelConfig` in protobuf's text format."""
    instance_kind = INSTANCE_KINDS[provider]
    ports = [*_ports("input", signature.inputs), *_ports("output", [signature.output])]
    return CONFIG.format(
        version=__version__,
        name=name,
        ports="\n".join(ports),
        provider=provider,
        kind=instance_kind,
        gpus=" gpus: [ 0 ]" if instance_kind == "GPU" else "",
    )


def _ports(field: str, ports: Iterable[Port]) -> list[str]:
    return [
        f"{field} {{ name: {json.dumps(port.name)} data_type: {port.data_type} "
        f"dims: [ {', '.join(map(str, port.dims))} ]{' optional: true' * port.optional} }}"
        for port in ports
    ]
