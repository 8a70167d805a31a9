"""Clarke subdifferentials of piecewise affine programs, exactly, cell by cell.

Next to x the function is linear on the cells of an arrangement of cones: walk the comparisons of the program in order;
an undecided one splits the cone C = {v : <a_i, v> > 0 for all i} by the sign of <a, v>, a the gradient of the compared
difference on C. A side is entered with a rational v that satisfies every inequality, and left out with nonnegative
numbers l, not all zero, such that sum l_i a_i = 0 (Gordan): both are checked in fractions, and nothing remains unknown.
The gradients on the cells are the limits of gradients at x; their convex hull is the Clarke subdifferential.

Source: Clarke1983, GriewankWalther2008.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

from tests.references.field import Gradient, Jump, Point, Results, Step, linear, start
from tests.references.lexicographic import Dual, plus, times

__all__ = [
    "Cell",
    "cells",
    "clarke_hull_points",
    "extreme_points",
    "in_hull",
    "nonnegative_solution",
    "sampled_gradients",
]

Compare = Callable[[Dual], bool]
"""Tell whether a difference is positive next to the point."""


class Cell(NamedTuple):
    """An open cone on which the program is linear: the rows a_i with <a_i, v> > 0, one such v, the gradient."""

    rows: tuple[Gradient, ...]
    inside: Gradient
    gradient: Gradient


def clarke_hull_points(program: Sequence[Step], point: Point | None = None) -> list[Gradient]:
    """Give the limits of gradients at the point (0 unless it is given), sorted, without repetition."""
    return sorted({cell.gradient for cell in cells(program, point)})


def cells(program: Sequence[Step], point: Point | None = None) -> list[Cell]:
    """Give the cells next to the point, no two of which meet."""
    inputs = start(program, point)
    generic = tuple(Fraction(1, 2 + i) for i in range(len(inputs)))
    found: list[Cell] = []
    waiting: list[tuple[tuple[Gradient, ...], Gradient]] = [((), generic)]
    while waiting:
        known, inside = waiting.pop()
        walk = Walk(known, inside)
        gradient = evaluate(program, inputs, walk.compare)[1:]
        assert all(dot(row, walk.inside) > 0 for row in walk.rows)
        found.append(Cell(tuple(walk.rows), walk.inside, gradient))
        waiting += walk.others
    return found


def sampled_gradients(program: Sequence[Step], n: int, seed: int, point: Point | None = None) -> list[Gradient]:
    """Give gradients at n random places next to the point: some of the limits of gradients."""
    inputs, rng = start(program, point), random.Random(seed)
    found = []
    while len(found) < n:
        v = [Fraction(rng.randint(-(10**9), 10**9), 10**9) for _ in inputs]
        try:
            found.append(evaluate(program, inputs, lambda difference, v=v: along(difference, v))[1:])
        except ZeroDivisionError:
            continue
    return found


def along(difference: Dual, v: Sequence[Fraction]) -> bool:
    """Compare at x + t v for small t > 0; refuse a place on a boundary."""
    slope = difference[0] or dot(difference[1:], v)
    if slope == 0 and any(difference):
        raise ZeroDivisionError
    return slope > 0


class Walk:
    """The decisions of one run: those of a prefix, then whatever side holds the point inside, noting the other side."""

    def __init__(self, known: tuple[Gradient, ...], inside: Gradient) -> None:
        self.known = known
        self.inside = inside
        self.rows: list[Gradient] = []
        self.others: list[tuple[tuple[Gradient, ...], Gradient]] = []

    def compare(self, difference: Dual) -> bool:
        """Decide a comparison; a difference that vanishes on the whole cell is not positive."""
        value, row = difference[0], tuple(difference[1:])
        if value or not any(row):
            return value > 0
        if len(self.rows) < len(self.known):
            positive = self.known[len(self.rows)] == row
        else:
            positive = self.split(row)
        self.rows.append(row if positive else negative(row))
        return positive

    def split(self, row: Gradient) -> bool:
        """Enter a side; keep the other for later if it is not empty."""
        if dot(row, self.inside) == 0:
            self.inside = moved(self.inside, row, self.rows)
        positive = dot(row, self.inside) > 0
        other = (*self.rows, negative(row) if positive else row)
        there = interior(other)
        if there is not None:
            self.others.append((other, there))
        return positive


def moved(inside: Gradient, row: Gradient, rows: Sequence[Gradient]) -> Gradient:
    """Move a point of an open cone along a row, without leaving the cone."""
    step = Fraction(1)
    while True:
        there = tuple(p + step * q for p, q in zip(inside, row, strict=True))
        if all(dot(a, there) > 0 for a in rows):
            return there
        step /= 2


def evaluate(program: Sequence[Step], inputs: list[Dual], positive: Compare) -> Dual:
    """Run a piecewise affine program; every choice is a comparison."""
    results: Results = ()
    for step in program:
        results = (*results, result_of(step, results, inputs, positive))
    return results[-1]


def result_of(step: Step, results: Results, inputs: list[Dual], positive: Compare) -> Any:
    """Run one step."""
    zero = times(Fraction(0), inputs[0])

    def larger(a: Dual, b: Dual) -> Dual:
        return b if positive(minus(b, a)) else a

    def smaller(a: Dual, b: Dual) -> Dual:
        return b if positive(minus(a, b)) else a

    match step:
        case ("input", i):
            return inputs[i]
        case ("linear", c, *terms):
            return linear(c, terms, results, zero)
        case ("relu", a):
            return results[a] if positive(results[a]) else zero
        case ("abs", a):
            return results[a] if positive(results[a]) else minus(zero, results[a])
        case ("max" | "min" as name, first, *rest):
            best = results[first]
            for a in rest:
                best = (larger if name == "max" else smaller)(best, results[a])
            return best
        case ("sort", *terms):
            return tuple(sorted_by([results[a] for a in terms], positive))
        case ("item", k, s):
            return results[s][k]
        case ("clamp", low, high, a):
            bounds = [(Fraction(c), *zero[1:]) for c in (low, high)]
            return smaller(larger(results[a], bounds[0]), bounds[1])
        case ("where", p, a, b):
            if results[p][0] == 0 and results[a][0] != results[b][0]:
                raise Jump
            return results[a] if positive(results[p]) else results[b]
    raise TypeError(f"{step[0]} is not piecewise affine")


def sorted_by(terms: Sequence[Dual], positive: Compare) -> list[Dual]:
    """Sort by insertion."""
    done: list[Dual] = []
    for term in terms:
        place = len(done)
        while place and positive(minus(done[place - 1], term)):
            place -= 1
        done.insert(place, term)
    return done


def minus(a: Dual, b: Dual) -> Dual:
    """Subtract."""
    return plus(a, times(Fraction(-1), b))


def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    """Multiply two vectors."""
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))


def negative(row: Gradient) -> Gradient:
    """Change the signs."""
    return tuple(-entry for entry in row)


# linear programs in integers


def interior(rows: Sequence[Gradient]) -> Gradient | None:
    """Give v with <a, v> > 0 for every row a, or None after checking a certificate that there is none."""
    columns = [(*row, Fraction(1)) for row in rows]
    weights, dual = nonnegative_solution(columns, [Fraction(0)] * len(rows[0]) + [Fraction(1)])
    if weights is None:
        v = negative(dual[:-1])
        assert all(dot(row, v) > 0 for row in rows)
        return v
    assert min(weights) >= 0 and sum(weights) == 1
    assert not any(dot(weights, entries) for entries in zip(*rows, strict=True))
    return None


def in_hull(points: Sequence[Gradient], v: Sequence[Fraction | int]) -> bool:
    """Tell whether v is a convex combination of points, with a certificate checked either way."""
    target = [*(Fraction(entry) for entry in v), Fraction(1)]
    columns = [(*p, Fraction(1)) for p in points]
    weights, dual = nonnegative_solution(columns, target)
    if weights is None:
        assert dot(dual, target) > 0 and all(dot(dual, column) <= 0 for column in columns)
        return False
    assert min(weights) >= 0
    assert all(dot(weights, entries) == b for entries, b in zip(zip(*columns, strict=True), target, strict=True))
    return True


def extreme_points(points: Sequence[Gradient]) -> list[Gradient]:
    """Give the vertices of the convex hull, sorted."""
    left = sorted(set(points))
    for p in list(left):
        others = [q for q in left if q != p]
        if others and in_hull(others, p):
            left = others
    return left


def nonnegative_solution(
    columns: Sequence[Sequence[Fraction]], target: Sequence[Fraction]
) -> tuple[Gradient, None] | tuple[None, Gradient]:
    """Give l >= 0 with sum l_j column_j = target, or y with <y, column_j> <= 0 for every j and <y, target> > 0.

    The first phase of the simplex method, by Bland's rule, on a tableau of integers over one denominator.
    """
    rows = [integers([*(column[i] for column in columns), b]) for i, b in enumerate(target)]
    scales = [scale if row[-1] >= 0 else -scale for row, scale in rows]
    body = [[-t for t in row] if row[-1] < 0 else list(row) for row, _ in rows]
    m, n = len(body), len(columns)
    table = [[*row[:-1], *(int(i == j) for j in range(m)), row[-1]] for i, row in enumerate(body)]
    table.append([-sum(row[j] for row in body) for j in range(n)] + [0] * m + [-sum(row[-1] for row in body)])
    basis, below = list(range(n, n + m)), 1
    while (enter := next((j for j in range(n) if table[m][j] < 0), None)) is not None:
        ratios = [(Fraction(table[i][-1], table[i][enter]), basis[i], i) for i in range(m) if table[i][enter] > 0]
        leave = min(ratios)[2]
        below = pivot(table, leave, enter, below)
        basis[leave] = enter
    if table[m][-1] == 0:
        weights = [Fraction(0)] * n
        for i, j in enumerate(basis):
            if j < n:
                weights[j] = Fraction(table[i][-1], below)
        return tuple(weights), None
    return None, tuple((1 - Fraction(table[m][n + i], below)) * scale for i, scale in enumerate(scales))


def integers(row: Sequence[Fraction]) -> tuple[list[int], int]:
    """Multiply a row by its common denominator."""
    scale = lcm(*(entry.denominator for entry in row))
    return [int(entry * scale) for entry in row], scale


def pivot(table: list[list[int]], leave: int, enter: int, below: int) -> int:
    """Exchange two variables; every entry is an integer over the denominator, which is given before and after."""
    by = table[leave][enter]
    for i, row in enumerate(table):
        if i != leave:
            factor = row[enter]
            table[i] = [(a * by - factor * b) // below for a, b in zip(row, table[leave], strict=True)]
    return by
