"""Pictures are PNGs of a sane size, whatever names and numbers they show."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from nonsmooth.errors import UsageError
from nonsmooth.report.files import write_report
from nonsmooth.report.picture import Panel, Ridge, draw_maps, draw_ridges, label

NAMES = ("$\\frac{1}{0$", "[red]\x1b[31m", "漢字 \U0001f600", "a" * 500, "")
"""Names that would break a formula, a font or a layout."""


def size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("values", [(0.0, None, float("nan")), (1e-12, 0.5, 40.0)])
def test_maps(tmp_path: Path, count: int, values: tuple[float | None, ...]) -> None:
    cells = tuple((*values, 0.1, 0.2) for _ in NAMES)
    texts = tuple(tuple(str(v) for v in row) for row in cells)
    panels = [Panel(f"panel $ {k}", NAMES, NAMES, cells, texts) for k in range(count)]
    draw_maps(tmp_path / "map.png", "title $x", "how to read it\nin two lines", panels, "share")
    width, height = size(tmp_path / "map.png")
    assert 1000 < width < 5000 and 300 < height < 5000


@pytest.mark.parametrize("total", [0, 6])
def test_ridges(tmp_path: Path, total: int) -> None:
    counts = (0, 1, 5) if total else (0, 0, 0)
    ridges = [Ridge(name, (counts, counts), (total, total), ("a note", "$")) for name in NAMES]
    draw_ridges(tmp_path / "ridge.png", "title", "subtitle", (0.1, 1, 10, 100), ("one", "$two"), ridges, "distance")
    width, height = size(tmp_path / "ridge.png")
    assert 1000 < width < 5000 and 300 < height < 5000


def test_names_fit_to_be_drawn() -> None:
    assert label("a\x1b$b漢") == r"a�\$b?"
    assert len(label("x" * 500)) == 30


def test_the_picture_writer_is_loaded_only_to_draw() -> None:
    probe = "import sys, nonsmooth.cli; print([m for m in ('matplotlib', 'torch', 'sklearn', 'jinja2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == "[]"


class Plain:
    def __str__(self) -> str:
        return "text"

    def to_json(self) -> str:
        return "{}"


def test_a_report_is_a_folder(tmp_path: Path) -> None:
    paths = write_report(tmp_path / "a" / "b", Plain(), {"p": lambda path: path.write_bytes(b"png")})
    assert [p.name for p in paths] == ["report.json", "report.txt", "p.png"]
    assert [p.read_text() for p in paths] == ["{}\n", "text\n", "png"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "file", Plain(), {})
