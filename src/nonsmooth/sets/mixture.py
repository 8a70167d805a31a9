"""Mixtures of support points: the small quadratic programs in the weights.

With the atoms (v_i, w_i) as rows of V and W, and weights l >= 0 with sum 1:

    minimise |l V|^2 + m^2 dist(l W - t, K)^2.

Near any l the second term is m^2 |(I - P)(l W - t)|^2, P the projection to a face of K, of the same gradient; so the
program is a sequence of shortest vectors of hulls (Wolfe's algorithm), each compressed to as many coordinates as there
are atoms, with a search along the segment between one and the next. The constraint dist(l W - t, K) = 0 is met by the
method of multipliers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nonsmooth.sets.cones import ConvexCone
from nonsmooth.sets.corral import Corral

__all__ = ["Mixture"]

Vector = NDArray[np.float64]

FACES = 40
"""How many faces are tried in one program."""

ROUNDS = 30
"""How often the multipliers are corrected."""

STEADY = 1e-13
"""Corrections below it, relative to the scale, are none."""

LEAST = 1e-14
"""A weight below it is none."""

SPARE = 20
"""So many atoms are kept without a weight, the latest."""

RANK = 1e-12
"""Singular values below it, relative to the largest, are zero."""

EXACT = 1e-11
"""How far the solution of the equations may be from the cone, from its polar, and weights from being nonnegative."""


class Mixture:
    """A mixture of atoms (v, w), and the programs that choose its weights.

    Attributes:
        atoms: shape (k, space).
        weights: shape (k,), nonnegative, of sum 1.
        size: the largest length of an atom met.
    """

    def __init__(self, first: Vector, free: int, cone: ConvexCone) -> None:
        self.atoms, self.weights = first[None].copy(), np.ones(1)
        self.free, self.cone = free, cone
        self.size = float(np.linalg.norm(first))
        self._multipliers = np.zeros(len(first) - free)

    @property
    def point(self) -> Vector:
        """The mixture itself."""
        return np.asarray(self.weights @ self.atoms)

    @property
    def v(self) -> Vector:
        """Its first part."""
        return self.point[: self.free]

    @property
    def w(self) -> Vector:
        """Its second part."""
        return self.point[self.free :]

    def add(self, atom: Vector) -> bool:
        """Add an atom of weight zero; False where it is there already."""
        if bool((self.atoms == atom).all(1).any()):
            return False
        kept = self.weights > 0
        kept[-SPARE:] = True
        self.atoms = np.vstack([self.atoms[kept], atom])
        self.weights = np.append(self.weights[kept], 0.0)
        self.size = max(self.size, float(np.linalg.norm(atom)))
        return True

    def approach(self) -> None:
        """Minimise dist(l W, K)."""
        self._minimise(np.zeros((len(self.atoms), 0)), self.atoms[:, self.free :], 1.0)

    def shorten(self, rest: Vector) -> Vector:
        """Minimise |l V| with l W - rest in K; give the multipliers, an element of the polar cone.

        Method of multipliers: minimise |l V|^2 + m^2 dist(l W - rest + s, K)^2, then s <- P_K°(l W - rest + s).
        """
        v, w = self.atoms[:, : self.free], self.atoms[:, self.free :] - rest
        long, wide = (self._length(a) for a in (v, w))
        weight = 30 * long / wide
        before = np.inf
        for _ in range(ROUNDS):
            shift = self._multipliers / weight**2
            self._minimise(v, w + shift, weight)
            new = self.cone.polar_part(self.weights @ w + shift)
            change = float(np.linalg.norm(new - shift))
            self._multipliers = weight**2 * new
            exact = self._polished(v, w, shift, long, wide)
            if exact is not None:
                self.weights, self._multipliers = exact
                break
            if change <= STEADY * wide:
                break
            if change > before / 4 and weight < 1e4 * long / wide:
                weight *= 4
            before = change
        return self._multipliers

    def _polished(self, v: Vector, w: Vector, shift: Vector, long: float, wide: float) -> tuple[Vector, Vector] | None:
        """Solve for the weights and multipliers with the atoms and the face that are active; None if they are not right.

        minimise |l v|^2 over l with sum 1 and (I - P) l w = 0;   <v, v_i> + <multipliers, w_i> equal for all atoms used.
        """
        used = np.flatnonzero(self.weights > LEAST)
        at = self.weights @ w + shift
        away = (w[used] - self.cone.project_face(at, w[used])) / wide
        basis, triangle = np.linalg.qr(away.T) if away.shape[1] > len(used) else (np.eye(away.shape[1]), away.T)
        fixed, l = np.vstack([np.ones(len(used)), triangle]), self.weights[used]
        inverse, free = _solved(fixed)
        l = l - inverse @ (fixed @ l - np.eye(len(fixed))[0])
        vu = v[used] / long
        l = l - free @ (np.linalg.pinv(vu.T @ free, rcond=RANK) @ (vu.T @ l))
        weights = np.zeros(len(self.weights))
        weights[used] = np.maximum(l, 0.0)
        multipliers = -(long**2 / wide) * (basis @ (inverse.T @ (vu @ (l @ vu)))[1:])
        inside = self.cone.polar_part(multipliers)
        near = float(np.linalg.norm(multipliers - inside)) <= EXACT * (
            float(np.linalg.norm(multipliers)) + long**2 / wide
        )
        met = self.cone.distance(weights @ w) <= EXACT * wide
        prices = v @ (weights @ v) + w @ inside
        priced = float(prices @ weights - prices.min()) <= EXACT * (long**2 + wide * float(np.linalg.norm(inside)))
        if near and met and priced and float(l.min()) >= -EXACT and abs(weights.sum() - 1) <= EXACT:
            return weights / weights.sum(), inside
        return None

    def _length(self, rows: Vector) -> float:
        """Give the largest length of rows, where it is no rounding; else that of the atoms."""
        found = float(np.linalg.norm(rows, axis=1).max())
        return found if found > STEADY * self.size else self.size or 1.0

    def _minimise(self, v: Vector, w: Vector, weight: float) -> None:
        """Minimise |l v|^2 + weight^2 dist(l w, K)^2 over the weights l."""
        stalled = 0
        for _ in range(FACES):
            at = self.weights @ w
            rows = np.hstack([v, weight * (w - self.cone.project_face(at, w))])
            before, new = float(np.sum((self.weights @ rows) ** 2)), shortest_mixture(rows)
            model = float(np.sum((new @ rows) ** 2))
            if model > before:
                return
            self.weights = self._between(v, w, weight, new)
            there = self.weights @ w
            value = float(np.sum((self.weights @ v) ** 2)) + (weight * self.cone.distance(there)) ** 2
            stalled = stalled + 1 if value >= before * (1 - STEADY) else 0
            if abs(value - model) <= STEADY * model or stalled > 1:  # the face has not changed, or rounding decides
                return

    def _between(self, v: Vector, w: Vector, weight: float, new: Vector) -> Vector:
        """Go towards new weights, as far as it gets better: to where the slope of the convex function changes its sign."""
        step = new - self.weights
        dv, dw = step @ v, step @ w
        v0, w0 = self.weights @ v, self.weights @ w

        def slope(t: float) -> float:
            return float(dv @ (v0 + t * dv)) + weight**2 * float(dw @ self.cone.polar_part(w0 + t * dw))

        low, high = 0.0, 1.0
        if slope(1.0) > 0:
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        found = np.maximum(self.weights + high * step, 0.0)
        found[found < LEAST] = 0.0
        return np.asarray(found / found.sum())


def shortest_mixture(points: Vector) -> Vector:
    """Give the weights of the shortest vector of the hull of points, shape (k, space), by Wolfe's algorithm.

    >>> shortest_mixture(np.array([[1.0, -1.0], [1.0, 3.0], [5.0, 0.0]])).round(12) + 0
    array([0.75, 0.25, 0.  ])
    """
    if points.shape[1] > len(points):
        points = np.ascontiguousarray(np.linalg.qr(points.T)[1].T)
    size = float(np.linalg.norm(points, axis=1).max())
    places = {row.tobytes(): i for i, row in reversed(list(enumerate(points)))}
    corral = Corral(points[int(np.linalg.norm(points, axis=1).argmin())])
    best = corral.points, corral.weights
    for _ in range(20 * len(points) + 20):
        p = corral.nearest
        values = points @ p
        i = int(values.argmin())
        if (
            float(p @ p) - values[i] <= 4e-16 * size * float(np.linalg.norm(p))
            or float(np.linalg.norm(p)) <= 1e-16 * size
        ):
            break
        try:
            if not corral.add(points[i]):
                break
        except np.linalg.LinAlgError:  # the points are dependent up to rounding
            break
        best = corral.points, corral.weights
    weights = np.zeros(len(points))
    for row, weight in zip(*best, strict=True):
        weights[places[row.tobytes()]] += weight
    return weights


def _solved(rows: Vector) -> tuple[Vector, Vector]:
    """Give the pseudoinverse of a matrix, and an orthonormal basis of its null space as columns."""
    u, s, axes = np.linalg.svd(rows)
    rank = int((s > RANK * s.max(initial=0.0)).sum())
    return np.asarray((axes[:rank].T / s[:rank]) @ u[:, :rank].T), np.asarray(axes[rank:].T)
