"""Writes the JSON Schema of `plan.json`, as the manifest's records have it.

python scripts/write_manifest_schema.py [OUT]
"""

from __future__ import annotations

import argparse
import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from dipgo.manifest import FORMAT, MANIFEST_FILE, VERSION, Manifest

PATH = Path(__file__).parent.parent / "docs" / "plan.schema.json"
HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": PATH.name,
    "title": f"{MANIFEST_FILE}: the manifest of an export directory ({FORMAT}, version {VERSION})",
    "$comment": "Written by scripts/write_manifest_schema.py; docs/embedding.md says what it means",
}


def schema_text() -> str:
    """The schema as it is committed."""
    schema = HEAD | _standard(msgspec.json.schema(Manifest))
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


def main() -> None:
    """To be run whenever the records change; tests/test_manifest_schema.py says when."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=PATH)
    parser.parse_args().out.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
