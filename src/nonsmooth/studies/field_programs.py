"""The programs that the study of the field looks at: eight of one variable, four of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nonsmooth.studies.slides_programs import Formula, formulas

__all__ = ["PlaneFormula", "line_formulas", "plane_formulas"]

GALLERY = ("relu2", "relu3", "zero", "oneThird", "mysin", "mysin2", "mysin3")
"""Those of the slides that write a function otherwise than by its own kink."""


@dataclass(frozen=True)
class PlaneFormula:
    """A program of two variables, and the points at which its sets are wanted, the first in the middle of the picture."""

    name: str
    text: str
    program: Callable[..., Any]
    points: tuple[tuple[float, float], ...]
    note: str = ""


def line_formulas() -> tuple[Formula, ...]:
    """Give the programs of one variable.

    >>> [formula.name for formula in line_formulas()][-1]
    'identity'

    Source: BoltePauwels2020b.
    """
    from torch import relu

    chosen = {f.name: f for f in formulas()}
    identity = Formula("identity", "relu(t) - relu(-t)", "t", lambda t: relu(t) - relu(-t))
    return (*(chosen[name] for name in GALLERY), identity)


def plane_formulas() -> tuple[PlaneFormula, ...]:
    """Give the programs of two variables.

    >>> [formula.name for formula in plane_formulas()]
    ['l1', 'max', 'norm', 'cusp']

    Source: BoltePauwels2020.
    """
    import torch
    from torch import relu

    def largest(x: Any) -> Any:
        return torch.cat([x, torch.zeros(1, dtype=x.dtype)]).amax()

    def cusp(x: Any) -> Any:
        return relu(x[1]) - relu(x[1] - x[0] ** 2)

    return (
        PlaneFormula("l1", "|x1| + |x2|", lambda x: torch.abs(x).sum(), ((0.0, 0.0), (1.0, 0.0), (0.0, -1.0))),
        PlaneFormula("max", "max(x1, x2, 0)", largest, ((0.0, 0.0), (0.75, 0.75), (0.0, -0.75), (-0.75, 0.0))),
        PlaneFormula("norm", "norm(x)", lambda x: torch.linalg.vector_norm(x), ((0.0, 0.0),)),
        PlaneFormula(
            "cusp", "relu(x2) - relu(x2 - x1^2)", cusp, ((0.0, 0.0), (0.5, 0.25), (-0.5, 0.0)),
            "at (0, 0) Clarke's set holds (0, 1), the limit of the gradients in 0 < x2 < x1^2, which no direction "
            "enters: only a part of it is found, and it is said so",
        ),
    )  # fmt: skip
