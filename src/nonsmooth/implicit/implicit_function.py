"""Functions that are defined by an equation, and differentiate by the nonsmooth implicit function theorem.

    H(y, theta) = 0:   y = G(theta),   { -B^-1 A : [A B] in J_H(theta, y) }  is a conservative Jacobian of G

if H is path-differentiable and B is invertible for *every* element of its (convex-valued) conservative Jacobian. The
backward pass solves one linear system, B' l = cotangent, without ever forming B where that would be large.

Source: BolteLePauwelsSilvetiFalls2021.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from numbers import Real
from typing import Any

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.diagnosis import LIMIT, Diagnosis, diagnose_equation
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import Options, is_number

__all__ = ["ImplicitFunction", "argmin", "diagnose", "fixed_point", "root"]


class ImplicitFunction:
    """y = G(theta), the solution of an equation; calling it solves, and the result differentiates.

    Attributes:
        equation: what the solution satisfies.
        solver: solver(*theta) -> y, or None: a solver of the library is used.
        options: how it is solved, checked and differentiated.
    """

    def __init__(self, equation: Equation, solver: Callable[..., Any] | None, options: Options) -> None:
        called: tuple[tuple[str, Any], ...] = (
            ("function", equation.function), ("prox", equation.prox), ("solver", solver)
        )  # fmt: skip
        for name, item in called:
            if not callable(item) and (item is not None or name == "function"):
                raise UsageError(f"the {name} of {equation.kind} is to be called; found a {type(item).__name__}.")
        if not is_number(equation.step, Real) or not 0 < equation.step < float("inf"):
            raise UsageError(f"step={equation.step!r}: the step of an argmin is a positive number.")
        self.equation, self.solver, self.options = equation, solver, options

    def __call__(self, *theta: Any, start: Any = None) -> Any:
        """Solve at some parameters, from a start: a tree of arrays like the solution."""
        if self.solver is None and len(theta) == 1 and start is None and _is_solver(theta[0]):
            return ImplicitFunction(self.equation, theta[0], self.options)
        return _module(theta, start).solve(self.equation, self.solver, theta, start, self.options)

    def diagnose(self, *theta: Any, y: Any = None, start: Any = None, limit: int = LIMIT) -> Diagnosis:
        """Tell whether the condition of the theorem holds at a solution; see `nonsmooth.implicit.diagnose`."""
        return diagnose(self, *theta, y=y, start=start, limit=limit)


def _is_solver(item: Any) -> bool:
    """Tell a function that is decorated from parameters."""
    return callable(item) and not hasattr(item, "shape") and not hasattr(item, "parameters")


def _module(theta: tuple[Any, ...], start: Any) -> Any:
    """Give the module that solves with the arrays of a framework."""
    framework = find_framework([*theta, start] if start is not None else list(theta))
    return import_module(f"nonsmooth.implicit.{framework.name}.solved")


def fixed_point(T: Callable[..., Any], solver: Callable[..., Any] | None = None, **options: Any) -> ImplicitFunction:
    """Give the fixed point y = T(y, theta) as a function of theta that differentiates.

        y = T(y, theta):   { (I - B)^-1 A : [A B] in J_T(theta, y) }

    Args:
        T: T(y, *theta) -> like y.
        solver: solver(*theta) -> y, any code at all, which is not differentiated; by default Anderson's iteration from
            `start`. The result can also decorate one: `@fixed_point(T)`.
        options: see `Options`.

    Raises:
        NotConverged: the residual of the solution, or of a linear solve, is too large.
        NotInvertible: some element of the conservative Jacobian is singular, at a backward pass.
        UsageError: what is no function, no option, or no solution like the start.

    >>> import torch
    >>> halved = fixed_point(lambda y, x: torch.relu(y) / 2 + x)                   # 2 x for x > 0, and x below
    >>> x = torch.tensor([3.0, -1.0], dtype=torch.float64, requires_grad=True)
    >>> halved(x, start=torch.zeros(2, dtype=torch.float64)).sum().backward()
    >>> x.grad.round(decimals=6)
    tensor([2., 1.], dtype=torch.float64)

    Source: BolteLePauwelsSilvetiFalls2021.
    """
    return ImplicitFunction(Equation("fixed point", T), solver, Options(**options))


def root(F: Callable[..., Any], solver: Callable[..., Any] | None = None, **options: Any) -> ImplicitFunction:
    """Give the root of F(y, theta) = 0 as a function of theta that differentiates.

        F(y, theta) = 0:   { -B^-1 A : [A B] in J_F(theta, y) }

    Args:
        F: F(y, *theta) -> like y.
        solver: solver(*theta) -> y; by default Newton's method with elements of the conservative Jacobian from `start`.
        options: see `Options`.

    Raises:
        As `fixed_point`.

    >>> import torch
    >>> cube_root = root(lambda y, x: y**3 - x)
    >>> x = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    >>> cube_root(x, start=torch.tensor(1.0, dtype=torch.float64)).backward()
    >>> round(x.grad.item(), 6)                                                    # 1 / (3 y^2)
    0.083333

    Source: BolteLePauwelsSilvetiFalls2021.
    """
    return ImplicitFunction(Equation("root", F), solver, Options(**options))


def argmin(
    objective: Callable[..., Any],
    prox: Callable[..., Any] | None = None,
    solver: Callable[..., Any] | None = None,
    *,
    step: float = 1.0,
    **options: Any,
) -> ImplicitFunction:
    """Give the minimiser of f(y, theta) + g(y, theta) as a function of theta that differentiates.

        y = prox_{s g}(y - s grad f(y, theta)),   or grad f(y, theta) = 0 without g

    Args:
        objective: f(y, *theta), the smooth part: scalar, with a path-differentiable gradient.
        prox: prox(v, step, *theta), of the nonsmooth part g, or the projection on a convex set.
        solver: solver(*theta) -> y; by default accelerated proximal gradient descent, with backtracking, from `start`.
        step: the s of the equation that is differentiated.
        options: see `Options`.

    Raises:
        As `fixed_point`.

    >>> import torch
    >>> soft = lambda v, step, level: v.sign() * torch.relu(v.abs() - step * level)
    >>> shrunk = argmin(lambda y, level: ((y - 3.0) ** 2).sum() / 2, soft)          # + level |y|: the minimiser is 3 - level
    >>> level = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    >>> shrunk(level, start=torch.zeros(1, dtype=torch.float64)).sum().backward()
    >>> level.grad.round(decimals=6)
    tensor(-1., dtype=torch.float64)

    Source: BolteLePauwelsSilvetiFalls2021.
    """
    return ImplicitFunction(Equation("argmin", objective, prox, step), solver, Options(**options))


def diagnose(
    function: ImplicitFunction, *theta: Any, y: Any = None, start: Any = None, limit: int = LIMIT
) -> Diagnosis:
    """Tell whether the condition of the implicit function theorem holds at a solution, for every element.

        B invertible for all [A B] in J_H(theta, y)

    Status: `computed` (floating point, tolerances stated), or `undecided`; see `Diagnosis`.

    Args:
        function: what `fixed_point`, `root` or `argmin` gave.
        theta: its parameters.
        y: a solution; by default the function is called.
        start: where the solver starts.
        limit: how many extreme weights of kinks that act on each other are enumerated.

    Raises:
        NotConverged: no solution is found. (One that is passed is taken, with the error that its residual leaves.)
        UsageError: `function` is none of theirs; y is no tree of tensors, or arrays of JAX.

    >>> import torch
    >>> zero = torch.tensor(0.0, dtype=torch.float64)
    >>> found = diagnose(fixed_point(lambda y, x: torch.relu(y) / 2 + x), zero, y=zero)
    >>> found.invertible, found.kinks, found.status
    (True, 1, 'computed')

    Source: BolteLePauwelsSilvetiFalls2021, derived, docs/theory/implicit.md.
    """
    if not isinstance(function, ImplicitFunction):
        raise UsageError(
            f"diagnose takes what fixed_point, root or argmin gave; found a {type(function).__name__}. Layers and programs have a "
            "`diagnose` of their own."
        )
    module = _module(theta, start if y is None else y)
    if y is None:
        y = module.detached(function(*theta, start=start))
    framework = find_framework([*theta, y])
    for leaf in framework.flatten(y)[0]:
        if not framework.holds(leaf):
            raise UsageError(
                f"y, the solution, is a tree of arrays of {framework.name}; found a {type(leaf).__name__}."
            )
    return diagnose_equation(function.equation, module.TREES, y, theta, function.options, limit)
