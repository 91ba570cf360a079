"""Does what a page of docs/internals says, in a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NEW_FILE = re.compile(r"# new file: (\S+)\n")
BELOW = re.compile(r"# in (\S+), below: (.+)\n")
COPIED = ("dipgo", "scripts", "docs", "pyproject.toml", "tests")


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the sources to which a page has been applied."""

    root: Path
    examples: tuple[str, ...]
    """The page's Python that is neither a file nor lines of a file."""
    commands: tuple[str, ...]
    outputs: tuple[str, ...]

    def python(self, *arguments: str) -> str:
        """Runs Python in the copy; returns what it prints."""
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env={"PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def command(self, line: str) -> str:
        """Runs a command line of the page that begins with `python`."""
        name, *arguments = line.split()
        assert name == "python", line
        return self.python(*arguments)


def follow(page: Path, root: Path) -> Copy:
    """Copies the sources to `root`, writes the page's files and adds its lines."""
    for name in COPIED:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, root / name, **({"ignore": ignored} if source.is_dir() else {}))
    examples, commands, outputs = [], [], []
    for language, text in BLOCK.findall(page.read_text()):
        if language == "sh":
            commands += text.splitlines()
        elif language == "":
            outputs.append(text)
        elif not _write(root, text):
            examples.append(text)
    return Copy(root, tuple(examples), tuple(commands), tuple(outputs))


def _write(root: Path, text: str) -> bool:
    """Whether the text is a file or lines of one; it has been written then."""
    new, below = NEW_FILE.match(text), BELOW.match(text)
    if new:
        path = root / new[1]
        assert not path.exists(), f"{path} is there already"
        path.write_text(text[new.end() :])
    elif below:
        path, anchor = root / below[1], below[2] + "\n"
        content = path.read_text()
        assert content.count(anchor) == 1, f"{below[1]} does not have one line {anchor}"
        path.write_text(content.replace(anchor, anchor + text[below.end() :]))
    return bool(new or below)
