"""Special functions: one scalar operation `special` for each of their values."""

from __future__ import annotations

from math import log, pi

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []

_UNARY = {
    "lgamma": "gammaln",
    "digamma": "digamma",
    "i0": "i0",
    "special_i0e": "i0e",
    "special_i1": "i1",
    "special_i1e": "i1e",
    "special_erfcx": "erfcx",
    "special_log_ndtr": "log_ndtr",
    "ndtri": "ndtri",
}
"""Special functions of one number, with their names in scipy.special."""


def _special(name: str, function: str) -> None:
    """Define a special function of one number."""

    @define(name)
    def definition(call: Called) -> Numbers:
        return call.x.special(function)


for _name, _function in _UNARY.items():
    _special(_name, _function)


@define("igamma")
def lower_gamma(call: Called) -> Numbers:
    """The regularised lower incomplete gamma function P(a, u)."""
    return call.x.special("gammainc", call.operands[1])


@define("igammac")
def upper_gamma(call: Called) -> Numbers:
    """The regularised upper incomplete gamma function Q(a, u)."""
    return call.x.special("gammaincc", call.operands[1])


@define("special_zeta")
def zeta(call: Called) -> Numbers:
    """The zeta function of Hurwitz."""
    return call.x.special("zeta", call.operands[1])


@define("polygamma")
def polygamma(call: Called) -> Numbers:
    """A derivative of digamma, its order a number or a first operand that does not move."""
    order = call.attributes.get("n", 1)
    return call.operands[-1].special("polygamma", float(order) if len(call.operands) == 1 else call.x.detached())


@define("betainc")
def incomplete_beta(call: Called) -> Numbers:
    """The regularised incomplete beta function of u, with parameters that do not move."""
    return call.x.special("betainc")


@define("mvlgamma")
def multivariate_gamma(call: Called) -> Numbers:
    """Give p (p - 1) log(pi) / 4 + sum_{j < p} lgamma(u - j / 2)."""
    p = int(call.attributes["p"])
    total = call.x.special("gammaln")
    for j in range(1, p):
        total = total + (call.x - j / 2).special("gammaln")
    return total + p * (p - 1) / 4 * log(pi) if p > 1 else total


@define("random_gamma")
def random_gamma(call: Called) -> Numbers:
    """A draw, whose derivative in its parameter is a special function."""
    return call.operands[-1].apply("special")
