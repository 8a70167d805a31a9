"""The picture of a run: what is drawn where, at one row and at hundreds, with hostile names, and of nothing."""

from __future__ import annotations

import io
import itertools
import math
import struct
from typing import Any

import pytest
from matplotlib.colors import to_rgba

from nonsmooth.report.run_picture import COLUMNS, ROWS, UNKNOWN, RunMap, draw_run, reds, run_figure

NAMES = ("$\\frac{1}{0$", "[red]\x1b[31m", "漢字 \U0001f600", "a" * 500, "")


def made(count: int, steps: int, **changed: Any) -> RunMap:
    """A run whose share falls with the row and the step."""
    shares = tuple(tuple(0.5 / (1 + row) / (1 + k) for k in range(steps)) for row in range(count))
    changes = tuple(10.0 ** -(k % 5) for k in range(steps))
    names = tuple(f"row {k}" for k in range(count))
    return RunMap(**{"title": "t", "subtitle": "s", "rows": names, "steps": tuple(range(0, 10 * steps, 10)),
                     "shares": shares, "changes": changes, **changed})  # fmt: skip


def texts(run: RunMap) -> str:
    figure = run_figure(run)
    return "\n".join(t.get_text() for t in figure.texts)


def parts(run: RunMap) -> dict[str, Any]:
    """The axes of a figure by what they show."""
    axes = run_figure(run).axes
    found = {"map": next((a for a in axes if a.images), None)}
    found["changes"] = next((a for a in axes if any(line.get_gid() == "changes" for line in a.lines)), None)
    found["marks"] = next((a for a in axes if a.lines and a is not found["changes"] and not a.images), None)
    return found


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (1, 30), (200, 50), (12, 5000), (0, 3), (0, 0), (3, 0)])
def test_sizes(rows: int, steps: int) -> None:
    drawn = io.BytesIO()
    draw_run(drawn, made(rows, steps))
    width, height = struct.unpack(">II", drawn.getvalue()[16:24])
    assert drawn.getvalue()[:4] == b"\x89PNG" and 1000 < width < 2500 and 200 < height < 2500


@pytest.mark.parametrize(
    ("rows", "steps", "words"), [(0, 3, "No operation with kinks"), (0, 0, "No step was observed")]
)
def test_nothing(rows: int, steps: int, words: str) -> None:
    assert words in texts(made(rows, steps, changes=(None,) * steps))


def test_hostile_names_are_drawn_as_they_stand() -> None:
    run = made(len(NAMES), 3, rows=NAMES, title=NAMES[0], subtitle=NAMES[1])
    draw_run(io.BytesIO(), run)
    shown = [t.get_text() for t in parts(run)["map"].get_yticklabels()]
    assert shown[0] == "\\$\\frac{1}{0\\$" and "\x1b" not in shown[1] and len(shown[3]) == 44


def test_cells_have_the_colour_of_their_share() -> None:
    run = made(2, 3, shares=((0.0, 0.001, None), (0.1, 0.01, 1e-4)), changes=(None,) * 3)
    pixels = parts(run)["map"].images[0].get_array()
    assert tuple(pixels[0, 0]) == (1.0, 1.0, 1.0, 1.0) and tuple(pixels[0, 2]) == to_rgba(UNKNOWN)
    light = [sum(w * c for w, c in zip((0.3, 0.59, 0.11), p[:3], strict=True)) for p in
             (pixels[0, 0], pixels[1, 2], pixels[0, 1], pixels[1, 1], pixels[1, 0])]  # fmt: skip
    assert light == sorted(light, reverse=True) and all(a - b > 0.04 for a, b in itertools.pairwise(light))
    assert "grey: did not run" in texts(run)


def test_the_scale_darkens_evenly() -> None:
    scale = reds(0.1, 1e-6)
    light = [0.3 * r + 0.59 * g + 0.11 * b for r, g, b, _ in (scale.to_rgba(10 ** (-6 + k / 20)) for k in range(101))]
    assert all(a > b for a, b in itertools.pairwise(light)) and light[0] < 0.93


def test_many_steps_are_gathered() -> None:
    steps = 3 * COLUMNS
    shares = (tuple(0.15 if k == 4 else 0.0 for k in range(steps)),)
    run = made(1, steps, shares=shares, changes=tuple(0.5 if k == 4 else 0.0 for k in range(steps)))
    found = parts(run)
    pixels = found["map"].images[0].get_array()
    assert pixels.shape[1] == COLUMNS
    assert [k for k in range(COLUMNS) if tuple(pixels[0, k]) != (1.0, 1.0, 1.0, 1.0)] == [1]  # steps 3, 4 and 5
    assert "A column is 3 observed steps" in texts(run)
    one = reds(0.1, 0.05)
    assert tuple(pixels[0, 1]) == pytest.approx(one.to_rgba(0.05))  # the mean of 0, 0.15 and 0
    (line,) = (line for line in found["changes"].lines if line.get_gid() == "changes")
    assert line.get_xydata().tolist() == [[1.0, 0.5]]  # the largest


def test_many_rows_are_left_out_and_said() -> None:
    rows = ROWS + 20
    run = made(rows, 2, shares=tuple((k / rows, 0.0) for k in range(rows)))
    shown = [t.get_text() for t in parts(run)["map"].get_yticklabels()]
    assert shown == [f"row {k}" for k in range(20, rows)]  # those with the largest shares, in their order
    assert f"The {ROWS} of {rows} places" in texts(run)
    assert "left out" not in texts(made(ROWS, 2))


def test_changes_and_marks() -> None:
    changes = (0.1, 0.0, None, math.inf, 1e-9, float("nan"))
    run = made(1, 6, changes=changes, rounding=1e-6, marks=(("broken", (0, 5)), ("trap", ()), ("other", (2,))))
    found = parts(run)
    lines = {line.get_gid(): line.get_xdata().tolist() for line in found["changes"].lines}
    assert (lines["changes"], lines["none"], lines["from zero"]) == ([0], [1, 4], [3])
    labels = [t.get_text() for t in found["changes"].get_yticklabels()]
    assert labels[0] == "0 or rounding" and labels[-1] == "from g = 0"
    assert [t.get_text() for t in found["marks"].get_yticklabels()] == ["broken", "other"]
    assert [line.get_xdata().tolist() for line in found["marks"].lines] == [[0, 5], [2]]


def test_columns_are_named_by_their_steps() -> None:
    axes = parts(made(1, 30))["changes"]
    assert [t.get_text() for t in axes.get_xticklabels()][:3] == ["0", "50", "100"]
