"""Exports on the Hub: what is asked of its client, and one clear line where it cannot answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from dipgo.common.errors import DipgoError
from dipgo.export import export
from dipgo.run.pipeline import Pipeline
from tests.support.tiny_pipelines import save_pipeline


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    return export(save_pipeline("dit", folder), "dense", folder / "out", steps=2)


class StandInHub:
    """The two calls of `HfApi` that upload; the repository is a folder."""

    asked: list[dict[str, Any]]

    def __init__(self, token: str | None = None) -> None:
        StandInHub.asked = [{"token": token}]

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.asked.append({"repo_id": repo_id, **options})
        return huggingface_hub.RepoUrl(f"https://huggingface.co/someone/{repo_id}")

    def upload_folder(self, **options: Any) -> None:
        self.asked.append(options)


def test_the_directory_goes_up_as_it_is(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", StandInHub)
    pipeline = Pipeline.from_pretrained(out, threads=1)
    url = pipeline.push_to_hub("pictures", private=True, token="secret")
    assert url.endswith("someone/pictures")
    token, repository, upload = StandInHub.asked
    assert token == {"token": "secret"}
    assert repository == {"repo_id": "pictures", "private": True, "exist_ok": True}
    assert upload["repo_id"] == "someone/pictures"
    assert Path(upload["folder_path"]) == out


def test_what_is_fetched_is_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(repo_id: str, **options: Any) -> str:
        assert (repo_id, options) == ("someone/pictures", {"revision": "v1", "token": None})
        return str(out)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    fetched = Pipeline.from_pretrained("someone/pictures", revision="v1", threads=1)
    here = Pipeline.from_pretrained(out, threads=1)
    options: dict[str, Any] = {"seed": 2, "output_type": "latent"}
    assert np.array_equal(fetched(7, **options).images, here(7, **options).images)


def test_a_hub_that_does_not_answer(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any, **options: Any) -> None:
        raise ConnectionError("no route\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    line = r"someone/pictures: found no answer.*ConnectionError: no route\).*give its path"
    with pytest.raises(DipgoError, match=line) as error:
        Pipeline.from_pretrained("someone/pictures")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(StandInHub, "create_repo", fail)
    monkeypatch.setattr(huggingface_hub, "HfApi", StandInHub)
    with pytest.raises(DipgoError, match=line):
        Pipeline.from_pretrained(out, threads=1).push_to_hub("someone/pictures")


def test_what_cannot_be_a_hub_id() -> None:
    """Refused by the client itself, before any network."""
    with pytest.raises(DipgoError, match=r"found no answer.*HFValidationError"):
        Pipeline.from_pretrained("a/b/c")


def test_a_repository_without_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **b: str(tmp_path))
    with pytest.raises(DipgoError, match=r"no plan\.json; expected an export directory"):
        Pipeline.from_pretrained("someone/pictures")
