"""Files of results that commands do not replace without a word, and files of exports never.

By the code of 3bfeb0e: all were replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dipgo.bench
import dipgo.evaluate.__main__
import dipgo.run.__main__
import dipgo.search.__main__
from dipgo.common.cli import run_command
from dipgo.evaluate.cache import LOCK_FILE, only_evaluation
from dipgo.ir.manifest.records import CONSTANTS_FILE, MANIFEST_FILE, WEIGHTS_FILE
from dipgo.search.log import COLUMNS, begin_log, is_log
from tests.support.refusals import PROMPT, Refused

Main = Callable[[list[str]], None]

WRITES: dict[str, tuple[Main, Callable[[Path, Path], list[Any]]]] = {
    "bench --json": (dipgo.bench.main, lambda out, file: [out, "--json", file]),
    "run --latents": (dipgo.run.__main__.main, lambda out, file: [out, *PROMPT, "--latents", file]),
    "run --image": (dipgo.run.__main__.main, lambda out, file: [out, *PROMPT, "--image", file]),
    "search --out": (dipgo.search.__main__.main, lambda out, file: _search(out, file)),
    "search --log": (
        dipgo.search.__main__.main,
        lambda out, file: [*_search(out, out.parent / "subnet.json"), "--log", file],
    ),
}


def _search(out: Path, file: Path) -> list[Any]:
    prompts = out.parent / "prompts.txt"
    prompts.write_text("a red circle")
    given = ["--model", "arch:sd15", "--steps", "2", "--ratio", "0.5", "--prompts", prompts]
    return [*given, "--out", file]


ENDINGS = {"run --latents": ".npy", "run --image": ".png"}


@pytest.mark.parametrize("listed", [MANIFEST_FILE, WEIGHTS_FILE, CONSTANTS_FILE])
@pytest.mark.parametrize("how", ["itself", "by a link", "by another way"])
@pytest.mark.parametrize("name", WRITES)
def test_no_file_of_an_export_is_overwritten(
    name: str, how: str, listed: str, damaged: Path, refused: Refused
) -> None:
    main, words = WRITES[name]
    file = damaged / listed
    if how == "by another way":
        file = damaged.parent / "damaged" / ".." / "damaged" / listed
    if how == "by a link" or name in ENDINGS:
        file = damaged.parent / f"link{ENDINGS.get(name, '.json')}"
        file.symlink_to(damaged / listed)
    given = [*words(damaged, file)]
    given += ["--force"] if name.startswith("search") else []
    refused(main, given, str(file), "a file of the export", "a file that no export needs")


def test_a_new_file_in_an_export_is_no_matter(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [damaged, "--repeats", "1", "--warmup", "0", "--threads", "1"]
    words = list(map(str, [*given, "--json", damaged / "times.json"]))
    assert run_command(dipgo.bench.main, words) == 0
    assert (damaged / "times.json").stat().st_size


def test_figures_are_written_also_where_none_can_be_printed(exported: Path, tmp_path: Path) -> None:
    """Failed at 3bfeb0e: the table came first, and the figures of hours were lost with it."""
    numbers = ["--repeats", "1", "--warmup", "0", "--threads", "1"]
    words = [str(exported), *numbers, "--json", str(tmp_path / "times.json")]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dipgo.bench", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: output: found a place that takes no")
    assert "machine" in json.loads((tmp_path / "times.json").read_text())


@pytest.fixture
def search_words(tmp_path: Path) -> list[Any]:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle")
    given = ["--model", "no-such-model", "--steps", "2", "--ratio", "0.5", "--prompts", prompts]
    return [*given, "--out", tmp_path / "subnet.json", "--log", tmp_path / "log.csv"]


@pytest.mark.parametrize("name", ["subnet.json", "log.csv"])
def test_a_search_replaces_no_result(
    name: str, search_words: list[Any], tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / name).write_text("hours of work")
    found = (name, "an earlier result", "a file that does not exist", "give --force to replace it")
    refused(dipgo.search.__main__.main, search_words, *found)


@pytest.mark.parametrize("option", [["--force"], ["--checkpoint", "{tmp}/state"], []])
def test_what_a_search_may_replace(
    option: list[str], search_words: list[Any], tmp_path: Path, refused: Refused
) -> None:
    """By an option, or where nothing is lost: it then fails for its model alone."""
    log = tmp_path / "log.csv"
    log.write_text(",".join(COLUMNS) + "\nexchange,1,2,3,4,5,6\n" if option else "")
    if option == ["--force"]:
        (tmp_path / "subnet.json").write_text("hours of work")
    words = [*search_words, *(word.format(tmp=tmp_path) for word in option)]
    code = run_command(dipgo.search.__main__.main, list(map(str, words)))
    assert code == 2
    assert log.read_text().startswith(",".join(COLUMNS)) == (option[:1] == ["--checkpoint"])


def test_one_file_for_both(search_words: list[Any], tmp_path: Path, refused: Refused) -> None:
    words = [*search_words, "--log", tmp_path / "subnet.json"]
    refused(dipgo.search.__main__.main, words, "--log", "for both", "two files")


def test_logs(tmp_path: Path) -> None:
    path, head = tmp_path / "log.csv", ",".join(COLUMNS)
    for text, expected in (("", True), (head[:5], True), (f"{head}\n1", True), ("a,b", False)):
        path.write_text(text)
        assert is_log(path) == expected
    assert not is_log(tmp_path / "no")
    os.mkfifo(tmp_path / "pipe")
    assert not is_log(tmp_path / "pipe")
    begin_log(path)
    assert path.read_bytes() == b""
    begin_log(Path(os.devnull))
    assert os.path.exists(os.devnull)


@pytest.fixture
def evaluate_words(tmp_path: Path, exported: Path) -> list[Any]:
    (tmp_path / "prompts.txt").write_text("a red circle")
    subnet = exported.with_name("no.json")
    given = ["--model", "no-such-model", "--prompts", tmp_path / "prompts.txt"]
    return [*given, "--subnets", subnet, "--out", tmp_path / "out"]


@pytest.mark.parametrize("name", ["report.json", "plot.png"])
def test_an_evaluation_replaces_no_report(
    name: str, evaluate_words: list[Any], tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("hours of work")
    main = dipgo.evaluate.__main__.main
    refused(main, evaluate_words, name, "an earlier result", "does not exist", "give --force")
    refused(main, [*evaluate_words, "--force"], "no.json", "nothing that can be read", "")


def test_one_evaluation_at_a_time(tmp_path: Path) -> None:
    """The lock's file is there only meanwhile."""
    folder = tmp_path / "cache"
    with only_evaluation(folder):
        assert (folder / LOCK_FILE).exists()
    assert list(folder.iterdir()) == []
