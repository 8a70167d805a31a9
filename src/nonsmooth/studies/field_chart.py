"""A chart: one or two coordinates of a function's point, and what is asked along them.

The coordinates are the entries of a point that has one or two, or c of x + c_1 d_1 + c_2 d_2 along given directions. Sets
of gradients are seen through the directions: { (<v, d_1>, <v, d_2>) : v in D }, which is D itself in the first case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import as_program, backprop
from nonsmooth.derivatives.clarke import Clarke, clarke
from nonsmooth.derivatives.field import Field, field
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.kinks.kink import KinkRow, Kinks, kinks_of
from nonsmooth.sets import ConvexSet, Image

__all__ = ["CONVENTIONS", "Chart", "Key", "Seen", "open_chart"]

CONVENTIONS: Mapping[str, str | float] = {
    **{name: name for name in ("torch", "jax", "tensorflow", "minimum-norm")}, "0": 0.0, "1/2": 0.5, "1": 1.0,
}  # fmt: skip
"""The conventions compared: the frameworks' measured tables, the shortest element at each kink, one number for all."""

ELEMENTS = 20_000
"""Programs with more places for a kink than this are not drawn."""

Key = tuple[str, str, str, int, int]
"""A place for a kink, the same at all points: operation, kink, line, how many of these came before, element."""


@dataclass(frozen=True)
class Seen:
    """What one evaluation shows: F, the derivative by backprop along the chart, the distance to every kink."""

    value: float
    gradient: Floats
    margins: Mapping[Key, float]


class Chart:
    """One or two coordinates of a function's point.

    Attributes:
        framework, program: the function's, as captured at the point.
        base, columns: the point is base + columns c, for coordinates c of shape (dimension,).
        origin: the coordinates of the given point.
        names: of the coordinates.
        sliced: whether directions were given; sets are then seen through them.
    """

    def __init__(
        self, f: Callable[..., Any], x: Any, data: tuple[Any, ...], base: Floats, columns: Floats, sliced: bool
    ) -> None:
        self.f, self.x, self.data = f, x, data
        self.program, self.framework = as_program(f, x, data)
        self.base, self.columns, self.sliced = base, columns, sliced
        self.dimension = int(columns.shape[1])
        here = self.framework.flat(x)
        self.origin = np.zeros(self.dimension) if sliced else np.asarray(here, dtype=np.float64)
        letters = "c" if sliced else "x"
        self.names = (letters if sliced else "t",) if self.dimension == 1 else (f"{letters}₁", f"{letters}₂")

    def point(self, c: Floats) -> Any:
        """Give the point with some coordinates."""
        return self.framework.unflatten_flat(self.x, self.base + self.columns @ np.asarray(c, dtype=np.float64))

    def coordinates(self, point: Any) -> Floats:
        """Read a point: a tree like x, or its coordinates."""
        plain = isinstance(point, np.ndarray | tuple | list | int | float)
        if plain and (self.sliced or not isinstance(self.x, tuple | list)):
            given = np.array(point, dtype=np.float64, ndmin=1)
            if given.shape != (self.dimension,):
                raise UsageError(f"points: {point!r} has not the {self.dimension} coordinate(s) of the picture.")
            return given
        flat = self.framework.flat_like(self.x, point)
        found = np.linalg.lstsq(self.columns, flat - self.base, rcond=None)[0] if self.sliced else flat
        if self.sliced and not np.allclose(self.columns @ found + self.base, flat, rtol=1e-6, atol=1e-9):
            raise UsageError("points: a point does not lie in the slice; pass its coordinates along the directions.")
        return np.asarray(found, dtype=np.float64)

    def look(self, c: Floats) -> Seen:
        """Evaluate once: the value, the derivative by backprop, and the distance to every kink."""
        point = self.point(c)
        seen = self.framework.evaluate(self.program, point, self.data, observe=True)
        value = float(self.framework.numpy(self.framework.scalar(seen)))
        gradient = self.columns.T @ self.framework.flat(self.framework.pull(seen))
        table = kinks_of(self.framework, seen, point, self.data, 0.0)
        return Seen(value, np.asarray(gradient, dtype=np.float64), {key: m for key, m, _ in places(table)})

    def margins(self, c: Floats, tol: float = 0.0) -> dict[Key, float]:
        """Give the distance to every kink."""
        return {key: m for key, m, _ in self.places(c, tol)}

    def places(self, c: Floats, tol: float = 0.0) -> list[tuple[Key, float, bool]]:
        """Give every place for a kink: its key, the distance, and whether it is active and can matter."""
        point = self.point(c)
        seen = self.framework.evaluate(self.program, point, self.data, observe=True)
        return list(places(kinks_of(self.framework, seen, point, self.data, tol)))

    def slope(self, c: Floats, at_kinks: Any = "framework") -> Floats:
        """Give backprop's derivative along the coordinates, under a convention."""
        gradient = backprop(self.program, self.point(c), *self.data, at_kinks=at_kinks)
        return np.asarray(self.columns.T @ self.framework.flat(gradient), dtype=np.float64)

    def field(self, c: Floats, tol: float = 0.0) -> Field:
        """Give the field at a point, in the space of the function's point."""
        return field(self.f, self.point(c), *self.data, tol=tol)

    def clarke(self, c: Floats, tol: float = 0.0) -> Clarke:
        """Give Clarke's subdifferential at a point, in the space of the function's point."""
        return clarke(self.f, self.point(c), *self.data, tol=tol)

    def sides(self, c: Floats) -> tuple[float, float] | None:
        """Give the certified subgradients from the left and from the right, in one variable; None where one is missing.

        In one variable the interval between them is Clarke's subdifferential: docs/slides.md.
        """
        ends = []
        for sign in (-1.0, 1.0):
            direction = self.framework.unflatten_flat(self.x, np.array([sign]))
            _, gradient, certificate = subgradient(self.f, self.point(c), *self.data, direction=direction)
            if not certificate.certified:
                return None
            ends.append(float(self.framework.flat(gradient)[0]) + 0.0)
        return min(ends), max(ends)

    def seen_through(self, one: ConvexSet) -> ConvexSet:
        """Give the image of a set under v -> (<v, d_1>, <v, d_2>)."""
        return Image.of_matrix(one, self.columns.T) if self.sliced else one

    def reach(self) -> float:
        """Give a length of the order of the point's own, at least 1."""
        return max(1.0, float(np.abs(self.origin).max()))

    def step(self) -> float:
        """Give the unit of rounding of the point's numbers."""
        return self.framework.eps(self.x)


