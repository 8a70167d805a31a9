"""Sets of every kind, exact and bracketed, with their dimension where it is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nonsmooth.sets import (
    Ball,
    Bracket,
    ConvexSet,
    Ellipsoid,
    Hull,
    HullOfUnion,
    Image,
    Point,
    Product,
    Segments,
)

Make = Callable[[np.random.Generator], ConvexSet]


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


POLYTOPES: dict[str, tuple[Make, int]] = {
    "point": (lambda r: Point(_normal(r, 3)), 0),
    "hull": (lambda r: Hull(_normal(r, 9, 3)), 3),
    "equal points": (lambda r: Hull(np.repeat(_normal(r, 1, 3), 4, axis=0)), 0),
    "flat hull": (lambda r: Hull(_normal(r, 9, 2) @ _normal(r, 2, 40) + 1), 2),
    "interval": (lambda r: Hull(_normal(r, 5, 1)), 1),
    "tiny hull": (lambda r: Hull(1e-8 * _normal(r, 9, 3)), 3),
    "huge hull": (lambda r: Hull(1e8 * _normal(r, 9, 3)), 3),
    "segments": (lambda r: Segments(_normal(r, 3), _normal(r, 6, 3)), 3),
    "no segment": (lambda r: Segments(_normal(r, 3), np.zeros((0, 3))), 0),
    "zero and parallel segments": (lambda r: Segments(_normal(r, 3), np.outer([1, 0, -2, 3], _normal(r, 3))), 1),
    "tiny segments": (lambda r: Segments(1e-8 * _normal(r, 3), 1e-8 * _normal(r, 6, 3)), 3),
    "huge segments": (lambda r: Segments(1e8 * _normal(r, 3), 1e8 * _normal(r, 6, 3)), 3),
    "one-ball": (lambda r: Ball(_normal(r, 3), 0.7, p=1), 3),
    "sup-ball": (lambda r: Ball(_normal(r, 3), 0.7, p=np.inf), 3),
    "ball of radius 0": (lambda r: Ball(_normal(r, 3), 0), 0),
    "image of a sup-ball": (lambda r: Ellipsoid(_normal(r, 3), _normal(r, 2, 3), p=np.inf), 2),
    "sum": (lambda r: Hull(_normal(r, 4, 3)) + Segments(_normal(r, 3), _normal(r, 3, 3)) + Point(_normal(r, 3)), 3),
    "union": (lambda r: HullOfUnion([Segments(_normal(r, 3), _normal(r, 3, 3)), Hull(_normal(r, 3, 3) + 2)]), 3),
    "product": (lambda r: Product([Segments(_normal(r, 2), _normal(r, 3, 2)), Hull(_normal(r, 3, 1))]), 3),
    "image": (lambda r: Image.of_matrix(Segments(_normal(r, 4), _normal(r, 4, 4)), _normal(r, 3, 4), _normal(r, 3)), 3),
    "multiple": (lambda r: -2 * Hull(_normal(r, 9, 3)), 3),
}

ROUND: dict[str, tuple[Make, int]] = {
    "ball": (lambda r: Ball(_normal(r, 3), 0.7), 3),
    "tiny ball": (lambda r: Ball(1e-8 * _normal(r, 3), 1e-8), 3),
    "1.5-ball": (lambda r: Ball(_normal(r, 3), 0.7, p=1.5), 3),
    "3-ball": (lambda r: Ball(_normal(r, 3), 0.7, p=3), 3),
    "ellipsoid": (lambda r: Ellipsoid(2 * _normal(r, 3), _normal(r, 4, 3)), 3),
    "flat ellipsoid": (lambda r: Ellipsoid(_normal(r, 9), _normal(r, 2, 9)), 2),
    "huge ellipsoid": (lambda r: Ellipsoid(1e8 * _normal(r, 3), 1e8 * _normal(r, 2, 3)), 2),
    "ball and segments": (lambda r: Ball(_normal(r, 3), 0.5) + Segments(_normal(r, 3), _normal(r, 4, 3)), 3),
    "ball and point": (lambda r: HullOfUnion([Ball(_normal(r, 3), 0.5), Point(2 * _normal(r, 3))]), 3),
    "balls side by side": (lambda r: Product([Ball(_normal(r, 2), 0.5), Ball(_normal(r, 1), 0.5)]), 3),
}

EXACT = POLYTOPES | ROUND


def _shell(r: np.random.Generator) -> Bracket:
    center = _normal(r, 3)
    return Bracket(Ball(center, 0.5), Ball(center, 1.0))


def _by_function(r: np.random.Generator) -> Bracket:
    points = _normal(r, 6, 3)
    return Bracket(Hull(points), lambda d: float((points @ d).max() + 0.3 * np.linalg.norm(d)))


BRACKETS: dict[str, tuple[Make, int]] = {
    "bracket": (_shell, 3),
    "bracket by a function": (_by_function, 3),
    "bracket plus segments": (lambda r: _shell(r) + Segments(_normal(r, 3), _normal(r, 4, 3)), 3),
    "image of a bracket": (lambda r: Image.of_matrix(_shell(r), _normal(r, 2, 3)), 2),
    "union with a bracket": (lambda r: HullOfUnion([_shell(r), Point(_normal(r, 3))]), 3),
    "product with a bracket": (lambda r: Product([_shell(r), Point(_normal(r, 1))]), 3),
    "multiple of a bracket": (lambda r: -2.0 * _by_function(r), 3),
}

ALL = EXACT | BRACKETS
