"""The cost model: what one scalar operation costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real

from nonsmooth.cost.scalars import SCALARS
from nonsmooth.errors import UsageError

__all__ = ["LATENCY", "UNIT", "CostModel", "as_model", "parse_model", "rounded"]


@dataclass(frozen=True)
class CostModel:
    """The price of every scalar operation: 1 but for those that are named.

    cost(P) = sum over the scalar operations g of P of c_g

    Moving, casting, indexing, integer and logical work, literals and random draws are free: in the scalar program a
    view of an array is another name of the same numbers.

    >>> CostModel({"exp": 10}).price("exp"), CostModel({"exp": 10}).price("mul")
    (10, 1)

    Raises:
        UsageError: a name that is no scalar operation, or a price that is not positive and finite.
    """

    prices: Mapping[str, float] = field(default_factory=dict)
    name: str = "own"

    def __post_init__(self) -> None:
        """Refuse prices under which nothing can be bounded."""
        for name, price in self.prices.items():
            if name not in SCALARS:
                known = ", ".join(sorted(SCALARS))
                raise UsageError(f"cost model: {name!r} is no scalar operation; they are {known}.")
            if not isinstance(price, Real) or isinstance(price, bool) or not (math.isfinite(price) and price > 0):
                raise UsageError(
                    f"cost model: the price of {name!r} is {price!r}; it must be a positive number: a free operation whose "
                    "derivative is not free has no bound."
                )

    def price(self, name: str) -> float:
        """Give the price of a scalar operation."""
        price = self.prices.get(name, 1)
        return price if isinstance(price, int) else float(price)

    def exact(self, counts: Mapping[str, int]) -> Fraction:
        """Price a count of scalar operations as a fraction, which does not depend on the order of sums."""
        return sum((n * Fraction(self.price(name)) for name, n in counts.items() if n), Fraction(0))

    def total(self, counts: Mapping[str, int]) -> float:
        """Price a count of scalar operations: exactly, in integers, where the prices are integers."""
        total = self.exact(counts)
        return int(total) if total.denominator == 1 else rounded(total)


def rounded(number: Fraction) -> float:
    """Round a fraction; to infinity where it is larger than floats are."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


UNIT = CostModel(name="unit")
"""Every scalar operation costs 1: the model of the theorem."""

LATENCY = CostModel(
    {
        **dict.fromkeys(("div", "sqrt", "reciprocal"), 5),
        **dict.fromkeys("exp exp2 expm1 log log1p log2 log10 sigmoid tanh sin cos".split(), 10),
        **dict.fromkeys("tan sinh cosh asin acos atan asinh acosh atanh atan2 erf erfc erfinv pow".split(), 20),
        "special": 100,
    },
    name="latency",
)
"""Round numbers near what the operations take on a processor, relative to an addition."""


def as_model(model: CostModel | Mapping[str, float] | str | None) -> CostModel:
    """Read a model: a name, a mapping from scalar operations to prices, or a model.

    >>> as_model(None).name, as_model({"exp": 4}).price("exp")
    ('unit', 4)
    """
    if isinstance(model, CostModel):
        return model
    if model is None:
        return UNIT
    if isinstance(model, str):
        named = {m.name: m for m in (UNIT, LATENCY)}
        if model not in named:
            raise UsageError(f"cost: no model is called {model!r}; there are {', '.join(named)}, or pass a mapping.")
        return named[model]
    if isinstance(model, Mapping):
        return CostModel(dict(model))
    raise UsageError(f"cost: a model is a name or a mapping from scalar operations to prices; found {model!r}.")


def parse_model(text: str) -> CostModel:
    """Read a model from a line: its name, or prices such as `exp=10,div=4`.

    >>> parse_model("exp=10, div=4").price("div"), parse_model("latency").name
    (4, 'latency')
    """
    if "=" not in text:
        return as_model(text)
    prices: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(f"cost model: {item.strip()!r} is not NAME=PRICE, for example exp=10.") from error
        prices[name] = int(value) if value.is_integer() else value
    return CostModel(prices)
