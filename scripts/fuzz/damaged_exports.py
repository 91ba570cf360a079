"""Damages exports in every way that a stranger's export may be damaged, or made to do harm.

What lies behind a hash is hashed again, so that damage gets past the check of hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FOLDER
from dipgo.ir.manifest.records import MANIFEST_FILE
from scripts.fuzz.damaged_graphs import GRAPH_CHANGES, HOSTILE_NAMES
from scripts.fuzz.mutants import Mutant, damage_bytes, damage_json

TORCH = Path(ENGINES_FOLDER) / "torch"


def damage(base: Path, out: Path, seed: int) -> str:
    """Writes a damaged copy of an export.

    Args:
        base: The export.
        out: The folder to write.
        seed: Decides what is damaged, and how.

    Returns:
        What was done, in words.
    """
    draw = random.Random(seed)
    shutil.copytree(base, out)
    kinds, weights = zip(*KINDS, strict=True)
    while True:
        (kind,) = draw.choices(kinds, weights)
        said: str = kind(out, draw)
        if said:
            return said


def _documents(out: Path) -> list[Path]:
    return sorted(out.glob("plan*.json"))


def _damage_manifest(out: Path, draw: random.Random) -> str:
    path = draw.choice(_documents(out))
    mutant = _json_mutant(path, draw)
    path.write_bytes(mutant.data)
    _hash_manifests_again(out, path)
    return f"{path.name}: {mutant.name}"


def _rename_everywhere(out: Path, draw: random.Random) -> str:
    """Renames a segment, part, file or tensor wherever the manifest names it."""
    manifest = json.loads((out / MANIFEST_FILE).read_bytes())
    names = [
        *(segment["name"] for segment in manifest["segments"]),
        *(segment["file"] for segment in manifest["segments"]),
        *manifest["parts"],
        *manifest["files"],
        *(record["name"] for record in manifest["inputs"]),
        *(tokenizer["file"] for tokenizer in manifest["tokenizers"]),
    ]
    old, new = draw.choice(names), draw.choice(HOSTILE_NAMES)
    for path in (*_documents(out), out / TORCH / ENGINES_FILE):
        if path.exists():
            path.write_text(path.read_text().replace(json.dumps(old), json.dumps(new)))
    return f"{old} renamed {new!r}"


def _damage_engines(out: Path, draw: random.Random) -> str:
    path = out / TORCH / ENGINES_FILE
    if not path.exists():
        return ""
    mutant = _json_mutant(path, draw)
    path.write_bytes(mutant.data)
    return f"{TORCH / path.name}: {mutant.name}"


def _damage_program(out: Path, draw: random.Random) -> str:
    paths = [path for path in sorted((out / TORCH).glob("*.json")) if path.name != ENGINES_FILE]
    if not paths:
        return ""
    path = draw.choice(paths)
    if draw.random() < 0.4:
        return _hostile_node(out, path, draw)
    mutant = _json_mutant(path, draw)
    path.write_bytes(mutant.data)
    _hash_again(out, path)
    return f"{path.name}: {mutant.name}"


def _hostile_node(out: Path, path: Path, draw: random.Random) -> str:
    """Makes a node call something else, or with other arguments."""
    program = json.loads(path.read_bytes())
    node = draw.choice(program["nodes"])
    if draw.random() < 0.5:
        node["operator"] = draw.choice(OPERATORS)
    if draw.random() < 0.7:
        node["arguments"] = [draw.choice(ARGUMENTS) for _ in range(draw.randint(0, 3))]
    path.write_text(json.dumps(program))
    _hash_again(out, path)
    return f"{path.name}: {node}"[:200]


OPERATORS = (
    *("aten.from_file.default", "aten.zeros.default", "aten.full.default", "aten.repeat.default"),
    *("aten.set_.source_Storage", "aten.resize_.default", "aten._foo.default", "os.system"),
    *("aten.add_.Tensor", "aten.add.out", "aten.__and__.Tensor", "builtins.eval", "item", "int"),
    *("aten.as_strided.default", "aten.arange.default", "aten.expand.default", "aten.mm.default"),
)

ARGUMENTS: tuple[Any, ...] = (
    *({"is": "result", "index": index} for index in (0, 1, 5, 10**6, 2**62)),
    *({"is": "items", "items": items} for items in ([], [10**5, 10**5], [2**40], [-1], [1, 1])),
    *({"is": "constant", "kind": "dtype", "name": name} for name in ("float32", "int64", "system")),
    *(0, 1, -1, 2**31, 2**62, 1.5, "none", "/etc/passwd", None, True),
)


def _damage_graph(out: Path, draw: random.Random) -> str:
    path = draw.choice(sorted(out.glob("*.onnx")))
    model = onnx.load(path, load_external_data=False)
    change = draw.choice(GRAPH_CHANGES)
    said = change(model, draw)
    path.write_bytes(model.SerializeToString())
    _hash_again(out, path)
    return f"{path.name}: {said}"


def _damage_tokenizer(out: Path, draw: random.Random) -> str:
    paths = sorted(out.glob("tokenizer*.json"))
    if not paths:
        return ""
    path = draw.choice(paths)
    mutant = _json_mutant(path, draw)
    path.write_bytes(mutant.data)
    _hash_again(out, path)
    return f"{path.name}: {mutant.name}"


def _damage_tensors(out: Path, draw: random.Random) -> str:
    """Damages the header of a safetensors file."""
    path = draw.choice(sorted(out.glob("*.safetensors")))
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    (mutant,) = damage_json(json.loads(content[8 : 8 + length]), 1, draw.getrandbits(32))
    size = draw.choice((len(mutant.data), len(mutant.data), 2**40, 2**63, 0))
    path.write_bytes(struct.pack("<Q", size) + mutant.data + content[8 + length :])
    _hash_again(out, path)
    return f"{path.name}: {mutant.name}, a header of {size}"


def _damage_bytes(out: Path, draw: random.Random) -> str:
    path = draw.choice([path for path in sorted(out.rglob("*")) if path.is_file()])
    mutant = [*damage_bytes(path.read_bytes(), draw.randint(1, 9), draw.getrandbits(32))][-1]
    path.write_bytes(mutant.data)
    if draw.random() < 0.7:
        _hash_again(out, path)
    return f"{path.relative_to(out)}: {mutant.name}"


def _replace_file(out: Path, draw: random.Random) -> str:
    """Puts something in place of a file that is none, or another's."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    path, kind = (
        draw.choice(files),
        draw.choice(("fifo", "folder", "zero", "canary", "sparse", "gone", "another", "loop")),
    )
    size = path.stat().st_size
    path.unlink()
    put_no_file(path, kind)
    match kind:
        case "canary":
            path.symlink_to(out.parent / "canary")
        case "sparse":
            with path.open("wb") as file:
                file.truncate(draw.choice((size, size + 1, 2**32, 2**40)))
            if draw.random() < 0.5:
                _size_again(out, path)
        case "another":
            shutil.copyfile(draw.choice([other for other in files if other != path]), path)
            _hash_again(out, path)
    return f"{path.relative_to(out)} replaced: {kind}"


