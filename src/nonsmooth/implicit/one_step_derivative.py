"""One-step differentiation: the derivative of the last step alone, with a bound of what that leaves out.

With x = x_(k-1), x* = T(x*, theta), and [A B] the derivative of T in (theta, y),

    J_os = A(x),   J* = (I - B*)^-1 A*,   J_os - J* = (A(x) - A*) - B* (I - B*)^-1 A*,

so that for |B*| <= rho < 1, |A*| <= L_F and |A(x) - A*| <= L_J |x - x*|

    |J_os - J*| <= rho L_F / (1 - rho) + L_J |x - x*|,   |x - x*| <= |T(x) - x| / (1 - rho).

The second is the contraction estimate at the point at which the derivative is taken; it asks that T contracts by rho on a
convex set that holds x and x*. At kinks A* and B* are elements of the conservative Jacobian at x* and L_J says how far A(x)
is from them: 0 for a piecewise linear T near x*, since each selection active near x* is active at x*.

Over 300 lines: the rule and the bound of its error, whose constants have three origins, belong together.

Source: BoltePauwelsVaiter2023.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nonsmooth.bounds.bounds import bound_program
from nonsmooth.bounds.region import Ball
from nonsmooth.errors import ImplicitWarning, NonsmoothError, NotConverged, UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.iteration import growth, name_of, not_finite
from nonsmooth.implicit.unrolled import Unconverged, user_level, whole_number
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import Document, Table

__all__ = ["OneStep", "OneStepBound", "one_step"]

Constants: TypeAlias = Literal["sampled", "bounds"]

GIVEN, COMPUTED, SAMPLED = "given", "computed", "sampled"

SAMPLES = 8
"""Points at which norms are sampled."""

TINY = 1e-30
"""The radius about theta on which the second derivative is bounded: any that is not 0."""

SWEEPS = 60
"""Steps of a power iteration."""

FIRST, NEXT, CERTAIN = 10, 2, 60
"""Tangents pushed through T at the first call, at the next ones, and before a growth is believed, which may be a transient."""


@dataclass(frozen=True)
class OneStepBound(Reported):
    """The bound of the error of one-step differentiation, with where its constants come from.

    Attributes:
        bound: of |J_os - J*| in the spectral norm; inf where rho >= 1.
        rho, L_F, L_J: the constants; `origins` of each: "given", "computed" (sound, by `ns.bounds`) or "sampled".
        residual: |T(x) - x|; `distance`: the bound of |x - x*| that follows.
        derivative: |J_os|, by power iteration.
        status: "computed" if every constant is given or computed, else "sampled": an estimate, not a bound.
    """

    bound: float
    rho: float
    L_F: float
    L_J: float
    origins: tuple[str, str, str]
    residual: float
    distance: float
    derivative: float
    status: str

    def document(self) -> Document:
        """Lay the bound out for reading."""
        rows = tuple(
            (name, value, origin, what)
            for name, value, origin, what in zip(
                ("rho", "L_F", "L_J"), (self.rho, self.L_F, self.L_J), self.origins,
                ("of T in y", "|A*|", "of A in y"), strict=True,
            )
        )  # fmt: skip
        if not self.rho < 1:
            text = f"No bound: rho = {self.rho:.4g} is no contraction ({self.origins[0]})."
        else:
            word = "at most" if self.status == COMPUTED else "about, from sampled constants, at most"
            text = (
                f"|J_os - J*| is {word} {self.bound:.4g}; |J_os| = {self.derivative:.4g}.\n"
                f"= rho L_F / (1 - rho) + L_J |x - x*|, with |x - x*| <= |T(x) - x| / (1 - rho) = {self.distance:.3g}."
            )
        return Document(
            "One-step differentiation", (text, Table("Constants", ("constant", "value", "origin", "is"), rows))
        )


class OneStep:
    """y = T(x, theta) at a detached solution x, differentiated in theta alone."""

    def __init__(
        self, T: Callable[..., Any], solver: Callable[..., Any] | None, iterations: int, tolerance: float | None,
        unconverged: Unconverged, expanding: Unconverged,
    ) -> None:  # fmt: skip
        self.T, self.solver, self.iterations = T, solver, iterations
        self.tolerance, self.unconverged, self.expanding = tolerance, unconverged, expanding
        self._tangent: Any = None

    def __call__(self, *theta: Any, start: Any = None) -> Any:
        """Solve, detach, and make one step that is differentiated."""
        if self.solver is None and len(theta) == 1 and start is None and _is_solver(theta[0]):
            return OneStep(self.T, theta[0], self.iterations, self.tolerance, self.unconverged, self.expanding)
        module = _module(theta, start)
        x = self._solution(module, theta, start)
        y = module.stepped(self.T, x, theta)
        self._check(module, x, y, theta)
        self._check_contraction(module, x, theta)
        return y

    def _solution(self, module: Any, theta: tuple[Any, ...], start: Any) -> Any:
        """Give the detached x."""
        fixed = module.detached(theta)
        if self.solver is not None:
            found = self.solver(*fixed) if start is None else self.solver(*fixed, start=module.detached(start))
            return module.detached(found)
        if start is None:
            raise UsageError(
                "one_step: pass start=, a tree of arrays like what T returns, or a solver: one_step(T, solver)."
            )
        first = start(*fixed) if callable(start) else start
        return module.settle(self.T, first, fixed, self.iterations, self.tolerance)

    def _check(self, module: Any, x: Any, y: Any, theta: tuple[Any, ...]) -> None:
        """Refuse what is lost, and say where the solver has not converged."""
        seen = module.step_residual(x, y)
        if seen is None:
            return
        moved, size, eps = seen
        if not math.isfinite(moved):
            raise not_finite(self.T, 1)
        allowed = math.sqrt(eps) if self.tolerance is None else self.tolerance
        if moved > allowed * (1 + size) and self.unconverged != "ignore":
            text = (
                f"one_step({name_of(self.T)}): x is no fixed point: |T(x) - x| = {moved:.3g}, above {allowed * (1 + size):.2g}. "
                "The derivative is taken at x; `report` bounds its error. Solve further, pass tolerance=, or unconverged='ignore'."
            )
            _say(text, self.unconverged)

    def _check_contraction(self, module: Any, x: Any, theta: tuple[Any, ...]) -> None:
        """Say where T does not contract at x; a tangent is kept from call to call, so that later calls push few."""
        if self.expanding == "ignore":
            return
        found = module.pusher(self.T, x, theta, self._tangent)
        if found is None:
            return
        tangent, push = found
        rate, self._tangent = growth(push, tangent, FIRST if self._tangent is None else NEXT)
        if rate >= 1 and self._tangent is not None:
            rate, self._tangent = growth(push, self._tangent, CERTAIN)
        if rate >= 1:
            _say(
                f"one_step({name_of(self.T)}): T does not contract at x: tangents pushed through it grow by {rate:.4g} a step "
                "(sampled), so that the last step alone has no bounded error. Differentiate the solution by "
                "nonsmooth.implicit.fixed_point, or pass expanding='ignore'.",
                self.expanding,
            )

    def report(
        self,
        *theta: Any,
        start: Any = None,
        rho: float | None = None,
        L_F: float | None = None,
        L_J: float | None = None,
        constants: Constants = "sampled",
        seed: int = 0,
    ) -> OneStepBound:
        """Bound the error of the derivative at these parameters.

            |J_os - J*| <= rho L_F / (1 - rho) + L_J |x - x*|

        Args:
            theta, start: as in a call.
            rho: |B| <= rho < 1 on a convex set that holds x and x*, in the Euclidean norm.
            L_F: a bound of |A*|; None: |J_os| + L_J |x - x*|, which follows from L_J.
            L_J: |A(x) - A*| <= L_J |x - x*|.
            constants: where those that are not given come from: "sampled": norms at x and at points near it, no bound;
                "bounds": `ns.bounds` on a ball about x that is shown to hold x*, sound, and infinite where T bends sharply.
            seed: of the samples; the user's generators stay.
        """
        for name, value in (("rho", rho), ("L_F", L_F), ("L_J", L_J)):
            if value is not None and (isinstance(value, bool) or not 0 <= value < math.inf):
                raise UsageError(f"{name}={value!r}: a constant is a finite number, 0 or more.")
        if constants not in ("sampled", "bounds"):
            raise UsageError(f"constants={constants!r} means nothing: choose 'sampled' or 'bounds'.")
        module = _module(theta, start)
        fixed = module.detached(theta)
        x = self._solution(module, theta, start)
        module.stepped(self.T, x, fixed)
        at = _Local(module, self.T, x, fixed, seed)
        if constants == "bounds":
            return _bounded(at, rho, L_F, L_J)
        found_rho, found_J = (at.sample() if rho is None or L_J is None else (0.0, 0.0))  # fmt: skip
        origins = [SAMPLED if value is None else GIVEN for value in (rho, L_F, L_J)]
        return _combine(at, found_rho if rho is None else rho, L_F, found_J if L_J is None else L_J, origins)


def _combine(at: _Local, rho: float, L_F: float | None, L_J: float, origins: list[str]) -> OneStepBound:
    """Put the constants into the formula."""
    residual, derivative = at.residual, at.derivative
    distance = residual / (1 - rho) if rho < 1 else math.inf
    away = L_J * distance if L_J and distance else 0.0
    if L_F is None:
        L_F, origins[1] = derivative + away, (SAMPLED if SAMPLED in (origins[0], origins[2]) else COMPUTED)
    bound = rho * L_F / (1 - rho) + away if rho < 1 else math.inf
    status = SAMPLED if SAMPLED in origins else COMPUTED
    return OneStepBound(
        bound, rho, L_F, L_J, (origins[0], origins[1], origins[2]), residual, distance, derivative, status
    )


def _bounded(at: _Local, rho: float | None, L_F: float | None, L_J: float | None) -> OneStepBound:
    """Take constants on a ball about x that holds x*: |T(x) - x| <= (1 - rho) r is Banach's condition on the ball."""
    radius = max(2 * at.residual, 1e-12)
    for _ in range(24):
        found_rho = at.lipschitz(radius) if rho is None else rho
        if not found_rho < 1 or at.residual <= (1 - found_rho) * radius:
            break
        radius = max(1.01 * at.residual / (1 - found_rho), 1.01 * radius)
    else:
        found_rho = math.inf
    found_J = L_J if L_J is not None else at.bending(radius)
    origins = [COMPUTED if value is None else GIVEN for value in (rho, L_F, L_J)]
    return _combine(at, found_rho, L_F, found_J, origins)


