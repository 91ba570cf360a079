"""Bad input: exit code 2, one line that says where, what, and what to do, and nothing written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline

import dipgo.bench
import dipgo.engines
import dipgo.inspect
import dipgo.run.__main__
from dipgo.common.cli import run_command
from dipgo.common.errors import DipgoError
from dipgo.common.files import staged_directory
from dipgo.export import __main__ as export_command
from dipgo.export import export
from dipgo.export.destination import may_replace
from dipgo.ir.manifest.records import MANIFEST_FILE, WEIGHTS_FILE
from dipgo.ir.subnet.published import import_gate_pickle
from tests.support.tiny_pipeline import save_tiny_pipeline
from tests.support.zoo import ZOO

BLOCKS = [*(f"down_blocks.{i}" for i in range(4)), "mid_block"]
SUBNET: dict[str, Any] = {
    "format": "dipgo.subnet",
    "version": 1,
    "model": {"class": "UNet2DConditionModel"},
    "scheduler": {"class": "EulerDiscreteScheduler"},
    "num_inference_steps": 3,
    "timesteps": [667, 334, 1],
    "blocks": BLOCKS,
    "gates": ["11111", "00000", "10110"],
}


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good pipeline."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("bad_input") / "pipeline")


@pytest.fixture(scope="session")
def tiny_dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline around another denoiser."""
    path = tmp_path_factory.mktemp("dit") / "pipeline"
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    pipeline = DiTPipeline(ZOO["dit"].build(), vae, DDIMScheduler(clip_sample=False))
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def exported(pipeline: Path) -> Path:
    """A good export of it, of the good SubNet."""
    subnet = pipeline.with_name("subnet.json")
    subnet.write_text(json.dumps(SUBNET))
    return export(pipeline, subnet, pipeline.with_name("exported"))


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "damaged"))


Refused = Callable[..., None]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command and checks how it refuses: `fragments` stand in its message, in order."""

    def run(main: Callable[[list[str]], None], arguments: list[Any], *fragments: str) -> None:
        before = _tree(tmp_path)
        code = run_command(main, list(map(str, arguments)))
        printed = capsys.readouterr()
        assert code == 2, printed.err
        _check_message(printed.err, fragments)
        assert printed.out == ""
        assert _tree(tmp_path) == before

    return run


def _check_message(stderr: str, fragments: tuple[str, ...]) -> None:
    *stages, message = stderr.splitlines()
    assert message.startswith("error: ")
    assert not [line for line in stages if "rror" in line or "arning" in line or "usage" in line]
    rest = message
    for fragment in (*fragments[:1], ": found ", *fragments[1:2], "; expected ", *fragments[2:]):
        assert fragment in rest, f"{fragment!r} is not in its place in {message!r}"
        rest = rest[rest.index(fragment) + len(fragment) :]


def _tree(folder: Path) -> dict[Path, bytes | None]:
    """Every file below, hidden ones too, with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# The fragments of every table below: of where, of what was found, of what follows it.

SUBNETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "format": ({"format": "other"}, ("subnet.json, format", '"other"', '"dipgo.subnet"')),
    "version": ({"version": 2}, ("subnet.json, version", "2", "1")),
    "rows": ({"gates": ["11111", "00000"]}, ("subnet.json, gates", "2 rows", "3, one a timestep")),
    "characters": (
        {"gates": ["11111", "0000", "11111"]},
        ("subnet.json, gates row 1", "4 characters", "5, one a block"),
    ),
    "row 0": (
        {"gates": ["11011", "00000", "11111"]},
        ("subnet.json, gates row 0, block down_blocks.2", "0", "1, because", "row 0 to all 1"),
    ),
    "neither 0 nor 1": (
        {"gates": ["11111", "0002x", "11111"]},
        ("gates row 1, block down_blocks.3", "'2'", "0 or 1", "1 to compute"),
    ),
    "unknown block": (
        {"blocks": [*BLOCKS[:4], "middle"]},
        ("SubNet, block middle", "no module of that path", "UNet2DConditionModel", "mend its name"),
    ),
    "a pattern for a block": (
        {"blocks": [*BLOCKS[:4], "up_blocks.*"]},
        ("SubNet, block up_blocks.*", "no module", "the path of a module"),
    ),
    "overlapping blocks": (
        {"blocks": [*BLOCKS[:4], "down_blocks.0.resnets.0"]},
        ("down_blocks.0.resnets.0", "inside the block down_blocks.0", "do not overlap"),
    ),
    "model class": (
        {"model": {"class": "DiTTransformer2DModel"}},
        ("SubNet, model.class", "DiTTransformer2DModel", "UNet2DConditionModel", "use the model"),
    ),
    "model hash": (
        {"model": {"class": "UNet2DConditionModel", "config_sha256": "ab12"}},
        ("SubNet, model.config_sha256", "ab12", "as pipeline has", "use the model"),
    ),
    "scheduler class": (
        {"scheduler": {"class": "FlowMatchEulerDiscreteScheduler"}},
        ("scheduler FlowMatch", "for a pipeline of PNDMScheduler", "exchanged", "choose one of"),
    ),
    "scheduler without a class": (
        {"scheduler": {"class": "MyScheduler"}},
        ("scheduler MyScheduler", "no scheduler of", "one of ddim"),
    ),
    "scheduler config": (
        {"scheduler": {"class": "EulerDiscreteScheduler", "config": {"beta_end": 0.5}}},
        ("SubNet, scheduler.config.beta_end", "0.5", "0.012", "use the scheduler"),
    ),
    "timesteps": (
        {"timesteps": [600, 300, 0]},
        ("SubNet, timesteps", "from 600 to 0", "3 timesteps from 667 to 1", "use the scheduler"),
    ),
}


@pytest.mark.parametrize("name", SUBNETS)
def test_a_subnet_that_is_wrong_or_of_something_else(
    name: str, pipeline: Path, tmp_path: Path, refused: Refused
) -> None:
    changes, fragments = SUBNETS[name]
    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(SUBNET | changes))
    arguments = ["--model", pipeline, "--subnet", subnet, "--out", tmp_path / "out"]
    refused(export_command.main, arguments, *fragments)


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_subnet(keep: int, tmp_path: Path, refused: Refused) -> None:
    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(SUBNET)[:keep])
    arguments = ["--model", "arch:sd15", "--subnet", subnet, "--out", tmp_path / "out"]
    refused(export_command.main, arguments, "subnet.json", "not JSON", "a whole JSON document")
    refused(dipgo.inspect.main, [subnet], "subnet.json", "not JSON", "a whole JSON document")


SUBNET_OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "other steps": (["--steps", "4"], ("--steps", "4", "3, as the SubNet has", "leave --steps")),
    "blocks too": (["--blocks", "mid_block"], ("--blocks", "beside a SubNet", "none", "leave")),
    "other scheduler": (
        ["--scheduler", "pndm"],
        ("--scheduler", "PNDMScheduler", "EulerDiscreteScheduler, as the SubNet has", "leave"),
    ),
}


@pytest.mark.parametrize("name", SUBNET_OPTIONS)
def test_options_that_contradict_the_subnet(
    name: str, pipeline: Path, tmp_path: Path, refused: Refused
) -> None:
    options, fragments = SUBNET_OPTIONS[name]
    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(SUBNET))
    arguments = ["--model", pipeline, "--subnet", subnet, "--out", tmp_path / "out", *options]
    refused(export_command.main, arguments, *fragments)


EXPORTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no subnet": (["--subnet", "no.json"], ("no.json", "No such file", "a SubNet file", "check")),
    "no steps": (["--subnet", "dense"], ("--subnet dense", "no number", "--steps N", "say how")),
    "steps 0": (["--steps", "0"], ("--steps", "0", "at least 1", "correct it")),
    "steps in words": (["--steps", "few"], ("--steps", "'few'", "a whole number", "--help")),
    "steps, too many": (["--steps", "1001"], ("--steps", "1001", "at most 1000", "fewer")),
    "batch": (["--batch", "-1"], ("--batch", "-1", "at least 1", "correct it")),
    "height, negative": (["--height", "-64"], ("--height", "-64", "at least 0", "correct it")),
    "height, odd": (["--height", "63"], ("--height", "63", "a multiple of 4", "use 64")),
    "width": (["--width", "1"], ("--width", "1", "a multiple of 4", "use 4")),
    "target": (["--target", "tpu"], ("--target", "tpu", "onnxruntime", "leave --target out")),
    "precision": (["--precision", "fp8"], ("--precision", "fp8", "fp32, fp16, bf16", "correct it")),
    "unknown option": (["--stepz", "3"], ("dipgo.export", "--stepz 3", "arguments", "--help")),
    "no value": (["--steps"], ("--steps", "", "one argument", "python -m dipgo.export --help")),
    "blocks": (["--blocks", "mid.*"], ("'mid.*'", "no module", "mid_block", "correct the pattern")),
    "blocks that overlap": (
        ["--blocks", "up_blocks.*", "up_blocks.1.resnets.0"],
        ("block up_blocks.1.resnets.0", "inside the block up_blocks.1", "overlap", "leave one"),
    ),
    "scheduler": (["--scheduler", "fast"], ("scheduler fast", "a name", "one of ddim", "correct")),
    "eta beyond 1": (
        ["--scheduler", "ddim", "--eta", "1.5"],
        ("--eta", "1.5", "a number from 0 to 1", "1 draws as much noise"),
    ),
    "eta of a scheduler that has none": (
        ["--scheduler", "euler", "--eta", "0.5"],
        ("--eta", "EulerDiscreteScheduler", "steps take an eta", "leave --eta out"),
    ),
    "architecture": (["--model", "arch:sd9"], ("arch:sd9", "not known", "arch:sd15", "choose")),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_arguments_of_export(name: str, pipeline: Path, tmp_path: Path, refused: Refused) -> None:
    options, fragments = EXPORTS[name]
    steps = [] if name == "no steps" else ["--steps", "3"]
    given = ["--model", pipeline, "--subnet", "dense", *steps, "--out", tmp_path / "out", *options]
    refused(export_command.main, given, *fragments)


def test_arguments_that_are_missing(refused: Refused) -> None:
    message = ("dipgo.export", "no --model, --subnet, --out", "every required argument", "--help")
    refused(export_command.main, [], *message)


def _thresholding(config: dict[str, Any]) -> None:
    config["thresholding"] = True


def _clip_sample(config: dict[str, Any]) -> None:
    del config["clip_sample"]  # then DDIM's default is true


@pytest.mark.parametrize(("change", "name"), [(_thresholding, "dpm++"), (_clip_sample, "ddim")])
def test_a_scheduler_that_is_not_linear(
    change: Callable[[dict[str, Any]], None],
    name: str,
    pipeline: Path,
    tmp_path: Path,
    refused: Refused,
) -> None:
    model = Path(shutil.copytree(pipeline, tmp_path / "model"))
    path = model / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    option = change.__name__.removeprefix("_")
    given = ["--model", model, "--subnet", "dense", "--steps", "3", "--scheduler", name]
    message = ("scheduler D", f"{option}=True", "a linear scheduler", f"set {option} to false")
    refused(export_command.main, [*given, "--out", tmp_path / "out"], *message)


def _without(part: str) -> Callable[[Path], object]:
    return lambda model: shutil.rmtree(model / part)


