"""Building SD-1.5's fp16 engines with TensorRT for RTX, without a GPU: seconds, memory, bytes.

    python -m scripts.benchmarks.measure_tensorrt_build [--compute-capability 8.9] --json FILE

The published SubNet, and one of 50 different random rows: engines together against the fp16
weights that they hold. Memory is that of all build processes at once, sampled.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

import msgspec
import psutil

from dipgo.engines.export_directory import ExportDirectory
from dipgo.engines.tensorrt.build import BuildOptions, build_engines
from dipgo.ir.manifest.engines import ENGINES_FILE, EngineManifest
from dipgo.ir.manifest.records import WEIGHTS_FILE
from dipgo.ir.plan.cost import step_patterns
from scripts.generate.random_subnet import random_subnet
from scripts.harness import SUBNETS, add_json, new_report, run_script, script_parser, write_report

PUBLISHED = SUBNETS / "sd15-dipgo-0.80.json"
LARGEST_RATIO, MOST_SECONDS, MOST_NBYTES = 1.05, 60.0, 8e9
INTERVAL = 0.05


def main(arguments: list[str]) -> None:
    """Prints a line a SubNet and fails where a bar is missed."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--compute-capability", default="8.9")
    add_json(parser, required=True)
    options = parser.parse_args(arguments)
    report = new_report(model="arch:sd15", compute_capability=options.compute_capability)
    report["machine"]["tensorrt-rtx-cu13"] = version("tensorrt-rtx-cu13")
    with tempfile.TemporaryDirectory() as folder:
        random = Path(folder) / "random.json"
        random_subnet().save(random)
        for name, subnet in (("published", PUBLISHED), ("random, 50 rows", random)):
            report[name] = _measure(Path(folder) / "out", subnet, options.compute_capability)
            print(name, report[name])
    write_report(options.json, report)
    for one in (report["published"], report["random, 50 rows"]):
        if one["engines_over_weights"] > LARGEST_RATIO:
            raise SystemExit(f"engines are more than {LARGEST_RATIO} times the weights")
    published = report["published"]
    if published["seconds"] > MOST_SECONDS or published["peak_nbytes"] > MOST_NBYTES:
        raise SystemExit(f"more than {MOST_SECONDS} s or {MOST_NBYTES / 1e9} GB")


def _measure(out: Path, subnet: Path, compute_capability: str) -> dict[str, Any]:
    arguments = ["--model", "arch:sd15", "--subnet", str(subnet), "--out", str(out), "--force"]
    precision = ["--precision", "fp16", "--no-numerics-check"]
    command = [sys.executable, "-m", "dipgo.export", *arguments, *precision]
    subprocess.run(command, check=True)
    started = perf_counter()
    with PeakMemory() as memory:
        folder = build_engines(out, "tensorrt-rtx", BuildOptions((compute_capability,)))
    seconds = perf_counter() - started
    export = ExportDirectory.open(out, check_hashes=False)
    built = msgspec.json.decode((folder / ENGINES_FILE).read_bytes(), type=EngineManifest)
    engines = sum(one.nbytes for one in built.engines.values())
    weights = (out / WEIGHTS_FILE).stat().st_size
    return {
        "step_patterns": step_patterns(export.plan),
        "segments": len(export.plan.callees),
        "seconds": seconds,
        "peak_nbytes": memory.peak,
        "engines_nbytes": engines,
        "weights_nbytes": weights,
        "engines_over_weights": engines / weights,
    }


class PeakMemory:
    """Samples the resident memory of this process and all that it has started."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._ended = 0, Event()
        self._thread = Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(INTERVAL):
            resident = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    resident += process.memory_info().rss
                except psutil.NoSuchProcess:  # it ended since it was listed
                    continue
            self.peak = max(self.peak, resident)


if __name__ == "__main__":
    run_script(main)