def places(table: Kinks) -> Iterator[tuple[Key, float, bool]]:
    """Walk the places of a table of kinks, with the distance of each and whether it is active and can matter."""
    met: dict[tuple[str, str, str], int] = {}
    for row in table:
        name = (row.operation, row.kink, str(row.source or ""))
        number = met[name] = met.get(name, -1) + 1
        margins = np.abs(np.atleast_1d(row.margins)).ravel()
        for element, (margin, matters) in enumerate(zip(margins, _matters(row), strict=True)):
            yield (*name, number, element), float(margin), bool(matters)


def _matters(row: KinkRow) -> Floats:
    """Tell for each element of a row whether it is active and can matter; an unknown answer is yes."""
    found: Floats = np.ravel(row.mask if row.matters is None else row.matters)
    return found


def open_chart(f: Callable[..., Any], x: Any, data: tuple[Any, ...], directions: Any = None) -> Chart:
    """Lay a chart through a point.

    Raises:
        UsageError: more than two entries and no directions; directions that are none, or too many.
    """
    framework = find_framework(x)
    flat = np.asarray(framework.flat(x), dtype=np.float64)
    if directions is None:
        if flat.size > 2:
            raise UsageError(
                f"the point has {flat.size:,} entries, and a picture has two axes: pass `directions=` with one or two "
                "directions like the point, and the slice of F along them is drawn."
            )
        return _small(Chart(f, x, data, np.zeros(flat.size), np.eye(flat.size), False))
    given = framework.columns(x, directions)
    if len(given) not in (1, 2):
        raise UsageError(f"directions: {len(given)} were given; a picture shows one or two.")
    columns = np.stack([np.asarray(framework.flat_like(x, d), dtype=np.float64) for d in given], axis=1)
    if np.linalg.matrix_rank(columns) < columns.shape[1]:
        raise UsageError("directions: they are linearly dependent, or one is zero.")
    return _small(Chart(f, x, data, flat, columns, True))


def _small(chart: Chart) -> Chart:
    """Refuse a program with too many places for kinks."""
    count = len(chart.margins(chart.origin))
    if count > ELEMENTS:
        raise UsageError(f"the program has {count:,} places for a kink; a picture follows at most {ELEMENTS:,}.")
    return chart
