"""Uploads export directories to the Hub as they are, and fetches them to be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipgo.common.errors import DipgoError
from dipgo.ir.manifest.file import read_manifest
from dipgo.ir.manifest.records import MANIFEST_FILE


def find_export(model: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """Returns the export directory at a path, or fetches the one with that id from the Hub.

    Raises:
        DipgoError: The Hub cannot be reached, or what was fetched is no export.
    """
    if Path(model).exists():
        return Path(model)
    hub = _hub(str(model))
    try:
        folder = hub.snapshot_download(str(model), revision=revision, token=token)
    except Exception as error:  # from requests or httpx, whichever the Hub's client uses
        raise _unreachable(str(model), error) from error
    path = Path(folder)
    if not (path / MANIFEST_FILE).is_file():
        raise DipgoError(
            f"model {model}",
            found=f"no {MANIFEST_FILE}",
            expected="an export directory that push_to_hub has uploaded",
            remedy="export the model, and push the directory",
        )
    return path


def push_export(
    path: Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Export by dipgo",
) -> str:
    """Uploads the directory, with its built engines, and returns its address.

    Raises:
        DipgoError: The directory is no export, or the Hub cannot be reached.
    """
    read_manifest(path)
    hub = _hub(repository)
    try:
        api = hub.HfApi(token=token)
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=str(url.repo_id), folder_path=str(path), commit_message=message)
    except Exception as error:  # as above
        raise _unreachable(repository, error) from error
    return str(url)


def _hub(name: str) -> Any:
    """Returns the Hub's client, which `tokenizers` brings along."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise DipgoError(
            f"model {name}",
            found="no directory of that name, nor the package huggingface_hub",
            expected="an export directory, or what can reach the Hub",
            remedy="give the path of an export, or pip install huggingface_hub",
        ) from error
    return huggingface_hub


def _unreachable(name: str, error: Exception) -> DipgoError:
    lines = str(error).strip().splitlines() or [""]
    return DipgoError(
        f"model {name}",
        found=f"no answer of the Hub for it ({type(error).__name__}: {lines[0]})",
        expected="an export directory, or a repository of the Hub that can be reached",
        remedy="check name, token and network, or copy the directory and give its path",
    )
