"""A tape of scalar operations on real numbers, with its sweeps, each operation run and counted as it runs.

The rules are those of the chapter on cost, written down a second time: the partial derivatives of a scalar operation as
numbers computed by scalar operations, the products with cotangents and the additions to them one by one. An addition to a
cotangent may be of either sign.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from scipy import special as sp

__all__ = ["SPECIAL", "VALUES", "Entry", "Tape"]


def _safe(function: Callable[..., float]) -> Callable[..., float]:
    """Give what the numbers of a processor give where Python raises."""

    def safe(*arguments: float) -> float:
        try:
            return float(function(*arguments))
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return math.nan

    return safe


def _divide(x: float, y: float) -> float:
    """Divide, also by 0."""
    return x / y if y else math.nan if not x or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def _log(function: Callable[[float], float], pole: float) -> Callable[[float], float]:
    """Give -inf at the pole of a logarithm."""
    return lambda x: -math.inf if x == pole else _safe(function)(x)


def _sign(x: float) -> float:
    """Give -1, 0 or 1."""
    return float((x > 0) - (x < 0))


VALUES: dict[str, Callable[..., float]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "neg": lambda x: -x,
    "mul": lambda x, y: x * y,
    "div": _divide,
    "max": max,
    "min": min,
    "relu": lambda x: max(x, 0.0),
    "abs": abs,
    "square": lambda x: x * x,
    "reciprocal": lambda x: _divide(1.0, x),
    "pow": _safe(math.pow),
    "exp": _safe(math.exp),
    "exp2": _safe(lambda x: math.pow(2.0, x)),
    "expm1": _safe(math.expm1),
    "sqrt": _safe(math.sqrt),
    "log": _log(math.log, 0.0),
    "log2": _log(math.log2, 0.0),
    "log10": _log(math.log10, 0.0),
    "log1p": _log(math.log1p, -1.0),
    "sigmoid": lambda x: float(sp.expit(x)),
    "erfinv": lambda x: float(sp.erfinv(x)),
    "sign": _sign,
    **{
        name: _safe(getattr(math, name))
        for name in "sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh atan2 erf erfc".split()
    },
}
"""The scalar operations that need nothing but their arguments."""

_ROOT_PI = math.sqrt(math.pi)

SPECIAL: dict[str, tuple[Callable[..., float], Callable[..., float]]] = {
    "gammaln": (sp.gammaln, sp.digamma),
    "digamma": (sp.digamma, lambda x: sp.polygamma(1, x)),
    "polygamma": (lambda x, n: sp.polygamma(int(n), x), lambda x, n: sp.polygamma(int(n) + 1, x)),
    "i0": (sp.i0, sp.i1),
    "i0e": (sp.i0e, lambda x: sp.i1e(x) - math.copysign(sp.i0e(x), x)),
    "i1": (sp.i1, lambda x: (sp.i0(x) + sp.iv(2, x)) / 2),
    "i1e": (sp.i1e, lambda x: (sp.ive(0, x) + sp.ive(2, x)) / 2 - math.copysign(sp.i1e(x), x)),
    "erfcx": (sp.erfcx, lambda x: 2 * x * sp.erfcx(x) - 2 / _ROOT_PI),
    "log_ndtr": (sp.log_ndtr, lambda x: math.exp(-x * x / 2 - sp.log_ndtr(x)) / math.sqrt(2 * math.pi)),
    "ndtri": (sp.ndtri, lambda x: math.sqrt(2 * math.pi) * math.exp(sp.ndtri(x) ** 2 / 2)),
    "zeta": (sp.zeta, None),
    "gammainc": (sp.gammainc, None),
    "gammaincc": (sp.gammaincc, None),
}
"""Special functions and their derivative in their first argument: those of two numbers move in the second one."""

_SECOND: dict[str, Callable[[float, float], float]] = {
    "zeta": lambda s, a: -s * sp.zeta(s + 1, a),
    "gammainc": lambda a, x: math.exp((a - 1) * math.log(x) - x - sp.gammaln(a)),
    "gammaincc": lambda a, x: -math.exp((a - 1) * math.log(x) - x - sp.gammaln(a)),
}
"""Derivatives of special functions in their second argument."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One scalar operation that ran: which of its arguments move, the numbers of its result and arguments."""

    name: str
    moving: str
    out: int
    x: int
    y: int = -1
    what: object = None


