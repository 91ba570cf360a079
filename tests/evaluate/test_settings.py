"""What `evaluate` takes in Python: SubNets or their files, and nothing else for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipgo.common.errors import DipgoError
from dipgo.evaluate import evaluate
from dipgo.evaluate.checks import check_dense, read_subnets
from dipgo.ir.subnet.subnet import SubNet

SUBNET = Path(__file__).parents[2] / "examples" / "subnets" / "demo-deepcache-5.json"


def test_subnets_are_read_from_files() -> None:
    read = read_subnets({"text": str(SUBNET), "path": SUBNET, "itself": SubNet.load(SUBNET)})
    assert len({str(subnet) for subnet in read.values()}) == 1
    with pytest.raises(DipgoError, match="No such file"):
        read_subnets({"none": "none.json"})


@pytest.mark.parametrize("dense", [5, "ddim", (5,), (0, None), ("5", "ddim"), (5, 5), None])
def test_a_dense_that_is_none(dense: Any, tmp_path: Path) -> None:
    with pytest.raises(DipgoError, match=r"^dense: found .* expected a pair"):
        evaluate("none", {"a": SUBNET}, dense, ["a circle"], cache=tmp_path)


def test_dense() -> None:
    assert check_dense((50, None)) == (50, None)
    assert check_dense([20, "ddim"]) == (20, "ddim")
