"""Cells: the selections that are realised next to a point, found kink by kink.

A selection s is realised on an open cone of directions next to x if some v makes every switching argument positive on
the side that s takes: sign_i(s) <a_i(s), v> > 0, with a_i(s) the gradient of kink i's argument under s. The kinks are
walked in the order of the program; a cone is nonempty iff 0 is not in the hull of its unit normals, and the shortest
element of that hull is then a direction inside it. For piecewise affine programs the cones found are all there are.

One walk is one object, hence a long file.

Source: Griewank2013, GriewankWaltherFiegeBosse2016, derived, docs/theory/sets.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import nnls

from nonsmooth.derivatives.linearisation import ActiveKink, Linearisation
from nonsmooth.dictionary.weights import Floats, Permutations, Vertices
from nonsmooth.frameworks.framework import GuardTie
from nonsmooth.kinks.resolution import Reason

__all__ = ["LOST", "Cells", "Cone", "Walk", "walk_cells"]

LOST = (2.0**6, 2.0**12)
"""In units of rounding, relative to the rows that a row was summed from: a row that is shorter than the first is zero, and
a cone is empty if the hull of its unit normals has 0 nearer than that; between the two, that is doubtful."""

WORK = 10_000_000
"""How many entries of normals are looked through for directions inside cones at most."""


@dataclass
class Cells:
    """The cells of the arrangement of active kinks next to a point.

    Attributes:
        gradients: the gradient of each, shape (cells, p).
        complete: whether none was left out: by the limit, by doubt about a thin one, or for a reason below.
        reasons: what could not be decided.
        count: how many cells were found; several may have one gradient.
        work: how many entries of normals were looked through.
    """

    gradients: list[Floats] = field(default_factory=list)
    complete: bool = True
    reasons: list[Reason] = field(default_factory=list)
    count: int = 0
    work: int = 0


@dataclass(frozen=True)
class Cone:
    """A cone { v : <row, v> > 0 for all rows }, rows of length 1 with their rounding, and a direction inside it."""

    rows: tuple[Floats, ...]
    inside: Floats
    noise: float = 2.0**-52

    def cut(self, normals: list[Floats], cells: Cells, noise: float = 0.0) -> Cone | None:
        """Add normals with a rounding of some size; None if nothing is left that is certain."""
        lengths = [float(np.linalg.norm(n)) for n in normals]
        rows = (*self.rows, *(n / length for n, length in zip(normals, lengths, strict=True)))
        noise = max(self.noise, noise / min(lengths))
        margin = LOST[1] * noise * np.linalg.norm(self.inside)
        if self.rows and all(float(r @ self.inside) > margin for r in rows[len(self.rows) :]):
            return Cone(rows, self.inside, noise)
        matrix = np.array(rows)
        cells.work += matrix.size
        v = _shortest(matrix)
        length = 0.0 if v is None else float(np.linalg.norm(v))
        if v is not None and length <= LOST[0] * noise:
            return None
        if v is None or length <= LOST[1] * noise or float(np.min(matrix @ v)) <= 0:
            cells.complete = False
            return None
        return Cone(rows, v, noise)


def _shortest(rows: Floats) -> Floats | None:
    """Give the shortest element of the hull of rows, by nonnegative least squares: min |R'y|^2 + (1'y - 1)^2."""
    n, k = rows.shape
    try:
        weights, _ = nnls(np.concatenate([rows.T, np.ones((1, n))]), np.concatenate([np.zeros(k), [1.0]]))
    except RuntimeError:  # too many iterations
        return None
    total = float(weights.sum())
    return np.asarray(weights @ rows / total) if total > 0 else None


def walk_cells(system: Linearisation, relevant: list[int], affine: bool, limit: int) -> Cells:
    """Find the cells of a piece of a program: the selections that are realised next to the point, with their gradients.

    `relevant` are the kinks on which the result depends; `affine` says that the program is piecewise affine; no more
    than `limit` cells are looked for.
    """
    return Walk(system, relevant, affine, limit).run()


class Walk:
    """One walk over the kinks, in the order of the program."""

    def __init__(self, system: Linearisation, relevant: list[int], affine: bool, limit: int) -> None:
        self.system, self.affine, self.limit = system, affine, limit
        self.cells = Cells()
        self.eps = system.framework.eps(system.sweeps.evaluation.result)
        Z, self.L = system.dense_rows, system.dense_interactions
        A, self.LA = system.dense_arguments
        ties = [(tie, *system.sweeps.rows(tie.arguments)) for tie in system.sweeps.evaluation.ties]
        self.kinks = [system.kink(k) for k in self._needed(relevant, [through for _, _, through in ties])]
        self.basis = _basis(np.concatenate([Z, A, *(row for _, row, _ in ties)]))
        self.Z, self.A = Z @ self.basis, A @ self.basis
        self.ties = [(tie, row @ self.basis, through) for tie, row, through in ties]
        self.U = np.zeros((int(system.first_u[-1]), self.basis.shape[1]))
        self.sizes = np.zeros(len(self.U))
        self.chosen: dict[int, Floats] = {}

    def _needed(self, relevant: list[int], throughs: list[Floats]) -> list[int]:
        """Give the kinks that act on the result, or on what a `where` or an `if` that ties compares."""
        system, wanted = self.system, np.zeros(self.system.count, dtype=bool)
        wanted[relevant] = True
        for through in throughs:
            wanted[system.kink_of_u[np.any(through != 0, axis=0)]] = True
        acting = (self.L != 0) | (self.LA != 0)
        while True:
            behind = system.kink_of_u[np.any(acting[wanted[system.kink_of_z]], axis=0)]
            if np.all(wanted[behind]):
                return [int(k) for k in np.flatnonzero(wanted)]
            wanted[behind] = True

    def run(self) -> Cells:
        """Walk."""
        self._visit(0, Cone((), np.zeros(self.basis.shape[1]), self.eps))
        return self.cells

    def _visit(self, place: int, cone: Cone) -> None:
        """Decide the kinks from one on, inside a cone."""
        if self.cells.count >= self.limit or self.cells.work >= WORK:
            self.cells.complete = False
            return
        if place == len(self.kinks):
            self._leaf(cone)
            return
        kink = self.kinks[place]
        z = self.Z[kink.z] + self.L[kink.z] @ self.U
        sizes = np.linalg.norm(self.Z[kink.z], axis=1) + np.abs(self.L[kink.z]) @ self.sizes
        z[self._is_zero(z, sizes)] = 0.0
        for W, inside in self._sides(kink, z, sizes, cone):
            self.chosen[kink.number] = W
            self.U[kink.u] = W @ z
            self.sizes[kink.u] = np.abs(W) @ sizes
            self._visit(place + 1, inside)
        self.U[kink.u], self.sizes[kink.u] = 0.0, 0.0

    def _is_zero(self, rows: Floats, sizes: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell which rows are zero up to rounding; where that is in doubt, the cells are not complete."""
        lengths = np.linalg.norm(rows, axis=1)
        zero = lengths <= LOST[1] * self.eps * sizes
        if np.any(lengths[zero] > LOST[0] * self.eps * sizes[zero]):
            self.cells.complete = False
        return np.asarray(zero)

    def _sides(self, kink: ActiveKink, z: Floats, sizes: Floats, cone: Cone) -> Iterator[tuple[Floats, Cone]]:
        """Give the weights that a kink can have inside a cone, with what is left of the cone."""
        nothing = np.zeros((kink.weights.outputs, kink.weights.compared))
        if not np.any(z):
            yield nothing, cone
        elif kink.own is not None:
            yield from self._choice(kink, z, cone)
        elif isinstance(kink.weights, Permutations):
            yield from self._orders(kink, kink.weights, z, sizes, cone)
        elif kink.switch and len(z) > 1:
            yield from self._clamped(kink, z, sizes, cone)
        elif kink.switch:
            for side in (1.0, -1.0):
                left = cone.cut([side * kink.sign[0] * z[0]], self.cells, self.eps * float(sizes[0]))
                if left is not None:
                    yield np.array([[float(side > 0)]]), left
        elif isinstance(kink.weights, Vertices):
            yield from self._largest(kink, kink.weights, z, sizes, cone)

    def _argument(self, kink: ActiveKink) -> tuple[Floats, float]:
        """Give the gradient of what a `where` compares, zero where it is zero up to rounding, and its rounding."""
        a = self.A[kink.z] + self.LA[kink.z] @ self.U
        sizes = np.linalg.norm(self.A[kink.z], axis=1) + np.abs(self.LA[kink.z]) @ self.sizes
        a[self._is_zero(a, sizes)] = 0.0
        return np.asarray(a[0]), self.eps * float(sizes[0])

    def _clamped(self, kink: ActiveKink, z: Floats, sizes: Floats, cone: Cone) -> Iterator[tuple[Floats, Cone]]:
        """Take the sides of two breakpoints that coincide: min(max(0, c_1), c_2) of c_k = z_1 + .. + z_k.

        Where the slope first falls and then grows, both arguments are one and the same.
        """
        flip = -1.0 if kink.sign[0] < 0 or kink.sign[1] > 0 else 1.0
        if len(z) != 2 or kink.sign[0] * kink.sign[1] > 0:
            self._undecided(kink, "has breakpoints that coincide")
            return
        values, noise = flip * np.array([0 * z[0], z[0], z[0] + z[1]]), self.eps * float(sizes.sum())
        weights = np.array([[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]]])
        for top, other in ((0, 1), (1, 0)):
            between = self._ahead(cone, values, top, other, noise, first=top < other)
            if between is None:
                continue
            for chosen, beaten in ((top, 2), (2, top)):
                left = self._ahead(between, -values, chosen, beaten, noise, first=chosen != 2)
                if left is not None:
                    yield weights[chosen], left

    def _ahead(self, cone: Cone, values: Floats, one: int, other: int, noise: float, *, first: bool) -> Cone | None:
        """Give the part of a cone where one value is above the other; of two that are the same the first counts."""
        ahead = values[one] - values[other]
        if self._is_zero(ahead[None], np.array([noise / self.eps]))[0]:
            return cone if first else None
        return cone.cut([ahead], self.cells, noise)

    def _choice(self, kink: ActiveKink, z: Floats, cone: Cone) -> Iterator[tuple[Floats, Cone]]:
        """Take either side of a `where`; where what it compares does not move, the program's own."""
        a, noise = self._argument(kink)
        if kink.blind:
            self._undecided(kink, "hangs on several comparisons that tie at once")
        elif not np.any(a):
            if self.affine and kink.own is not None:
                yield np.array([[kink.own]]), cone
            else:
                self._undecided(kink, "compares what has the derivative zero")
        elif kink.empty:
            yield np.zeros((1, 1)), cone  # the piece of an equality has no interior
        elif not _parallel(z[0], a, LOST[1] * self.eps):
            self._undecided(kink, "has branches that do not join nearby")
        else:
            for side in (1.0, -1.0):
                left = cone.cut([side * a], self.cells, noise)
                if left is not None:
                    yield np.array([[float(side > 0)]]), left

    def _largest(
        self, kink: ActiveKink, weights: Vertices, z: Floats, sizes: Floats, cone: Cone
    ) -> Iterator[tuple[Floats, Cone]]:
        """Take each candidate where it is the largest (the smallest, if the kink says so).

        The rows of the weights are the candidates in terms of z, so that a row's product with z is what it gives.
        """
        found, noise = weights.rows @ z, self.eps * float(sizes.max())
        for candidate, classes in self._classes(found, float(sizes.max())):
            ahead = [kink.sign[0] * (found[candidate] - found[other]) for other in classes]
            left = cone.cut(ahead, self.cells, noise) if ahead else cone
            if left is not None:
                yield weights.rows[candidate][None], left

    def _classes(self, rows: Floats, size: float) -> list[tuple[int, list[int]]]:
        """Give the first of the rows of each class of equal ones, each with those of the other classes."""
        firsts: list[int] = []
        for k, row in enumerate(rows):
            if not firsts or not np.any(self._is_zero(rows[firsts] - row, np.full(len(firsts), size))):
                firsts.append(k)
        return [(f, [o for o in firsts if o != f]) for f in firsts]

    def _orders(
        self, kink: ActiveKink, weights: Permutations, z: Floats, sizes: Floats, cone: Cone
    ) -> Iterator[tuple[Floats, Cone]]:
        """Sort the tied entries every way that is possible inside the cone; equal ones stay as they are."""
        entry = np.concatenate([np.zeros((1, z.shape[1])), z])
        size, eye, r = float(sizes.max()), np.eye(weights.size), list(weights.returned)
        noise = self.eps * size

        def extend(order: list[int], rest: list[int], inside: Cone) -> Iterator[tuple[list[int], Cone]]:
            if not rest:
                yield order, inside
                return
            for candidate, others in self._classes(entry[rest], size):
                first = rest[candidate]
                behind = [kink.sign[0] * (entry[rest[o]] - entry[first]) for o in others]
                left = inside.cut(behind, self.cells, noise) if behind else inside
                if left is not None:
                    alike = self._is_zero(entry[rest] - entry[first], np.full(len(rest), size))
                    same = [k for k, one in zip(rest, alike, strict=True) if one]
                    yield from extend(order + same, [k for k in rest if k not in same], left)

        for order, inside in extend([], list(range(weights.size)), cone):
            yield (eye[order][r] - eye[r])[:, 1:], inside

    def _leaf(self, cone: Cone) -> None:
        """Check the guards of the program, and keep the gradient."""
        for tie, rows, through in self.ties:
            left = self._beside(tie, rows + through @ self.U, rows, through, cone)
            if left is None:
                return
            cone = left
        self.cells.count += 1
        self.cells.gradients.append(self._gradient())

    def _beside(self, tie: GuardTie, a: Floats, rows: Floats, through: Floats, cone: Cone) -> Cone | None:
        """Give the part of a cone in which a tied comparison comes out as in this program.

        Differences that are zero on all of a cell leave the comparison as it is at the point, if the program is
        piecewise affine.
        """
        sizes = np.linalg.norm(rows, axis=1) + np.abs(through) @ self.sizes
        zero = self._is_zero(a, sizes)
        if np.any(zero) and not self.affine:
            text = f"{tie.step}: an `if` compares what has the derivative zero"
            self._note(Reason("flat", text, tie.step.source))
            return None
        if tie.equality:
            return cone if np.all(zero) else None
        if tie.sign == 0:
            return cone if tie.own or not np.all(zero) else None
        if not all(wins for wins, one in zip(tie.wins, zero, strict=True) if one):
            return None
        ahead = [tie.sign * row for row, one in zip(a, zero, strict=True) if not one]
        return cone.cut(ahead, self.cells, self.eps * float(sizes.max())) if ahead else cone

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
    return bool(np.linalg.norm(rest) <= max(eps, 1e-12) * np.linalg.norm(z))


def _basis(rows: Floats) -> Floats:
    """Give an orthonormal basis of the span of rows, as columns: cones live there."""
    if min(rows.shape) == 0 or not np.any(rows):
        return np.zeros((rows.shape[1], 0))
    scaled = rows[np.linalg.norm(rows, axis=1) > 0]
    scaled = scaled / np.linalg.norm(scaled, axis=1)[:, None]
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    return np.asarray(directions[sizes > 1e-15 * sizes[0]].T)
