"""Equations that hold solutions of others: these are unknowns beside y, and all solve one larger equation.

    H(y, w) = 0,   H_k(w, y) = 0:     det of its derivative = det B det B_1 ... det B_m

w are the solutions in the order in which they are met, and B is the derivative of H in y with w a function of y, whose
derivatives are those of the implicit function theorem. Kinks of all equations are then kinks of one, which is decided like
any other; no solver is a part of it.

Source: BolteLePauwelsSilvetiFalls2021, derived, docs/theory/implicit.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import numpy as jnp
from jax.extend import core, source_info_util
from jax.flatten_util import ravel_pytree

from nonsmooth.errors import CaptureError
from nonsmooth.frameworks.jax.sources import source_of
from nonsmooth.implicit.jax.traced import Equations
from nonsmooth.implicit.jax.verify import mapped

__all__ = ["holds_solutions", "joined", "unknowns"]

SOLUTIONS = ("implicit_solution", "implicit_solve", "implicit_verify")
"""The primitives of solutions of equations and of linear systems, and of their checks."""

OPENED = {"jit": "jaxpr", "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Primitives in which a solution is met once, with the parameter that holds their equations."""


def holds_solutions(jaxpr: Any) -> bool:
    """Tell whether equations, or those inside of them, hold solutions of others."""
    return any(eqn.primitive.name in SOLUTIONS or _inner(eqn) for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _inner(eqn: Any) -> bool:
    """Tell whether an equation holds equations that do."""
    parameters = [p for v in eqn.params.values() for p in (v if isinstance(v, tuple | list) else (v,))]
    return any(holds_solutions(p) for p in parameters if hasattr(getattr(p, "jaxpr", p), "eqns"))


def unknowns(equations: Equations, y: Any, inputs: Sequence[Any]) -> list[Any]:
    """Give y and the solutions inside of H."""
    met = _Met()
    met.evaluate(equations.jaxpr, inputs[: equations.closed], [y, *inputs[equations.closed :]])
    return [y, *met.found]


def joined(equations: Equations, like: Sequence[Any], point: Any, inputs: Sequence[Any]) -> Any:
    """Give H and the equations of the solutions inside of it, at a vector of all unknowns, whose shapes are told."""
    _, split = ravel_pytree([jnp.zeros(a.shape, a.dtype) for a in like])
    y, *others = split(point)
    met = _Met(iter(others))
    (residual,) = met.evaluate(equations.jaxpr, inputs[: equations.closed], [y, *inputs[equations.closed :]])
    return ravel_pytree([residual, *met.residuals])[0]


@dataclass
class _Met:
    """The solutions that are met, with what they solve: found where none are given."""

    given: Iterator[Any] | None = None
    found: list[Any] = field(default_factory=list)
    residuals: list[Any] = field(default_factory=list)

    def evaluate(self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        """Evaluate equations with the solutions inside of them as unknowns."""
        env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            with source_info_util.user_context(eqn.source_info.traceback):
                outputs = self._equation(eqn, [read(v) for v in eqn.invars])
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        """Evaluate one equation."""
        name, params = eqn.primitive.name, eqn.params
        if name == "implicit_verify":
            return inputs[: params["through"]]
        if name == "implicit_solution":
            value, *given = inputs
            residual = mapped(params["derivative"].residual, params["levels"])
            return [self._solution(lambda: value, lambda w: residual(w, *given))]
        if name == "implicit_solve":
            return [self._linear(eqn, inputs)]
        if not _inner(eqn):
            found = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(params))
            return list(found) if eqn.primitive.multiple_results else [found]
        if name not in OPENED:
            line = source_of(eqn.source_info, None) or "an unknown line"
            raise CaptureError(
                f"the solution of another equation lies inside of `{name}` ({line}), where it is not one unknown. Solve it "
                "outside, or for all rounds together (jax.vmap)."
            )
        inner = params[OPENED[name]]
        return self.evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)

    def _linear(self, eqn: Any, inputs: list[Any]) -> Any:
        """Meet the solution of a linear system."""
        system, right = eqn.params["system"], inputs[-1]
        flags = tuple((*level[: system.leaves], True) for level in system.levels)
        product = mapped(system.product, flags)
        return self._solution(
            lambda: eqn.primitive.bind(*inputs, **eqn.params), lambda x: product(*inputs[: system.leaves], x) - right
        )

    def _solution(self, value: Callable[[], Any], residual: Callable[[Any], Any]) -> Any:
        """Meet a solution, and the solutions inside of its own equation."""
        if self.given is None:
            unknown = value()
            self.found.append(unknown)
        else:
            unknown = next(self.given)
        closed = jax.make_jaxpr(residual)(unknown)
        self.residuals.append(None)  # its place comes before those of the solutions inside
        place = len(self.residuals) - 1
        (self.residuals[place],) = self.evaluate(closed.jaxpr, closed.consts, [unknown])
        return unknown
