"""How an implicit function is solved, checked and differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from nonsmooth.errors import UsageError

__all__ = ["FAR", "Check", "Linear", "Options", "Violated", "is_number"]

FAR = 1e-2
"""Newton's step from a solution is at most so long, relative to 1 + |y|, or ten times the tolerance."""

Violated: TypeAlias = Literal["raise", "warn", "ignore"]
Linear: TypeAlias = Literal["auto", "dense", "cg", "gmres"]
Check: TypeAlias = Literal["kinks", "solves"]


@dataclass(frozen=True)
class Options:
    """How an implicit function is solved, checked and differentiated.

    Attributes:
        violated: what to do where the condition of the theorem does not hold or cannot be shown: "raise" `NotInvertible`
            where it does not hold and warn where it is undecided, "warn" in both cases, or "ignore" both.
        tolerance: how large |H(y, theta)| may be, relative to 1 + |y|; None: the root of the unit of rounding.
        iterations: how many steps the solver of the library makes.
        linear: the solver of the linear systems: "dense", "cg" (symmetric positive definite systems), "gmres", or
            "auto": dense up to 512 unknowns, else cg where the derivative is a Hessian, else gmres.
        linear_tolerance: how large the residual of a linear solve may be, relative to its right-hand side; None: the root
            of the unit of rounding.
        check: at every derivative, "kinks": decide the condition over all elements where the solution lies on kinks, or
            "solves": check the residuals of both solves alone.
    """

    violated: Violated = "raise"
    tolerance: float | None = None
    iterations: int = 1000
    linear: Linear = "auto"
    linear_tolerance: float | None = None
    check: Check = "kinks"

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name, choices in (("violated", Violated), ("linear", Linear), ("check", Check)):
            if getattr(self, name) not in get_args(choices):
                raise UsageError(
                    f"{name}={getattr(self, name)!r} means nothing: choose one of {', '.join(get_args(choices))}."
                )
        for name in ("tolerance", "linear_tolerance"):
            value = getattr(self, name)
            if value is not None and not (is_number(value, Real) and 0 < value < float("inf")):
                raise UsageError(f"{name}={value!r}: a tolerance is a positive number.")
        if not is_number(self.iterations, Integral) or self.iterations < 1:
            raise UsageError(
                f"iterations={self.iterations!r}: a solver makes at least one step, a whole number of them."
            )


def is_number(value: object, kind: type) -> bool:
    """Tell a number; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)
