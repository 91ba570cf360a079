"""Writes into SubNet files of the demo model what they were fitted for, with their errors.

    python -m scripts.generate.fitted FILE … [--batches 2]

A search does it by itself; this is for files that were searched before searches did. The guidance
scale is that of the file, or of its provenance.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dipgo.common.cli import whole_number
from dipgo.common.errors import DipgoError
from dipgo.common.files import read_prompts
from dipgo.common.packages import silence_libraries
from dipgo.common.progress import stage
from dipgo.ir.fitted import Scales
from dipgo.ir.misfit import fitted_facts
from dipgo.ir.subnet.subnet import SubNet
from dipgo.search.api import pose
from dipgo.search.measure_errors import Measurement
from dipgo.search.request import SearchRequest
from dipgo.search.settings import SearchSettings
from dipgo.search.supernet.supernet import SuperNet
from scripts.harness import DEMO, run_script, script_parser


def main(arguments: list[str]) -> None:
    """Rewrites each file in one step."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="SubNet files")
    parser.add_argument("--batches", type=whole_number(1), default=2, help="of four (2)")
    options = parser.parse_args(arguments)
    silence_libraries()
    measurements: dict[tuple[int, Scales], Measurement] = {}
    for path in options.files:
        subnet = SubNet.load(path)
        key = (subnet.num_inference_steps, _scales(path, subnet))
        if key not in measurements:
            measurements[key] = _measurement(*key, subnet, options.batches)
        with stage(f"measure {path.name}"):
            fitted = measurements[key].fitted(subnet)
        replace(subnet, fitted=fitted).save(path)
        for name, fact in fitted_facts(fitted).items():
            print(f"{name}: {fact}")


def _scales(path: Path, subnet: SubNet) -> Scales:
    fitted = subnet.fitted_for
    if fitted is None or fitted.guidance is None:
        raise DipgoError(
            str(path),
            found="no guidance scale",
            expected="a SubNet of a search with guidance",
            remedy="leave it out",
        )
    return fitted.guidance


def _measurement(steps: int, scales: Scales, subnet: SubNet, batches: int) -> Measurement:
    assert subnet.scheduler is not None, "a search names it"
    request = SearchRequest(0.5, steps, subnet.scheduler.class_name, blocks=subnet.blocks)
    problem = pose(DEMO / "model", request)
    net = SuperNet(problem.traced, problem.sampler, problem.blocks, problem.backup, halves=True)
    prompts = read_prompts(DEMO / "search-prompts.txt")
    settings = SearchSettings(held_out=batches)
    return Measurement(problem, net, prompts, scales=scales, settings=settings)


if __name__ == "__main__":
    run_script(main)
