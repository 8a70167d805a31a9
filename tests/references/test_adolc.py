"""The exact references against ADOL-C, on the programs of tests/cases/adolc.json (tools/adolc/README.md)."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.references.abs_normal import AbsNormal, abs_normal, gradient_under, model
from tests.references.clarke import clarke_hull_points, dot, in_hull
from tests.references.field import field_values, value_at

FILE = Path(__file__).parents[1] / "cases" / "adolc.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["cases"]


def exact(values: list[float]) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, values))


def is_affine(case: dict[str, Any]) -> bool:
    return not any(step[0] == "mul" for step in case["program"])


def signs_between(form: AbsNormal, case: dict[str, Any]) -> list[int]:
    """Give 1 or -1 for each switching variable: that of ADOL-C may have the other sign. 0 where they disagree."""
    signs = []
    for k, ours in enumerate(zip(form.c, form.Z, form.L, strict=True)):
        c, row, lower = ours
        there = (Fraction(case["cz"][k]), exact(case["Z"][k]), exact(case["L"][k]))
        turned = (-c, tuple(-e for e in row), tuple(-e for e in lower))
        signs.append(1 if there == ours else -1 if there == turned else 0)
    return signs


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_forms_agree(case: dict[str, Any]) -> None:
    """ADOL-C writes Y for J and J for Y."""
    program, point = case["program"], case["point"]
    form = abs_normal(program, point)
    assert len(case["z"]) == len(form.c) and all(signs_between(form, case))
    assert (form.b, form.J, form.Y) == (Fraction(case["cy"]), exact(case["Y"][0]), exact(case["J"][0]))
    y, z = model(form, [0] * len(point))
    assert y == Fraction(case["y"]) == value_at(program, point)
    assert tuple(map(abs, z)) == tuple(map(abs, exact(case["z"])))
    for along in case["along"]:
        assert model(form, exact(along["d"]))[0] - y == Fraction(along["increment"])


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_active_gradients_follow_from_their_signs(case: dict[str, Any]) -> None:
    form = abs_normal(case["program"], case["point"])
    turns = signs_between(form, case)
    for along in case["along"]:
        if along["gradient"] is not None:
            signs = [a * b for a, b in zip(along["sigma"], turns, strict=True)]
            assert gradient_under(form, signs) == exact(along["gradient"])


@pytest.mark.parametrize("case", CASES[1:], ids=range(1, len(CASES)))
def test_active_gradients_are_limits_of_gradients(case: dict[str, Any]) -> None:
    """They are values of D, and for piecewise affine programs limits of gradients, with the slope along d."""
    program, point = case["program"], case["point"]
    form = abs_normal(program, point)
    allowed = set(clarke_hull_points(program, point) if is_affine(case) else field_values(program, point))
    for along in case["along"]:
        if along["gradient"] is not None:
            gradient, near = exact(along["gradient"]), [d / 2**30 for d in exact(along["d"])]
            assert gradient in allowed
            assert dot(gradient, near) == model(form, near)[0] - Fraction(case["y"])


def test_where_one_direction_is_not_enough() -> None:
    """||x + y| + x| - |y| along (-1, 0): ADOL-C's value lies outside the Clarke subdifferential."""
    case = CASES[0]
    limits = clarke_hull_points(case["program"])
    decided, also, undecided = (exact(along["gradient"]) for along in case["along"])
    assert limits == [(-2, -2), (0, 0), (2, 0), (2, 2)]
    assert decided in limits and also in limits
    assert undecided == (0, -2) and undecided in field_values(case["program"]) and not in_hull(limits, undecided)


def test_the_file_holds_enough() -> None:
    assert len(CASES) > 250
    assert sum(along["gradient"] is not None for case in CASES for along in case["along"]) > 400
    assert max(len(case["z"]) for case in CASES) == 12
    assert FILE.stat().st_size < 300_000


def test_a_wrong_entry_is_seen() -> None:
    """The sign of one entry of L, beside others in its row, is no sign of a switching variable."""
    case = next(case for case in CASES if any(any(a) and any(b) for a, b in zip(case["Z"], case["L"], strict=True)))
    form = abs_normal(case["program"], case["point"])
    row = next(k for k, (a, b) in enumerate(zip(case["Z"], case["L"], strict=True)) if any(a) and any(b))
    wrong = case | {"L": [[-e for e in lower] if k == row else lower for k, lower in enumerate(case["L"])]}
    assert all(signs_between(form, case))
    assert [k for k, sign in enumerate(signs_between(form, wrong)) if not sign] == [row]
