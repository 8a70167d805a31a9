"""Functions of every entry."""

from __future__ import annotations

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


def _scalar(name: str) -> None:
    """Define an operation that is one scalar operation for each entry."""

    @define(name)
    def definition(call: Called) -> Numbers:
        return call.x.apply(name)


for _name in "relu abs neg exp exp2 expm1 sin cos tan sinh cosh tanh erf erfc sigmoid square".split():
    _scalar(_name)


@define("gelu")
def gelu(call: Called) -> Numbers:
    """x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) for erf."""
    x = call.x
    if call.attributes.get("approximate") == "tanh":
        inner = ((x * x.apply("square") * 0.044715 + x) * 0.79788456).apply("tanh")
    else:
        inner = (x * 0.70710678).apply("erf")
    return x * (inner + 1.0) * 0.5