class _Local:
    """T near x: norms of its derivatives, at points or on balls."""

    def __init__(self, module: Any, T: Any, x: Any, theta: tuple[Any, ...], seed: int) -> None:
        self.module, self.T, self.x, self.theta = module, T, x, theta
        self.rng = np.random.default_rng(seed)
        self.here = module.operators(T, x, theta)
        self.n, self.p = self.here[0], self.here[1]
        self.residual = float(np.linalg.norm(self.here[4]))
        self.derivative = self._norm(self.here, slice(self.n, None))

    def _norm(self, maps: Any, part: slice, other: Any = None) -> float:
        """Give the spectral norm of a block of [B A], or of its difference at two points, by power iteration."""
        size = self.n + self.p
        v = np.zeros(size)
        v[part] = self.rng.standard_normal(len(v[part]))
        if not len(v[part]):
            return 0.0
        found = 0.0
        for _ in range(SWEEPS):
            v /= np.linalg.norm(v)
            w = maps[2](v) - (other[2](v) if other is not None else 0.0)
            before, found = found, float(np.linalg.norm(w))
            if not found or not math.isfinite(found) or abs(found - before) <= 1e-10 * found:
                break
            back = maps[3](w) - (other[3](w) if other is not None else 0.0)
            v = np.zeros(size)
            v[part] = back[part]
            if not np.any(v):
                break
        return found

    def sample(self) -> tuple[float, float]:
        """Sample |B|, and the change of A over the distance, near x: at T(x) and at random points about as far away."""
        near = max(2 * self.residual, 1e-4)
        rho, L_J = self._norm(self.here, slice(0, self.n)), 0.0
        shifts = [near * d / np.linalg.norm(d) for d in self.rng.standard_normal((SAMPLES, self.n))]
        shifts += [self.here[4]] if self.residual else []
        for shift in shifts:
            there = self.module.operators(self.T, self.module.shifted(self.x, shift), self.theta)
            rho = max(rho, self._norm(there, slice(0, self.n)))
            if self.p:
                L_J = max(L_J, self._norm(there, slice(self.n, None), self.here) / float(np.linalg.norm(shift)))
        return rho, L_J

    def lipschitz(self, radius: float) -> float:
        """Bound |B| on a ball about x, by `ns.bounds`."""
        return float(self._on_ball(radius, 0.0).inputs.lipschitz)

    def bending(self, radius: float) -> float:
        """Bound the Lipschitz constant of A on a ball about x: the cross block of the second derivative."""
        if not self.p:
            return 0.0
        return float(self._on_ball(radius, TINY).both.smoothness)

    def _on_ball(self, radius: float, about: float) -> Any:
        """Bound T on a ball in y and on one about theta: what is fixed is not differentiated."""
        try:
            framework = find_framework(self.x)
            count = len(framework.flatten(self.x)[0])
            if count != 1:
                raise UsageError(
                    f"constants='bounds' serves states of one array; this one has {count}: pass rho and L_J."
                )
            return bound_program(
                lambda w, y: self.T(y, *w), self.theta, self.x, weights=Ball(about, "here"), inputs=Ball(radius, "here")
            )
        except UsageError:
            raise
        except NonsmoothError as error:
            raise UsageError(f"constants='bounds': T cannot be bounded ({error}). Pass rho=, L_J= and L_F=.") from error


