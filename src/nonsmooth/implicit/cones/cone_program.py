"""Cone programs as functions of their numbers, which differentiate."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from nonsmooth.errors import PointError, UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.cones.layer import Layer
from nonsmooth.implicit.cones.product import Cones
from nonsmooth.implicit.cones.solvers import Solver
from nonsmooth.implicit.diagnosis import Diagnosis
from nonsmooth.implicit.options import Options

__all__ = ["ConeProgram", "ConeSolution", "aligned", "check_arrays", "solve_layer"]


class ConeSolution(NamedTuple):
    """The primal solution x, the dual solution y and the slack s."""

    x: Any
    y: Any
    s: Any


class ConeProgram:
    """A cone program, whose solution is a function of its numbers that differentiates.

        minimise c'x + x'P x/2  subject to  A x + s = b,  s in K

    The backward pass solves one linear system with the reduced matrix M(V) = [[P, A'V], [-A, I - V]], V an element of
    Clarke's Jacobian of the projection on the dual cone at y - s, after it has decided whether M(V) is invertible for *every*
    element: `computed`, for all cones and kinks, since least and greatest elements decide.

    Args:
        cones: K; a `Cones`.
        solver: "clarabel" or "scs", through diffcp (`pip install nonsmooth[cones]`), "interior point", the library's own for
            zero and nonnegative cones, or solver(P, c, A, b, cones) -> (x, y, s), any code at all. Its answer is made exact by
            Newton's method. By default the library's own where it serves, else clarabel.
        solver_options: what a named solver takes beside.
        options: `violated`, `tolerance` (of the residual, relative to its terms; 1e-7) and `check` of `Options`.

    Calling it takes c (n,), A (m, n), b (m,) and P (n, n) (None: 0), tensors or arrays of JAX, each with leading axes that
    broadcast, and gives `ConeSolution` (x, y, s). In JAX it can be compiled and mapped.

    Raises:
        NotConverged: infeasible, unbounded, or not solved, with the solver's status. NotInvertible: at a backward pass, the
            condition is violated. UsageError: shapes, nan, a P that is not symmetric positive semidefinite.

    >>> import torch
    >>> nearest = ConeProgram(Cones(nonnegative=2))
    >>> c = torch.tensor([-1.0, 2.0], requires_grad=True)  # the projection of -c on the positive orthant
    >>> x = nearest(c, -torch.eye(2), torch.zeros(2), torch.eye(2)).x
    >>> x.sum().backward()
    >>> x.detach().round(decimals=6) + 0, c.grad.round(decimals=6) + 0
    (tensor([1., 0.]), tensor([-1.,  0.]))

    Source: AgrawalEtAl2019a, BolteLePauwelsSilvetiFalls2021, derived, docs/theory/projections.md.
    """

    def __init__(
        self,
        cones: Cones,
        solver: Solver | None = None,
        *,
        solver_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(cones, Cones):
            raise UsageError(f"ConeProgram takes ns.implicit.Cones(zero=..., nonnegative=..., ...); found {cones!r}.")
        chosen = solver or ("interior point" if cones.polyhedral else "clarabel")
        self.layer = Layer("ConeProgram", cones, chosen, Options(**options), dict(solver_options or {}))

    def __call__(self, c: Any, A: Any, b: Any, P: Any = None) -> ConeSolution:
        """Solve."""
        check_arrays("ConeProgram", c=c, A=A, b=b, P=P)
        return ConeSolution(*solve_layer(self.layer, *aligned("ConeProgram", P, c, A, b)))

    def diagnose(self, c: Any, A: Any, b: Any, P: Any = None) -> Diagnosis:
        """Tell whether the condition holds at the solution of one program, with its kinks; see `nonsmooth.implicit.Diagnosis`.

        Raises:
            NotConverged, UsageError: as for a call.
        """
        check_arrays("ConeProgram", c=c, A=A, b=b, P=P)
        return diagnose_layer(self.layer, *aligned("ConeProgram", P, c, A, b))


def solve_layer(layer: Layer, P: Any, c: Any, A: Any, b: Any) -> tuple[Any, Any, Any]:
    """Give x, y, s, attached to the framework's graph."""
    module = import_module(f"nonsmooth.implicit.{find_framework(c).name}.cone_layer")
    found: tuple[Any, Any, Any] = module.solve(layer, P, c, A, b)
    return found


def diagnose_layer(layer: Layer, P: Any, c: Any, A: Any, b: Any) -> Diagnosis:
    """Diagnose one program."""
    if c.ndim != 1:
        raise UsageError(f"diagnose takes one program; found leading axes of shape {tuple(c.shape[:-1])}.")
    framework = find_framework(c)
    return layer.diagnose(layer.solve_one([framework.numpy(framework.detached(t)) for t in (P, c, A, b)]))


def check_arrays(name: str, **given: Any) -> None:
    """Refuse what is not differentiated: arrays of numpy (beside those of JAX they are constants), or of two frameworks.

    Raises:
        UsageError: with what each of them is.
    """
    arrays = {what: a for what, a in given.items() if hasattr(a, "ndim")}
    if not arrays:
        return
    try:
        framework = find_framework(list(arrays.values()))
        held = [framework.holds(a) for a in arrays.values()]
        served = any(held) if framework.name == "jax" else all(held)
    except PointError:
        served = False
    if not served:
        found = ", ".join(f"{what}: {type(a).__module__}.{type(a).__qualname__}" for what, a in arrays.items())
        raise UsageError(
            f"{name} takes tensors of torch or arrays of JAX, all of one of them, since it is differentiated in them; found "
            f"{found}. Pass torch.as_tensor(...) or jax.numpy.asarray(...)."
        )


def aligned(name: str, P: Any, c: Any, A: Any, b: Any) -> tuple[Any, Any, Any, Any]:
    """Give P, c, A, b with the same leading axes; a P of None is 0.

    Raises:
        UsageError: too few axes, or leading axes that do not broadcast.
    """
    given = {"c": (c, 1), "A": (A, 2), "b": (b, 1)} | ({} if P is None else {"P": (P, 2)})
    for what, (array, axes) in given.items():
        if not hasattr(array, "ndim") or array.ndim < axes:
            found = tuple(array.shape) if hasattr(array, "shape") else type(array).__name__
            raise UsageError(f"{name} takes for {what} an array of {axes} axes, or more for a batch; found {found}.")
    xp = array_namespace(c)
    if P is None:
        P = xp.zeros_like(c[..., :, None] + c[..., None, :])
    arrays = {"P": (P, 2), "c": (c, 1), "A": (A, 2), "b": (b, 1)}
    leads = {what: tuple(a.shape)[: a.ndim - k] for what, (a, k) in arrays.items()}
    lead = _broadcast(name, leads)
    return tuple(xp.broadcast_to(a, lead + tuple(a.shape)[a.ndim - k :]) for a, k in arrays.values())


def _broadcast(name: str, leads: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Give the common leading axes."""
    try:
        return tuple(np.broadcast_shapes(*leads.values()))
    except ValueError as error:
        found = ", ".join(f"{what} {lead}" for what, lead in leads.items())
        raise UsageError(f"{name} was given leading axes that do not broadcast: {found}.") from error
