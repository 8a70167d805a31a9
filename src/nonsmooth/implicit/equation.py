"""Equations H(y, theta) = 0 that define y as a function of parameters, as residuals written by a framework.

    fixed point:  H = y - T(y, theta)          root:  H = F(y, theta)
    argmin:       H = grad f(y, theta) in y;   with a prox:  H = y - prox(y - s grad f(y, theta), s, theta)

Each is a program like any other, so that its conservative Jacobian, its kinks and its lines are those of `program`.

Source: BolteLePauwelsSilvetiFalls2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

__all__ = ["Equation", "Kind", "Trees"]

Kind: TypeAlias = Literal["fixed point", "root", "argmin"]


class Trees(Protocol):
    """What a framework offers to write residuals with; its operations are differentiable and can be captured."""

    def gradient(self, f: Callable[..., Any], y: Any, theta: tuple[Any, ...]) -> Any:
        """Give the gradient of the scalar f(y, *theta) in y, like y."""
        ...

    def plus(self, y: Any, z: Any, factor: float = 1.0) -> Any:
        """Give y + factor z, leaf by leaf; refuse a z that has not the structure and shapes of y."""
        ...


@dataclass(frozen=True)
class Equation:
    """What a solution satisfies.

    Attributes:
        kind: which of the three forms.
        function: T(y, *theta), F(y, *theta), or the scalar objective f(y, *theta).
        prox: of an argmin, prox(v, step, *theta): the proximal operator of the nonsmooth part (of a constraint: the
            projection); None if there is none.
        step: the s of the formula; every s > 0 has the same solutions.
    """

    kind: Kind
    function: Callable[..., Any]
    prox: Callable[..., Any] | None = None
    step: float = 1.0

    @property
    def symmetric(self) -> bool:
        """Whether the derivative of H in y is symmetric: a Hessian."""
        return self.kind == "argmin" and self.prox is None

    @property
    def name(self) -> str:
        """What the user's function is called."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def advance(self, trees: Trees, y: Any, theta: tuple[Any, ...]) -> Any:
        """Give y - H: T(y), the proximal gradient step, a step of length s along -F or -grad f."""
        if self.kind == "fixed point":
            return self.function(y, *theta)
        if self.kind == "root":
            return trees.plus(y, self.function(y, *theta), -self.step)
        moved = trees.plus(y, trees.gradient(self.function, y, theta), -self.step)
        return moved if self.prox is None else self.prox(moved, self.step, *theta)

    def residual(self, trees: Trees, y: Any, theta: tuple[Any, ...]) -> Any:
        """Give H(y, theta), like y."""
        if self.kind == "root":
            return self.function(y, *theta)
        if self.symmetric:
            return trees.gradient(self.function, y, theta)
        return trees.plus(y, self.advance(trees, y, theta), -1.0)
