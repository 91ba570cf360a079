"""The importer of published gate pickles: what it admits, and that it can run nothing."""

import builtins
import collections
import io
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dipgo.common.errors import DipgoError
from dipgo.common.safe_pickle import load_data
from dipgo.ir.subnet.subnet import SubNet

EXAMPLE = Path(__file__).parents[2] / "examples" / "subnets" / "sd15-dipgo-0.80.json"
TIMESTEPS: tuple[float, ...] = (801.0, 401.0, 1.0)
GATES = [[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [1, 0, 1, 1, 0]]
KEYS = [
    ("down", "block", 0, 0),
    ("down", "block", 1, 0),
    ("mid", "mid_block", 0, 0),
    ("up", "block", 1, 0),
    ("up", "block", 0, 0),
]
BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")


def as_tensor(pair: list[float]) -> Any:
    return torch.tensor(pair)


def as_half_slice(pair: list[float]) -> Any:
    """A pair that is a strided view into a longer half-precision storage."""
    return torch.tensor([9.0, pair[0], 9.0, pair[1], 9.0], dtype=torch.float16)[1:4:2]


VALUES: dict[str, Callable[[list[float]], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "array f32": lambda pair: np.array(pair, dtype=np.float32),
    "array big-endian": lambda pair: np.array(pair, dtype=">f4"),
    "numpy numbers": lambda pair: [np.float32(pair[0]), np.float64(pair[1])],
    "tensor": as_tensor,
    "half slice": as_half_slice,
}


def steps_of(
    gates: list[list[int]], keys: list[Any], value: Callable[[list[float]], Any]
) -> list[dict[Any, Any]]:
    return [
        {key: value([1.0 - gate, float(gate)]) for key, gate in zip(keys, row, strict=True)}
        for row in gates
    ]


def write(folder: Path, data: object, protocol: int | None = None) -> Path:
    path = folder / "gates.pkl"
    path.write_bytes(pickle.dumps(data, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", VALUES)
def test_published_form(tmp_path: Path, kind: str, protocol: int) -> None:
    path = write(tmp_path, steps_of(GATES, KEYS, VALUES[kind]), protocol)
    subnet = SubNet.from_published(path, TIMESTEPS)
    assert subnet.blocks == BLOCKS
    assert subnet.gates.astype(int).tolist() == GATES
    assert subnet.timesteps == TIMESTEPS
    assert subnet.num_inference_steps == 3
    assert subnet.provenance == {"imported_from": "gates.pkl"}


def test_keep_wins_a_tie_and_scores_are_kept(tmp_path: Path) -> None:
    data = [{KEYS[2]: [0.0, 1.0]}, {KEYS[2]: [0.5, 0.5]}, {KEYS[2]: [0.75, 0.25]}]
    subnet = SubNet.from_published(write(tmp_path, data), TIMESTEPS, num_inference_steps=20)
    assert subnet.gates[:, 0].tolist() == [True, True, False]
    assert subnet.scores is not None
    assert subnet.scores[:, 0].tolist() == [1.0, 0.5, 0.25]
    assert subnet.num_inference_steps == 20


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    data = [dict(reversed(step.items())) for step in steps_of(GATES, KEYS, list)]
    subnet = SubNet.from_published(write(tmp_path, data), TIMESTEPS)
    assert subnet.blocks == BLOCKS
    assert subnet.gates.astype(int).tolist() == GATES


def test_a_key_may_lack_a_layer(tmp_path: Path) -> None:
    keys = [(*key[:3], None) for key in KEYS]
    assert (
        SubNet.from_published(write(tmp_path, steps_of(GATES, keys, list)), TIMESTEPS).blocks
        == BLOCKS
    )


def test_layers_are_named_by_module_path_in_the_order_they_run(tmp_path: Path) -> None:
    keys = [
        ("up", "upsampler", 1, 0),
        ("up", "resnet", 1, 0),
        ("up", "resnet", 1, 2),
        ("up", "attentions", 0, 1),
        ("up", "resnet", 0, 1),
        ("up", "attentions", 0, 0),
        ("mid", "mid_block", 0, 0),
        ("down", "downsampler", 0, 2),
        ("down", "attentions", 0, 1),
        ("down", "resnet", 0, 1),
        ("down", "motion", 1, 1),
    ]
    path = write(tmp_path, steps_of([[1] * len(keys)], keys, list))
    assert SubNet.from_published(path, (1,)).blocks == (
        "down_blocks.0.resnets.1",
        "down_blocks.0.attentions.1",
        "down_blocks.0.downsamplers.0",
        "down_blocks.1.motion.1",
        "mid_block",
        "up_blocks.0.resnets.0",
        "up_blocks.0.resnets.2",
        "up_blocks.0.upsamplers.0",
        "up_blocks.1.resnets.0",
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
    )


def test_the_published_subnet_goes_round(tmp_path: Path) -> None:
    subnet = SubNet.load(EXAMPLE)
    downs = [("down", "block", i, 0) for i in range(4)]
    ups = [("up", "block", 3 - i, 0) for i in range(4)]
    keys = [*downs, ("mid", "mid_block", 0, 0), *ups]
    data = steps_of(subnet.gates.astype(int).tolist(), keys, as_tensor)
    imported = SubNet.from_published(write(tmp_path, data), subnet.timesteps)
    assert imported.blocks == subnet.blocks
    assert np.array_equal(imported.gates, subnet.gates)
    assert imported.num_inference_steps == subnet.num_inference_steps


def test_the_published_subnet_is_the_paper_s() -> None:
    subnet = SubNet.load(EXAMPLE)
    assert subnet.timesteps == tuple(range(981, 0, -20))
    computed = np.flatnonzero(subnet.gates.any(axis=1))
    assert computed.tolist() == [0, 7, 13, 19, 20, 21, 26, 32, 39, 48]
    off = [
        [int(row), subnet.blocks[i]] for row in computed for i in np.flatnonzero(~subnet.gates[row])
    ]
    assert off == [[7, "down_blocks.3"]]
    giga_macs = np.array([32.94, 31.32, 31.46, 3.78, 6.03, 12.90, 75.14, 79.12, 66.04])
    assert (subnet.gates @ giga_macs).sum() / (50 * 338.83) == pytest.approx(0.1997, abs=5e-5)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Custom:
    """A class of one's own."""


MALICIOUS: dict[str, tuple[Any, str]] = {
    "system": (Call(os.system, "touch ran"), rf"{os.system.__module__}\.system"),
    "eval": (Call(builtins.eval, "open('ran', 'w')"), r"_*builtins?_*\.eval"),
    "getattr": (Call(getattr, "", "join"), r"_*builtins?_*\.getattr"),
    "class": (Custom(), r"(test_published\.Custom|copy_reg\._reconstructor)"),
    "set": (Call(set, [1]), r"_*builtins?_*\.set"),
    "numpy.load": (Call(np.load, "x.npy", None, True), r"numpy\.load"),
    "array of objects": (np.array([Call(os.system, "touch ran")]), "something else than"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", MALICIOUS)
def test_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    value, refused = MALICIOUS[name]
    with pytest.raises(DipgoError, match=rf"^gates\.pkl: found .*{refused}.*; expected "):
        SubNet.from_published(write(tmp_path, [{KEYS[0]: value}], protocol), (1,))
    assert [path.name for path in tmp_path.iterdir()] == ["gates.pkl"]


def test_nothing_runs_within_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner = io.BytesIO()
    torch.save(Call(os.system, "touch ran"), inner, _use_new_zipfile_serialization=False)
    value = Call(torch.storage._load_from_bytes, inner.getvalue())
    with pytest.raises(DipgoError, match=r"gates\.pkl: found .*system"):
        SubNet.from_published(write(tmp_path, [{KEYS[0]: value}]), (1,))
    assert [path.name for path in tmp_path.iterdir()] == ["gates.pkl"]


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path: Path) -> None:
    storage = torch.zeros(4).storage()
    for offset, size, stride in ((3, (2,), (1,)), (0, (2,), (-1,)), (0, (10**9,), (0,))):
        hooks: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        value = Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, hooks)
        with pytest.raises(DipgoError, match="something else than a whole pickle"):
            SubNet.from_published(write(tmp_path, [{KEYS[0]: value}]), (1,))


def test_a_pickle_cannot_change_the_reader() -> None:
    """BUILD, the opcode that sets attributes, finds nothing on a stand-in to set."""
    build = b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb."
    assert "BUILD" in [opcode.name for opcode, *_ in pickletools.genops(build)]
    slots = b"\x80\x02c_codecs\nencode\nN}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00as\x86b."
    with pytest.raises(DipgoError, match="something else than a whole pickle"):
        load_data(slots, name="gates.pkl")


@pytest.mark.parametrize("keep", [1, 20, 300, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, steps_of(GATES, KEYS, np.array))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DipgoError, match=r"gates\.pkl: found something else than a whole pickle"):
        SubNet.from_published(path, TIMESTEPS)


@pytest.mark.parametrize("data", [b"hello", b"{}", b"PK\x03\x04", bytes(range(256))])
def test_what_is_not_a_pickle_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "gates.pkl"
    path.write_bytes(data)
    with pytest.raises(DipgoError, match=r"gates\.pkl: found something else than a whole pickle"):
        SubNet.from_published(path, TIMESTEPS)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"none\.pkl: found nothing .*; expected a gate pickle; "):
        SubNet.from_published(tmp_path / "none.pkl", TIMESTEPS)


MISSHAPEN: dict[str, tuple[Any, str]] = {
    "a dictionary": ({0: {}}, "found a dict; expected a list of dictionaries, one a step"),
    "no steps": ([], "found nothing in it; expected a list"),
    "steps of another type": ([[1]], "found a list; expected a list of dictionaries"),
    "no blocks": ([{}, {}], "found no block; expected"),
    "other blocks": (
        [{KEYS[0]: [0, 1]}, {KEYS[1]: [0, 1]}],
        "step 1: found other blocks than at step 0; expected the same",
    ),
    "a key of text": ([{"down": [0, 1]}], r"step 0: found the key 'down'; expected \(down, "),
    "an unknown part": ([{("side", "b", 0, 0): [0, 1]}], "found the key .*side.*; expected"),
    "one score": ([{KEYS[0]: [1]}], r"block', 0, 0\): found \[1\]; expected two finite numbers"),
    "words": ([{KEYS[0]: "ab"}], "found 'ab'; expected two finite numbers"),
    "not a number": ([{KEYS[0]: [0, float("nan")]}], r"found \[0, nan\]; expected two finite"),
    "a gate off in row 0": ([{KEYS[0]: [1, 0]}], "gates row 0, block down_blocks.0: found 0"),
    "a step too many": ([{KEYS[0]: [0, 1]}] * 2, "gates: found 2 rows; expected 1, one a timestep"),
}


@pytest.mark.parametrize("name", MISSHAPEN)
def test_another_structure_is_refused(tmp_path: Path, name: str) -> None:
    data, message = MISSHAPEN[name]
    with pytest.raises(DipgoError, match=message):
        SubNet.from_published(write(tmp_path, data), (1,))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


def test_a_pickle_with_more_than_data(tmp_path: Path) -> None:
    path = tmp_path / "gates.pkl"
    path.write_bytes(pickle.dumps([_Evil()]))
    with pytest.raises(DipgoError, match=r"gates\.pkl: found .+\.system; expected only"):
        SubNet.from_published(path, (1,))


def test_timesteps_without_an_end_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, steps_of(GATES, KEYS, list))
    with pytest.raises(DipgoError, match="timesteps: found more than 1,000,000 items"):
        SubNet.from_published(path, range(10**12))
