"""Paths inside the sets on which a program is kinked: found from the tangents of what its kinks compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from nonsmooth.derivatives.paths import Path, draw_vector, size_of, through
from nonsmooth.derivatives.space import Space, Vector
from nonsmooth.dictionary import Kind, Nonsmooth, Select, Switch
from nonsmooth.errors import NonsmoothError
from nonsmooth.program import Program, Ref, Step, references

__all__ = ["Kinked", "inside_kinks"]

WIDEST = 64
"""The most entries of a point for which tangents along all unit vectors are asked for."""


class Row(NamedTuple):
    """What one element of a step compares with zero: its value and its gradient."""

    value: float
    gradient: Vector
    step: Step

    @property
    def distance(self) -> float:
        """The distance to the set {row = 0}, to first order."""
        return abs(self.value) / float(np.linalg.norm(self.gradient))

    @property
    def equality(self) -> bool:
        """Whether the step asks for equality."""
        return self.step.label.rstrip("_") in ("eq", "ne", "isclose", "equal")


class Kinked:
    """What a program compares with zero, element by element: `rows(x)` gives values and gradients."""

    def __init__(self, space: Space, program: Program, data: tuple[Any, ...]) -> None:
        self.space, self.data = space, data
        self.steps = [s for s in program.steps if _switches(program, s)]
        self.program = replace(program, result=[[r for r in _compared(s) if isinstance(r, Ref)] for s in self.steps])

    def rows(self, x: Vector) -> list[Row]:
        """Give the rows at a point; none where the program is another there, or has no tangents."""
        framework, tree = self.space.framework, self.space.tree(x)
        if not self.steps or len(x) > WIDEST:
            return []
        try:
            seen = framework.evaluate(self.program, tree, self.data, directions=framework.units(tree), observe=True)
            if seen.program is not self.program:
                return []
            pushed = [framework.push(seen, k) for k in range(len(x))]
        except (NonsmoothError, RuntimeError):
            return []
        calls = {met.step.index: met.call for met in seen.calls}
        found: list[Row] = []
        for place, step in enumerate(self.steps):
            values, tangents = seen.result[place], [p[place] for p in pushed]
            found += self._of(step, calls.get(step.index), values, tangents)
        return [r for r in found if r.gradient.any() and np.isfinite(r.gradient).all()]

    def _of(self, step: Step, call: Any, values: list[Any], tangents: list[list[Any]]) -> Iterator[Row]:
        """Give the rows of one step: of what it compares, of its switching arguments, or of its tied or zero entries."""
        numpy = self.space.framework.numpy
        if isinstance(step.operation, Switch):
            if call is None or len(values) != len(call.operands):
                return
            moved = [step.operation.moved(call, tuple(t)) for t in tangents]
            for j, argument in enumerate(step.operation.arguments(call)):
                yield from _each(step, numpy(argument), [numpy(m[j]) for m in moved])
        elif step.operation.name == "compare":
            yield from _each(
                step, _difference(step, values, numpy), [_difference(step, t, numpy, 0.0) for t in tangents]
            )
        else:
            entries, moves = np.ravel(numpy(values[0])), np.array([np.ravel(numpy(t[0])) for t in tangents])
            if step.operation.kind is Kind.CONE:
                yield from (Row(0.0, moves[:, i], step) for i in np.flatnonzero(entries == 0)[:WIDEST])
            else:
                order = np.argsort(entries, kind="stable")[: 4 * WIDEST]
                pairs = [(i, j) for i, j in itertools.pairwise(order) if entries[i] == entries[j]]
                yield from (Row(0.0, moves[:, i] - moves[:, j], step) for i, j in pairs)


def _switches(program: Program, step: Step) -> bool:
    """Tell whether a step switches on values that depend on the point, and has them as operands."""
    if not any(program.values[r.value].depends_on_point for r in references(step.args)):
        return False
    kinked = isinstance(step.operation, Nonsmooth) and not isinstance(step.operation, Select)
    return kinked or (step.operation.name == "compare" and len(step.args) >= 2)


def _compared(step: Step) -> tuple[Any, ...]:
    """Give what a step switches on."""
    return step.args[:2] if step.operation.name == "compare" else step.operands


def _difference(step: Step, values: list[Any], numpy: Callable[[Any], Any], constant: float | None = None) -> Any:
    """Give a - b for a comparison, or its tangent, in which constants are 0."""
    given = iter(values)
    parts = [numpy(next(given)) if isinstance(a, Ref) else a if constant is None else constant for a in step.args[:2]]
    return np.subtract(*(np.asarray(p, dtype=np.float64) for p in parts))


def _each(step: Step, values: Any, tangents: list[Any]) -> Iterator[Row]:
    """Give a row for each element."""
    flat, moves = np.ravel(values), np.array([np.ravel(t) for t in tangents], dtype=np.float64)
    yield from (Row(float(flat[i]), moves[:, i], step) for i in range(min(flat.size, 4 * WIDEST)))


def inside_kinks(kinked: Kinked, rng: np.random.Generator, count: int, radius: float) -> Iterator[Path]:
    """Draw paths inside the sets on which a program switches: its equalities first, then those nearest to x."""
    x, size = kinked.space.x, radius * size_of(kinked.space.x)
    rows = kinked.rows(x)
    active = [r for r in rows if r.value == 0]
    if len(active) > 1:
        v = tangent(np.array([r.gradient for r in active]), rng)
        if v.any():
            yield through(f"inside all {len(active)} active kinks", x, size * v)
    drawn = rng.permutation(len(rows))
    ranked = sorted(drawn, key=lambda k: (not rows[k].equality, rows[k].distance))
    for number in ranked[:count]:
        row = rows[number]
        v, middle = tangent(row.gradient[None], rng), x if row.value == 0 else onto(kinked, row, number)
        if v.any() and np.abs(middle - x).max() <= 4 * size:
            name = f"inside the kink of {row.step}"
            yield through(name, middle, size * v / 2, special=row.value != 0)
            yield through(name, middle, size * v / 32, special=row.value != 0)


def onto(kinked: Kinked, row: Row, number: int) -> Vector:
    """Move the point, rounded, into the set {row = 0} along the entry that moves the row most, by Newton's method."""
    x, place = kinked.space.x, int(np.argmax(np.abs(row.gradient)))
    unit = size_of(x) / 256
    at = np.round(x / unit) * unit
    for _ in range(4):
        rows = kinked.rows(at)
        if number >= len(rows) or not rows[number].gradient[place]:
            break
        if rows[number].value == 0:
            return at
        at[place] -= rows[number].value / rows[number].gradient[place]
    else:
        return at
    other = x.copy()
    other[place] -= row.value / row.gradient[place]
    return other


def tangent(gradients: Vector, rng: np.random.Generator) -> Vector:
    """Draw a vector orthogonal to gradients, exactly where they are small fractions; zero where there is none."""
    rows, pivots = gradients / np.abs(gradients).max(axis=1, keepdims=True), []
    for k in range(len(rows)):
        place = int(np.argmax(np.abs(rows[k])))
        if abs(rows[k, place]) < 1e-9:
            continue
        rows[k] /= rows[k, place]
        others = np.arange(len(rows)) != k
        rows[others] -= np.outer(rows[others, place], rows[k])
        pivots.append((k, place))
    v = draw_vector(rng, gradients.shape[1])
    places = [place for _, place in pivots]
    v[places] = 0.0
    v[places] = [-rows[k] @ v for k, _ in pivots]
    near = np.round(v * 2.0**20) / 2.0**20
    v = np.where(np.abs(near - v) < 1e-9, near, v)
    size: float = 2.0 ** np.ceil(np.log2(max(1.0, float(np.abs(v).max()))))
    return v / size
