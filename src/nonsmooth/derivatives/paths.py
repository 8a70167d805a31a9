"""Paths in the space of a point: segments, loops, and paths that stay inside the sets on which a program is kinked.

A path is g: [0, 1] -> R^n with its derivative. Random entries are multiples of 1/64 times a power of 2, so that points
of a path inside {x_i = x_j}, {x_i = 0} or {x_1 + x_2 = 1} satisfy the equation without rounding.
The kinds of paths, and what they are found from, are one list: a long file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nonsmooth.dictionary import Kind, Nonsmooth, Select, Switch
from nonsmooth.errors import NonsmoothError, UsageError
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.program import Program, Ref, Step, references

__all__ = [
    "Kinked",
    "Path",
    "Space",
    "Vector",
    "bow",
    "draw_vector",
    "given_path",
    "inside_kinks",
    "polygon",
    "random_paths",
    "segment",
    "size_of",
    "special_points",
]

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

WIDEST = 64
"""The most entries of a point for which tangents along all unit vectors are asked for."""


class Space:
    """The space of a point: trees of arrays as vectors of double precision, and back."""

    def __init__(self, x: Any) -> None:
        self.framework: Framework = find_framework(x)
        from nonsmooth.frameworks.torch.protection import preserved
        from nonsmooth.frameworks.torch.tree import check_point, copy_of, flatten, unflatten

        self._flatten, self._unflatten, self._copy = flatten, unflatten, copy_of
        self.preserved = preserved
        self.leaves = [leaf.detach() for leaf in check_point(x)]
        self.structure, self.shapes = flatten(x)[1], [tuple(leaf.shape) for leaf in self.leaves]
        self._cuts = np.cumsum([leaf.numel() for leaf in self.leaves])[:-1]
        self.x, self.eps = self.vector(x), self.framework.eps(x)

    def vector(self, tree: Any) -> Vector:
        """Lay the entries of a tree in a row."""
        arrays = [np.ravel(a) for a in self.framework.arrays(tree)]
        return np.concatenate(arrays).astype(np.float64)

    def tensors(self, vector: Vector) -> list[Any]:
        """Cut a vector into new leaves of the types of the point."""
        parts = np.split(vector, self._cuts) if len(self.leaves) > 1 else [vector]
        found = zip(parts, self.leaves, self.shapes, strict=True)
        return [leaf.new_tensor(part.reshape(shape)) for part, leaf, shape in found]

    def unflatten(self, leaves: list[Any]) -> Any:
        """Put leaves into the structure of the point."""
        return self._unflatten(leaves, self.structure)

    def tree(self, vector: Vector) -> Any:
        """Put a vector into the structure and the types of the point."""
        return self.unflatten(self.tensors(vector))

    def copies(self, data: tuple[Any, ...]) -> Any:
        """Copy data, so that nobody's are changed."""
        items, structure = self._flatten(data)
        return self._unflatten([self._copy(t) for t in items], structure) if items else data

    def floating(self, result: Any) -> list[Any]:
        """Give the floating leaves of a result."""
        return [t for t in self._flatten(result)[0] if hasattr(t, "is_floating_point") and t.is_floating_point()]

    def numpy(self, array: Any) -> Vector:
        """Give an array to numpy, in double precision."""
        return np.asarray(self.framework.numpy(array), dtype=np.float64)

    def read(self, tree: Any, what: str) -> Vector:
        """Read what the user gives as a point or a gradient.

        Raises:
            UsageError: it has another structure or other shapes than the point.
        """
        leaves, structure = self._flatten(tree)
        shapes = [tuple(getattr(leaf, "shape", ())) for leaf in leaves]
        if shapes != self.shapes or (len(shapes) > 1 and structure != self.structure):
            raise UsageError(
                f"{what} must be like the point, of shapes {self.shapes}; found {type(tree).__name__} of shapes {shapes}."
            )
        arrays = [leaf if not hasattr(leaf, "detach") else self.framework.numpy(leaf) for leaf in leaves]
        return np.concatenate([np.ravel(np.asarray(a, dtype=np.float64)) for a in arrays])

    def name(self, vector: Vector) -> str:
        """Print a vector shortly."""
        shown = ", ".join(f"{e:.6g}" for e in vector[:6])
        return f"[{shown}{', ...' if len(vector) > 6 else ''}]"


@dataclass(frozen=True, eq=False)
class Path:
    """A path: t in [0, 1] -> a point.

    Attributes:
        name: what kind of path it is.
        point: t -> g(t).
        velocity: t -> g'(t); None: by differentiation of a polynomial through points of the path.
        centre: a point about which the path may be shrunk.
        corners: the times at which g' jumps.
        special: whether the path stays in a set of measure zero that need not hold x.
        given: whether it is the user's.
    """

    name: str
    point: Callable[[float], Vector]
    velocity: Callable[[float], Vector] | None
    centre: Vector
    corners: tuple[float, ...] = ()
    special: bool = False
    given: bool = False

    def shrunk(self, factor: float) -> Path:
        """Give the path drawn together about its centre."""
        speed = self.velocity
        return replace(
            self,
            point=lambda t: self.centre + factor * (self.point(t) - self.centre),
            velocity=None if speed is None else lambda t: factor * speed(t),
        )


def draw_vector(rng: np.random.Generator, n: int) -> Vector:
    """Draw a vector whose entries are multiples of 1/64 in [-1, 1] and not 0."""
    return (2 * rng.integers(0, 2, n) - 1) * rng.integers(8, 65, n) / 64.0


