"""In the place of a worker that builds an engine: writes its number to a file, and sleeps."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from dipgo.engines.tensorrt.worker import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    path = Path(msgspec.json.decode(sys.stdin.buffer.read(), type=str))
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(600)
