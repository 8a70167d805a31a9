"""Directional and lexicographic derivatives of straight-line programs, transcribed from the definition in fractions.

A program is a list of steps (operation, arguments) on scalars; step k may use the results of the steps before it. Beside
its value every result carries the row of its LD-derivative along the columns m_1, ..., m_p of M,

    f'(x; M) = [ f_(x,M)^(0)(m_1), f_(x,M)^(1)(m_2), ..., f_(x,M)^(p-1)(m_p) ],

by the chain rule [g o f]'(x; M) = g'(f(x); f'(x; M)). For an elementary operation of pieces this is the row under the
piece that (value, first entry, second entry, ...) selects in lexicographic order. Everything is exact.

Source: Nesterov2005, KhanBarton2013, KhanBarton2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import torch

__all__ = ["as_function", "as_text", "ld_derivative", "random_straight_line"]

Step: TypeAlias = tuple[Any, ...]
"""("input", i), ("constant", c), ("scale", c, a), (operation, a, b, ...): a, b are numbers of steps."""

Dual: TypeAlias = tuple[Fraction, ...]
"""A value, then its row."""


def times(c: Fraction, a: Dual) -> Dual:
    """Multiply by a number."""
    return tuple(c * entry for entry in a)


def plus(a: Dual, b: Dual) -> Dual:
    """Add value and row."""
    return tuple(p + q for p, q in zip(a, b, strict=True))


def shifted(a: Dual, c: Fraction) -> Dual:
    """Add a number to the value."""
    return (a[0] + c, *a[1:])


def product(a: Dual, b: Dual) -> Dual:
    """Multiply: the row of a b is a[0] b' + b[0] a'."""
    return (a[0] * b[0], *(a[0] * q + b[0] * p for p, q in zip(a[1:], b[1:], strict=True)))


def quotient(a: Dual, b: Dual) -> Dual:
    """Divide by 1 + b^2: smooth everywhere."""
    below = shifted(product(b, b), Fraction(1))
    return (a[0] / below[0], *((p - a[0] / below[0] * q) / below[0] for p, q in zip(a[1:], below[1:], strict=True)))


def sign(a: Dual) -> int:
    """Give the sign of the first entry that is not zero: the lexicographic sign."""
    first = next((entry for entry in a if entry), Fraction(0))
    return (first > 0) - (first < 0)


def leaky(a: Dual) -> Dual:
    """Give max(a, a / 4)."""
    return a if sign(a) > 0 else times(Fraction(1, 4), a)


def shrink(a: Dual) -> Dual:
    """Give sign(a) max(|a| - 1, 0)."""
    if sign(shifted(a, Fraction(-1))) > 0:
        return shifted(a, Fraction(-1))
    return shifted(a, Fraction(1)) if sign(shifted(a, Fraction(1))) < 0 else times(Fraction(0), a)


EXACT: dict[str, Callable[..., Dual]] = {
    "add": plus,
    "sub": lambda a, b: plus(a, times(Fraction(-1), b)),
    "mul": product,
    "over": quotient,
    "square": lambda a: product(a, a),
    "relu": lambda a: a if sign(a) > 0 else times(Fraction(0), a),
    "abs": lambda a: times(Fraction(sign(a)), a),
    "leaky": leaky,
    "shrink": shrink,
    "clamp": lambda a: min(max(a, constant(-1, a)), constant(2, a)),
    "max": lambda *terms: max(terms),
    "min": lambda *terms: min(terms),
    "middle": lambda *terms: sorted(terms)[1],
    "branch": lambda a, b: times(Fraction(2), a) if sign(plus(a, times(Fraction(-1), b))) > 0 else plus(a, b),
}
"""Value and row of each operation; tuples compare lexicographically."""

NATIVE: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "over": lambda a, b: a / (1 + b * b),
    "square": lambda a: a * a,
    "relu": torch.relu,
    "abs": torch.abs,
    "leaky": lambda a: torch.nn.functional.leaky_relu(a, 0.25),
    "shrink": lambda a: torch.nn.functional.softshrink(a, 1.0),
    "clamp": lambda a: a.clamp(-1, 2),
    "max": lambda *terms: torch.stack(terms).max(),
    "min": lambda *terms: torch.stack(terms).amin(0),
    "middle": lambda *terms: torch.stack(terms).median(),
    "branch": lambda a, b: 2 * a if a > b else a + b,
}
"""The same in torch."""

ARITY = {"square": 1, "relu": 1, "abs": 1, "leaky": 1, "shrink": 1, "clamp": 1, "middle": 3}


def constant(value: int | Fraction, like: Dual) -> Dual:
    """Give a number with a row of zeros."""
    return (Fraction(value), *(Fraction(0) for _ in like[1:]))


def ld_derivative(
    steps: Sequence[Step], point: Sequence[Fraction], directions: Sequence[Sequence[Fraction]]
) -> tuple[Fraction, tuple[Fraction, ...]]:
    """Give F(x) and the row F'(x; M), M with the given columns; one column gives the directional derivative."""
    rows = [(Fraction(x), *(Fraction(m[i]) for m in directions)) for i, x in enumerate(point)]
    values: list[Dual] = []
    for operation, *arguments in steps:
        match operation:
            case "input":
                values.append(rows[arguments[0]])
            case "constant":
                values.append(constant(arguments[0], rows[0]))
            case "scale":
                values.append(times(Fraction(arguments[0]), values[arguments[1]]))
            case _:
                values.append(EXACT[operation](*(values[k] for k in arguments)))
    value, *row = values[-1]
    return value, tuple(row)


def as_function(steps: Sequence[Step]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give the same program as a function of a tensor."""

    def f(x: torch.Tensor) -> torch.Tensor:
        values: list[torch.Tensor] = []
        for operation, *arguments in steps:
            match operation:
                case "input":
                    values.append(x[arguments[0]])
                case "constant":
                    values.append(torch.full((), float(arguments[0]), dtype=x.dtype))
                case "scale":
                    values.append(float(arguments[0]) * values[arguments[1]])
                case _:
                    values.append(NATIVE[operation](*(values[k] for k in arguments)))
        return values[-1]

    return f


def as_text(steps: Sequence[Step]) -> str:
    """Print a program, one step a line."""
    return "\n".join(f"t{k} = {op} {' '.join(map(str, arguments))}" for k, (op, *arguments) in enumerate(steps))


def random_straight_line(seed: int, dimension: int, length: int) -> list[Step]:
    """Draw a program; its last step adds up results of the second half, so that most of it matters."""
    rng = random.Random(seed)
    steps: list[Step] = [("input", i) for i in range(dimension)]
    steps.append(("constant", rng.choice((0, 1, -1))))
    smooth_steps = 0
    while len(steps) < dimension + 1 + length:
        operation = rng.choice([*EXACT, *("relu", "abs", "max", "min", "add", "sub", "scale")])
        if operation in ("mul", "square", "over"):
            smooth_steps += 1
            if smooth_steps > 3:
                continue
        if operation == "scale":
            steps.append(("scale", Fraction(rng.choice((-1, 2, -2, 3)), rng.choice((1, 2))), rng.randrange(len(steps))))
            continue
        count = ARITY.get(operation, rng.choice((2, 3)) if operation in ("max", "min") else 2)
        late = [max(0, len(steps) - 1 - int(rng.expovariate(0.3))) for _ in range(count)]
        steps.append((operation, *late))
    total = len(steps) - 1
    for k in range(dimension + 1 + length // 2, len(steps) - 1):
        steps.append(("add" if rng.random() < 0.5 else "sub", total, k))
        total = len(steps) - 1
    return steps