def _cut_weights(model: Path) -> None:
    os.truncate(model / "unet" / "diffusion_pytorch_model.safetensors", 5000)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no pipeline": (lambda model: (model / "model_index.json").unlink(), "no model_index.json"),
    "an empty index": (lambda model: (model / "model_index.json").write_text("{}"), "_class_name"),
    "no unet": (_without("unet"), ""),
    "truncated weights": (_cut_weights, "diffusion_pytorch_model.safetensors"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_no_pipeline(
    name: str, pipeline: Path, tmp_path: Path, refused: Refused
) -> None:
    damage, found = MODELS[name]
    model = Path(shutil.copytree(pipeline, tmp_path / "model"))
    damage(model)
    arguments = ["--model", model, "--subnet", "dense", "--steps", "3", "--out", tmp_path / "out"]
    refused(export_command.main, arguments, str(model), found, "save_pretrained", "its path")


def test_a_path_that_is_not_there(tmp_path: Path, refused: Refused) -> None:
    model = tmp_path / "no" / "such" / "model"
    arguments = ["--model", model, "--subnet", "dense", "--steps", "3", "--out", tmp_path / "out"]
    refused(export_command.main, arguments, str(model), "no directory of that name", "Hub id")


def test_the_hub_without_a_network(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model_info(name: str, timeout: float) -> None:
        assert timeout <= 10
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.model_info", model_info)
    arguments = ["--model", "nobody/nothing", "--subnet", "dense", "--steps", "3"]
    refused(
        export_command.main,
        [*arguments, "--out", tmp_path / "out"],
        *("nobody/nothing", "nor a model on the Hub (ConnectionError)", "a directory", "its path"),
    )


DENSE = ["--model", "arch:sd15", "--subnet", "dense", "--steps", "3"]
"""Refused for their OUT before the model is loaded."""


def test_out_that_exists(tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "out"
    out.mkdir()
    message = (str(out), "something of that name", "does not exist", "--force")
    refused(export_command.main, [*DENSE, "--out", out], *message)


def _files_of_others(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("")


def _a_plan_of_others(out: Path) -> None:
    out.mkdir()
    (out / MANIFEST_FILE).write_text('{"format": "floor plan"}')


def _a_file(out: Path) -> None:
    out.write_text("")


def _a_link(out: Path) -> None:
    out.symlink_to("nowhere")


@pytest.mark.parametrize("make", [_files_of_others, _a_plan_of_others, _a_file, _a_link])
def test_force_replaces_only_exports(
    make: Callable[[Path], None], tmp_path: Path, refused: Refused
) -> None:
    out = tmp_path / "out"
    make(out)
    message = (str(out), "not an export", "an export directory", "choose another name")
    refused(export_command.main, [*DENSE, "--out", out, "--force"], *message)


@pytest.mark.parametrize("folder", ["/proc", "{tmp}/file", "{tmp}/file/deeper"])
def test_out_that_cannot_be_written(folder: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("")
    out = Path(folder.format(tmp=tmp_path)) / "out"
    message = (str(out), "where no file can be made", "may be written", "choose another place")
    refused(export_command.main, [*DENSE, "--out", out], *message)


@contextmanager
def _files_of_at_most(nbytes: int) -> Iterator[None]:
    """Python ignores the signal, so that a write beyond the limit fails as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_disk_that_is_full_half_way(pipeline: Path, damaged: Path, refused: Refused) -> None:
    message = (str(damaged), "File too large", "room enough", "nothing was left behind")
    dense = ["--subnet", "dense", "--steps", "2", "--scheduler", "euler"]
    with _files_of_at_most(1 << 20):
        given = ["--model", pipeline, *dense, "--out", damaged, "--force"]
        refused(export_command.main, given, *message)


def test_folders_made_for_out_go_again(tmp_path: Path) -> None:
    with (
        pytest.raises(DipgoError, match=r"found .+File too large.+; expected .+; free some space"),
        _files_of_at_most(1000),
        staged_directory(
            tmp_path / "a" / "b" / "out", force=False, may_replace=may_replace
        ) as folder,
    ):
        (folder / "file").write_bytes(bytes(2000))
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        pytest.raises(DipgoError, match="found something of that name"),
        staged_directory(out, force=False, may_replace=may_replace),
    ):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage to the manifest."""

    def damage(path: Path) -> None:
        manifest = json.loads((path / MANIFEST_FILE).read_text())
        change(manifest)
        (path / MANIFEST_FILE).write_text(json.dumps(manifest))

    return damage


def _truncate(name: str, nbytes: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, nbytes)


def _flip_a_byte(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    return damage


def _call(manifest: dict[str, Any]) -> Any:
    return next(one for one in manifest["program"]["statements"] if one["op"] == "call")


def _outside(manifest: dict[str, Any]) -> None:
    manifest["files"]["../x.onnx"] = manifest["files"]["combine.onnx"]


DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no manifest": (
        lambda path: (path / MANIFEST_FILE).unlink(),
        (MANIFEST_FILE, "No such file", "the manifest of an export directory", "check the path"),
    ),
    "truncated manifest": (
        _truncate(MANIFEST_FILE, 2000),
        (MANIFEST_FILE, "not JSON", "a whole JSON document", "export again"),
    ),
    "format": (
        _edit(lambda m: m.update(format="floor plan")),
        (MANIFEST_FILE, "'floor plan'", "'dipgo.export'", "export again"),
    ),
    "version": (
        _edit(lambda m: m.update(version=1)),
        (MANIFEST_FILE, "version 1", "version 2", "export again"),
    ),
    "no field": (
        _edit(lambda m: m.pop("program")),
        (MANIFEST_FILE, "no field `program`", "every", "export again"),
    ),
    "a field of another type": (
        _edit(lambda m: m.update(batch="one")),
        (f"{MANIFEST_FILE}, $.batch", "`str`", "`int`", "export again"),
    ),
    "a value never written": (
        _edit(lambda m: _call(m)["operands"].__setitem__(0, "%nothing")),
        (MANIFEST_FILE, "a read of %nothing, which nothing earlier writes", "a valid manifest"),
    ),
    "a row that no table holds": (
        _edit(lambda m: m["program"]["tables"][0]["rows"].pop()),
        (MANIFEST_FILE, "a row that no table holds", "a valid manifest", "export again"),
    ),
    "a segment undeclared": (
        _edit(lambda m: _call(m).update(segment="seg99")),
        (MANIFEST_FILE, "an undeclared callee", "a valid manifest", "export again"),
    ),
    "no slots": (
        _edit(lambda m: m["program"].update(slots=[])),
        (MANIFEST_FILE, "no slot for %", "a valid manifest", "export again"),
    ),
    "a slot before the arena": (
        _edit(lambda m: m["program"]["slots"][0].update(offset=-64)),
        ("$.program.slots[0].offset", "`int` >= 0", "", "export again"),
    ),
    "a shape that is none": (
        _edit(lambda m: m["outputs"][0].update(type="f32[-1]")),
        ("$.outputs[0].type", "", "", "export again"),
    ),
    "gates of another width": (
        _edit(lambda m: m["program"]["steps"][0].update(gates="1")),
        (MANIFEST_FILE, "gates", "a valid manifest", "export again"),
    ),
    "a file outside": (_edit(_outside), (MANIFEST_FILE, "", "", "export again")),
    "a file not listed": (
        _edit(lambda m: m["files"].pop("seg0.onnx")),
        ("seg0.onnx", "without a hash", "an entry under `files`", "export again"),
    ),
    "no segment file": (
        lambda path: (path / "seg0.onnx").unlink(),
        ("seg0.onnx", "no such file", "a file of the export", "export again"),
    ),
    "weights of another size": (
        _truncate(WEIGHTS_FILE, 5000),
        (WEIGHTS_FILE, "5000 bytes", "bytes", "export again"),
    ),
    "weights of another hash": (
        _flip_a_byte(WEIGHTS_FILE),
        (WEIGHTS_FILE, "sha256", "sha256", "export again"),
    ),
    "a graph of another hash": (
        _flip_a_byte("seg0.onnx"),
        ("seg0.onnx", "sha256", "sha256", "export again"),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_export(name: str, damaged: Path, refused: Refused) -> None:
    damage, fragments = DAMAGES[name]
    damage(damaged)
    refused(dipgo.inspect.main, [damaged], *fragments)


def _more_rows_than_stored(manifest: dict[str, Any]) -> None:
    manifest["program"]["tables"][0]["rows"].append(3)


def test_damage_that_hashes_do_not_show(damaged: Path) -> None:
    _edit(_more_rows_than_stored)(damaged)
    with pytest.raises(DipgoError, match=r"constants\.safetensors: found .+; expected f32\[3, 2, "):
        dipgo.engines.load(damaged, threads=1)
    _flip_a_byte("seg0.onnx")(damaged)
    os.truncate(damaged / "seg0.onnx", 5000)
    manifest = json.loads((damaged / MANIFEST_FILE).read_text())
    manifest["files"]["seg0.onnx"]["nbytes"] = 5000
    (damaged / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(DipgoError, match=r"seg0\.onnx: found what ONNX Runtime .+; export again"):
        dipgo.engines.load(damaged, threads=1, check_hashes=False)


PROMPT = ["--prompt", "a red circle"]


@pytest.mark.parametrize("main", [dipgo.run.__main__.main, dipgo.bench.main], ids=["run", "bench"])
def test_every_command_checks_the_export(
    main: Callable[[list[str]], None], damaged: Path, tmp_path: Path, refused: Refused
) -> None:
    (damaged / WEIGHTS_FILE).unlink()
    image = [*PROMPT, "--image", tmp_path / "out.png"] if main is dipgo.run.__main__.main else []
    refused(main, [damaged, *image], WEIGHTS_FILE, "no such file", "a file of the export")
    refused(main, [tmp_path / "no", *image], MANIFEST_FILE, "No such file", "the manifest of an")
    refused(main, [tmp_path, *image], MANIFEST_FILE, "No such file", "the manifest of an export")


def test_inspect_of_neither(tmp_path: Path, refused: Refused) -> None:
    for path in (tmp_path / "no", Path(__file__), tmp_path):
        refused(dipgo.inspect.main, [path], path.name, "", "")


PROVIDERS = [("tpu", "a name that is not known", "one of cpu, cuda")]
if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
    PROVIDERS.append(("cuda", "an onnxruntime with", "CUDAExecutionProvider"))


@pytest.mark.parametrize(("provider", "found", "expected"), PROVIDERS)
def test_a_provider_that_is_not_there(
    provider: str, found: str, expected: str, exported: Path, tmp_path: Path, refused: Refused
) -> None:
    message = (f"provider {provider}", found, expected)
    refused(dipgo.bench.main, [exported, "--provider", provider], *message)
    image = [*PROMPT, "--image", tmp_path / "out.png", "--provider", provider]
    refused(dipgo.run.__main__.main, [exported, *image], *message)


RUNS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "nothing to write": ([], ("dipgo.run", "neither --image", "a file to write", "add --image")),
    "no prompt": (["--prompt"], ("--prompt", "", "one argument", "--help")),
    "seed": (["--seed", "-1"], ("--seed", "'-1'", "at least 0", "python -m dipgo.run --help")),
    "a large seed": (
        ["--seed", str(2**64), "--latents", "{tmp}/out.npy"],
        ("seed", str(2**64), "from 0 to", "choose a seed"),
    ),
    "guidance": (["--guidance", "much"], ("--guidance", "'much'", "a number", "--help")),
    "guidance, not finite": (
        ["--guidance", "nan", "--latents", "{tmp}/out.npy"],
        ("guidance_scale", "nan", "a finite number", "correct it"),
    ),
    "threads": (["--threads", "-1"], ("--threads", "'-1'", "at least 0", "--help")),
    "no folder": (
        ["--image", "{tmp}/no/out.png"],
        ("no/out.png", "no such folder", "a folder that exists", "make the folder first"),
    ),
    "a folder": (["--image", "{tmp}/a.png"], ("a.png", "a folder", "a file to write", "name a")),
    "unwritable": (["--latents", "/proc/out.npy"], ("/proc/out.npy", "/proc", "may be written")),
    "ending": (["--image", "{tmp}/out.txt"], ("--image", "out.txt", "ends in .png", "give")),
    "ending of latents": (["--latents", "{tmp}/x"], ("--latents", "x", "ends in .npy", "give")),
}


@pytest.mark.parametrize("name", RUNS)
def test_arguments_of_run(name: str, exported: Path, tmp_path: Path, refused: Refused) -> None:
    options, fragments = RUNS[name]
    (tmp_path / "a.png").mkdir()
    given = [option.format(tmp=tmp_path) for option in options]
    refused(dipgo.run.__main__.main, [exported, *PROMPT, "--threads", "1", *given], *fragments)


def test_a_disk_that_is_full_after_the_run(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    out.write_text("what was there")
    with _files_of_at_most(1000):
        given = [exported, *PROMPT, "--threads", "1", "--latents", out]
        assert run_command(dipgo.run.__main__.main, list(map(str, given))) == 2
    _check_message(capsys.readouterr().err, ("out.npy", "", "room enough", "nothing was left"))
    assert _tree(tmp_path) == {out: b"what was there"}


@pytest.mark.parametrize("option", [["--guidance", "5"], ["--negative-prompt", "a circle"]])
def test_an_export_without_guidance_takes_none(
    option: list[str], pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(pipeline, "dense", tmp_path / "plain", steps=1, guidance=False)
    given = [tmp_path / "plain", *PROMPT, *option, "--latents", tmp_path / "out.npy"]
    assert run_command(dipgo.run.__main__.main, list(map(str, given))) == 2
    assert "for an export without guidance; expected neither; leave" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()


BENCHES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "warmup": (["--warmup", "-1"], ("--warmup", "'-1'", "at least 0", "--help")),
    "repeats": (["--repeats", "0"], ("--repeats", "'0'", "at least 1", "--help")),
    "threads": (["--threads", "x"], ("--threads", "'x'", "at least 0", "--help")),
    "no folder": (["--json", "{tmp}/no/x.json"], ("no/x.json", "no such folder", "exists", "make")),
    "against nothing": (["--against", "{tmp}/no"], (MANIFEST_FILE, "No such file", "the manifest")),
    "against dense": (["--against", "dense"], ("--against dense", "pipeline", "--model M", "say")),
    "against another's twin": (
        ["--against", "dense", "--model", "{tiny_dit}"],
        ("--against dense", "DiTTransformer2DModel", "UNet2DConditionModel", "name the model"),
    ),
}


@pytest.mark.parametrize("name", BENCHES)
def test_arguments_of_bench(
    name: str, exported: Path, tiny_dit: Path, tmp_path: Path, refused: Refused
) -> None:
    options, fragments = BENCHES[name]
    given = [option.format(tmp=tmp_path, tiny_dit=tiny_dit) for option in options]
    refused(dipgo.bench.main, [exported, *given], *fragments)


LATENTS, PROMPT_SHAPE = (1, 4, 16, 16), (2, 16, 32)
INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "a name too many": ({"noise": 0}, "input noise: found a name that the export does not have; "),
    "shape": (
        {"latents": np.zeros((1, 4, 8, 8), np.float32)},
        r"input latents: found float32\[1, 4, 8, 8\]; expected float32\[1, 4, 16, 16\]; ",
    ),
    "dtype": (
        {"latents": np.zeros(LATENTS)},
        r"input latents: found float64\[.+; expected float32\[.+\]; convert it",
    ),
    "NaN": (
        {"latents": np.full(LATENTS, np.nan, np.float32)},
        "input latents: found NaN or infinity; expected finite numbers; ",
    ),
    "infinity": ({"guidance_scale": np.inf}, "input guidance_scale: found NaN or infinity; "),
    "a text": ({"guidance_scale": "7.5"}, r"input guidance_scale: found .+; expected float32\[\]"),
    "lists of unequal lengths": ({"latents": [[1], [1, 2]]}, "input latents: found object"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_of_a_run(name: str, runner: dipgo.engines.Runner) -> None:
    changes, message = INPUTS[name]
    good = {
        "latents": np.zeros(LATENTS, np.float32),
        "encoder_hidden_states": np.zeros(PROMPT_SHAPE, np.float32),
        "guidance_scale": 7.5,
    }
    with pytest.raises(DipgoError, match=f"^{message}"):
        runner.run(good | changes)


def test_an_input_that_is_missing(runner: dipgo.engines.Runner) -> None:
    with pytest.raises(DipgoError, match=r"^input latents: found missing; expected inputs latents"):
        runner.run({"guidance_scale": 7.5})


@pytest.fixture(scope="session")
def runner(exported: Path) -> dipgo.engines.Runner:
    """Of the good export."""
    return dipgo.engines.load(exported, threads=1)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


def test_a_pickle_with_more_than_data(tmp_path: Path) -> None:
    path = tmp_path / "gates.pkl"
    path.write_bytes(pickle.dumps([_Evil()]))
    with pytest.raises(DipgoError, match=r"gates\.pkl: found .+\.system; expected only"):
        import_gate_pickle(path, (1,))


COMMANDS = {
    "export": ["--model", "arch:sd15", "--subnet", "no.json", "--out", "out"],
    "run": ["no", "--prompt", "a red circle", "--image", "out.png"],
    "inspect": ["no"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_as_a_command(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"dipgo.{name}", *COMMANDS[name]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    _check_message(result.stderr, ("no",))
    assert list(tmp_path.iterdir()) == []
