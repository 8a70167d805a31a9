"""The files of the repository name no machine, and the README names the commands that exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MACHINE = re.compile(r"(?<![\w.)\]}*-])/(?:root|home|work)/")
"""An absolute path of somebody's machine; not the same word inside an address or a relative path."""

COMMANDS = ("make audit", "make test")


def tracked_files() -> list[Path]:
    """Give the files that git has, or will have once they are added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def machine_paths(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, with their numbers, on which a path of a machine stands."""
    content = path.read_bytes()
    if b"\0" in content:
        return
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if MACHINE.search(line):
            yield f"{path.name}:{number}: {line.strip()[:100]}"


def test_no_file_names_a_machine() -> None:
    files = tracked_files()
    assert Path(__file__) in files
    assert [line for path in files for line in machine_paths(path)] == []


@pytest.mark.parametrize("folder", ["root", "home", "work"])
@pytest.mark.parametrize("before", ["", "see ", '"', "(", "=", "file://"])
def test_a_planted_path_is_found(tmp_path: Path, folder: str, before: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(f"first\n{before}/{folder}/someone/model.py\n", encoding="utf-8")
    assert [line.split(" ")[0] for line in machine_paths(path)] == ["notes.txt:2:"]


@pytest.mark.parametrize(
    "text", ["https://example.org/home/page", "docs/work/plan", "./work/x", "../root/x", "/worker/"]
)
def test_other_paths_pass(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    assert list(machine_paths(path)) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_the_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_exist(command: str) -> None:
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
