"""Linear systems B x = b of implicit differentiation: solved, checked, or refused; never by least squares.

A system is given by its product v -> B v, and where it is small enough also by its matrix. A dense one is factorised; it is
singular within rounding if its least singular value is below the error that rounding leaves in its entries; in a type narrower
than the double precision in which it is factorised, that may be so though it is not singular. A large one is
solved by Krylov's methods, and the residual b - B x is computed anew at the end. That does not see a singular B if b happens
to lie in its range; a random right-hand side lies there with probability 0, so that `probe` solves for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import eigvalsh, lapack
from scipy.sparse.linalg import LinearOperator, cg, gmres

from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NotConverged, NotInvertible
from nonsmooth.implicit.options import Linear

__all__ = ["DENSE", "LinearSystem"]

DENSE = 512
"""Up to how many unknowns the matrix is formed and factorised unless another method is asked for."""

ROUNDING = 8.0
"""How many units of rounding, times the size and the scale of the matrix, its least singular value must exceed."""

DOUBLE, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
"""Units of rounding."""

RESTART = 50
"""After how many products GMRES starts again."""

PROBE = 1e-3
"""How far the residual of a random right-hand side must fall, times the root of 1/n: its part in any one direction is larger."""

LEAST = 20
"""How many products of a large system are tried, at least, before it is given up."""


@dataclass(eq=False)
class LinearSystem:
    """B x = b and B' x = b for one square matrix B.

    Attributes:
        size: the number n of unknowns.
        product: v -> B v, for flat arrays of numpy.
        transposed_product: v -> B' v.
        matrix: gives B, n x n.
        symmetric: whether B is a Hessian.
        eps: the unit of rounding of the framework's numbers.
        tolerance: how large |b - B x| may be, relative to |b|.
        method: as in `Options.linear`.
        scale: a number below which singular values count as zero within rounding whatever the entries of B: 1 where B is the
            identity minus something, else 0.
        name: what the equation is called in messages.
    """

    size: int
    product: Callable[[Floats], Floats]
    transposed_product: Callable[[Floats], Floats]
    matrix: Callable[[], Floats]
    symmetric: bool
    eps: float
    tolerance: float
    method: Linear = "auto"
    scale: float = 0.0
    name: str = "the equation"
    _factors: tuple[Any, Any] | None = field(default=None, repr=False)
    _indefinite: bool = field(default=False, repr=False)
    _probed: bool = field(default=False, repr=False)
    _reached: float = field(default=0.0, repr=False)
    _lowest: float = field(default=0.0, repr=False)

    @property
    def chosen(self) -> Linear:
        """The method: "dense", "cg" or "gmres"."""
        if self.method != "auto":
            return self.method
        return "dense" if self.size <= DENSE else "cg" if self.symmetric and not self._indefinite else "gmres"

    def solve(self, right: Floats, *, transposed: bool = False) -> Floats:
        """Solve for one right-hand side (n), or several as the columns of a matrix (n, k).

        Raises:
            NotInvertible: B is singular within rounding.
            NotConverged: the residual of the solution is too large, or B singular as far as its type can tell, in another not.
        """
        if right.ndim == 2 and self.chosen != "dense":
            columns = [self.solve(column, transposed=transposed) for column in right.T]
            return np.stack(columns, axis=1) if columns else right
        if not np.isfinite(right).all():
            return np.full_like(right, np.nan)
        if not self.size or not right.any():
            return np.zeros_like(right)
        return (self._dense if self.chosen == "dense" else self._iterative)(right, transposed)

    def inverse_norm(self) -> float:
        """Estimate |B^-1| in the Euclidean norm: from the factors, or from the right-hand sides solved so far.

        |B^-1|_2 <= (|B^-1|_1 |B^-1|_inf)^(1/2), each norm estimated from the factors within a small factor.
        """
        if self._factors is None:
            return self._reached
        one, infinity = (lapack.dgecon(self._factors[0], 1.0, norm=which)[0] for which in "1I")
        return float(1 / np.sqrt(one * infinity)) if one and infinity else float("inf")

    def negative_curvature(self) -> float:
        """Give the least eigenvalue of a factorised Hessian if it is negative beyond doubt, else 0."""
        return self._lowest

    def _dense(self, right: Floats, transposed: bool) -> Floats:
        """Solve by the factors of the matrix."""
        factors, pivots = self.factors()
        solution, _ = lapack.dgetrs(factors, pivots, right, trans=int(transposed))
        return np.asarray(solution).reshape(right.shape)

    def factors(self) -> tuple[Any, Any]:
        """Factorise the matrix, once, and refuse one that is singular within rounding."""
        if self._factors is None:
            matrix = np.asarray(self.matrix(), dtype=float)
            if not np.isfinite(matrix).all():
                raise NotInvertible(
                    f"the derivative of {self.name} in its solution has entries that are not finite: the solution is a point "
                    "at which the function has no derivative. Diagnose it there with `nonsmooth.implicit.diagnose`."
                )
            factors, pivots, _ = lapack.dgetrf(matrix)
            norm = float(np.abs(matrix).sum(axis=0).max())
            rcond, _ = lapack.dgecon(factors, max(norm, np.finfo(float).tiny))
            if not rcond * norm > 10 * self.size * self._zero(norm, self.eps):
                self._refuse_singular(matrix)
            if self.symmetric and lapack.dpotrf(matrix)[1]:  # no Cholesky factor
                lowest = float(eigvalsh(matrix, subset_by_index=(0, 0))[0])
                self._lowest = lowest if lowest < -np.sqrt(self.eps) * norm else 0.0
            self._factors = factors, pivots
        return self._factors

    def _zero(self, norm: float, eps: float) -> float:
        """Give the size below which a singular value is zero within rounding."""
        return ROUNDING * eps * max(norm, self.scale)

    def _refuse_singular(self, matrix: Floats) -> None:
        """Raise if the least singular value of a matrix is zero within rounding, or may be in the type of its numbers."""
        values = np.linalg.svd(matrix, compute_uv=False)
        zero, double = (self._zero(float(values[0]), e) * np.sqrt(self.size) for e in (self.eps, DOUBLE))
        if double < values[-1] <= zero:
            raise NotConverged(
                f"the linear system of {self.name} ({self.size} unknowns) was not solved: whether its matrix is singular cannot "
                f"be told in this precision, a unit of rounding of {self.eps:.2g}. Its smallest singular value is "
                f"{values[-1]:.2g}, its largest {values[0]:.2g}, and rounding may change them by {zero:.2g}. Solve in a wider "
                f"type: pass the start and the parameters in {'float32' if self.eps > SINGLE else 'float64'}."
            )
        if values[-1] <= zero:
            raise NotInvertible(
                f"the derivative B of {self.name} in its solution is singular: its smallest singular value is "
                f"{values[-1]:.2g}, its largest {values[0]:.2g}, and below {zero:.2g} it cannot be told from 0 "
                f"({self.size} unknowns). The solution is then no function of the parameters that could be differentiated. "
                "Look at it with `nonsmooth.implicit.diagnose`; regularise the problem, or rescale equations whose units "
                "differ by many orders."
            )

    def _iterative(self, right: Floats, transposed: bool) -> Floats:
        """Solve by a Krylov method, and compute the residual of its answer anew."""
        solution = self._krylov(right, transposed, self.tolerance)
        residual = self._residual(right, solution, transposed)
        if not residual <= self.tolerance and self.chosen == "cg" and self.method == "auto":
            self._indefinite = True  # conjugate gradients fail where B is not positive definite
            return self._iterative(right, transposed)
        if not residual <= self.tolerance:
            raise NotConverged(
                f"the linear system of {self.name} ({self.size} unknowns) was not solved by {self.chosen}: the residual is "
                f"{residual:.2g} of the right-hand side, asked was {self.tolerance:.2g}. "
                + ("cg needs a positive definite derivative: try linear='gmres'. " if self.chosen == "cg" else "")
                + "The derivative may be singular: look at it with `nonsmooth.implicit.diagnose`, solve with linear='dense', "
                "or allow a larger linear_tolerance."
            )
        return solution

    def probe(self) -> None:
        """Solve for a random right-hand side, which a singular matrix cannot reach; the price is part of a solve.

        The residual must fall below 1e-3 / sqrt(n): the part of a random vector of length 1 in one given direction is smaller
        with probability below 1e-3. Dense matrices are factorised and need no probe.

        Raises:
            NotInvertible: the residual does not fall.
        """
        if self._probed or not self.size:
            return
        if self.chosen == "dense":
            self.factors()
            return
        right = np.random.default_rng(0).standard_normal(self.size)
        goal = max(PROBE / np.sqrt(self.size), 10 * self.eps)
        residual = self._residual(right, self._krylov(right, True, goal / 2), True)
        if not residual <= goal:
            raise NotInvertible(
                f"the derivative B of {self.name} in its solution ({self.size} unknowns) is singular, or too near to it: of a "
                f"random right-hand side {self.chosen} leaves {residual:.2g}, and must leave less than {goal:.2g}. The solution "
                "is then no function of the parameters that could be differentiated. Look at it with "
                "`nonsmooth.implicit.diagnose`, regularise the problem, or factorise with linear='dense'."
            )
        self._probed = True

    def _krylov(self, right: Floats, transposed: bool, tolerance: float) -> Floats:
        """Run the method; whether it has converged is for the residual to say."""
        apply = self.transposed_product if transposed and not self.symmetric else self.product
        operator = LinearOperator((self.size, self.size), matvec=apply, dtype=np.float64)
        size = np.linalg.norm(right)
        limit = max(LEAST, min(10 * self.size, 1000))
        with np.errstate(all="ignore"):  # cg divides by zero where B is indefinite
            if self.chosen == "cg":
                solution, _ = cg(operator, right / size, rtol=tolerance / 2, atol=0.0, maxiter=limit)
            else:
                restart = min(RESTART, self.size)
                outer = -(-limit // restart)
                solution, _ = gmres(
                    operator, right / size, rtol=tolerance / 2, atol=0.0, restart=restart, maxiter=outer
                )
        if np.isfinite(solution).all():
            self._reached = max(self._reached, float(np.linalg.norm(solution)))
        return np.asarray(solution * size)

    def _residual(self, right: Floats, solution: Floats, transposed: bool) -> float:
        """Give |b - B x| / |b|; infinite if it is not a number."""
        apply = self.transposed_product if transposed and not self.symmetric else self.product
        if not np.isfinite(solution).all():
            return float("inf")
        found = float(np.linalg.norm(right - apply(solution)) / np.linalg.norm(right))
        return found if np.isfinite(found) else float("inf")
