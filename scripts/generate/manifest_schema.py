"""Writes the JSON Schemas of `plan.json` and `engines.json`, as the manifests' records have them.

python -m scripts.generate.manifest_schema
"""

from __future__ import annotations

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from dipgo.ir.manifest.engines import ENGINES_FILE, ENGINES_FORMAT, ENGINES_VERSION, EngineManifest
from dipgo.ir.manifest.records import FORMAT, MANIFEST_FILE, VERSION, Manifest
from scripts.harness import ROOT, run_script, script_parser

DOCS = ROOT / "docs" / "reference"
PATH = DOCS / "plan.schema.json"
ENGINES_PATH = DOCS / "engines.schema.json"
COMMENT = "Written by scripts/generate/manifest_schema.py; docs/reference/manifest.md explains it"
TITLES: dict[Path, tuple[str, type[msgspec.Struct]]] = {
    PATH: (
        f"{MANIFEST_FILE}: the manifest of an export directory ({FORMAT}, version {VERSION})",
        Manifest,
    ),
    ENGINES_PATH: (
        f"{ENGINES_FILE}: the manifest of built engines ({ENGINES_FORMAT}, "
        f"version {ENGINES_VERSION})",
        EngineManifest,
    ),
}


def schema_text(path: Path = PATH) -> str:
    """The schema as it is committed at `path`."""
    title, record = TITLES[path]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": path.name,
        "title": title,
        "$comment": COMMENT,
    }
    schema = head | _standard(msgspec.json.schema(record))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _standard(node: Any) -> Any:
    """Without `discriminator`, which is OpenAPI's; descriptions without a docstring's indents."""
    if isinstance(node, list):
        return [_standard(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _standard(one) for key, one in node.items() if key != "discriminator"}
    if isinstance(kept.get("description"), str):
        kept["description"] = cleandoc(kept["description"])
    return kept


def main(arguments: list[str]) -> None:
    """To be run whenever the records change; tests/ir/test_manifest_schema.py says when."""
    script_parser(__file__, __doc__).parse_args(arguments)
    for path in TITLES:
        path.write_text(schema_text(path), encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
