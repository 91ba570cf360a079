"""JSON of strangers: whatever it holds is read as it stands, or refused in one line.

Failed at 3bfeb0e: keys given twice were read as the last of the two, and a SubNet of many names
took hours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dipgo.common.errors import DipgoError
from dipgo.common.typed_json import decode_json
from scripts.fuzz.mutants import damage_bytes, damage_json, damage_values, nested
from tests.support.limits import outcomes, saved
from tests.support.refusals import SUBNET


class Document(msgspec.Struct):
    number: int = 0
    fraction: float = 0.0
    text: str = ""
    free: Any = None


REFUSED = {
    "lists": nested(100_000),
    "objects": nested(100_000, '{"a":', "}"),
    "a list in the free value": f'{{"free": {nested(100_000)}}}',
    "an integer": '{"number": %s}' % ("1" * 100_000),
    "a free integer": '{"free": %s}' % ("1" * 100_000),
    "an exponent": '{"fraction": 1e999}',
    "NaN": '{"fraction": NaN}',
    "infinity": '{"free": Infinity}',
    "a half character": '{"text": "\\ud800"}',
    "a half character as it is": b'{"text": "\xed\xa0\x80"}',
    "two marks": "\ufeff\ufeff{}",
    "a key twice": '{"text": "a", "text": "b"}',
    "a key twice below": '{"free": [{"a": 1, "b": 2, "a": 1}]}',
    "a key twice in other letters": '{"text": "a", "t\\u0065xt": "b"}',
    "a key of any length": '{"free": {KEY: 1, KEY: 2}}'.replace("KEY", f'"{"a" * 10_000}"'),
    "millions of lists": f'{{"free": [{"[]," * 3_000_000}[]]}}',
    "two documents": "{} {}",
    "nothing": "",
    "zeros": bytes(1000),
}


LINE = r"^given.json.*: found .*; expected .*; mend it$"


@pytest.mark.parametrize("name", REFUSED)
def test_one_line(name: str) -> None:
    text = REFUSED[name]
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(
        DipgoError, match=r"^given.json.*: found .*; expected .*; mend it$"
    ) as caught:
        decode_json(data, Document, name="given.json", remedy="mend it")
    assert len(str(caught.value)) < 600


def test_what_is_read() -> None:
    text = '\ufeff{"number": 12, "fraction": 1, "free": [{"a": 1}, {"a": "\\ud83d\\ude00"}]}'
    read = decode_json(text.encode(), Document, name="given.json", remedy="mend it")
    assert read == Document(12, 1.0, "", [{"a": 1}, {"a": "😀"}])


@pytest.mark.slow
def test_any_subnet(tmp_path: Path) -> None:
    """Each mutant is refused in one line, or is the SubNet in the file."""
    document = {
        **SUBNET,
        "reuse": [[], [1.0], []],
        "backup": ["output"] * 5,
        "scores": [[0.5] * 5] * 3,
    }
    filters = [{"rows": [1], "predictions": [[[[[1.0]]]]]}]
    mutants = [
        *damage_values(document),
        *damage_json(document, 300, seed=0),
        *damage_json({**SUBNET, "reuse_filters": filters}, 200, seed=1),
        *damage_bytes(json.dumps(document).encode(), 200, seed=2),
    ]
    results = outcomes("tests.support.readers:load_subnet", saved(mutants, tmp_path, ".json"))
    assert not {k: v for k, v in results.items() if not v.startswith(("read", "refused: "))}
    assert sum(value == "read" for value in results.values()) < len(results) / 4


HUGE: dict[str, dict[str, Any]] = {
    "steps": {"num_inference_steps": 10**9},
    "blocks": {"blocks": [f"b{i}" for i in range(300_000)], "gates": ["1" * 300_000] * 2},
    "gates of many blocks": {"gates": ["1" * 2_000_000] * 3},
    "rows": {"gates": ["1" * 5] * 300_000},
    "timesteps": {"timesteps": list(range(300_000))},
    "scores": {"scores": [[0.1] * 100_000] * 3},
    "weights": {"reuse": [[], [1e300], []]},
    "rows of filters": {"reuse_filters": [{"rows": [10**18], "predictions": [[[[[1.0]]]]]}]},
    "a filter": {"reuse_filters": [{"rows": [1], "predictions": [[[[[1e300]]]]]}]},
    "prior noise": {"prior_noise": {"scale": 1e300, "below": 1}},
    "names with controls": {"blocks": [f"mid\x1b[31m{i}" for i in range(5)]},
    "long names": {"blocks": ["a" * 10**6 + str(i) for i in range(5)]},
    "provenance": {"provenance": {"a": [[[]] * 100] * 25_000}},
}


def test_huge_subnets(tmp_path: Path) -> None:
    files = {name: json.dumps({**SUBNET, **change}).encode() for name, change in HUGE.items()}
    results = outcomes("dipgo.ir.subnet.subnet:SubNet.load", saved(files, tmp_path, ".json"))
    assert not {k: v for k, v in results.items() if not v.startswith("refused: ")}
    assert max(map(len, results.values())) < 1000
