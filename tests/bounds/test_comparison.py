"""Bounds as text and as a picture: corresponding layers stand together, and what is infinite or zero is said."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nonsmooth.bounds import picture
from nonsmooth.bounds.bounds import Bound, Bounds, Layer, Part
from nonsmooth.bounds.comparison import compare_bounds
from nonsmooth.bounds.document import LETTERS, bounds_document
from nonsmooth.report.text import render

Step = tuple[str, float, float, float]


def made(
    name: str, *steps: Step, kinds: tuple[str, ...] = ("weights",), module: str = "", framework: str = "torch"
) -> Bounds:
    """Make bounds by hand: each step is an operation and its m, l and L."""
    layers = tuple(
        Layer(operation, module, "", (2,), (1.0, 2.0), *[Bound(m, lipschitz, smoothness)] * 3)
        for operation, m, lipschitz, smoothness in steps
    )
    parts = tuple(Part(f"{kind}0", kind, (2,), "||v|| <= 1", 1.0, 1.0, 0.0) for kind in kinds)
    last = layers[-1].both
    return Bounds(1, name, framework, last, last, last, {"result": (last, last, last)}, parts, layers)


SHORT = made("short", ("linear", inf, 10.0, 0.0), ("tanh", 2.0, 10.0, inf), ("linear", 3.0, 100.0, 5.0))
LONG = made("long", ("linear", 8.0, 10.0, 0.0), ("layer_norm", 2.0, 7.0, 9.0), ("tanh", 2.0, 10.0, inf),
            ("linear", 3.0, 100.0, inf))  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Keep the figures that are drawn."""
    figures: list[Any] = []
    monkeypatch.setattr(picture, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def lines(axes: Any) -> dict[str, list[float]]:
    """Give the places of every curve and of its crosses."""
    return {line.get_gid(): list(line.get_xdata()) for line in axes.lines}


def test_corresponding_layers_stand_above_each_other(drawn: list[Any]) -> None:
    """The axis counts the rows of the table, and names them."""
    compare_bounds({"short": SHORT, "long": LONG}).draw("x.png")
    size, lipschitz, smoothness = drawn[0].axes
    assert lines(lipschitz) == {"short": [1, 3, 4], "long": [1, 2, 3, 4]}
    assert [t.get_text() for t in smoothness.get_xticklabels()] == ["linear", "layer_norm", "tanh", "linear"]
    assert lines(size)["short: infinite"] == [1] and "long: infinite" not in lines(size)
    assert lines(smoothness)["short: infinite"] == [3] and lines(smoothness)["long: infinite"] == [3, 4]


def test_nothing_is_drawn_outside_the_picture(drawn: list[Any]) -> None:
    """The longest names of steps, and many architectures, find room."""
    steps = [("scaled_dot_product_attention", 1.0, 2.0, 3.0)] * 48
    compare_bounds({f"architecture {k}": made("a", *steps) for k in range(9)}).draw("x.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    drawer = FigureCanvasAgg(figure).get_renderer()
    texts = [*figure.texts, *figure.axes[-1].get_xticklabels(), *figure.legends[0].get_texts()]
    boxes = [text.get_window_extent(drawer) for text in texts]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in boxes)
    assert figure.legends[0].get_window_extent(drawer).y0 >= figure.axes[0].title.get_window_extent(drawer).y1


@pytest.mark.parametrize(
    ("values", "word"),
    [((inf, inf), "infinite everywhere"), ((0.0, 0.0), "zero everywhere"), ((0.0, inf), "zero or infinite everywhere")],
)
def test_a_panel_without_numbers_says_so(drawn: list[Any], values: tuple[float, float], word: str) -> None:
    """No axis is invented where there is nothing to draw."""
    made("f", *(("relu", 1.0, 1.0, value) for value in values)).draw("x.png")
    *others, smoothness = drawn[0].axes
    assert [t.get_text() for t in smoothness.texts] == [word] and not any(axes.texts for axes in others)
    assert not smoothness.yaxis.get_tick_params()["labelleft"]


def test_more_steps_than_can_be_named_are_counted(drawn: list[Any]) -> None:
    """A long program has numbers at the axis."""
    made("f", *[("tanh", 1.0, 2.0, 3.0)] * 49).draw("x.png")
    assert drawn[0].axes[-1].get_xlabel() == "step"


def test_the_text_shows_what_moves(drawn: list[Any]) -> None:
    """Columns of what is fixed are left out; a zero constant is no power of ten."""
    text = render(compare_bounds({"short": SHORT, "long": LONG}).document(), 100)
    assert "(weights)" in text and "inputs" not in text
    assert "= 0 " in text and " inf " in text
    both = compare_bounds({"short": SHORT, "moved": made("m", ("tanh", 1.0, 1.0, 1.0), kinds=("inputs",))})
    assert "l (inputs)" in str(both) and "l (weights)" in str(both)


@pytest.mark.parametrize(
    ("module", "framework", "shown"),
    [("eqx.nn.MLP.eqx.nn.Linear", "jax", "Linear"), ("layers.0.attention", "torch", "layers.0.attention"),
     ("", "jax", "-"), ("a.b.c." + "long" * 20, "torch", "…" + "long" * (LETTERS // 4))],
)  # fmt: skip
def test_names_of_modules_are_shortened(module: str, framework: str, shown: str) -> None:
    """A cell takes three lines or fewer."""
    found = made("f", ("tanh", 1e-30, 1.2345e20, inf), kinds=("weights", "inputs"), module=module, framework=framework)
    table = bounds_document(found).parts[2]
    assert table.rows[0][1] == shown and "l of the step" in table.columns and "each operand" in table.note  # type: ignore[union-attr]
    rows = [line for line in render(table, 100).splitlines() if line.startswith("│")]
    assert 1 <= len(rows) <= 3


def test_bound_prints_shortly() -> None:
    """A bound is a line."""
    assert str(Bound(3.0, 2.1, inf)) == "m = 3, l = 2.1, L = inf"
