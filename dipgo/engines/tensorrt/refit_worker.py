"""Gives one engine other weights: `python -m dipgo.engines.tensorrt.refit_worker`.

The request comes as JSON on standard input, and messages go to standard error, as with
`build_worker`. The weights are those next to the graph, which the library finds by their names.

Source:
    The documentation of TensorRT, "Refitting an Engine".
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dipgo.engines.tensorrt.library import find_library
from dipgo.engines.tensorrt.worker import end_with_parent


class RefitRequest(msgspec.Struct, frozen=True):
    """A request to give `engine` the weights of `graph`, into the file `refitted`."""

    target: str
    engine: str
    graph: str
    refitted: str


def main() -> int:
    """Refits what standard input asks for.

    Returns:
        The exit code: 1 if the library cannot refit the engine; the problem is on standard error.
    """
    end_with_parent()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=RefitRequest)
    problem = refit(request, find_library(request.target).load())
    if problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def refit(request: RefitRequest, library: Any) -> str:
    """Refits the engine and returns the problem, or "" if there is none."""
    logger = library.Logger(library.Logger.ERROR)
    runtime = library.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(Path(request.engine).read_bytes())
    if engine is None:
        return "an engine that cannot be loaded here"
    if not engine.refittable:
        return "an engine that was not built to be refitted"
    refitter = library.Refitter(engine, logger)
    parser = library.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(request.graph):
        return "; ".join(_errors(parser)) or "weights that are not those of the engine"
    missing = refitter.get_missing_weights()
    if missing:
        return f"no weights for {', '.join(missing[:3])}"
    if not refitter.refit_cuda_engine():
        return "weights that the engine does not take"
    Path(request.refitted).write_bytes(_serialise(engine, library))
    return ""


def _errors(parser: Any) -> Iterator[str]:
    return (str(parser.get_error(index).desc()) for index in range(parser.num_errors))


def _serialise(engine: Any, library: Any) -> bytes:
    """Returns the engine with its weights, refittable again."""
    serialization_config = engine.create_serialization_config()
    serialization_config.set_flag(library.SerializationFlag.INCLUDE_REFIT)
    return bytes(engine.serialize_with_config(serialization_config))


if __name__ == "__main__":
    sys.exit(main())
