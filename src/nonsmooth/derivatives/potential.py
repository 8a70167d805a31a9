"""Potentials: the integral of a field along a path, split where the field jumps, with an estimate of its error.

    F(g(1)) - F(g(0)) = int_0^1 <v(g(t)), g'(t)> dt   for every absolutely continuous path g and every v in D,

if and only if D is a conservative field of F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.derivatives.paths import Path, bow, draw_vector, given_path, polygon, segment, size_of
from nonsmooth.derivatives.quadrature import Integral, NotFinite, default_tolerance, integrate
from nonsmooth.derivatives.space import Space, Vector
from nonsmooth.errors import NoDerivative, UsageError

__all__ = ["Potential", "potential"]


@dataclass(frozen=True)
class Potential:
    """A difference of potential, and what stands behind it.

    Attributes:
        value: the integral along the first path: F(x) - F(from_) if the field is conservative.
        error: an estimate of the error of the quadrature.
        path_dependence: the largest difference between two of the paths.
        tolerance: what the errors and rounding may make of it.
        paths: (name, value, error) for each path.
    """

    value: float
    error: float
    path_dependence: float
    tolerance: float
    paths: tuple[tuple[str, float, float], ...]
    status: str = "sampled"

    @property
    def path_dependent(self) -> bool:
        """Whether the paths refute that the field is conservative; False proves nothing."""
        return self.path_dependence > self.tolerance

    def __float__(self) -> float:
        """Give the value."""
        return self.value


def potential(
    derivative: Callable[..., Any],
    x: Any,
    from_: Any,
    *data: Any,
    paths: int | Sequence[Any] = 3,
    tolerance: float | None = None,
    seed: int = 0,
) -> Potential:
    """Integrate a field along paths from one point to another: a potential, if the field has one.

        F(x) - F(from_) = int_0^1 <v(g(t)), g'(t)> dt,   g(0) = from_, g(1) = x

    Of a conservative field the value does not depend on the path, and is F up to a constant. The value is that along
    the segment; other paths with the same ends may refute that the field is conservative. Status: `sampled`.

    Args:
        derivative: the field: a function of (x, *data) that gives a vector like x.
        x: the end: a tensor, or a dict, list or tuple of them.
        from_: the start, like x.
        data: what else the field is called with.
        paths: how many other paths are drawn, or a list of them: functions of t in [0, 1], or lists of points.
        tolerance: how far paths may differ, relative to the size of the integrals; None: 1e-7 in double, 1e-4 in single
            precision. The errors of the quadrature come on top.
        seed: of the draws.

    Returns:
        The value with an estimate of its error, and how much it depends on the path; `float` gives the value.

    Raises:
        UsageError: a path does not lead from `from_` to x. NoDerivative: the field is nan or infinite on the segment.
        PointError: x is no tree of finite floating tensors.

    >>> import torch
    >>> import nonsmooth as ns
    >>> x, origin = torch.tensor([3.0, -4.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    >>> found = ns.potential(torch.sign, x, origin)
    >>> round(found.value, 6), found.path_dependent
    (7.0, False)
    >>> ns.potential(lambda x: torch.stack([-x[1], x[0]]), x, origin).path_dependent
    True

    Source: BoltePauwels2020.
    """
    space = Space(x)
    start, end = space.read(from_, "from_"), space.x
    if not np.isfinite(start).all():
        raise UsageError(f"from_ must be finite; found {space.name(start)}.")
    if isinstance(paths, bool) or (isinstance(paths, int) and paths < 0):
        raise UsageError(f"paths={paths!r}: pass how many other paths to draw, or a list of paths.")
    drawn = [segment("segment", start, end)]
    if isinstance(paths, int):
        drawn += list(_detours(start, end, np.random.default_rng([seed, 13]), paths))
    else:
        drawn += [given_path(space, p, k + 1) for k, p in enumerate(paths)]
    allowed = default_tolerance(space.eps) if tolerance is None else tolerance
    found: list[tuple[str, Integral]] = []
    for path in drawn:
        _check_ends(space, path, start, end)
        try:
            integral = integrate(
                path, lambda z: (0.0, _value(space, derivative, z, data)), allowed, space.eps, known=False
            )
        except NotFinite as error:
            raise NoDerivative(
                f"potential: {error} of the path `{path.name}`, at {space.name(error.point)}."
            ) from error
        found.append((path.name, integral))
    values = [i.value for _, i in found]
    errors = 2 * sum(sorted(i.error for _, i in found)[-2:])
    return Potential(
        value=values[0],
        error=found[0][1].error,
        path_dependence=max(values) - min(values),
        tolerance=allowed * max(i.scale for _, i in found) + errors,
        paths=tuple((name, i.value, i.error) for name, i in found),
    )


def _value(space: Space, derivative: Callable[..., Any], z: Vector, data: tuple[Any, ...]) -> Vector:
    """Give the value of a field at a point."""
    return space.read(derivative(space.tree(z), *data), "the value of the field")


def _detours(start: Vector, end: Vector, rng: np.random.Generator, count: int) -> Iterator[Path]:
    """Draw other paths between two points: bows and broken lines, in turn."""
    step = end - start
    size = size_of(step)
    for k in range(count):
        w = size * draw_vector(rng, len(start))
        if k % 2:
            yield polygon(f"broken line {k + 1}", np.array([start, (start + end) / 2 + w, end]))
        else:
            yield bow(f"bow {k + 1}", start, end, w)


def _check_ends(space: Space, path: Path, start: Vector, end: Vector) -> None:
    """Refuse a path that does not lead from the start to the end."""
    far = 1e3 * space.eps * (1 + float(np.abs(np.concatenate([start, end])).max(initial=0.0)))
    for t, wanted in ((0.0, start), (1.0, end)):
        if float(np.abs(path.point(t) - wanted).max(initial=0.0)) > far:
            raise UsageError(
                f"{path.name} must lead from `from_` to x; at t = {t:g} it is at {space.name(path.point(t))}, not at "
                f"{space.name(wanted)}."
            )
