"""Files that are none, or too large: refused in one line, without waiting.

By the code of 3bfeb0e: folders alone were refused; pipes blocked, and devices and sparse files
were read until memory ran out. Empty files were read by each reader in words of its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.files import read_prompts
from dipgo.common.regular_files import MIB, open_file, read_file
from dipgo.ir.plan.parse import is_plan_file, read_plan
from dipgo.ir.subnet.gate_pickle import read_gate_pickle
from dipgo.ir.subnet.subnet import SubNet
from dipgo.models.lora import fuse_loras
from dipgo.run.__main__ import _read_inputs, read_picture_of
from dipgo.search.checkpoint import load_checkpoint


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        folder = Path.cwd()
        os.chdir(path.parent)  # the names of sockets are short
        try:
            made.bind(path.name)
        finally:
            os.chdir(folder)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "an empty file": lambda path: path.touch(),
    "nothing that can be read": lambda path: path.symlink_to("nowhere"),
    "a file of 1048576.0 MiB": _sparse,
}

READERS: dict[str, Callable[[Path], object]] = {
    "a SubNet": SubNet.load,
    "prompts": read_prompts,
    "a gate pickle": read_gate_pickle,
    "a plan": read_plan,
    "inputs": _read_inputs,
    "a picture": lambda path: read_picture_of("--from-image", path),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("found", NO_FILES)
def test_what_is_no_file_is_refused(found: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "given"
    NO_FILES[found](path)
    with pytest.raises(DipgoError, match=f": found {found}.*; expected .*; "):
        READERS[reader](path)


@pytest.mark.parametrize("found", NO_FILES)
def test_what_is_no_file_is_no_plan(found: str, tmp_path: Path) -> None:
    NO_FILES[found](tmp_path / "given")
    assert not is_plan_file(tmp_path / "given")


@pytest.mark.parametrize("content", [b"\xff" * 100, b"plan \xff\n", b"\0" * 10**6, b"#" * 10**6])
def test_plans_that_are_no_text(content: bytes, tmp_path: Path) -> None:
    """Failed at 3bfeb0e: a traceback."""
    (tmp_path / "plan.txt").write_bytes(content)
    with pytest.raises(DipgoError, match=r"plan.txt: found .*; expected a plan as"):
        read_plan(tmp_path / "plan.txt")


@pytest.mark.parametrize(
    "found", sorted(NO_FILES.keys() - {"a file of 1048576.0 MiB", "an empty file"})
)
def test_what_a_library_is_to_open(found: str, tmp_path: Path) -> None:
    path = tmp_path / "given.safetensors"
    NO_FILES[found](path)
    with pytest.raises(DipgoError, match=f": found {found}"):
        load_checkpoint(path, {})


def test_a_lora_that_is_a_pipe(tmp_path: Path) -> None:
    class Takes:
        unet = None
        load_lora_weights = None
        _lora_loadable_modules = ()

    os.mkfifo(tmp_path / "style.safetensors")
    with pytest.raises(DipgoError, match=r"loras .*style.safetensors: found a pipe; "):
        fuse_loras(Takes(), [tmp_path / "style.safetensors"])


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", expected="a file") == b"content"


def test_the_bound_is_that_which_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * MIB))
    assert len(read_file(path, expected="a file", most=2 * MIB)) == 2 * MIB
    assert len(read_file(path, expected="a file", most=None)) == 2 * MIB
    with pytest.raises(DipgoError, match=r"found a file of 2.0 MiB; expected a file, of at most 1"):
        read_file(path, expected="a file", most=MIB)


@pytest.mark.parametrize("name", ["/proc/self/status", "empty"])
def test_files_without_a_size(name: str, tmp_path: Path) -> None:
    """Files of the kernel say that they hold nothing, and may never end."""
    (tmp_path / "empty").touch()
    with pytest.raises(DipgoError, match="found an empty file; expected a file; check"):
        read_file(tmp_path / name, expected="a file")


def test_names_that_no_file_has(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(DipgoError, match="nothing that can be read"):
            open_file(tmp_path / name, expected="a file")
