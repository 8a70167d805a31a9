"""Paths in the space of a point: segments, loops, and paths that stay inside the sets on which a program is kinked.

A path is g: [0, 1] -> R^n with its derivative. Random entries are multiples of 1/64 times a power of 2, so that points
of a path inside {x_i = x_j}, {x_i = 0} or {x_1 + x_2 = 1} satisfy the equation without rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nonsmooth.derivatives.space import Space, Vector
from nonsmooth.errors import UsageError

__all__ = [
    "Path",
    "bow",
    "draw_vector",
    "given_path",
    "polygon",
    "random_paths",
    "segment",
    "size_of",
    "special_points",
]


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