def segment(name: str, start: Vector, end: Vector, **marks: Any) -> Path:
    """Give the segment from one point to another."""
    step = end - start
    return Path(name, lambda t: start + t * step, lambda t: step, (start + end) / 2, **marks)


def through(name: str, middle: Vector, v: Vector, **marks: Any) -> Path:
    """Give the segment from middle - v to middle + v."""
    return Path(name, lambda t: middle + (2 * t - 1) * v, lambda t: 2 * v, middle, **marks)


def loop(name: str, x: Vector, a: Vector, b: Vector) -> Path:
    """Give the loop x + (cos s - 1) a + sin s b, s = 2 pi t."""
    turn = 2 * np.pi
    return Path(
        name,
        lambda t: x + (np.cos(turn * t) - 1) * a + np.sin(turn * t) * b,
        lambda t: turn * (np.cos(turn * t) * b - np.sin(turn * t) * a),
        x,
    )


def size_of(x: Vector) -> float:
    """Give the size of a point, rounded to a power of 2; 1 at the origin."""
    largest = float(np.abs(x).max(initial=0.0))
    return 2.0 ** round(np.log2(largest)) if largest else 1.0


def random_paths(x: Vector, rng: np.random.Generator, samples: int, radius: float) -> Iterator[Path]:
    """Draw paths of every kind that a point alone suggests, `samples` of each."""
    n, size = len(x), radius * size_of(x)
    for _ in range(samples):
        u, v, w = (size * draw_vector(rng, n) for _ in range(3))
        yield through("segment through x", x, v)
        yield through("short segment through x", x, v / 64)
        yield segment("segment near x", x + u, x + w)
        yield loop("loop through x", x, u / 2, v / 2)
        for name, at, tangent in _structured(x, rng, size):
            if tangent.any():
                yield through(name, at, tangent, special=not np.array_equal(at, x))


def _structured(x: Vector, rng: np.random.Generator, size: float) -> Iterator[tuple[str, Vector, Vector]]:
    """Draw points and tangents that keep entries equal, zero or fixed."""
    n, v = len(x), size * draw_vector(rng, len(x))
    classes = np.unique(x, return_inverse=True)[1].ravel()
    tied = v[classes]
    rounded = np.round(x)
    yield "ray through the origin", x * 0, (x if x.any() else v)
    if n == 1:
        return
    if len(set(classes.tolist())) < n:
        yield "inside the ties of x", x, tied
        yield "inside the ties and zeros of x", x, np.where(x == 0, 0.0, tied)
    if (x == 0).any():
        yield "inside the zeros of x", x, np.where(x == 0, 0.0, v)
    if not np.array_equal(rounded, x):
        groups = np.unique(rounded, return_inverse=True)[1].ravel()
        yield "inside the ties of x rounded", rounded, v[groups]
        yield "inside the zeros of x rounded", rounded, np.where(rounded == 0, 0.0, v)
    few = rng.random(n) < 0.5
    yield "some entries fixed", x, np.where(few, 0.0, v)
    yield "one entry moves", x, np.where(np.arange(n) == rng.integers(n), v, 0.0)
    yield "some entries zero", np.where(few, 0.0, x), np.where(few, 0.0, v)
    place = np.where(few, rng.integers(n), np.arange(n))
    yield "some entries equal", x[place], v[place]


def special_points(x: Vector, rng: np.random.Generator, samples: int) -> Iterator[Vector]:
    """Draw points at which a program may be kinked: zeros, ties, round numbers."""
    n = len(x)
    yield x
    yield np.round(x)
    yield np.zeros(n)
    for _ in range(samples if n > 1 else 0):
        few = rng.random(n) < 0.5
        yield np.where(few, 0.0, x)
        yield x[np.where(few, rng.integers(n), np.arange(n))]


def given_path(space: Space, path: Any, number: int) -> Path:
    """Read a path of the user: a function of t in [0, 1], or a list of points, the corners of a polygon.

    Raises:
        UsageError: it is neither, or its points are not like x.
    """
    name = f"given path {number}"
    if callable(path):

        def point(t: float) -> Vector:
            return space.read(path(t), f"the point of {name} at t = {t:.3g}")

        return Path(name, point, None, point(0.5), given=True)
    if not isinstance(path, list | tuple) or len(path) < 2:
        raise UsageError(
            f"{name} must be a function of t in [0, 1], or a list of two points or more; found {path!r:.80}."
        )
    return replace(polygon(name, np.array([space.read(p, f"a corner of {name}") for p in path])), given=True)


def polygon(name: str, corners: Vector) -> Path:
    """Give the broken line through the rows of a matrix, at equal times."""
    steps, last = np.diff(corners, axis=0), len(corners) - 1

    def side(t: float) -> int:
        return min(int(t * last), last - 1)

    return Path(
        name,
        lambda t: corners[side(t)] + (t * last - side(t)) * steps[side(t)],
        lambda t: last * steps[side(t)],
        corners[0],
        corners=tuple(k / last for k in range(1, last)),
    )


def bow(name: str, start: Vector, end: Vector, w: Vector) -> Path:
    """Give the segment with sin(pi t) w added."""
    step = end - start
    return Path(
        name,
        lambda t: start + t * step + np.sin(np.pi * t) * w if t < 1 else end,
        lambda t: step + np.pi * np.cos(np.pi * t) * w,
        start,
    )


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
