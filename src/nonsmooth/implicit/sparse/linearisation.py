"""The equation of a solution, linearised: one form for penalised regressions and for support vector machines.

    z in R^k solves  z = prox(z - t g(z)),   H = dg/dz = A'A / scale + ridge I  (symmetric, positive semidefinite),

with the prox of sum_j l1_j |z_j|, or the projection on a box. Each coordinate *moves* (it solves g_j + l1_j sign_j = 0, or
g_j = 0) or *rests* (at zero, or at a bound); where both hold it lies on a kink.

Source: derived, docs/theory/sparse_models.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nonsmooth.implicit.sparse.data import Indices, Vector
from nonsmooth.implicit.sparse.normal_equations import NormalEquations

__all__ = ["Linearisation"]


@dataclass(frozen=True)
class Linearisation:
    """What is known of the equation at a computed solution.

    Attributes:
        A: shape (m, k), the columns of the variables: the centred design, or the samples times their labels.
        scale: of the formula H = A'A/scale + ridge I.
        ridge: of the same formula.
        z: shape (k,), the variables: coefficients, or dual variables.
        slack: shape (k,), how far a coordinate is from moving: the distance of |correlation| from l1, or of the margin from 1;
            in exact arithmetic it is 0 on the equicorrelation set (for the squared hinge: or negative), positive elsewhere.
        unit: shape (k,), what slack is relative to: l1, or 1.
        room: shape (k,), how far z is from where it could rest.
        room_unit: what room is relative to.
        slack_error: shape (k,), how wrong slack can be, by the duality gap.
        slack_rounding: shape (k,), how wrong it can be by rounding.
        residual: the norm of the least element of the subdifferential at z.
        nonlinearity: 1 if g is affine; else a factor that bounds what H changes between z and the solution.
        radius: within 1/radius of z that factor holds; 0 if g is affine.
        rates: shape (h, k), dg/dpenalty of the coordinates that move.
        resting: shape (h, k), dz/dpenalty of the coordinates that rest.
        pull: (gradient in the coefficients, in the intercept) -> gradient in z.
        push: dz -> (d coefficients, d intercept).
        names: what the coordinates are called in messages: "feature" or "sample".
    """

    A: Vector
    scale: float
    ridge: float
    z: Vector
    slack: Vector
    unit: Vector
    room: Vector
    room_unit: float
    slack_error: Vector
    slack_rounding: Vector
    residual: float
    nonlinearity: float
    radius: float
    rates: Vector
    resting: Vector
    pull: Callable[[Vector, float], Vector]
    push: Callable[[Vector], tuple[Vector, float]]
    names: str
    _latest: dict[bytes, NormalEquations] = field(default_factory=dict, init=False, repr=False, compare=False)

    def system(self, columns: Indices) -> NormalEquations:
        """Factor H on some columns; the latest factors are kept, as the condition and the derivative ask for the same ones."""
        key = columns.tobytes()
        if key not in self._latest:
            found = NormalEquations(self.A[:, columns], self.scale, self.ridge)
            self._latest.clear()
            self._latest[key] = found
        return self._latest[key]

    def times(self, columns: Indices, v: Vector) -> Vector:
        """Give H[columns, :] v."""
        found = self.A[:, columns].T @ (self.A @ v) / self.scale
        return found + self.ridge * v[columns] if self.ridge else found
