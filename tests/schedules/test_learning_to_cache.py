"""Learning-to-Cache's checkpoints: read, or refused."""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.common.safe_pickle import load_checkpoint
from dipgo.schedules.learning_to_cache import learning_to_cache
from tests.support.tiny_schedules import (
    dense_subnet,
    row_strings,
)


def test_learning_to_cache_reads_a_router(tmp_path: object) -> None:
    """Logits over 4 steps, last step first; only even ones (counted so) may reuse."""
    blocks = ("transformer_blocks.0.attn1", "transformer_blocks.0.ff")
    path = f"{tmp_path}/router.pt"
    routers = torch.nn.ModuleList([_Router(k) for k in ([-9.0, 9.0], [-9, -9], [9, -9], [0, 0])])
    torch.save({"routers": routers.state_dict(), "args": argparse.Namespace(lr=0.01)}, path)
    subnet = learning_to_cache(path, dense_subnet(blocks, 4))
    assert row_strings(subnet) == ["11", "10", "11", "01"]
    with pytest.raises(DipgoError, match="4 steps of 2 attentions and MLPs"):
        learning_to_cache(path, dense_subnet(blocks, 5))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_broken_checkpoints_are_refused_or_read(data: st.DataObject) -> None:
    saved = io.BytesIO()
    torch.save({"routers": {"0.prob": torch.ones(2)}}, saved)
    content = bytearray(saved.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DipgoError):
        load_checkpoint(whole, name="router.pt")


class _Router(torch.nn.Module):
    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.prob = torch.nn.Parameter(torch.tensor(logits, dtype=torch.float32))


@pytest.mark.parametrize("content", [b"", b"PK", "code"])
def test_learning_to_cache_refuses_other_files(tmp_path: object, content: bytes | str) -> None:
    path = f"{tmp_path}/router.pt"
    if content == "code":
        torch.save({"routers": subprocess.run}, path)
    else:
        with open(path, "wb") as file:
            file.write(content)  # type: ignore[arg-type]
    with pytest.raises(DipgoError, match=r"router\.pt: found"):
        learning_to_cache(path, dense_subnet(("mid_block",), 4))
