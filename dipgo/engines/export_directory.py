"""Opens an export directory and checks that every file is there and as it was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from dipgo.common.errors import DipgoError, setting
from dipgo.common.hashes import sha256_of
from dipgo.common.kinds import EXPORT, check_kind
from dipgo.common.links import check_within
from dipgo.common.machine import physical_memory
from dipgo.common.one_line import one_line
from dipgo.common.regular_files import read_file
from dipgo.common.tensor_file import LONGEST
from dipgo.engines.graph_checks import check_graphs
from dipgo.engines.launches import combine_engine
from dipgo.engines.picture_size import own_sizes
from dipgo.ir.manifest.convert import plan_of
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.manifest.records import (
    REMEDY,
    WEIGHTS_FILE,
    FileRecord,
    Manifest,
    constants_file,
)
from dipgo.ir.plan.nodes import Table
from dipgo.ir.plan.plan import Plan, combined_dtypes
from dipgo.ir.types import COMBINE_FILES

MOST_OF_MEMORY = 8
"""Files may have so many times the machine's memory: engines need not hold all weights there."""

TENSORS = ".safetensors"

LARGEST_GRAPH = 2 << 30
"""Bytes of a file that holds no tensors: no graph has more, as ONNX is written in Protobuf."""


@dataclass(frozen=True)
class ExportDirectory:
    """An export directory with its manifest, as engines read it."""

    path: Path
    manifest: Manifest
    size: str = ""

    @classmethod
    def open(
        cls, path: str | Path, *, size: str = "", check_hashes: bool = True
    ) -> ExportDirectory:
        """Reads the manifest and checks every file.

        Args:
            path: The export directory.
            size: A size of the export, such as `512x768`; "" for its first.
            check_hashes: Whether to compare the hash of every file with the manifest's.

        Raises:
            DipgoError: The size is unknown, or a file is missing, damaged or not listed.
        """
        path = Path(path)
        check_kind(path, EXPORT)
        if size:
            size = _further_size(read_manifest(path), path, size)
        manifest = read_manifest(path, size)
        _check_listed(manifest, path, size)
        if check_hashes:
            _check_total(manifest, path)
        for name, record in manifest.files.items():
            check_within(path / name, path)
            _check_file(path / name, record, check_hashes)
        export = cls(path, manifest, size)
        check_graphs(path, manifest, combined_dtypes(export.plan))
        return export

    def __repr__(self) -> str:
        """Returns a line: a manifest is long, and `inspect` shows it."""
        model, size = self.manifest.model, self.size or own_sizes(self.manifest)[0]
        return one_line(
            f"<ExportDirectory {self.path}: {model.class_name} of {model.source}, {size}>"
        )

    @cached_property
    def plan(self) -> Plan:
        """Returns the plan, verified when the manifest was read."""
        return plan_of(self.manifest)

    @cached_property
    def engine_files(self) -> Mapping[str, str]:
        """Returns the graph file of every engine that launches name: segments and combinations."""
        combinations = {
            combine_engine(dtype): COMBINE_FILES[dtype] for dtype in combined_dtypes(self.plan)
        }
        return {segment.name: segment.file for segment in self.manifest.segments} | combinations

    @cached_property
    def tables(self) -> Mapping[str, NDArray[np.uint8]]:
        """Returns the bytes of the plan's tables, with an entry of the first axis for each row.

        Raises:
            DipgoError: The file holds other tables.
        """
        path = self.path / constants_file(self.size)
        most = LONGEST + sum(len(table.rows) * table.type.nbytes for table in self.plan.tables)
        try:
            content = read_file(path, expected="the plan's tables", most=most)
            stored = dict(deserialize(content))  # type: ignore[no-untyped-call]
        except (SafetensorError, MemoryError) as error:
            raise _damaged(path, str(error) or "no memory for it", "a safetensors file") from None
        return {table.name: _check_table(table, stored, path) for table in self.plan.tables}


def _further_size(manifest: Manifest, path: Path, size: str) -> str:
    """Returns the name of a further size, or "" for the export's first."""
    own = own_sizes(manifest)
    if size in manifest.sizes or size in own:
        return size if size in manifest.sizes else ""
    raise DipgoError(
        f"{path}, size {size}",
        found=f"an export for {' '.join((own[0], *manifest.sizes))}",
        expected="a size that it was made for",
        remedy=f"leave the size out, or export again with {setting('also_sizes')} {size}",
    )


def _check_total(manifest: Manifest, path: Path) -> None:
    """Refuses to read for hours what cannot be run here: a stranger's files may be all holes."""
    memory, total = physical_memory(), sum(record.nbytes for record in manifest.files.values())
    if memory is not None and total > MOST_OF_MEMORY * memory:
        raise DipgoError(
            str(path),
            found=f"files of {total / 2**30:.1f} GiB, and {memory / 2**30:.1f} GiB of memory",
            expected="memory for the weights",
            remedy="use a larger machine; check_hashes=False does not read all of them",
        )


def _check_file(path: Path, record: FileRecord, check_hash: bool) -> None:
    if not path.is_file():
        raise _damaged(path, "no such file", "a file of the export")
    size = path.stat().st_size
    if size > LARGEST_GRAPH and path.suffix != TENSORS:
        raise _damaged(path, f"{size} bytes", "less than 2 GiB")
    if size != record.nbytes:
        raise _damaged(path, f"{size} bytes", f"{record.nbytes} bytes")
    if not check_hash:
        return
    digest = sha256_of(path)
    if digest != record.sha256:
        raise _damaged(path, f"sha256 {digest[:12]}…", f"sha256 {record.sha256[:12]}…")


def _check_table(
    table: Table, stored: Mapping[str, Mapping[str, Any]], path: Path
) -> NDArray[np.uint8]:
    """Returns the table's bytes: engines read rows by address, so its size must be exact."""
    entry, shape = stored.get(table.name), [len(table.rows), *table.type.shape]
    dtype = table.type.dtype
    if entry is None or entry["dtype"] != dtype.upper() or entry["shape"] != shape:
        found = "nothing" if entry is None else f"{entry['dtype'].lower()}{entry['shape']}"
        expected = f"{dtype}{shape}, as the plan has it"
        raise _damaged(path, f"{found} under {table.name}", expected)
    return np.frombuffer(entry["data"], np.uint8).reshape(len(table.rows), -1)


def _check_listed(manifest: Manifest, path: Path, size: str) -> None:
    """Refuses a file that the manifest uses but does not list: it could be any file."""
    used: Iterable[str] = [
        *(segment.file for segment in manifest.segments),
        *(part.file for part in manifest.parts.values()),
        *(tokenizer.file for tokenizer in manifest.tokenizers),
        *(COMBINE_FILES[dtype] for dtype in combined_dtypes(plan_of(manifest))),
        constants_file(size),
        WEIGHTS_FILE,
    ]
    for name in used:
        if name not in manifest.files:
            raise _damaged(path / name, "a file without a hash", "an entry under `files`")


def _damaged(path: Path, found: str, expected: str) -> DipgoError:
    return DipgoError(str(path), found=found, expected=expected, remedy=REMEDY)
