"""Reads strangers' files in a process that may take 2 GiB and no more, and some time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.fuzz.mutants import Mutant

GIB = 1 << 30

CHILD = """
import functools, importlib, resource, sys
from pathlib import Path
from dipgo.common.errors import DipgoError

module, name = sys.argv[1].split(":")
read = functools.reduce(getattr, name.split("."), importlib.import_module(module))
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for line in sys.stdin:
    print(line.rstrip(), end=" ", flush=True)
    try:
        read(Path(line.rstrip()))
        print("read", flush=True)
    except DipgoError as error:
        print("refused:", error, flush=True)
    except BaseException as error:
        print(f"raised {type(error).__name__}:", " ".join(str(error).split())[:200], flush=True)
"""


def outcomes(reader: str, paths: Mapping[str, Path], seconds: float = 100.0) -> dict[str, str]:
    """What a reader makes of each file: `read`, `refused: …`, or what it raised or how it ended.

    Args:
        reader: A function of a path, as `module:name`.
        paths: The files by name.
        seconds: The time for all of them.
    """
    result = subprocess.run(
        [sys.executable, "-c", CHILD, reader, str(2 * GIB)],
        input="".join(f"{path}\n" for path in paths.values()),
        text=True,
        capture_output=True,
        timeout=seconds,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    lines = dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)
    ended = f"ended with {result.returncode}: {result.stderr[-300:]}"
    return {name: lines.get(str(path), ended) for name, path in paths.items()}


def saved(
    mutants: Mapping[str, bytes] | list[Mutant], folder: Path, ending: str
) -> dict[str, Path]:
    """Writes files into a folder, and returns their paths by name."""
    pairs = (
        mutants.items()
        if isinstance(mutants, Mapping)
        else ((mutant.name, mutant.data) for mutant in mutants)
    )
    paths = {}
    for index, (name, data) in enumerate(pairs):
        paths[f"{index} {name}"] = folder / f"{index}{ending}"
        paths[f"{index} {name}"].write_bytes(data)
    return paths
