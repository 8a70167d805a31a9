"""The condition of a derivative of a solution: B invertible, at one selection and over all, as far as values are known.

Of a matrix that is formed the condition number is estimated (Hager, Higham); with products alone a random right-hand side
is solved along: if B is singular it lies outside of the range. Where the solution lies on kinks, up to the error
|B^-1| |H| of the solution, `diagnose_equation` decides over all elements; in a compiled program the kinks are counted.
Over 300 lines: the three judges of a derivative.

Source: Higham2002, BolteLePauwelsSilvetiFalls2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import lu_solve

from nonsmooth.dictionary import Nonsmooth, Singularity
from nonsmooth.errors import ImplicitWarning, NonsmoothError, NotInvertible
from nonsmooth.frameworks.framework import ROUNDING
from nonsmooth.frameworks.jax import JAX
from nonsmooth.frameworks.jax.compiled import TracedRun
from nonsmooth.frameworks.jax.run import environment
from nonsmooth.frameworks.jax.severed import dependences
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.jax.accuracy import accurate, has_negative_eigenvalue
from nonsmooth.implicit.jax.arrays import Parameters, cut_off
from nonsmooth.implicit.jax.linear_solve import System, dense_matrix, factored
from nonsmooth.implicit.jax.nested import holds_solutions, joined, unknowns
from nonsmooth.implicit.jax.problem import Problem, residual
from nonsmooth.implicit.jax.verify import verified
from nonsmooth.implicit.nearness import DRAWS, NEAR, steepness
from nonsmooth.implicit.residual import Residual
from nonsmooth.kinks import find_kinks
from nonsmooth.program import Program, Ref, Step

__all__ = ["check_condition"]

STEPS = 5
"""How often the estimate of |B^-1| is bettered; two or three times are the rule."""


def check_condition(
    problem: Problem, system: System, pull: Any, y: Any, inputs: Sequence[Any], token: Any
) -> tuple[tuple[Any, ...], Any]:
    """Give the factors of the matrix of a pullback, and the token, a 1, after a look at the condition of the theorem."""
    leaves, structure = jax.tree.flatten(pull)
    pull = jax.tree.unflatten(structure, [cut_off(a) for a in leaves])
    y, inputs, token = cut_off(y), [cut_off(a) for a in inputs], cut_off(token)
    options = problem.options
    looks = options.violated != "ignore"
    factors: tuple[Any, ...] = ()
    inverse, curved = None, jnp.zeros((), bool)
    if system.method == "dense":
        matrix = dense_matrix(pull, y)
        factors = tuple(factored(matrix))
        if looks:
            size, inverse = _condition(matrix, factors)
            least = 0.0 if problem.equation.kind == "root" or problem.equation.symmetric else 1.0
            (token,) = verified([token], [size, inverse], _Invertible(problem.described, options.violated, least))
        if looks and options.check == "kinks":
            token = accurate(problem, y, inputs, factors, token)
            curved = has_negative_eigenvalue(matrix, size) if problem.equation.symmetric else curved
    elif looks and options.check == "kinks":
        numbers = _probe(pull, y, system=system)
        inverse = numbers[-1]
        judge = _Probed(problem.described, options.violated, system.method, system.tolerance)
        (token,) = verified([token], numbers, judge)
    if looks and options.check == "kinks":
        (token,) = verified([token], [y, _error(problem, y, inputs, inverse), curved, *inputs], _Kinked(problem))
    return factors, token


def _error(problem: Problem, y: Any, inputs: Sequence[Any], inverse: Any) -> Any:
    """Bound the error of the solution: |B^-1| |H|, and what rounding adds."""
    residual, size = problem.norms(y, inputs)
    bound = residual if inverse is None else inverse * residual
    return bound + ROUNDING * float(jnp.finfo(y.dtype).eps) * (1 + size)


@jax.jit
def _condition(matrix: Any, factors: tuple[Any, Any]) -> tuple[Any, Any]:
    """Give |B| and an estimate of |B^-1|, a lower bound that is rarely off by more than 3, in the 1-norm."""
    n = matrix.shape[0]
    kind = matrix.dtype

    def better(_: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        best, x = state
        z = lu_solve(factors, x)
        slopes = lu_solve(factors, jnp.where(z < 0, -1.0, 1.0).astype(kind), trans=1)
        return jnp.maximum(best, jnp.sum(jnp.abs(z))), jax.nn.one_hot(jnp.argmax(jnp.abs(slopes)), n, dtype=kind)

    start = jnp.full(n, 1 / n, kind)
    estimate = lax.fori_loop(0, STEPS, better, (jnp.zeros((), kind), start))[0]
    numbers = jnp.arange(n, dtype=kind)
    waves = jnp.where(numbers % 2 == 0, 1.0, -1.0).astype(kind) * (1 + numbers / max(n - 1, 1))
    estimate = jnp.maximum(estimate, 2 * jnp.sum(jnp.abs(lu_solve(factors, waves))) / (3 * n))
    finite = jnp.all(jnp.isfinite(factors[0])) & jnp.all(jnp.diagonal(factors[0]) != 0)
    return jnp.max(jnp.sum(jnp.abs(matrix), axis=0)), jnp.where(finite, estimate, jnp.inf)


@dataclass(frozen=True)
class _Invertible:
    """The judge of a matrix: singular to working precision, or not."""

    described: str
    violated: str
    least: float
    one_by_one = False

    def measure(self, size: Any, inverse: Any) -> tuple[Any, ...]:
        """Look at |B| and |B^-1|."""
        return size, inverse

    def failed(self, size: Any, inverse: Any) -> Any:
        """Compare the condition number with what rounding makes of a singular matrix; nan fails."""
        xp = np if isinstance(size, np.ndarray) else jnp
        return ~(inverse * xp.maximum(size, self.least) * float(jnp.finfo(size.dtype).eps) * ROUNDING < 1)

    def tell(self, size: Any, inverse: Any) -> None:
        """Say what was found."""
        condition = float(inverse) * max(float(size), self.least)
        _report(
            f"{self.described}: the derivative of the equation in y is singular at the solution (condition number "
            f"{condition:.3g} in {size.dtype}): the equation does not define y as a function of the parameters there. No "
            "derivative is returned.",
            self.violated,
        )

    def look(self, *seen: Any) -> None:
        """Judge by numbers alone."""
        raise NotImplementedError


@partial(jax.jit, static_argnames="system")
def _probe(pull: Any, y: Any, *, system: System) -> tuple[Any, Any, Any]:
    """Solve a random right-hand side r: the relative residual, how near a null vector was found, and |x|/|r|."""
    given = jax.tree.leaves(pull)
    r = jax.random.normal(jax.random.key(0), y.shape, y.dtype)
    x, rest, size, *_ = system.solution(*given, r)
    null, _ = system.nearness(given, r, x, system.product(*given, x))
    return rest / size, null, jnp.linalg.norm(x) / size


@dataclass(frozen=True)
class _Probed:
    """The judge of an operator, by the solution of a random right-hand side."""

    described: str
    violated: str
    method: str
    tolerance: float
    one_by_one = False

    def measure(self, *numbers: Any) -> tuple[Any, ...]:
        """Look at the numbers of `_probe`."""
        return numbers

    def failed(self, rest: Any, null: Any, inverse: Any) -> Any:
        """Ask for a solution, and for one that no null vector has blown up."""
        return ~((rest <= self.tolerance) & (null > float(jnp.finfo(null.dtype).eps) * ROUNDING))

    def tell(self, rest: Any, null: Any, inverse: Any) -> None:
        """Say what was found: a null vector, or no solution."""
        found = (
            f"{self.described}: {self.method} leaves {float(rest):.3g} of a random right-hand side, where {self.tolerance:.3g} is "
            "allowed (linear_tolerance)"
        )
        if float(null) <= self.tolerance:
            _report(
                f"{found}, and gives a null vector of the derivative of the equation in y, up to {float(null):.3g} of its "
                "norm: it is singular, and the equation does not define y as a function of the parameters there.",
                self.violated,
            )
            return
        warnings.warn(
            f"{found}: the derivative of the equation in y is singular, or badly conditioned; undecided. Raise iterations, or "
            "choose linear='dense' if there is memory for the matrix.",
            ImplicitWarning,
            stacklevel=2,
        )

    def look(self, *seen: Any) -> None:
        """Judge by numbers alone."""
        raise NotImplementedError


def _report(message: str, violated: str) -> None:
    """Raise or warn, as was chosen."""
    if violated == "raise":
        raise NotInvertible(message)
    warnings.warn(message, ImplicitWarning, stacklevel=2)


@dataclass(frozen=True, eq=False)
class _Kinked:
    """The judge of a solution on kinks; off them, of a minimiser whose Hessian is curved downwards.

    What it sees is (y, the bound of its error, whether it is curved downwards, what H was closed over and is given).
    """

    problem: Problem
    one_by_one = True

    @property
    def _nested(self) -> bool:
        """Tell whether H holds solutions of other equations."""
        equations = self.problem.equations
        return bool(equations.known("nested", lambda: holds_solutions(equations.jaxpr)))

    def _joined(self, y: Any, bound: Any, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """Give the point at which kinks are looked for: y, or with the solutions inside of H; and the bound of its error."""
        if not self._nested:
            return y, bound
        point = ravel_pytree(unknowns(self.problem.equations, y, inputs))[0]
        return point, bound + jnp.linalg.norm(self._function(y, inputs)(point, *inputs))

    def _function(self, y: Any, inputs: Sequence[Any]) -> Any:
        """Give H as a function of the point and the data."""
        equations = self.problem.equations
        if not self._nested:
            return lambda y, *data: residual(equations, y, data)
        shapes = _shapes(y, inputs)
        like = equations.known("unknowns", lambda: jax.eval_shape(partial(unknowns, equations), *shapes))
        return lambda point, *data: joined(equations, like, point, data)

    def measure(self, y: Any, bound: Any, curved: Any, *inputs: Any) -> tuple[Any, ...]:
        """Count the active kinks in a compiled program."""
        try:
            function = self._function(y, inputs)
            point, bound = self._joined(y, bound, inputs)
            with jax.core.eval_context():
                program = self.problem.equations.known("shapes", lambda: JAX.trace(function, *_shapes(point, inputs)))
                self._say_severed(program)
            return _near(program, point, inputs, 2 * bound), bound, curved
        except NonsmoothError:
            return jnp.full((), -1), bound, curved

    def _say_severed(self, program: Program) -> None:
        """Warn where y is cut off from the derivative by `stop_gradient`, unless that cancels, and of unknown operations."""
        severed = dependences(program).found.values()
        opaque = [s.message for s in severed if s.rule == "opaque"]
        if opaque:
            warnings.warn(
                f"{self.problem.described}: whether the condition of the implicit function theorem holds on kinks was not checked "
                f"in full, since {opaque[0]}. Pass check='solves' to be told no more.",
                ImplicitWarning,
                stacklevel=2,
            )
        found = [s.message for s in severed if s.rule in ("detached", "escaped")]
        if found:
            warnings.warn(
                f"{self.problem.described}: the linear system of the derivative may not be that of the equation, since "
                f"{found[0]}. Write the function so that jax follows all of its dependence on the solution; where some of it is "
                "left out on purpose, pass check='solves' to be told no more.",
                ImplicitWarning,
                stacklevel=2,
            )

    def failed(self, count: Any, bound: Any, curved: Any) -> Any:
        """Ask for none."""
        return (count != 0) | curved

    def tell(self, count: Any, bound: Any, curved: Any) -> None:
        """Say how many there are."""
        if count == 0:
            self._say_curved()
            return
        found = (
            f"the solution lies on {int(count)} kink(s), up to its error of {float(bound):.2g}"
            if count > 0
            else "the kinks at the solution could not be looked for in a compiled program"
        )
        warnings.warn(
            f"{self.problem.described}: {found}. Whether the derivative of the equation is invertible for every element of its "
            "conservative Jacobian is not decided in a compiled program: call nonsmooth.implicit.diagnose at this solution outside "
            "of jax.jit, or choose check='solves'.",
            ImplicitWarning,
            stacklevel=2,
        )

    def _say_curved(self) -> None:
        """Warn of a stationary point."""
        warnings.warn(
            f"the derivative of the {self.problem.described}: the solution is no minimiser, though the gradient is 0 there: the "
            "Hessian has a negative eigenvalue. Start elsewhere; of stationary points take the root of the gradient.",
            ImplicitWarning,
            stacklevel=2,
        )

    def look(self, y: Any, bound: Any, curved: Any, *inputs: Any) -> None:
        """Find the kinks, and decide over all elements if there are any."""
        problem = self.problem
        y, inputs = jnp.asarray(y), tuple(map(jnp.asarray, inputs))
        try:
            function = self._function(y, inputs)
            point, bound = self._joined(y, bound, inputs)
            program = problem.equations.known("program", lambda: JAX.capture(function, point, inputs))
            self._say_severed(program)
            if not self._on_kinks(function, program, point, inputs, NEAR * bound):
                if curved:
                    self._say_curved()
                return
            reasons = self._decided(*self._posed(function, point, y, inputs))
        except NotInvertible:
            raise
        except NonsmoothError as error:
            reasons = str(error)
        if reasons is not None:
            warnings.warn(
                f"{problem.described}: the solution lies on kinks, and whether the condition of the implicit function theorem "
                f"holds there is undecided: {reasons}",
                ImplicitWarning,
                stacklevel=2,
            )

    def _on_kinks(self, function: Any, program: Program, point: Any, inputs: tuple[Any, ...], reach: Any) -> bool:
        """Tell whether the solution may lie on kinks."""
        if program.guards:
            return _tied(Residual(JAX, function, program, point, inputs), float(reach))
        if not any(isinstance(s.operation, Nonsmooth | Singularity) for s in program.steps):
            return False
        count = self.problem.equations.once("near", lambda: partial(_near, program))
        return bool(count(point, inputs, reach) > 0)

    def _posed(self, function: Any, point: Any, y: Any, inputs: Any) -> tuple[Equation, Any, Any]:
        """Give the equation that is diagnosed, in the user's terms where they serve, with its solution and parameters."""
        problem = self.problem
        closed, count, equation = problem.equations.closed, problem.parameters.floats, problem.equation
        if self._nested:
            function.__name__ = equation.name
            return Equation("root", function), point, inputs
        theta = problem.parameters.joined(inputs[closed:][:count], inputs[closed:][count:])
        if problem.open:

            def opened(y: Any, *theta: Any) -> Any:
                _, floats, others = Parameters.taken_apart(theta)
                flat = residual(problem.equations, problem.shape.flatten(y), [*inputs[:closed], *floats, *others])
                return problem.shape.unflatten(flat)

            opened.__name__ = equation.name
            equation = Equation("root", opened)
        return equation, problem.shape.unflatten(y), theta

    def _decided(self, equation: Equation, y: Any, theta: Any) -> str | None:
        """Diagnose an equation: raise where it is not invertible, give the reasons where that is undecided."""
        from nonsmooth.implicit.diagnosis import LIMIT, diagnose_equation

        problem, options = self.problem, self.problem.options
        diagnosis = diagnose_equation(equation, problem.trees, y, theta, options, LIMIT)
        if diagnosis.invertible is False:
            _report(
                f"{problem.described}: the condition of the implicit function theorem is violated at the solution, so that "
                f"there is no derivative to return (violated='warn' returns that of one selection).\n{diagnosis}",
                options.violated,
            )
        return str(diagnosis) if diagnosis.invertible is None else None


