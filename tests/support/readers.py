"""Readers of strangers' files, as functions of a path alone; they import no torch."""

from __future__ import annotations

import json
from pathlib import Path

from dipgo.common.safe_pickle import load_checkpoint, load_data
from dipgo.ir.subnet.gate_pickle import read_gate_pickle
from dipgo.ir.subnet.subnet import SubNet
from dipgo.run.__main__ import _read_inputs, read_picture_of


def load_subnet(path: Path) -> None:
    """Loads a SubNet, which is then as it stands in the file."""
    subnet = SubNet.load(path)
    document = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    assert list(subnet.timesteps) == list(map(float, document["timesteps"]))
    assert list(subnet.blocks) == document["blocks"]
    assert ["".join("01"[int(gate)] for gate in row) for row in subnet.gates] == document["gates"]


def read_data(path: Path) -> None:
    """Reads a pickle, and a gate pickle if it is one."""
    load_data(path.read_bytes(), name="gates.pkl")
    read_gate_pickle(path)


def read_checkpoint(path: Path) -> None:
    """Reads a checkpoint of torch."""
    load_checkpoint(path.read_bytes(), name="router.pt")


def read_inputs(path: Path) -> None:
    """Reads the file of --inputs."""
    _read_inputs(path)


def read_picture(path: Path) -> None:
    """Reads the file of --from-image."""
    read_picture_of("--from-image", path)


def read_tokenizer(path: Path) -> None:
    """Loads a tokenizer of an export and encodes texts."""
    from dipgo.ir.manifest.records import TokenizerRecord
    from dipgo.run.tokens import TextTokens

    record = TokenizerRecord(path.name, "ids", "mask", 16, 0, "right", False)
    tokens = TextTokens(str(path), record)
    ids = tokens.encode(["", "a red circle", "Ünï 猫 <cat>, 12 ½ ﷺ\u200d👩 " * 50])["ids"]
    assert ids.shape == (3, 16)
    tokens.cut("a red circle " * 50)
