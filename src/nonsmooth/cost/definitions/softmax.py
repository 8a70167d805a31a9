"""Softmax and its logarithm: the largest entry is taken off first, and nothing is differentiated through it."""

from __future__ import annotations

import math

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Axes, Numbers

__all__ = ["softmax_along"]


def softmax_along(x: Numbers, axes: Axes) -> Numbers:
    """exp(u - m) / sum exp(u - m), m the largest entry: n - 1 comparisons, n - 1 additions, n each of -, exp and /."""
    powers = (x - x.detached().largest(axes, keep=True)).apply("exp")
    return powers / powers.sum(axes, keep=True)


@define("softmax")
def softmax(call: Called) -> Numbers:
    """exp(u - m) / sum exp(u - m); pulled back, y g - y sum(y g)."""
    axes = call.attributes["axes"]
    if call.attributes.get("pullback"):
        cotangent, value = call.operands
        weighed = cotangent * value
        return weighed - value * weighed.sum(axes, keep=True)
    x = call.x
    if "mask" in call.attributes.get("given", ()):
        x = call.operands[1].select(-math.inf, x)
    return softmax_along(x, axes)


@define("log_softmax")
def log_softmax(call: Called) -> Numbers:
    """Give u - m - log(sum exp(u - m)); pulled back, g - exp(y) sum g."""
    axes = call.attributes["axes"]
    if call.attributes.get("pullback"):
        cotangent, value = call.operands
        return cotangent - value.apply("exp") * cotangent.sum(axes, keep=True)
    shifted = call.x - call.x.detached().largest(axes, keep=True)
    return shifted - shifted.apply("exp").sum(axes, keep=True).apply("log")