@dataclass
class Tape:
    """The numbers of a program in the order in which they came, and the operations between them."""

    values: list[float] = field(default_factory=lambda: [0.0])
    entries: list[Entry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def number(self, value: float) -> int:
        """Write a number down."""
        self.values.append(value)
        return len(self.values) - 1

    def run(self, name: str, moving: str, x: int, y: int = -1, value: float | None = None, what: object = None) -> int:
        """Run a scalar operation and count it; the value of one that the table does not hold is given."""
        if value is None:
            value = VALUES[name](self.values[x]) if y < 0 else VALUES[name](self.values[x], self.values[y])
        self.counts[name] += 1
        self.values.append(value)
        out = len(self.values) - 1
        if moving:
            self.entries.append(Entry(name, moving, out, x, y, what))
        return out

    def pull(self, seeds: dict[int, float]) -> tuple[dict[int, float], Counter[str]]:
        """Run the reverse sweep: the cotangents of all numbers, and what it counted."""
        sweep = _Sweep(self.values)
        cotangents = dict(seeds)
        for entry in reversed(self.entries):
            c = cotangents.get(entry.out, 0.0)
            for argument, part in sweep.contributions(entry, c):
                cotangents[argument] = sweep.run("add", cotangents.get(argument, 0.0), part)
        return cotangents, sweep.counts

    def push(self, directions: list[dict[int, float]]) -> tuple[list[dict[int, float]], Counter[str], Counter[str]]:
        """Run a forward sweep in some directions: tangents, what was counted once, and what for all directions."""
        once, each = _Sweep(self.values), _Sweep(self.values)
        tangents = [dict(d) for d in directions]
        for entry in self.entries:
            partials = once.partials(entry)
            for tangent in tangents:
                t = [tangent.get(a, 0.0) for a in _arguments(entry)]
                tangent[entry.out] = each.pushed(entry, partials, t)
        return tangents, once.counts, each.counts


def _arguments(entry: Entry) -> list[int]:
    """Give the arguments that move."""
    return [entry.x if letter == "x" else entry.y for letter in entry.moving]


class _Sweep:
    """The rules of derivatives, in numbers: every scalar operation is counted as it runs."""

    def __init__(self, values: list[float]) -> None:
        self.values, self.counts = values, Counter[str]()

    def run(self, name: str, x: float, y: float | None = None) -> float:
        """Run a scalar operation."""
        self.counts[name] += 1
        return VALUES[name](x) if y is None else VALUES[name](x, y)

    def contributions(self, entry: Entry, c: float) -> Iterable[tuple[int, float]]:
        """Give the products of a cotangent and the partial derivatives, for each argument that moves."""
        arguments = _arguments(entry)
        if entry.name == "add":
            return [(a, c) for a in arguments]
        if entry.name == "sub":
            return [(a, c if letter == "x" else -c) for a, letter in zip(arguments, entry.moving, strict=True)]
        if entry.name == "neg":
            return [(arguments[0], -c)]
        partials = self.partials(entry)
        if partials is not None:
            return [(a, self.run("mul", c, p)) for a, p in zip(arguments, partials, strict=True)]
        if entry.name in ("div", "atan2"):
            return list(zip(arguments, self._of_pair(entry, c), strict=True))
        return [(arguments[0], self._quotient(entry, c))]

    def pushed(self, entry: Entry, partials: list[float] | None, t: list[float]) -> float:
        """Give the tangent of the result."""
        name, moving = entry.name, entry.moving
        if name in ("add", "sub", "neg"):
            if len(t) == 2:
                return self.run("add", t[0], t[1] if name == "add" else -t[1])
            return self.run("mul", -1.0, t[0]) if name == "neg" or (name == "sub" and moving == "y") else t[0]
        if partials is not None:
            products = [self.run("mul", p, s) for p, s in zip(partials, t, strict=True)]
            return products[0] if len(products) == 1 else self.run("add", *products)
        if name in ("div", "atan2"):
            return self._pushed_pair(entry, t)
        found = self._quotient(entry, t[0])
        return self.run("mul", -1.0, -found) if name == "acos" else found

    # --- partial derivatives that are multiplied ----------------------------------------------------------------------

    def partials(self, entry: Entry) -> list[float] | None:
        """Give the partial derivatives in what moves; None where the product is cheaper without them."""
        x, v = self.values[entry.x], self.values[entry.out]
        y = self.values[entry.y] if entry.y >= 0 else None
        if entry.name in ("mul", "max", "min", "select"):
            assert y is not None
            both = {"mul": (y, x), "max": (x >= y, x < y), "min": (x <= y, x > y)}
            pair = (1.0, 0.0) if entry.what is True else (0.0, 1.0)
            one, other = both.get(entry.name, pair)
            return [float(one if letter == "x" else other) for letter in entry.moving]
        if entry.name == "pow":
            return self._power(entry, x, y, v)
        if entry.name == "special":
            return self._special(entry, x, y)
        rule = _PARTIALS.get(entry.name)
        return None if rule is None else [rule(self.run, x, v)]

    def _power(self, entry: Entry, x: float, y: float | None, v: float) -> list[float]:
        """Give y x^(y - 1), v log x, or both, the first then as y v / x."""
        assert y is not None
        if entry.moving == "x":
            return [self.run("mul", y, self.run("pow", x, self.run("sub", y, 1.0)))]
        second = self.run("mul", v, self.run("log", x))
        return [second] if entry.moving == "y" else [self.run("mul", y, self.run("div", v, x)), second]

    def _special(self, entry: Entry, x: float, y: float | None) -> list[float]:
        """Give the derivative of a special function, another one."""
        name = str(entry.what)
        found = []
        for letter in entry.moving:
            rule = SPECIAL[name][1] if letter == "x" else _SECOND[name]
            self.counts["special"] += 1
            found.append(float(rule(x) if y is None else rule(x, y)))
        return found

    # --- products with a partial derivative that cost no more than it -------------------------------------------------

    def _of_pair(self, entry: Entry, c: float) -> list[float]:
        """Give c / y and -v c / y of a quotient, c y / (x^2 + y^2) and -c x / (x^2 + y^2) of an angle."""
        x, y, v = (self.values[k] for k in (entry.x, entry.y, entry.out))
        if entry.name == "div":
            q = self.run("div", c, y)
            return [q if letter == "x" else -self.run("mul", v, q) for letter in entry.moving]
        size = self.run("add", self.run("mul", x, x), self.run("mul", y, y))
        q = self.run("div", c, size)
        return [self.run("mul", y, q) if letter == "x" else -self.run("mul", x, q) for letter in entry.moving]

    def _pushed_pair(self, entry: Entry, t: list[float]) -> float:
        """Give (s - v t) / y of a quotient, (y s - x t) / (x^2 + y^2) of an angle."""
        x, y, v = (self.values[k] for k in (entry.x, entry.y, entry.out))
        factors = {"x": 1.0 if entry.name == "div" else y, "y": v if entry.name == "div" else x}
        terms = [
            s if entry.name == "div" and letter == "x" else self.run("mul", factors[letter], s)
            for letter, s in zip(entry.moving, t, strict=True)
        ]
        if entry.name == "atan2":
            y = self.run("add", self.run("mul", x, x), self.run("mul", y, y))
        total = self.run("add", terms[0], -terms[1]) if len(terms) == 2 else terms[0]
        total = self.run("div", total, y)
        return self.run("mul", -1.0, total) if entry.moving == "y" else total

    def _quotient(self, entry: Entry, c: float) -> float:
        """Give the product with the partial derivative of a function of one number."""
        return _QUOTIENTS[entry.name](self.run, self.values[entry.x], self.values[entry.out], c)


Run = Callable[..., float]

_PARTIALS: dict[str, Callable[[Run, float, float], float]] = {
    "relu": lambda run, x, v: float(x > 0),
    "abs": lambda run, x, v: _sign(x),
    "square": lambda run, x, v: run("add", x, x),
    "reciprocal": lambda run, x, v: run("neg", run("mul", v, v)),
    "exp": lambda run, x, v: v,
    "exp2": lambda run, x, v: run("mul", math.log(2), v),
    "expm1": lambda run, x, v: run("add", v, 1.0),
    "sin": lambda run, x, v: run("cos", x),
    "cos": lambda run, x, v: run("neg", run("sin", x)),
    "tan": lambda run, x, v: run("add", run("mul", v, v), 1.0),
    "sinh": lambda run, x, v: run("cosh", x),
    "cosh": lambda run, x, v: run("sinh", x),
    "tanh": lambda run, x, v: run("sub", 1.0, run("mul", v, v)),
    "sigmoid": lambda run, x, v: run("mul", v, run("sub", 1.0, v)),
    "erf": lambda run, x, v: run("mul", 2 / _ROOT_PI, run("exp", run("neg", run("mul", x, x)))),
    "erfc": lambda run, x, v: run("mul", -2 / _ROOT_PI, run("exp", run("neg", run("mul", x, x)))),
    "erfinv": lambda run, x, v: run("mul", _ROOT_PI / 2, run("exp", run("mul", v, v))),
}
"""Partial derivatives of functions of one number."""


def _over_root(first: str, shift: float) -> Callable[[Run, float, float, float], float]:
    """Give c / sqrt(...) with 1 - x^2, x^2 + 1 or x^2 - 1."""

    def rule(run: Run, x: float, v: float, c: float) -> float:
        square = run("mul", x, x)
        inner = run("sub", 1.0, square) if first == "1-" else run("add" if shift > 0 else "sub", square, 1.0)
        return run("div", c, run("sqrt", inner))

    return rule


_QUOTIENTS: dict[str, Callable[[Run, float, float, float], float]] = {
    "log": lambda run, x, v, c: run("div", c, x),
    "log1p": lambda run, x, v, c: run("div", c, run("add", 1.0, x)),
    "log2": lambda run, x, v, c: run("div", c, run("mul", math.log(2), x)),
    "log10": lambda run, x, v, c: run("div", c, run("mul", math.log(10), x)),
    "sqrt": lambda run, x, v, c: run("div", c, run("add", v, v)),
    "asin": _over_root("1-", 0.0),
    "acos": lambda run, x, v, c: -_over_root("1-", 0.0)(run, x, v, c),
    "acosh": _over_root("x2", -1.0),
    "asinh": _over_root("x2", 1.0),
    "atan": lambda run, x, v, c: run("div", c, run("add", run("mul", x, x), 1.0)),
    "atanh": lambda run, x, v, c: run("div", c, run("sub", 1.0, run("mul", x, x))),
}
"""Products of a number with the partial derivative of a function of one number."""
