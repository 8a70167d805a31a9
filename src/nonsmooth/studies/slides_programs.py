"""The programs of the slides: functions of one variable with a kink at 0.

Activations, the same functions written otherwise, zero and a constant written with kinks, and an `if`. The slides also
show sine in three ways, but print no code: the three programs here are our own, with a kink beside the sine, inside it and
outside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Formula", "formulas"]


@dataclass(frozen=True)
class Formula:
    """A program of one variable: its name in the literature, its text, the function that it writes, and where to draw it."""

    name: str
    text: str
    equals: str
    program: Callable[..., Any]
    span: tuple[int, int] = (-2, 2)


def formulas() -> tuple[Formula, ...]:
    """Give the twelve programs, in the order of the slides.

    >>> [formula.name for formula in formulas()][4:7]
    ['relu2', 'relu3', 'zero']

    Source: BoltePauwels2020b.
    """
    import torch
    from torch import relu, sin
    from torch.nn.functional import leaky_relu, relu6

    def relu2(t: Any) -> Any:
        return relu(-t) + t

    def relu3(t: Any) -> Any:
        return (relu(t) + relu2(t)) / 2

    def zero(t: Any) -> Any:
        return relu2(t) - relu(t)

    def mysin(t: Any) -> Any:
        return sin(t) + zero(t)

    def mysin2(t: Any) -> Any:
        return sin(relu(t) - relu(-t))

    def mysin3(t: Any) -> Any:
        return 2 * relu2(sin(t)) - torch.abs(sin(t))

    def one_third(t: Any) -> Any:
        return relu(-t) - relu(t) + t + 1 / 3

    def my_relu(t: Any) -> Any:
        if t <= 0:
            return torch.zeros_like(t)
        return t

    return (
        Formula("relu", "relu(t)", "max(t, 0)", lambda t: relu(t)),
        Formula("abs", "abs(t)", "|t|", lambda t: torch.abs(t)),
        Formula("leaky_relu", "leaky_relu(t)", "max(t, t/100)", lambda t: leaky_relu(t)),
        Formula("relu6", "relu6(t)", "min(max(t, 0), 6)", lambda t: relu6(t), (-2, 8)),
        Formula("relu2", "relu(-t) + t", "max(t, 0)", relu2),
        Formula("relu3", "(relu(t) + relu2(t)) / 2", "max(t, 0)", relu3),
        Formula("zero", "relu2(t) - relu(t)", "0", zero),
        Formula("mysin", "sin(t) + zero(t)", "sin t", mysin),
        Formula("mysin2", "sin(relu(t) - relu(-t))", "sin t", mysin2),
        Formula("mysin3", "2*relu2(sin(t)) - abs(sin(t))", "sin t", mysin3),
        Formula("oneThird", "relu(-t) - relu(t) + t + 1/3", "1/3", one_third),
        Formula("myRelu", "0 if t <= 0 else t", "max(t, 0)", my_relu),
    )