def _say(text: str, choice: Unconverged) -> None:
    """Raise or warn, at the line of the caller."""
    if choice == "raise":
        raise NotConverged(text)
    warnings.warn(text, ImplicitWarning, stacklevel=user_level())


def _is_solver(item: Any) -> bool:
    """Tell a function that is decorated from parameters."""
    return callable(item) and not hasattr(item, "shape") and not hasattr(item, "parameters")


def _module(theta: tuple[Any, ...], start: Any) -> Any:
    """Give the module of the framework of start and parameters."""
    framework = find_framework([*theta] if start is None or callable(start) else [*theta, start])
    return import_module(f"nonsmooth.implicit.{framework.name}.unrolled")


def one_step(
    T: Callable[..., Any],
    solver: Callable[..., Any] | None = None,
    *,
    iterations: int = 1000,
    tolerance: float | None = None,
    unconverged: Unconverged = "warn",
    expanding: Unconverged = "warn",
) -> OneStep:
    """Differentiate the last step of a solver alone: the fixed point enters it detached.

        y = T(stop(x), theta),   J_os = A(x),   |J_os - J*| <= rho L_F / (1 - rho) + L_J |x - x*|

    No linear system and no graph of the iterations: the price of one step. Exact where T does not depend on y at the
    solution (Newton's method), small where T contracts fast; the bound holds for every rho < 1 and `report` computes it,
    with where each constant comes from. A tangent is pushed through T beside it, to see whether T contracts at all
    (`sampled`; at the price of about two more evaluations of T a call). What T closes over is differentiated as in T itself.

    Args:
        T: T(y, *theta) -> like y.
        solver: solver(*theta) -> x, any code, not differentiated (in JAX its parameters carry no tangents); called with
            `start=` where one is passed. None: T is iterated from `start`. The result also decorates one.
        iterations: of T, without a solver.
        tolerance: how large |T(x) - x| may be relative to 1 + |x|; None: the root of the unit of rounding.
        unconverged: "warn", "raise" `NotConverged` or "ignore" where it is larger; compiled code is not checked.
        expanding: the same, where tangents pushed through T grow: T is no contraction, and the error has no bound.

    Raises:
        UsageError: neither solver nor start; T gives something unlike x.
        NotConverged: the solution is not finite, or not one and unconverged="raise"; T expands and expanding="raise".

    >>> import torch
    >>> import nonsmooth as ns
    >>> root = ns.implicit.one_step(lambda y, x: (y + x / y) / 2)                  # Newton's method for the square root
    >>> x = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    >>> root(x, start=torch.ones((), dtype=torch.float64)).backward()
    >>> round(x.grad.item(), 9)                                                    # 1 / (2 sqrt 4)
    0.25

    Source: BoltePauwelsVaiter2023.
    """
    if not callable(T):
        raise UsageError(f"T is a function T(y, *theta); found a {type(T).__name__}.")
    whole_number("iterations", iterations, 1)
    for name, choice in (("unconverged", unconverged), ("expanding", expanding)):
        if choice not in get_args(Unconverged):
            raise UsageError(f"{name}={choice!r} means nothing: choose one of {', '.join(get_args(Unconverged))}.")
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise UsageError(f"tolerance={tolerance!r}: a tolerance is a positive number.")
    return OneStep(T, solver, iterations, tolerance, unconverged, expanding)
