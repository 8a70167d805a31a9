"""The study of the field: kinks found, sets against closed forms, strata, the projection formula, criticality."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import nonsmooth as ns
from nonsmooth import cli
from nonsmooth.derivatives.criticality import ball_criticality, path_criticality
from nonsmooth.sets import Hull
from nonsmooth.studies.field import FieldStudy, study_field
from nonsmooth.studies.field_chart import open_chart
from nonsmooth.studies.field_line import view_line
from nonsmooth.studies.field_plane import outline, projection_spread, stratum_tangent, view_plane

ZERO = torch.tensor(0.0, dtype=torch.float64)
ORIGIN = torch.zeros(2, dtype=torch.float64)

# name: backprop, conv D, Clarke's set, the word; all at 0
CLOSED_FORMS = {
    "relu2": (1, (0, 1), (0, 1), "subgradient"),
    "relu3": (0.5, (0, 1), (0, 1), "subgradient"),
    "zero": (1, (-1, 1), (0, 0), "artifact"),
    "oneThird": (1, (-1, 1), (0, 0), "artifact"),
    "mysin": (2, (0, 2), (1, 1), "artifact"),
    "mysin2": (0, (0, 2), (1, 1), "artifact"),
    "mysin3": (2, (-1, 3), (1, 1), "artifact"),
    "identity": (0, (0, 2), (1, 1), "artifact"),
}


@pytest.fixture(scope="module")
def study() -> FieldStudy:
    return study_field(steps=64, samples=12, grid=21)


def kinks_in(f: Any, x: torch.Tensor = ZERO, **options: Any) -> list[tuple[float, float]]:
    return [(k.at, k.tol) for k in view_line(open_chart(f, x, ()), **options).kinks]


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_the_gallery(study: FieldStudy, name: str) -> None:
    backprop, field, clarke, word = CLOSED_FORMS[name]
    kink = study.line(name).view.find(0.0)
    assert kink.at == 0 and kink.tol == 0
    assert kink.backprop == kink.conventions["torch"] == pytest.approx(backprop, abs=1e-12)
    assert kink.field == pytest.approx(field, abs=1e-12)
    assert kink.clarke == pytest.approx(clarke, abs=1e-12)
    assert kink.clarke_exact and kink.field_exact and kink.word == word
    assert all(field[0] - 1e-12 <= v <= field[1] + 1e-12 for v in kink.conventions.values())


def test_the_gallery_is_complete(study: FieldStudy) -> None:
    assert [f.name for f in study.lines] == list(CLOSED_FORMS)
    assert [f.name for f in study.planes] == ["l1", "max", "norm", "cusp"]


def test_a_kink_at_no_floating_point_number_is_said_to_be_one(study: FieldStudy) -> None:
    kinks = study.line("mysin3").view.kinks
    assert [k.at for k in kinks] == pytest.approx([-math.pi, 0, math.pi], abs=1e-15)
    assert [k.tol > 0 for k in kinks] == [True, False, True]
    assert [k.word for k in kinks] == ["not judged", "artifact", "not judged"]
    assert "~3.1416" in str(study) and "no floating-point number" in str(study)


@pytest.mark.parametrize(
    ("f", "x", "places"),
    [
        (lambda t: torch.clamp(t, -1 / 3, 0.7), 0.0, [-1 / 3, 0.7]),
        (lambda t: torch.relu(t - 0.1) + torch.abs(3 * t + 1), 0.0, [-1 / 3, 0.1]),
        (lambda t: torch.relu(t * t), 0.5, [0.0]),
        (lambda t: torch.relu(torch.relu(t)), 1.0, [0.0]),
        (lambda t: t if t > 0.25 else 2 * t - 0.25, 0.0, [0.25]),
        (lambda t: torch.sin(t), 0.0, []),
        (lambda t: torch.relu(t.exp() - 2), 0.0, [math.log(2)]),
    ],
)
def test_kinks_are_found(f: Any, x: float, places: list[float]) -> None:
    found = kinks_in(f, torch.tensor(x, dtype=torch.float64), radius=1.0)
    assert [t for t, _ in found] == pytest.approx(places, abs=1e-15)


def test_single_precision_is_seen_as_such() -> None:
    ((at, tol),) = kinks_in(lambda t: torch.relu(t - 0.1), torch.tensor(0.0), radius=0.5)
    assert tol == 0 and float(torch.tensor(at) - 0.1) == 0


def test_where_there_is_no_field_it_is_said() -> None:
    view = view_line(open_chart(lambda t: torch.sign(t) + torch.relu(t - 0.5), torch.tensor(0.1), ()), radius=1.0)
    assert [(k.at, k.word) for k in view.kinks] == [(0.0, "no field"), (0.5, "subgradient")]
    assert view.kinks[0].field is None and "jump" in view.kinks[0].note


def test_the_nearest_kinks_are_kept() -> None:
    centres = torch.linspace(-1, 1, 33, dtype=torch.float64)
    view = view_line(open_chart(lambda t: torch.relu(t - centres).sum(), ZERO, ()), radius=1.25)
    assert len(view.kinks) == 24 and view.left_out == 9
    assert [k.at for k in view.kinks] == sorted(k.at for k in view.kinks)


def test_the_sets_of_two_variables(study: FieldStudy) -> None:
    square, right, down = study.plane("l1").view.points
    assert set(square.field or ()) == {(-1, -1), (1, -1), (1, 1), (-1, 1)} and square.distance == 0
    assert square.tangent == () and square.kinks == 2 and square.descent is None
    assert set(right.field or ()) == {(1, -1), (1, 1)} and right.tangent == ((1, 0),)
    assert right.distance == pytest.approx(1) and right.descent == pytest.approx((-1, 0), abs=1e-12)
    assert set(down.field or ()) == {(1, -1), (-1, -1)} and down.tangent == ((0, 1),)
    corner = study.plane("max").view.points[0]
    assert set(corner.field or ()) == set(corner.clarke or ()) == {(0, 0), (1, 0), (0, 1)} and corner.clarke_exact
    (disc,) = study.plane("norm").view.points
    assert np.hypot(*np.array(disc.field).T) == pytest.approx(np.ones(96))
    assert study.plane("norm").view.isolated == ((0.0, 0.0),) and study.plane("norm").view.strokes == ()


def test_the_cusp_is_inner_only(study: FieldStudy) -> None:
    cusp = study.plane("cusp").view.points[0]
    assert cusp.equality == "inner only" and not cusp.clarke_exact
    assert set(cusp.field or ()) == {(0, -1), (0, 1)} and cusp.clarke == ((0, 0),)
    assert "only a part of it" in " ".join(str(study).split())


def test_the_projection_formula(study: FieldStudy) -> None:
    points = [p for f in study.planes for p in f.view.points]
    assert len(points) == 11 and all(p.spread <= 1e-14 for p in points)
    assert sum(len(p.tangent) == 1 for p in points) == 8


def test_the_projection_is_the_derivative_along_the_stratum() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x[0] + 2 * x[1] - 1) + torch.abs(x).sum() ** 2 + torch.sin(x[1])

    x = torch.tensor([0.0, 0.5], dtype=torch.float64)  # both kinks: the stratum is a point
    assert stratum_tangent(ns.field(f, x)).shape == (0, 2)
    x = torch.tensor([0.5, 0.25], dtype=torch.float64)
    found = ns.field(f, x)
    (d,) = stratum_tangent(found)
    assert abs(d @ [1, 2]) < 1e-15 and projection_spread(found, d) < 1e-14
    step = 1e-5 * torch.as_tensor(d)
    along = float(f(x + step) - f(x - step)) / 2e-5  # F is smooth along the stratum
    assert float(found.support(d)) == pytest.approx(along, abs=1e-8)


def test_the_spread_sees_what_is_no_tangent() -> None:
    one = Hull([[0.0, 0.0], [1.0, 3.0]])
    assert projection_spread(one, np.array([1.0, 0.0])) == 1 and projection_spread(one, np.eye(2)) == 3
    assert projection_spread(one, np.array([3.0, -1.0])) < 1e-15 and projection_spread(one, np.zeros((0, 2))) == 0
    with pytest.raises(ns.errors.UsageError, match="length 3"):
        projection_spread(one, np.ones(3))


@pytest.mark.parametrize(
    ("f", "distance", "length"),
    [
        (lambda x: torch.abs(x).sum(), lambda p: min(abs(p[0]), abs(p[1])), 4.0),
        (
            lambda x: torch.relu(x[0] * x[0] + x[1] * x[1] - 0.5),
            lambda p: abs(math.hypot(*p) - 0.5**0.5),
            2 * math.pi * 0.5**0.5,
        ),
        (lambda x: torch.maximum(x[0], x[1]), lambda p: abs(p[0] - p[1]) / 2**0.5, 8**0.5),
    ],
)
def test_strata_lie_where_the_kinks_are(f: Any, distance: Any, length: float) -> None:
    view = view_plane(open_chart(f, ORIGIN, ()), grid=25)
    ends = [p for s in view.strokes for p in (s.start, s.end)]
    assert len(ends) > 40 and max(distance(p) for p in ends) < 0.02
    assert sum(math.dist(s.start, s.end) for s in view.strokes) == pytest.approx(length, rel=0.15)
    for place, gradient in view.arrows:
        point = torch.tensor(place, dtype=torch.float64)
        assert gradient == pytest.approx(tuple(ns.backprop(f, point).tolist()), abs=1e-12)


def test_kinks_without_effect_are_told_apart() -> None:
    view = view_plane(open_chart(lambda x: torch.relu(torch.maximum(x[0], x[1])), ORIGIN, ()), grid=25)
    idle = [s for s in view.strokes if not s.matters]
    assert idle and all(max(*s.start, *s.end) < 0.1 for s in idle)
    assert all(max(*s.start) > -0.1 for s in view.strokes if s.matters)


def test_a_slice_sees_the_sets_through_its_directions() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.abs(x).sum()

    x = torch.zeros(3, dtype=torch.float64)
    d = [torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)]
    (point,) = view_plane(open_chart(f, x, (), d), grid=12).points
    shadow = Hull(np.array([[a + b, b + c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], dtype=float))
    assert set(point.field or ()) == {tuple(v) for v in shadow.vertices().tolist()}
    assert outline(shadow) == point.field


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(3)}, "pass `directions=`"),
        ({"x": torch.zeros(3), "directions": [torch.ones(3)] * 2}, "linearly dependent"),
        ({"x": torch.zeros(3), "directions": [torch.ones(3)] * 3}, "one or two"),
        ({"x": torch.zeros(2), "points": [[1.0]]}, "has not the 2 coordinate"),
        ({"x": torch.zeros(()), "points": [1.0]}, "two variables"),
        ({"x": torch.zeros(()), "radius": -1.0}, "positive"),
        ({"x": torch.zeros(()), "grid": 3}, "from 8"),
    ],
)
def test_wrong_use_is_said(arguments: dict[str, Any], message: str) -> None:
    x = arguments.pop("x")
    with pytest.raises(ns.errors.UsageError, match=message):
        ns.plot_field(lambda t: torch.abs(t).sum(), x, **arguments)


def test_criticality_of_the_absolute_value(study: FieldStudy) -> None:
    path = study.paths[0]
    assert path.name == "|x|" and all(p.at_point == 1 and p.kinks == 0 for p in path.points)
    assert [b.distance for b in path.points[0].balls] == [1, 1]
    assert [b.distance for b in path.points[-1].balls] == [0, 0]
    for p in path.points:
        assert all(b.distance == (0 if b.radius > p.value else 1) for b in p.balls)


def test_criticality_along_training(study: FieldStudy) -> None:
    path = study.paths[1]
    assert [p.step for p in path.points] == [0, 8, 16, 32, 64]
    for p in path.points:
        distances = [p.at_point, *(b.distance for b in p.balls)]
        assert distances == sorted(distances, reverse=True) and p.status == "computed"
        assert all(b.status == "sampled" and b.gradients >= 12 for b in p.balls)


def test_a_ball_never_promises_too_much() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.abs(x[0]) + 2 * torch.abs(x[1]) + x[0] / 2

    x = torch.tensor([0.3, 0.2], dtype=torch.float64)
    for radius, least in ((0.1, math.hypot(1.5, 2)), (0.25, 1.5), (0.5, 0.0)):
        found = ball_criticality(f, x, radius=radius, samples=40)
        assert found.distance == pytest.approx(least, abs=1e-9) and found.status == "sampled"
    with pytest.raises(ns.errors.UsageError, match="positive radius"):
        ball_criticality(f, x, radius=0.0)


def test_points_of_the_path_are_used() -> None:
    path = [torch.tensor(1e-3), torch.tensor(-1e-3)]
    (found,) = path_criticality(torch.abs, path, at=[0], radii=[2.5e-3], samples=2)
    assert found.balls[0].from_path == 1 and found.balls[0].distance == 0


def test_the_study_is_saved_and_fits(study: FieldStudy, tmp_path: Path) -> None:
    assert max(map(len, str(study).splitlines())) <= 120
    names = {p.name: p.stat().st_size for p in study.save(tmp_path)}
    planes = {f"field_{name}.png" for name in ("l1", "max", "norm", "cusp")}
    assert set(names) == {"report.json", "report.txt", "field.png", "criticality.png", *planes}
    assert all(20_000 < size < 120_000 for name, size in names.items() if name.endswith(".png"))
    assert json.loads(study.to_json())["format_version"] == 1 and "<table>" in study._repr_html_()


def test_the_command() -> None:
    result = CliRunner().invoke(cli.app, ["study", "field", "--json", "--steps", "8", "--samples", "4", "--grid", "9"])
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["lines"][2]["name"] == "zero" and data["lines"][2]["view"]["kinks"][0]["word"] == "artifact"
    wrong = CliRunner().invoke(cli.app, ["study", "field", "--steps", "1"])
    assert wrong.exit_code == 2 and "at least 8" in wrong.stderr
