"""Cells: the selections that are realised next to a point, found kink by kink.

A selection s is realised on an open cone of directions next to x if some v makes every switching argument positive on
the side that s takes: sign_i(s) <a_i(s), v> > 0, with a_i(s) the gradient of kink i's argument under s. The kinks are
walked in the order of the program; a cone is nonempty iff 0 is not in the hull of its unit normals, and the shortest
element of that hull is then a direction inside it. For piecewise affine programs the cones found are all there are.

Source: Griewank2013, GriewankWaltherFiegeBosse2016, derived, docs/theory/sets.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from nonsmooth.derivatives.linearisation import ActiveKink, Linearisation
from nonsmooth.dictionary.weights import Floats, Permutations, Vertices
from nonsmooth.kinks.resolution import Reason

__all__ = ["Cells", "walk_cells"]

THIN = (1e-10, 1e-7)
"""A cone whose unit normals have 0 nearer to their hull than this is taken to be empty; nearer than that it is doubtful."""

ZERO = 2.0**10
"""A row of this many units of rounding, relative to the rows that it was summed from, is zero."""


@dataclass
class Cells:
    """The cells of the arrangement of active kinks next to a point.

    Attributes:
        gradients: the gradient of each, shape (cells, p).
        complete: whether none was left out: by the limit, by doubt about a thin one, or for a reason below.
        reasons: what could not be decided.
        count: how many cells were found; several may have one gradient.
    """

    gradients: list[Floats] = field(default_factory=list)
    complete: bool = True
    reasons: list[Reason] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True)
class _Cone:
    """A cone { v : <row, v> > 0 for all rows }, rows of length 1, and a direction inside it."""

    rows: tuple[Floats, ...]
    inside: Floats

    def cut(self, normals: list[Floats], cells: Cells) -> _Cone | None:
        """Add normals; None if nothing is left."""
        rows = (*self.rows, *(n / np.linalg.norm(n) for n in normals))
        margin = THIN[1] * np.linalg.norm(self.inside)
        if self.rows and all(float(r @ self.inside) > margin for r in rows[len(self.rows) :]):
            return _Cone(rows, self.inside)
        matrix = np.array(rows)
        v = _shortest(matrix)
        length = float(np.linalg.norm(v))
        if length <= THIN[0] or float(np.min(matrix @ v)) <= 0:
            return None
        if length <= THIN[1]:
            cells.complete = False
        return _Cone(rows, v)


def _shortest(rows: Floats) -> Floats:
    """Give the shortest element of the hull of rows, by nonnegative least squares: min |R'y|^2 + (1'y - 1)^2."""
    n, k = rows.shape
    weights, _ = nnls(np.concatenate([rows.T, np.ones((1, n))]), np.concatenate([np.zeros(k), [1.0]]))
    return np.asarray(weights @ rows / weights.sum())


def walk_cells(system: Linearisation, relevant: list[int], affine: bool, limit: int) -> Cells:
    """Find the cells of a piece of a program: the selections that are realised next to the point, with their gradients.

    `relevant` are the kinks on which the result depends; `affine` says that the program is piecewise affine; no more
    than `limit` cells are looked for.
    """
    return _Walk(system, relevant, affine, limit).run()


class _Walk:
    """One walk over the kinks, in the order of the program."""

    def __init__(self, system: Linearisation, relevant: list[int], affine: bool, limit: int) -> None:
        self.system, self.affine, self.limit = system, affine, limit
        self.kinks = [system.kink(k) for k in relevant]
        self.cells = Cells()
        Z, self.L = system.dense_rows, system.dense_interactions
        A, self.LA = system.dense_arguments
        ties = [(tie, *system.sweeps.rows(tie.arguments)) for tie in system.sweeps.evaluation.ties]
        self.basis = _basis(np.concatenate([Z, A, *(row for _, row, _ in ties)]))
        self.Z, self.A = Z @ self.basis, A @ self.basis
        self.ties = [(tie, row @ self.basis, through) for tie, row, through in ties]
        self.U = np.zeros((int(system.first_u[-1]), self.basis.shape[1]))
        self.sizes = np.zeros(len(self.U))
        self.chosen: dict[int, Floats] = {}
        self.eps = ZERO * system.framework.eps(system.sweeps.evaluation.result)

    def run(self) -> Cells:
        """Walk."""
        self._visit(0, _Cone((), np.zeros(self.basis.shape[1])))
        return self.cells

    def _visit(self, place: int, cone: _Cone) -> None:
        """Decide the kinks from one on, inside a cone."""
        if self.cells.count >= self.limit:
            self.cells.complete = False
            return
        if place == len(self.kinks):
            self._leaf(cone)
            return
        kink = self.kinks[place]
        z = self.Z[kink.z] + self.L[kink.z] @ self.U
        sizes = np.linalg.norm(self.Z[kink.z], axis=1) + np.abs(self.L[kink.z]) @ self.sizes
        z[np.linalg.norm(z, axis=1) <= self.eps * sizes] = 0.0
        for W, inside in self._sides(kink, z, cone):
            self.chosen[kink.number] = W
            self.U[kink.u] = W @ z
            self.sizes[kink.u] = np.abs(W) @ sizes
            self._visit(place + 1, inside)
        self.U[kink.u], self.sizes[kink.u] = 0.0, 0.0

    def _sides(self, kink: ActiveKink, z: Floats, cone: _Cone) -> Iterator[tuple[Floats, _Cone]]:
        """Give the weights that a kink can have inside a cone, with what is left of the cone."""
        nothing = np.zeros((kink.weights.outputs, kink.weights.compared))
        if not np.any(z):
            yield nothing, cone
        elif kink.own is not None:
            yield from self._choice(kink, z, cone)
        elif isinstance(kink.weights, Permutations):
            yield from self._orders(kink, kink.weights, z, cone)
        elif kink.switch:
            yield from self._switch(kink, z, cone)
        elif isinstance(kink.weights, Vertices):
            yield from self._largest(kink, kink.weights, z, cone)

    def _argument(self, kink: ActiveKink) -> Floats:
        """Give the gradient of what a `where` compares, zero where it is zero up to rounding."""
        a = self.A[kink.z] + self.LA[kink.z] @ self.U
        sizes = np.linalg.norm(self.A[kink.z], axis=1) + np.abs(self.LA[kink.z]) @ self.sizes
        a[np.linalg.norm(a, axis=1) <= self.eps * sizes] = 0.0
        return np.asarray(a)

    def _switch(self, kink: ActiveKink, z: Floats, cone: _Cone) -> Iterator[tuple[Floats, _Cone]]:
        """Take either side of each breakpoint: the argument is a multiple of the jump of the derivative."""
        sides = [(np.zeros((1, len(z))), cone)]
        for j, jump in enumerate(z):
            if not np.any(jump):
                continue
            split = []
            for W, inside in sides:
                for side in (1.0, -1.0):
                    left = inside.cut([side * kink.sign[j] * jump], self.cells)
                    if left is not None:
                        weight = W.copy()
                        weight[0, j] = side > 0
                        split.append((weight, left))
            sides = split
        yield from sides

    def _choice(self, kink: ActiveKink, z: Floats, cone: _Cone) -> Iterator[tuple[Floats, _Cone]]:
        """Take either side of a `where`; where what it compares does not move, the program's own."""
        a = self._argument(kink)[0]
        if kink.blind:
            self._undecided(kink, "hangs on several comparisons that tie at once")
        elif not np.any(a):
            if self.affine:
                yield np.array([[kink.own]]), cone
            else:
                self._undecided(kink, "compares what has the derivative zero")
        elif kink.empty:
            yield np.zeros((1, 1)), cone  # the piece of an equality has no interior
        elif not _parallel(z[0], a, self.eps):
            self._undecided(kink, "has branches that do not join nearby")
        else:
            for side in (1.0, -1.0):
                left = cone.cut([side * a], self.cells)
                if left is not None:
                    yield np.array([[float(side > 0)]]), left

    def _largest(self, kink: ActiveKink, weights: Vertices, z: Floats, cone: _Cone) -> Iterator[tuple[Floats, _Cone]]:
        """Take each candidate where it is the largest (the smallest, if the kink says so).

        The rows of the weights are the candidates in terms of z, so that a row's product with z is what it gives.
        """
        found = weights.rows @ z
        for candidate, classes in _classes(found, self.eps * np.linalg.norm(z, axis=1).max()):
            left = cone.cut([kink.sign[0] * (found[candidate] - found[other]) for other in classes], self.cells)
            if left is not None:
                yield weights.rows[candidate][None], left

    def _orders(
        self, kink: ActiveKink, weights: Permutations, z: Floats, cone: _Cone
    ) -> Iterator[tuple[Floats, _Cone]]:
        """Sort the tied entries every way that is possible inside the cone; equal ones stay as they are."""
        entry = np.concatenate([np.zeros((1, z.shape[1])), z])
        tol = self.eps * np.linalg.norm(z, axis=1).max()
        eye, r = np.eye(weights.size), list(weights.returned)

        def extend(order: list[int], rest: list[int], inside: _Cone) -> Iterator[tuple[list[int], _Cone]]:
            if not rest:
                yield order, inside
                return
            for candidate, others in _classes(entry[rest], tol):
                first = rest[candidate]
                left = inside.cut([kink.sign[0] * (entry[rest[o]] - entry[first]) for o in others], self.cells)
                if left is not None:
                    same = [k for k in rest if np.linalg.norm(entry[k] - entry[first]) <= tol]
                    yield from extend(order + same, [k for k in rest if k not in same], left)

        for order, inside in extend([], list(range(weights.size)), cone):
            yield (eye[order][r] - eye[r])[:, 1:], inside

    def _leaf(self, cone: _Cone) -> None:
        """Check the guards of the program, and keep the gradient."""
        for tie, rows, through in self.ties:
            a = rows + through @ self.U
            sizes = np.linalg.norm(rows, axis=1) + np.abs(through) @ self.sizes
            a = a[np.linalg.norm(a, axis=1) > self.eps * sizes]
            if tie.equality and len(a):
                return
            if tie.sign == 0 and not tie.equality and not len(a) and not tie.own:
                return
            if tie.equality or tie.sign == 0:
                continue
            if not len(a):
                if not self.affine:
                    self._note(Reason("flat", f"{tie.step}: an `if` compares what has the derivative zero"))
                    return
                if not tie.own:
                    return
                continue
            left = cone.cut([tie.sign * row for row in a], self.cells)
            if left is None:
                return
            cone = left
        self.cells.count += 1
        self.cells.gradients.append(self._gradient())

    def _gradient(self) -> Floats:
        """Give the gradient under the weights chosen."""
        y, total = self.system.Y.copy(), self.system.J.copy()
        for kink in reversed(self.kinks):
            found = y[kink.u] @ self.chosen[kink.number]
            if np.any(found):
                total += found @ self.system.dense_rows[kink.z]
                y += found @ self.L[kink.z]
        return total

    def _undecided(self, kink: ActiveKink, text: str) -> None:
        """Leave the cells behind a kink out."""
        self._note(Reason("flat", f"{kink.step} {text}", kink.step.source))

    def _note(self, reason: Reason) -> None:
        """Write down why cells are left out."""
        self.cells.complete = False
        if reason not in self.cells.reasons:
            self.cells.reasons.append(reason)


def _parallel(z: Floats, a: Floats, eps: float) -> bool:
    """Tell whether a jump of the derivative is a multiple of the gradient of what is compared."""
    rest = z - (z @ a) / (a @ a) * a
    return bool(np.linalg.norm(rest) <= max(eps, 1e-12) * 64 * np.linalg.norm(z))


def _classes(rows: Floats, tol: float) -> list[tuple[int, list[int]]]:
    """Give the first of the rows of each class of equal ones, each with those of the other classes."""
    firsts: list[int] = []
    for k, row in enumerate(rows):
        if all(np.linalg.norm(row - rows[f]) > tol for f in firsts):
            firsts.append(k)
    return [(f, [o for o in firsts if o != f]) for f in firsts]


def _basis(rows: Floats) -> Floats:
    """Give an orthonormal basis of the span of rows, as columns: cones live there."""
    if min(rows.shape) == 0 or not np.any(rows):
        return np.zeros((rows.shape[1], 0))
    scaled = rows[np.linalg.norm(rows, axis=1) > 0]
    scaled = scaled / np.linalg.norm(scaled, axis=1)[:, None]
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(directions[sizes > 1e-14 * sizes[0] * max(scaled.shape)].T)
