"""The solution path of the Lasso and the elastic net: piecewise linear in l1, with its kinks.

    on a segment with support S and signs s:   b_S(l1) = H_SS^-1 (X_S'y/n - l1 s),   H = X'X/n + l2 I

Source: EfronHastieJohnstoneTibshirani2004, derived, docs/theory/sparse_models.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.implicit.sparse.data import Vector, means, read_design, read_target
from nonsmooth.implicit.sparse.normal_equations import NormalEquations

__all__ = ["Segment", "SolutionPath", "solution_path"]

KKT = 1e-9
"""How well a segment must satisfy the optimality conditions, relative to the largest correlation."""

TIED = 1e-12
"""A feature outside of the support whose slack in the middle of a segment is no larger is tied to it all along: a copy, say."""

ENDS = 1e-12
"""How far two kinks must be from each other, and from 0, relative to the largest l1."""


@dataclass(frozen=True)
class Segment:
    """A piece of the path: lower <= l1 <= upper.

    Attributes:
        lower: a kink, or the end of the path.
        upper: the kink at its other end.
        support: the features that move.
        signs: of their coefficients.
        constant: shape (support,), H_SS^-1 X_S'y/n.
        slope: shape (support,), -H_SS^-1 s: the derivative of the coefficients in l1.
    """

    lower: float
    upper: float
    support: tuple[int, ...]
    signs: Vector = field(repr=False)
    constant: Vector = field(repr=False)
    slope: Vector = field(repr=False)


@dataclass(frozen=True)
class SolutionPath:
    """All solutions for one l2: the kinks of the path and what lies between them.

    Attributes:
        knots: the kinks in decreasing order; above the first the solution is zero.
        segments: the pieces below each knot.
        events: for each knot the features that enter below it, and those that leave.
        features: how many there are.
        l2: the ridge.
        mean: of the features, and of the target.
    """

    knots: Vector
    segments: tuple[Segment, ...]
    events: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    features: int
    l2: float
    mean: tuple[Vector, float] = field(repr=False)

    def coef(self, l1: float) -> Vector:
        """Give the coefficients at l1.

        Raises:
            UsageError: l1 is below the end of the path.

        >>> path = solution_path(np.sqrt(2) * np.eye(2), [3.0, 0.5], fit_intercept=False)
        >>> path.coef(1.0).round(6)
        array([1.12132, 0.     ])

        Source: EfronHastieJohnstoneTibshirani2004.
        """
        found = np.zeros(self.features)
        segment = self._segment(l1, below=True)
        if segment is not None:
            found[list(segment.support)] = segment.constant + l1 * segment.slope
        return found

    def intercept(self, l1: float) -> float:
        """Give the intercept at l1."""
        return self.mean[1] - float(self.mean[0] @ self.coef(l1))

    def derivative(self, l1: float) -> tuple[Vector, Vector]:
        """Give the left and the right derivative of the coefficients in l1; they differ on a kink.

        >>> path = solution_path(np.sqrt(2) * np.eye(2), [3.0, 0.5], fit_intercept=False)
        >>> left, right = path.derivative(float(path.knots[1]))
        >>> left.round(9) + 0, right.round(9) + 0
        (array([-1., -1.]), array([-1.,  0.]))

        Source: EfronHastieJohnstoneTibshirani2004.
        """
        found = np.zeros((2, self.features))
        for row, below in ((0, True), (1, False)):
            segment = self._segment(l1, below)
            if segment is not None:
                found[row, list(segment.support)] = segment.slope
        return found[0], found[1]

    def _segment(self, l1: float, below: bool) -> Segment | None:
        """Find the segment that holds l1 and, if it is a knot, what lies below or above it; None: all is zero."""
        end = self.segments[-1].lower if self.segments else 0.0
        if not l1 > 0 or l1 < end:
            raise UsageError(f"The path was asked at l1 = {l1:g}, and goes down to {end:g}; pass a larger l1.")
        above = np.count_nonzero(self.knots >= l1 if below else self.knots > l1)
        return self.segments[above - 1] if above else None


def solution_path(X: Any, y: Any, l2: float = 0.0, *, fit_intercept: bool = True, l1_min: float = 0.0) -> SolutionPath:
    """Find all kinks of the path l1 -> coefficients, of the Lasso, or with l2 > 0 of the elastic net.

        min |y - X b - c|^2 / 2n + l1 |b|_1 + l2 |b|^2 / 2,   l1 from infinity down to l1_min

    Status: `computed`: a segment ends where one of its coefficients, or the slack of another feature, becomes 0, and its
    optimality is checked at the ends and in the middle. Where two kinks coincide the path may be refused.

    Args:
        X: shape (samples, features).
        y: shape (samples,).
        l2: the ridge; not negative.
        fit_intercept: whether there is a c.
        l1_min: where the path may end.

    Raises:
        NotConverged: a segment is not optimal: ties, such as equal columns, or rounding.
        UsageError: arguments that cannot be served.

    >>> path = solution_path([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [3.0, 1.0, -2.0])
    >>> path.knots.round(6), path.events
    (array([1.666667, 0.333333]), (((0,), ()), ((1,), ())))

    Source: EfronHastieJohnstoneTibshirani2004, ZouHastie2005.
    """
    X = read_design(X)
    y = read_target(y, len(X))
    for name, value in (("l2", l2), ("l1_min", l1_min)):
        if not 0 <= value < np.inf:
            raise UsageError(f"{name}={value!r}: pass a finite number that is not negative.")
    n, k = X.shape
    mean = (means(X), float(y.mean())) if fit_intercept else (np.zeros(k), 0.0)
    A, b = X - mean[0], y - mean[1]
    if l2:
        A, b = np.vstack([A, np.sqrt(n * l2) * np.eye(k)]), np.concatenate([b, np.zeros(k)])
    segments = _checked(A, b, n, _segments(A, b, n, l1_min))
    return SolutionPath(np.array([s.upper for s in segments]), segments, _events(segments), k, float(l2), mean)


def _segments(A: Vector, b: Vector, n: int, l1_min: float) -> tuple[Segment, ...]:
    """Follow the path: each segment ends where one of its coefficients, or the slack of another feature, is 0."""
    correlation = A.T @ b / n
    top = float(np.abs(correlation).max())
    end, found = max(l1_min, ENDS * top), list[Segment]()
    if top <= l1_min or top == 0:
        return ()
    first = int(np.abs(correlation).argmax())
    signs = {first: float(np.sign(correlation[first]))}
    upper, cap = top, 50 * sum(A.shape) + 1000
    while len(found) < cap:
        segment = _solved(A, b, n, signs, upper)
        zeros, features = _zeros(A, b, n, segment)
        ahead = (zeros < upper - ENDS * top) & (zeros > end)
        if not ahead.any():
            found.append(replace(segment, lower=l1_min))
            return tuple(found)
        at = int(np.where(ahead, zeros, -np.inf).argmax())
        upper, j = float(zeros[at]), int(features[at])
        found.append(replace(segment, lower=upper))
        if j in signs:
            del signs[j]
        else:
            coef = segment.constant + upper * segment.slope
            signs[j] = float(np.sign(A[:, j] @ (b - A[:, list(segment.support)] @ coef)))
        if not signs:
            raise NotConverged(
                f"At l1 = {upper:g} every coefficient is 0 again: columns tie there. Leave out equal columns."
            )
    raise NotConverged(f"The path has more than {cap} kinks above l1 = {upper:g}; pass l1_min.")


def _solved(A: Vector, b: Vector, n: int, signs: dict[int, float], upper: float) -> Segment:
    """Solve for the coefficients of a support, which are linear in l1."""
    S = sorted(signs)
    system = NormalEquations(A[:, S], float(n), 0.0)
    if system.singular is not False:
        raise NotConverged(
            f"Below l1 = {upper:g} the path has {len(S)} features whose columns are linearly dependent: it is not unique. Leave "
            "out what is dependent, pass l2 > 0, or end the path with l1_min above."
        )
    directions = np.array([signs[j] for j in S])
    solved = system.solve(np.stack([A[:, S].T @ b / n, -directions], axis=1))
    return Segment(0.0, upper, tuple(S), directions, solved[:, 0], solved[:, 1])


def _zeros(A: Vector, b: Vector, n: int, segment: Segment) -> tuple[Vector, Vector]:
    """Give the l1 at which a coefficient of the segment, or the slack of another feature, is 0, with the features."""
    S = np.array(segment.support, dtype=np.intp)
    rest = np.setdiff1d(np.arange(A.shape[1]), S)
    level = A[:, rest].T @ (b - A[:, S] @ segment.constant) / n
    tilt = -A[:, rest].T @ (A[:, S] @ segment.slope) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        zeros = np.concatenate([-segment.constant / segment.slope, level / (1 - tilt), -level / (1 + tilt)])
    return np.where(np.isfinite(zeros), zeros, -np.inf), np.concatenate([S, rest, rest])


def _checked(A: Vector, b: Vector, n: int, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Check that the segments join and are optimal, at their ends and in the middle."""
    size = float(np.abs(A.T @ b).max(initial=0.0)) / n
    for i, segment in enumerate(segments):
        S = list(segment.support)
        rest = np.setdiff1d(np.arange(A.shape[1]), S)
        joins = i == 0 or abs(segments[i - 1].lower - segment.upper) <= KKT * size
        for l1 in (segment.lower, (segment.lower + segment.upper) / 2, segment.upper):
            coef = segment.constant + l1 * segment.slope
            correlation = A.T @ (b - A[:, S] @ coef) / n
            fine = (np.abs(correlation) <= l1 + KKT * size).all() and np.abs(
                correlation[S] - l1 * segment.signs
            ).max() <= KKT * size
            middle = segment.lower < l1 < segment.upper
            fine &= not middle or bool((np.abs(correlation[rest]) < l1 - TIED * size).all())
            if not (joins and fine and (coef * segment.signs >= -KKT * (1 + np.abs(coef).max())).all()):
                raise NotConverged(
                    f"The path could not be followed below l1 = {segment.upper:g}: columns tie there, or are too nearly "
                    "dependent. Leave out equal columns, pass l2 > 0, or end the path with l1_min above."
                )
    return segments


def _events(segments: tuple[Segment, ...]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Give what enters and what leaves at each knot."""
    found, before = [], set[int]()
    for segment in segments:
        now = set(segment.support)
        found.append((tuple(sorted(now - before)), tuple(sorted(before - now))))
        before = now
    return tuple(found)
