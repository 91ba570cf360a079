"""An export runs where torch, diffusers, transformers and onnx are not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dipgo.engines
from dipgo.export import export
from tests.support.tiny_pipeline import IMAGE_SIZE, save_tiny_pipeline

# One group, so that parallel test runs build the environment once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("without_torch")]

ROOT = Path(__file__).parents[2]
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")
ROOT_LINKS = ("export", "engines")
"""For people who look for them there; sdist and wheel leave them out, so that none is installed."""
ABSENT = ("torch", "diffusers", "transformers", "onnx")
SAME_LATENTS = 1e-5  # absolute; the same ONNX Runtime on the same machine

RUN = """
import sys
import numpy as np
import dipgo.engines
inputs = dict(np.load(sys.argv[2]))
np.save(sys.argv[3], dipgo.engines.load(sys.argv[1]).run(inputs)["latents"])
"""


@pytest.fixture(scope="session")
def source_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built from a copy of the project with its links at the root."""
    source = tmp_path_factory.mktemp("project")
    for name in PROJECT_FILES:
        shutil.copy(ROOT / name, source)
    for link in ROOT_LINKS:
        (source / link).symlink_to((ROOT / link).readlink())
    shutil.copytree(ROOT / "dipgo", source / "dipgo", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import setuptools.build_meta; print(setuptools.build_meta.build_sdist('dist'))"
    _check(subprocess.run([sys.executable, "-c", code], cwd=source, **CAPTURE))
    (archive,) = (source / "dist").iterdir()
    return archive


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory, source_archive: Path) -> Path:
    """The Python of a virtual environment with `dipgo[cpu]` alone: a wheel built of the sdist.

    Its packages have the versions of those here, so that the same ONNX Runtime is compared.
    """
    folder = tmp_path_factory.mktemp("without_torch")
    pins = [f"{one.name}=={one.version.partition('+')[0]}" for one in distributions()]
    (folder / "constraints.txt").write_text("\n".join(pins) + "\n")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = f"dipgo[cpu] @ {source_archive.as_uri()}"
    _check(subprocess.run([*pip, "-c", folder / "constraints.txt", wanted], **CAPTURE))
    return python


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline, dense, in 4 steps."""
    folder = tmp_path_factory.mktemp("exported")
    return export(save_tiny_pipeline(folder / "pipeline"), "dense", folder / "export", steps=4)


CAPTURE: dict[str, Any] = {"capture_output": True, "text": True, "check": False}


def _run(python: Path, *arguments: str | Path) -> str:
    """Runs Python away from the repository, with nothing of it on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, *arguments]
    return _check(subprocess.run(command, cwd=python.parent, env=environment, **CAPTURE))


def _check(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_sdist_holds_the_package_alone(source_archive: Path) -> None:
    with tarfile.open(source_archive) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dipgo").rglob("*.py")}
    assert modules <= names
    assert {"dipgo/py.typed", "LICENSE", "README.md"} <= names
    assert not {name for name in names if name.partition("/")[0] in ROOT_LINKS}


@pytest.mark.parametrize("link", ROOT_LINKS)
def test_links_of_the_root_are_not_installed(bare_python: Path, link: str) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({link!r}))"
    assert _run(bare_python, "-c", code).strip() == "None"


def test_imports_need_no_torch(bare_python: Path) -> None:
    code = (
        "import sys, json, dipgo, dipgo.engines, dipgo.ir.manifest.records; "
        "print(json.dumps([*sys.modules]))"
    )
    modules = json.loads(_run(bare_python, "-c", code))
    assert "dipgo.engines" in modules
    assert not set(modules) & set(ABSENT)


@pytest.mark.parametrize("package", ABSENT)
def test_environment_is_bare(bare_python: Path, package: str) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({package!r}))"
    assert _run(bare_python, "-c", code).strip() == "None"


def test_installed_package_is_whole(bare_python: Path) -> None:
    where = _run(bare_python, "-c", "import dipgo; print(dipgo.__path__[0])").strip()
    installed = {path.relative_to(where) for path in Path(where).rglob("*")}
    package = ROOT / "dipgo"
    expected = {path.relative_to(package) for path in package.rglob("*.py")} | {Path("py.typed")}
    assert expected <= installed
    assert Path(where).is_relative_to(bare_python.parents[1])


def test_latents_are_the_same(bare_python: Path, exported: Path, tmp_path: Path) -> None:
    inputs = _random_inputs(exported)
    np.savez(tmp_path / "inputs.npz", **inputs)
    here = dipgo.engines.load(exported).run(inputs)["latents"]
    _run(bare_python, "-c", RUN, exported, tmp_path / "inputs.npz", tmp_path / "there.npy")
    there = np.load(tmp_path / "there.npy")
    error = np.abs(there - here)
    print(f"latents with and without torch: error max {error.max():.1e} mean {error.mean():.1e}")
    assert np.abs(here).max() > 0.1
    assert error.max() <= SAME_LATENTS


def _random_inputs(exported: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        name: generator.standard_normal(kind.shape).astype(np.float32)
        for name, kind in dipgo.engines.load(exported).inputs.items()
    }
    return inputs | {"guidance_scale": np.float32(7.5)}


def test_command_writes_a_picture(bare_python: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    prompt = ("--prompt", "a red circle", "--seed", "0")
    _run(bare_python, "-m", "dipgo.run", exported, *prompt, "--image", out)
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.size == (IMAGE_SIZE, IMAGE_SIZE)


def test_command_tells_a_users_error_in_one_line(bare_python: Path, tmp_path: Path) -> None:
    command = [bare_python, "-m", "dipgo.run", tmp_path / "nothing", "--prompt", "a red circle"]
    result = subprocess.run([*command, "--image", tmp_path / "out.png"], cwd=tmp_path, **CAPTURE)
    assert result.returncode == 2
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert "Traceback" not in result.stderr


def test_export_command_says_what_to_install(bare_python: Path, tmp_path: Path) -> None:
    command = [bare_python, "-m", "dipgo.export", "--subnet", "dense", "--model", "arch:sd15"]
    result = subprocess.run(
        [*command, "--steps", "4", "--out", tmp_path / "out"], cwd=tmp_path, **CAPTURE
    )
    assert result.returncode == 2
    assert ".[export]" in result.stderr
    assert "Traceback" not in result.stderr
