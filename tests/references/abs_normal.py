"""The abs-normal form of a program of switches, by substitution of affine forms in fractions.

At a point x, with d a change of x and |z| entrywise,

    z = c + Z d + L |z|,    L strictly lower triangular,
    y = b + J d + Y |z|,

where every kink is written with an absolute value, in the order of the steps: relu(t) = (t + |t|) / 2; max(a, b) =
(a + b + |a - b|) / 2 and min(a, b) = (a + b - |a - b|) / 2, several operands from left to right; sort by exchanging
neighbours, one |a - b| for both; clamp = min(max(t, low), high). A product is replaced by its tangent at x. The form is
exact for piecewise affine programs.

Source: Griewank2013, GriewankWaltherFiegeBosse2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from tests.references.field import Gradient, Point, Step, start

__all__ = ["AbsNormal", "abs_normal", "gradient_under", "model"]

HALF = Fraction(1, 2)


class AbsNormal(NamedTuple):
    """z = c + Z d + L |z|, y = b + J d + Y |z|; rows are tuples."""

    c: Gradient
    Z: tuple[Gradient, ...]
    L: tuple[Gradient, ...]
    b: Fraction
    J: Gradient
    Y: Gradient


class Form(NamedTuple):
    """A constant, a row over d, and the coefficients of the |z_k|; beside them the value at d = 0."""

    value: Fraction
    constant: Fraction
    row: Gradient
    switches: dict[int, Fraction]


def combine(*terms: tuple[Fraction | int, Form]) -> Form:
    """Give c1 a + c2 b + ..."""
    switches: dict[int, Fraction] = {}
    for c, form in terms:
        for k, entry in form.switches.items():
            switches[k] = switches.get(k, Fraction(0)) + c * entry
    return Form(
        sum((c * a.value for c, a in terms), Fraction(0)),
        sum((c * a.constant for c, a in terms), Fraction(0)),
        tuple(sum(column) for column in zip(*([c * entry for entry in a.row] for c, a in terms), strict=True)),
        switches,
    )


class Switches:
    """The switching variables met so far."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.forms: list[Form] = []

    def constant(self, c: Fraction | int) -> Form:
        return Form(Fraction(c), Fraction(c), (Fraction(0),) * self.size, {})

    def absolute(self, z: Form) -> Form:
        """Add a switching variable and give its absolute value."""
        self.forms.append(z)
        return Form(abs(z.value), Fraction(0), (Fraction(0),) * self.size, {len(self.forms) - 1: Fraction(1)})

    def exchange(self, a: Form, b: Form) -> tuple[Form, Form]:
        """Give min(a, b) and max(a, b)."""
        gap = self.absolute(combine((1, a), (-1, b)))
        return combine((HALF, a), (HALF, b), (-HALF, gap)), combine((HALF, a), (HALF, b), (HALF, gap))


def abs_normal(program: Sequence[Step], point: Point | None = None) -> AbsNormal:
    """Give the abs-normal form at the point, which is 0 unless it is given."""
    inputs = start(program, point)
    switches = Switches(len(inputs))
    results: list[Any] = []
    for step in program:
        if step[0] == "input":
            value, *row = inputs[step[1]]
            results.append(Form(value, value, tuple(row), {}))
        else:
            results.append(form_of(step, results, switches))
    s, y = len(switches.forms), results[-1]
    return AbsNormal(
        tuple(z.constant for z in switches.forms),
        tuple(z.row for z in switches.forms),
        tuple(over(z, s) for z in switches.forms),
        y.constant,
        y.row,
        over(y, s),
    )


def over(form: Form, s: int) -> Gradient:
    """Give the coefficients of |z_0|, ..., |z_(s-1)|."""
    return tuple(form.switches.get(k, Fraction(0)) for k in range(s))


def form_of(step: Step, results: list[Any], switches: Switches) -> Any:
    """Give the form of one step."""
    match step:
        case ("linear", c, *terms):
            return combine((1, switches.constant(c)), *((Fraction(weight), results[a]) for weight, a in terms))
        case ("mul", a, b):
            p, q = results[a], results[b]
            return combine((p.value, q), (q.value, p), (-p.value * q.value, switches.constant(1)))
        case ("abs", a):
            return switches.absolute(results[a])
        case ("relu", a):
            return combine((HALF, results[a]), (HALF, switches.absolute(results[a])))
        case ("max" | "min" as name, first, *rest):
            best = results[first]
            for a in rest:
                best = switches.exchange(best, results[a])[name == "max"]
            return best
        case ("sort", *terms):
            return exchanged([results[a] for a in terms], switches)
        case ("item", k, s):
            return results[s][k]
        case ("clamp", low, high, a):
            return switches.exchange(switches.exchange(results[a], switches.constant(low))[1], switches.constant(high))[
                0
            ]
    raise TypeError(f"{step[0]} is not written with absolute values")


def exchanged(terms: list[Form], switches: Switches) -> list[Form]:
    """Sort by exchanging neighbours."""
    for end in range(len(terms) - 1, 0, -1):
        for k in range(end):
            terms[k], terms[k + 1] = switches.exchange(terms[k], terms[k + 1])
    return terms


def model(form: AbsNormal, change: Sequence[Fraction | int]) -> tuple[Fraction, Gradient]:
    """Give y and z of the piecewise linear model at x + d."""
    z: list[Fraction] = []
    for c, row, lower in zip(form.c, form.Z, form.L, strict=True):
        smooth = sum((a * d for a, d in zip(row, change, strict=True)), c)
        z.append(sum((a * abs(e) for a, e in zip(lower, z, strict=False)), smooth))
    y = sum((a * d for a, d in zip(form.J, change, strict=True)), form.b)
    return sum((a * abs(e) for a, e in zip(form.Y, z, strict=True)), y), tuple(z)


def gradient_under(form: AbsNormal, weights: Sequence[Fraction | int]) -> Gradient:
    """Give J + Y W (I - L W)^-1 Z, W the diagonal matrix of the weights in [-1, 1]: the slopes of the |z_k|."""
    rows: list[Gradient] = []
    for row, lower in zip(form.Z, form.L, strict=True):
        rows.append(chained(row, lower, weights, rows))
    return chained(form.J, form.Y, weights, rows)


def chained(
    row: Gradient, coefficients: Sequence[Fraction], weights: Sequence[Fraction | int], rows: Sequence[Gradient]
) -> Gradient:
    """Add c_k w_k row_k to a row."""
    total = list(row)
    for c, w, known in zip(coefficients, weights, rows, strict=False):
        total = [t + c * w * entry for t, entry in zip(total, known, strict=True)]
    return tuple(total)