def _tied(residual: Residual, reach: float) -> bool:
    """Tell whether the solution may lie on kinks, an `if` on data among them, which takes values."""
    y, program = residual.x, residual.program
    scale = 1.0 + float(jnp.max(jnp.abs(y), initial=0.0))
    steep = steepness(residual, scale, float(jnp.finfo(y.dtype).eps))
    found = find_kinks(program, y, *residual.data, tol=reach * steep)
    return any(row.kind == "guard" or _depends(found.program, found.program.steps[row.step]) for row in found.active)


def _near(program: Program, y: Any, inputs: Sequence[Any], reach: Any) -> Any:
    """Count the kinks whose arguments may be zero within some distance of y, their slopes measured here and now."""
    step = jnp.sqrt(jnp.finfo(y.dtype).eps) * (1 + jnp.max(jnp.abs(y), initial=0.0))
    drawn = jax.random.normal(jax.random.key(0), (DRAWS, *y.shape), y.dtype)
    here = _margins(program, y, inputs)
    there = lax.map(lambda d: _margins(program, y + step * d, inputs), drawn)
    count = jnp.zeros((), int)
    for margin, after in zip(here, there, strict=True):
        slope = jnp.max(jnp.nan_to_num(jnp.abs(after - margin) / step, nan=1.0, posinf=1.0), axis=0)
        count += jnp.sum(margin <= reach * jnp.maximum(slope, 1.0))
    return count


def _margins(program: Program, y: Any, inputs: Sequence[Any]) -> list[Any]:
    """Give the distances of arguments that y moves to their kinks, in a compiled program."""
    run = TracedRun(program, environment(program, [y], inputs), observe=True)
    run.evaluate([y])
    return [
        margin
        for met in run.calls
        if isinstance(met.step.operation, Nonsmooth | Singularity) and _depends(program, met.step)
        for margin in met.step.operation.margins(met.call).values()
    ]


def _depends(program: Program, step: Step) -> bool:
    """Tell whether the point moves what a step reads: other kinks are the same for every element of B."""
    return any(isinstance(r, Ref) and program.values[r.value].depends_on_point for r in step.operands)


def _shapes(y: Any, data: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
    """Give point and data as shapes alone."""
    shapes: tuple[Any, tuple[Any, ...]] = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (y, tuple(data))
    )
    return shapes
