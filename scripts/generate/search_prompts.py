"""Writes the prompts that the demo model's SubNets are searched with: captions it was trained on.

    python -m scripts.generate.search_prompts

None of them is among the held-out ones in examples/demo/prompts.txt.
"""

from __future__ import annotations

import numpy as np

from scripts.demo_model.shapes import split_scenes
from scripts.harness import DEMO, run_script, script_parser

PATH = DEMO / "search-prompts.txt"
COUNT = 128


def main(arguments: list[str]) -> None:
    """The same captions at every run."""
    script_parser(__file__, __doc__).parse_args(arguments)
    training, _ = split_scenes()
    order = np.random.default_rng(0).permutation(len(training))[:COUNT]
    PATH.write_text("".join(f"{training[index].caption}\n" for index in order))


if __name__ == "__main__":
    run_script(main)