def put_no_file(path: Path, kind: str) -> None:
    """Puts a pipe, a folder, a device or a link to itself at a path; nothing for other kinds."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "zero":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path.name)


def _json_mutant(path: Path, draw: random.Random) -> Mutant:
    (*_, mutant) = damage_json(
        json.loads(path.read_bytes()), draw.randint(1, 9), draw.getrandbits(32)
    )
    return mutant


def _hash_again(out: Path, path: Path) -> None:
    """Puts a file's hash and size into the manifests that have them."""
    content = path.read_bytes()
    record = {"sha256": hashlib.sha256(content).hexdigest(), "nbytes": len(content)}
    _put_record(out, path, record)


def _size_again(out: Path, path: Path) -> None:
    _put_record(out, path, {"nbytes": path.stat().st_size})


def _put_record(out: Path, path: Path, record: dict[str, Any]) -> None:
    engines = out / TORCH / ENGINES_FILE
    if path.parent == engines.parent and path != engines:
        document = json.loads(engines.read_bytes())
        for engine in document["engines"].values():
            if engine["file"] == path.name:
                engine.update(record)
        engines.write_text(json.dumps(document))
    for name in (*_documents(out)[1:], out / MANIFEST_FILE):
        try:
            document = json.loads(name.read_bytes())
            document["files"][path.name].update(record)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            continue
        name.write_text(json.dumps(document))
    _put_plan_hash(out)


def _hash_manifests_again(out: Path, path: Path) -> None:
    if path.name != MANIFEST_FILE:
        _hash_again(out, path)
    _put_plan_hash(out)


def _put_plan_hash(out: Path) -> None:
    """Makes the engines those of the manifest as it is now."""
    engines, manifest = out / TORCH / ENGINES_FILE, out / MANIFEST_FILE
    if engines.is_file() and manifest.is_file() and not manifest.is_symlink():
        try:
            document = json.loads(engines.read_bytes())
            document["plan_sha256"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
        except (ValueError, TypeError, RecursionError):
            return
        engines.write_text(json.dumps(document))


KINDS: Sequence[tuple[Callable[[Path, random.Random], str], int]] = (
    (_damage_manifest, 34),
    (_rename_everywhere, 8),
    (_damage_engines, 8),
    (_damage_program, 12),
    (_damage_graph, 18),
    (_damage_tokenizer, 7),
    (_damage_tensors, 5),
    (_damage_bytes, 6),
    (_replace_file, 6),
)
"""Ways to damage an export, with how often each is drawn."""
