"""Where the golden files lie: texts that tests compare with, byte by byte."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
