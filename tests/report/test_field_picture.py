"""The pictures of the field hold what was computed, and no text stands on another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.report.field_path_picture import draw_paths
from nonsmooth.report.field_picture import MARKS, KinkView, LineView, draw_gallery, draw_line, save_figure

ZERO = torch.tensor(0.0, dtype=torch.float64)


def lines(axes: Any, gid: str) -> list[Any]:
    return [line for line in axes.lines if line.get_gid() == gid]


def overlaps(figure: Any) -> list[tuple[str, str]]:
    """Give the pairs of titles, legends and notes of a figure that stand on each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [*figure.texts]
    for legend in figure.legends:
        texts += legend.get_texts()
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        low, high = axes.get_xlim()
        texts += [t for t, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=False) if low <= at <= high]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text().strip() and t.get_visible()]
    pairs = itertools.combinations(boxes, 2)
    return [
        (a, b) for (a, u), (b, v) in pairs
        if min(u.x1, v.x1) - max(u.x0, v.x0) > 1 and min(u.y1, v.y1) - max(u.y0, v.y0) > 1
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("f", "field", "clarke"),
    [
        (lambda t: torch.relu(-t) + t, (0, 1), (0, 1)),
        (lambda t: torch.relu(t) - torch.relu(-t), (0, 2), (1, 1)),
        (lambda t: torch.relu(-t) + t - torch.relu(t), (-1, 1), (0, 0)),
    ],
)
def test_the_segments_are_the_sets(f: Any, field: tuple[int, int], clarke: tuple[int, int]) -> None:
    figure = ns.plot_field(f, ZERO, radius=1.0, grid=40)
    above, below = figure.axes
    (segment,), (inside,) = lines(below, "field"), lines(below, "clarke")
    box = ns.field(f, ZERO).box()
    assert segment.get_ydata() == pytest.approx([float(box[0][0]), float(box[1][0])]) == list(field)
    assert set(segment.get_xdata()) == {0.0}
    assert (min(inside.get_ydata()), max(inside.get_ydata())) == pytest.approx(clarke)
    assert inside.get_color() != segment.get_color()
    for name in MARKS:
        rule = {"0": 0.0, "1/2": 0.5, "1": 1.0}.get(name, name)
        (mark,) = lines(below, f"at {name}")
        assert float(mark.get_ydata()[0]) == float(ns.backprop(f, ZERO, at_kinks=rule))
    runs = lines(below, "backprop")
    assert len(runs) == 2 and all(0.0 not in run.get_xdata() for run in runs)
    (graph,) = lines(above, "F")
    assert [float(f(torch.tensor(t))) for t in graph.get_xdata()] == pytest.approx(list(graph.get_ydata()), abs=1e-6)
    assert overlaps(figure) == []


def test_the_legend_says_what_is_drawn() -> None:
    figure = ns.plot_field(torch.abs, ZERO, grid=40)
    words = " ".join(t.get_text() for legend in figure.legends for t in legend.get_texts())
    assert all(
        name in words for name in ("field: conv D", "Clarke's subdifferential", "jax", "minimum-norm", "weight 1/2")
    )
    assert "conv D = [-1, 1]" in figure.texts[-1].get_text()


def test_a_tolerance_is_said() -> None:
    figure = ns.plot_field(
        lambda t: torch.relu(torch.sin(t)), torch.tensor(3.0, dtype=torch.float64), radius=1.0, grid=60
    )
    assert "hit by no floating-" in figure.texts[-1].get_text() and "within" in figure.texts[-1].get_text()
    assert overlaps(figure) == []


def test_two_variables(tmp_path: Path) -> None:
    x = torch.zeros(2, dtype=torch.float64)
    path = tmp_path / "l1.png"
    figure = ns.plot_field(lambda t: torch.abs(t).sum(), x, points=[[1.0, 0.0]], grid=16, title="a $ b", path=path)
    assert path.stat().st_size > 20_000
    plane, here, right = figure.axes
    assert here.get_title(loc="left") == "A = (0, 0)" and right.get_title(loc="left") == "B = (1, 0)"
    (square,) = lines(here, "field")
    corners = set(zip(square.get_xdata(), square.get_ydata(), strict=True))
    assert corners == {(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)}
    (segment,) = lines(right, "field")
    assert sorted(zip(segment.get_xdata(), segment.get_ydata(), strict=True)) == [(1.0, -1.0), (1.0, 1.0)]
    feet = {(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in lines(right, "projection")}
    assert feet == {(1.0, 0.0)}  # all of conv D projects to one point
    assert lines(plane, "tangent") and plane.collections[0].get_gid() == "stratum"
    assert overlaps(figure) == []


@pytest.mark.parametrize("count", [0, 3])
def test_no_text_stands_on_another(count: int) -> None:
    points = [[0.8, 0.8], [0.0, -0.8], [-0.8, 0.0]][:count]
    x = torch.zeros(2, dtype=torch.float64)
    figure = ns.plot_field(lambda t: torch.relu(torch.maximum(t[0], t[1])), x, points=points, grid=12)
    assert overlaps(figure) == []


def test_the_check_of_overlaps_sees_one() -> None:
    figure = ns.plot_field(torch.abs, ZERO, grid=20)
    figure.text(0.757, 0.12, "on top of the words")
    assert len(overlaps(figure)) == 1


def test_a_slice_of_one_direction() -> None:
    x, d = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    figure = ns.plot_field(lambda t: torch.abs(t).sum(), x, directions=[d], grid=40)
    (segment,) = lines(figure.axes[1], "field")
    assert segment.get_ydata() == pytest.approx([-3, 3])


def test_marks_differ_without_colour() -> None:
    shapes = [(shape, face == "white", face) for shape, face, _ in MARKS.values()]
    assert len({shape for shape, _, _ in shapes}) == 5 and len(set(shapes)) == len(MARKS)


def view(name: str = "t", **changes: Any) -> LineView:
    kink = KinkView(0.0, 0.0, 0.0, dict.fromkeys(MARKS, 0.0), (0.0, 1.0), None, "undecided")
    settings = {"times": (-1.0, 1.0), "values": (0.0, 1.0), "slopes": (0.0, float("nan")), "kinks": (kink,)} | changes
    return LineView(0.0, -1.0, 1.0, name, **settings)


def test_what_is_missing_is_drawn_as_missing(tmp_path: Path) -> None:
    from dataclasses import replace

    figure = draw_line(view())
    assert lines(figure.axes[1], "clarke") == [] and len(lines(figure.axes[1], "field")) == 1
    none = replace(view().kinks[0], field=None, word="no field")
    figure = draw_line(view(kinks=(none,), left_out=3))
    assert len(lines(figure.axes[1], "no field")) == 1 and "3 kinks further off" in figure.texts[-1].get_text()
    save_figure(draw_gallery([("$x", "漢字", view()), ("b", "no kink", view(kinks=()))], "title"), tmp_path / "g.png")
    assert (tmp_path / "g.png").stat().st_size > 5000
    with pytest.raises(UsageError, match="no kink"):
        view(kinks=()).find(0.0)
    with pytest.raises(UsageError, match="cannot be written"):
        save_figure(figure, tmp_path / "missing" / "g.png")


def test_paths(tmp_path: Path) -> None:
    figure = draw_paths([("one $", [0, 1], {"at the point": [1.0, 1.0], "over radius 0.1": [1.0, 0.0]})] * 2)
    (ball,) = lines(figure.axes[0], "over radius 0.1")
    assert list(ball.get_ydata()) == [1.0, 0.0]
    assert overlaps(figure) == []
    save_figure(figure, tmp_path / "paths.png")
