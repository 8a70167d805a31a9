"""The constants of special functions of every entry, on intervals where they are smooth."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, pi, sqrt

import numpy as np
from scipy import special

from nonsmooth.bounds.constants.elementwise import register
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.constants.scalar import ScalarFunction, entrywise
from nonsmooth.bounds.reach import Floats, Local

__all__ = ["SPECIAL", "polygamma_function"]

_LEAST_GAMMA = 1.4616321449683623413
"""Where lgamma has its minimum on t > 0: the zero of digamma."""


def polygamma_function(order: int) -> ScalarFunction:
    """The derivative of an order of digamma on t > 0, which is monotone there, as all of them are."""

    def derivative(n: int) -> Callable[[Floats], Floats]:
        def found(t: Floats) -> Floats:
            if n == 0:
                return np.asarray(special.digamma(t), float)
            ends = special.polygamma(n, np.where(np.isinf(t), 1.0, t))
            return np.where(t == inf, 0.0, np.where(t == 0, (-1.0) ** (n + 1) * inf, ends))

        return found

    parts = derivative(order), derivative(order + 1), derivative(order + 2)
    return ScalarFunction(*parts, domain=(0, inf), rounding=1e-12)


def _mills(t: Floats) -> Floats:
    """The slope of log P, P the normal distribution: p / P = sqrt(2 / pi) / erfcx(-t / sqrt 2)."""
    return np.asarray(sqrt(2 / pi) / special.erfcx(-t / sqrt(2)), float)


def _mills_bend(t: Floats) -> Floats:
    """The curvature of log P, -h (h + t) with h its slope: it rises from -1 to 0; below -50 the bound -1 stands for it."""
    h = _mills(np.maximum(t, -50.0))
    return np.where(t < -50, -1.0, np.where(t > 50, 0.0, -h * (h + np.clip(t, -50, 50))))


def _first_bessel(t: Floats, order: int) -> Floats:
    """The modified Bessel function of the first kind, with its limits."""
    return np.where(np.isinf(t), np.sign(t) ** order * inf, special.iv(order, np.where(np.isinf(t), 0.0, t)))


_I0 = ScalarFunction(
    special.i0,
    special.i1,
    lambda t: (_first_bessel(t, 0) + _first_bessel(t, 2)) / 2,
    turns=(0,),
    twists=(0,),
    rounding=1e-12,
)
_I1 = ScalarFunction(
    special.i1,
    lambda t: (_first_bessel(t, 0) + _first_bessel(t, 2)) / 2,
    lambda t: (3 * _first_bessel(t, 1) + _first_bessel(t, 3)) / 4,
    bends=(0,),
    rounding=1e-12,
)
_LGAMMA = ScalarFunction(
    special.gammaln,
    polygamma_function(0).value,
    polygamma_function(1).value,
    turns=(_LEAST_GAMMA,),
    domain=(0, inf),
    rounding=1e-12,
)


def _inverse_slope(t: Floats) -> Floats:
    """erfinv'(t) = sqrt(pi) / 2 exp(erfinv(t)^2)."""
    return np.asarray(sqrt(pi) / 2 * np.exp(np.square(special.erfinv(t))), float)


def _quantile_slope(t: Floats) -> Floats:
    """The slope of the normal quantile, sqrt(2 pi) exp(y^2 / 2) at y = ndtri(t)."""
    return np.asarray(sqrt(2 * pi) * np.exp(np.square(special.ndtri(t)) / 2), float)


SPECIAL: dict[str, ScalarFunction] = {
    "i0": _I0,
    "special_i1": _I1,
    "lgamma": _LGAMMA,
    "digamma": polygamma_function(0),
    "special_log_ndtr": ScalarFunction(special.log_ndtr, _mills, _mills_bend, rounding=1e-11),
    "erfinv": ScalarFunction(
        special.erfinv,
        _inverse_slope,
        lambda t: 2 * special.erfinv(t) * _inverse_slope(t) ** 2,
        bends=(0,),
        domain=(-1, 1),
        rounding=1e-12,
    ),
    "ndtri": ScalarFunction(
        special.ndtri,
        _quantile_slope,
        lambda t: special.ndtri(t) * _quantile_slope(t) ** 2,
        bends=(0.5,),
        domain=(0, 1),
        rounding=1e-12,
    ),
}
"""Special functions of one number, by name; the gamma functions on t > 0, where none of them has a pole."""


for _name, _function in SPECIAL.items():
    register(_name, _function)


@bound_operation("polygamma")
def polygamma(call: Called) -> Local:
    """The derivative of an order of digamma on t > 0: the next two are its slope and curvature, monotone both."""
    order = call.attributes.get("n")
    if order is None and len(call.operands) > 1 and call.x.center is not None and not call.x.moves:
        values = np.unique(np.asarray(call.x.center))
        order = int(values[0]) if len(values) == 1 else None
    x = call.operands[-1]
    if order is None:
        return Local([inf] * len(call.operands), why="`polygamma` has an order that is not one number")
    local = entrywise(polygamma_function(int(order)), x, "polygamma")
    place = len(call.operands) - 1
    bends = {(place, place): local.smoothness[0, 0]}
    return Local([0.0] * place + list(local.lipschitz), bends, local.norm, local.low, local.high, why=local.why)
