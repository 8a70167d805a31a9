"""The dual of a linear support vector machine: a quadratic program with bounds.

    min a'(A'A + ridge I)a / 2 - sum_i a_i,   0 <= a_i <= C (hinge)   or   0 <= a_i, ridge = 1/2C (its square)

Source: HsiehEtAl2008.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import lsq_linear
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC, LinearSVC

from nonsmooth.implicit.sparse.data import Vector
from nonsmooth.implicit.sparse.normal_equations import NormalEquations
from nonsmooth.implicit.sparse.problem import Solver

__all__ = ["Dual", "mirrored", "polish", "recover"]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Dual:
    """The dual problem at some variables.

    Attributes:
        A: shape (m, n), the samples times their labels, one column each.
        a: shape (n,), the variables.
        C: the hyper-parameter.
        squared: whether the hinge is squared.
        w: A a, the weights of the primal problem.
        margins: A' w.
    """

    A: Vector
    a: Vector
    C: float
    squared: bool
    w: Vector
    margins: Vector

    @classmethod
    def at(cls, A: Vector, a: Vector, C: float, squared: bool) -> Dual:
        """Find weights and margins."""
        w = A @ a
        return cls(A, a, C, squared, w, A.T @ w)

    def moved(self, a: Vector) -> Dual:
        """Give the problem at other variables."""
        w = self.A @ a
        return replace(self, a=a, w=w, margins=self.A.T @ w)

    @property
    def ridge(self) -> float:
        """What is added to the diagonal."""
        return 0.5 / self.C if self.squared else 0.0

    @property
    def top(self) -> float:
        """The upper bound."""
        return np.inf if self.squared else self.C

    def gradient(self) -> Vector:
        """Give the gradient."""
        return np.asarray(self.margins - 1 + self.ridge * self.a)

    def primal(self) -> float:
        """Give the value of the primal objective at w."""
        short = np.maximum(0, 1 - self.margins)
        return float(self.w @ self.w / 2 + self.C * (short**2 if self.squared else short).sum())

    def residual(self) -> float:
        """Give the norm of the least element of the subdifferential."""
        g = self.gradient()
        g = np.where(self.a <= 0, np.minimum(g, 0), np.where(self.a >= self.top, np.maximum(g, 0), g))
        return float(np.linalg.norm(g))

    def gap(self) -> float:
        """Give the duality gap, sample by sample: no large numbers cancel.

        hinge: C max(0, 1 - m) - a (1 - m),   squared: C (max(0, 1 - m) - a / 2C)^2 + a max(0, m - 1)
        """
        short, over = np.maximum(0, 1 - self.margins), np.maximum(0, self.margins - 1)
        if self.squared:
            terms = self.C * (short - self.ridge * self.a) ** 2 + self.a * over
        else:
            terms = (self.C - self.a) * short + self.a * over
        return float(terms.sum()) + 4 * EPS * float(np.abs(self.a).sum())


def recover(dual: Dual, solver: Solver) -> Dual:
    """Solve the primal problem by liblinear, and find the dual variables by the margins of its samples."""
    labels = np.where(np.arange(dual.A.shape[1]) % 2 == 0, 1, -1)  # the samples carry their labels: any two classes do
    model = LinearSVC(
        loss="squared_hinge" if dual.squared else "hinge",
        C=dual.C,
        dual=True,
        fit_intercept=False,
        tol=max(1e-2 * solver.tolerance, 1e-12),
        max_iter=solver.iterations,
        random_state=0,
    )
    if len(labels) == 1:
        return dual.moved(np.zeros(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        w = model.fit(labels[:, None] * dual.A.T, labels).coef_[0]
    margins = dual.A.T @ w
    if dual.squared:
        return dual.moved(2 * dual.C * np.maximum(0, 1 - margins))
    found = [_by_margins(dual, w, margins, width) for width in (1e-3, 1e-6)]
    return min(found, key=lambda one: one.gap())


def mirrored(dual: Dual, solver: Solver) -> Dual:
    """Solve the dual of the hinge by libsvm: with every sample once more, mirrored in 0, its unpenalised intercept is 0."""
    n = dual.A.shape[1]
    X, labels = np.vstack([dual.A.T, -dual.A.T]), np.repeat([1, -1], n)
    model = SVC(
        kernel="linear", C=dual.C / 2, tol=1e-9, shrinking=False, cache_size=500, max_iter=10 * solver.iterations
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, labels)
    both = np.zeros(2 * n)
    both[model.support_] = np.abs(model.dual_coef_[0])
    return dual.moved((both[:n] + both[n:]).clip(0, dual.C))


def _by_margins(dual: Dual, w: Vector, margins: Vector, width: float) -> Dual:
    """Put samples with short margins to C, and find the variables of those on the margin by bounded least squares."""
    a = np.where(margins < 1 - width, dual.C, 0.0)
    S = np.flatnonzero(np.abs(margins - 1) <= width)
    if len(S):
        a[S] = lsq_linear(dual.A[:, S], w - dual.A @ a, bounds=(0, dual.C), tol=1e-14).x
        a[a < 1e-9 * dual.C] = 0.0
        a[a > (1 - 1e-9) * dual.C] = dual.C
    return dual.moved(a)


def polish(dual: Dual) -> Dual:
    """Finish a solution by Newton's method on what moves; the iterate with the smallest gap is kept."""
    return _newton(dual) if dual.squared else _active_sets(dual)


def _newton(dual: Dual, steps: int = 60) -> Dual:
    """Make damped Newton steps on the primal problem: each is the solution for the samples of short margins.

        (A_S'A_S + ridge I) a_S = 1,   S = { i : margin_i < 1 };   w + t (A_S a_S - w) with a smaller objective

    Source: KeerthiDeCoste2005.
    """
    best, least, current = dual, dual.gap(), dual
    for _ in range(steps):
        S = np.flatnonzero(current.margins < 1)
        system = NormalEquations(current.A[:, S], 1.0, current.ridge)
        if system.singular is not False:
            break
        a = np.zeros_like(current.a)
        a[S] = system.solve(np.ones(len(S)))
        full, size, step = current.moved(a.clip(0)), current.primal(), 1.0
        if full.gap() < least:
            best, least = full, full.gap()
        target = dual.A @ a
        trial = full
        while step > 1e-8:
            w = current.w + step * (target - current.w)
            trial = replace(current, w=w, margins=dual.A.T @ w)
            if trial.primal() < size:
                break
            step /= 2
        else:
            break
        current = trial
    return best


def _active_sets(dual: Dual, steps: int = 60) -> Dual:
    """Run the primal-dual active set method.

        H_SS a_S = 1 - H_SU C,   S = { i : a_i - gradient_i / |column_i|^2 is inside the bounds },   U at the upper bound

    Source: HintermullerItoKunisch2003.
    """
    best, least, current = dual, dual.gap(), dual
    sizes = (dual.A**2).sum(0) + EPS
    seen: set[bytes] = set()
    for _ in range(steps):
        ahead = current.a - current.gradient() / sizes
        up = ahead >= current.C
        S = np.flatnonzero((ahead > 0) & ~up)
        key = S.tobytes() + b"|" + np.packbits(up).tobytes()
        system = NormalEquations(current.A[:, S], 1.0, 0.0)
        if key in seen or system.singular is not False:
            break
        seen.add(key)
        a = np.where(up, current.C, 0.0)
        a[S] = system.solve(1 - current.A[:, S].T @ (current.A @ a))
        current = current.moved(a.clip(0, current.C))
        gap = current.gap()
        if gap < least:
            best, least = current, gap
    return best
