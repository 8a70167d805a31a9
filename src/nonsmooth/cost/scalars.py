"""The operations on numbers that a cost counts, and what each of them adds to a sweep of derivatives.

A scalar operation v = g(x, y) enters a reverse sweep with the products of the cotangent of v and its partial
derivatives, each added to the cotangent of an argument that moves with the point:

* `PRODUCT`: the partial derivatives are computed, then multiplied: D_g + p products + p additions;
* `QUOTIENT`: the product needs no more than the partial derivative itself (c / x instead of c (1 / x)): D_g + p additions;
* `UNIT`: the partial derivatives are 1 or -1: p additions;
* `NONE`: comparisons and steps, which have no derivative.

p is the number of arguments that move, D_g what their partial derivatives cost once v is known.

Source: BaurStrassen1983, BolteBoustanyPauwelsPesquet2023; the table is derived, docs/theory/cost.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["SCALARS", "Scalar", "Style", "counter"]


class Style(StrEnum):
    """How a scalar operation enters a sweep of derivatives."""

    PRODUCT = "product"
    QUOTIENT = "quotient"
    UNIT = "unit"
    NONE = "none"


def counter(text: str) -> Counter[str]:
    """Read a count of scalar operations.

    >>> counter("2 mul add")["mul"], counter("")["mul"]
    (2, 0)
    """
    found: Counter[str] = Counter()
    times = 1
    for word in text.split():
        if word.isdigit():
            times = int(word)
        else:
            found[word] += times
            times = 1
    return found


@dataclass(frozen=True)
class Scalar:
    """An operation on one or two numbers.

    `partials` are, for every choice of moving arguments ("x", "y", "xy"), the operations that the partial derivatives
    cost when the arguments and the value are known.
    """

    name: str
    style: Style
    partials: Mapping[str, Counter[str]]

    @property
    def arity(self) -> int:
        """How many numbers it takes."""
        return max(map(len, self.partials), default=1)

    def pull(self, moving: str) -> Counter[str]:
        """Count what it adds to a reverse sweep."""
        p, found = len(moving), Counter(self.partials[moving]) if moving and self.style is not Style.NONE else Counter()
        if self.style is Style.PRODUCT:
            found["mul"] += p
        if self.style is not Style.NONE:
            found["add"] += p
        return found

    def once(self, moving: str) -> Counter[str]:
        """Count what a forward sweep computes once for all directions: the partial derivatives."""
        return Counter(self.partials[moving]) if moving and self.style is Style.PRODUCT else Counter()

    def push(self, moving: str) -> Counter[str]:
        """Count what it adds to a forward sweep for each direction."""
        if not moving or self.style is Style.NONE:
            return Counter()
        p = len(moving)
        found = Counter(self.partials[moving]) if self.style is Style.QUOTIENT else Counter()
        found["add"] += p - 1
        found["mul"] += p if self.style is Style.PRODUCT else 0
        found["mul"] += 1 if (self.name, moving) in _NEGATIVE else 0  # a product by -1
        return found


_NEGATIVE = frozenset({("neg", "x"), ("sub", "y"), ("div", "y"), ("atan2", "y"), ("acos", "x")})
"""Where the one derivative has a minus sign that a forward sweep cannot give to an addition."""

_TABLE: dict[Style, dict[str, tuple[str, ...]]] = {
    Style.UNIT: {"add": ("", "", ""), "sub": ("", "", ""), "neg": ("",)},
    Style.PRODUCT: {
        "mul": ("", "", ""),
        "max": ("", "", ""),
        "min": ("", "", ""),
        "select": ("", "", ""),
        "relu": ("",),
        "abs": ("",),
        "square": ("add",),
        "reciprocal": ("mul neg",),
        "pow": ("pow sub mul", "log mul", "div mul log mul"),
        "exp": ("",),
        "exp2": ("mul",),
        "expm1": ("add",),
        "sin": ("cos",),
        "cos": ("sin neg",),
        "tan": ("mul add",),
        "sinh": ("cosh",),
        "cosh": ("sinh",),
        "tanh": ("mul sub",),
        "sigmoid": ("sub mul",),
        "erf": ("mul neg exp mul",),
        "erfc": ("mul neg exp mul",),
        "erfinv": ("mul exp mul",),
        "special": ("special", "special", "2 special"),
    },
    Style.QUOTIENT: {
        "div": ("div", "div mul", "div mul"),
        "log": ("div",),
        "log1p": ("add div",),
        "log2": ("mul div",),
        "log10": ("mul div",),
        "sqrt": ("add div",),
        "asin": ("mul sub sqrt div",),
        "acos": ("mul sub sqrt div",),
        "atan": ("mul add div",),
        "asinh": ("mul add sqrt div",),
        "acosh": ("mul sub sqrt div",),
        "atanh": ("mul sub div",),
        "atan2": ("3 mul add div", "3 mul add div", "4 mul add div"),
    },
    Style.NONE: {"compare": (), "round": (), "sign": ()},
}

SCALARS: dict[str, Scalar] = {
    name: Scalar(name, style, dict(zip(("x", "y", "xy"), map(counter, partials), strict=False)))
    for style, rows in _TABLE.items()
    for name, partials in rows.items()
}
"""Every scalar operation, by name. `special` stands for a special function (gamma, Bessel, zeta ...), `select` for the
choice of one of two numbers by a condition that is known."""
