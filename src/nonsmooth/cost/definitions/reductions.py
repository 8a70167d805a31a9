"""Sums, products and variances along axes, and their partial results."""

from __future__ import annotations

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Axes, Numbers

__all__: list[str] = []


def axes_of(call: Called) -> Axes:
    """Give the axes along which an operation runs: all of them unless it says."""
    return call.attributes.get("axes")


def _shaped(found: Numbers, call: Called) -> Numbers:
    """Show a reduction with or without the axes of size 1 that it leaves."""
    return found.alias(call.shape, lambda a: a.reshape(call.shape))


@define("sum", "nansum")
def total(call: Called) -> Numbers:
    """Give sum u: n - 1 additions for n terms; the terms that a window leaves out are none."""
    if "additions" in call.attributes:
        return call.x.gathered(call.shape, call.attributes["additions"])
    return _shaped(call.x.sum(axes_of(call)), call)


@define("mean")
def mean(call: Called) -> Numbers:
    """(sum u) / n."""
    return _shaped(call.x.mean(axes_of(call)), call)


@define("prod")
def product(call: Called) -> Numbers:
    """The product of entries."""
    return _shaped(call.x.product(axes_of(call)), call)


@define("trace")
def trace(call: Called) -> Numbers:
    """sum_i u_ii."""
    return call.x.alias((min(call.x.shape),), np.diagonal).sum()


def _variance(call: Called) -> Numbers:
    """Give sum (u - mean)^2 / (n - correction)."""
    x, axes = call.x, axes_of(call)
    correction = call.attributes.get("correction")
    if correction is None:
        correction = 0.0 if call.attributes.get("unbiased") is False else 1.0
    total = (x - x.mean(axes, keep=True)).apply("square").sum(axes)
    terms = x.size / max(total.size, 1)
    return _shaped(total / (terms - correction), call)


@define("var")
def variance(call: Called) -> Numbers:
    """Give sum (u - mean)^2 / (n - correction)."""
    return _variance(call)


@define("std")
def deviation(call: Called) -> Numbers:
    """The square root of the variance."""
    return _variance(call).apply("sqrt")


@define("logsumexp")
def log_of_sum(call: Called) -> Numbers:
    """Give m + log(sum exp(u - m)), m the largest entry, through which nothing is differentiated."""
    x, axes = call.x, axes_of(call)
    top = x.detached().largest(axes, keep=True)
    return _shaped((x - top).apply("exp").sum(axes, keep=True).apply("log") + top, call)


# --- partial results --------------------------------------------------------------------------------------------------


def _axis(call: Called) -> int:
    """Give the axis along which partial results are kept."""
    axes = call.attributes["axes"]
    return int(axes if isinstance(axes, int) else axes[0])


def _kept(call: Called, name: str) -> Numbers:
    """Fold along an axis and keep every partial result, from the end if the operation runs backwards."""
    x, shape, backwards = call.x, call.x.shape, call.attributes.get("reverse", False)
    if not shape:
        return x
    axis = _axis(call)

    def turned(a: np.ndarray) -> np.ndarray:
        return np.flip(a, axis) if backwards else a

    return x.alias(shape, turned).cumulated(name, axis).alias(shape, turned)


@define("cumsum")
def partial_sums(call: Called) -> Numbers:
    """u_1, u_1 + u_2, ..."""
    return _kept(call, "add")


@define("cumprod")
def partial_products(call: Called) -> Numbers:
    """u_1, u_1 u_2, ..."""
    return _kept(call, "mul")


@define("logcumsumexp")
def partial_logs(call: Called) -> Numbers:
    """Give m + log of the partial sums of exp(u - m), m the largest entry along the axis."""
    x = call.x
    if not x.shape:
        return x
    axis = _axis(call)
    top = x.detached().largest(axis, keep=True)
    return (x - top).apply("exp").cumulated("add", axis).apply("log") + top


@define("diff")
def differences(call: Called) -> Numbers:
    """u_(i+1) - u_i, as often as the order says."""
    axis, order = _axis(call), int(call.attributes.get("n", 1))
    parts = list(call.operands)
    before = len(parts) > 1 and call.attributes.get("prepend", 0) is not None  # what is not given is None
    parts = [parts[1], parts[0], *parts[2:]] if before else parts
    shape = tuple(sum(p.shape[axis] for p in parts) if a == axis else n for a, n in enumerate(parts[0].shape))
    x = parts[0].joined(parts[1:], shape, lambda *a: np.concatenate(a, axis)) if len(parts) > 1 else parts[0]
    for _ in range(order):
        shorter = tuple(max(n - 1, 0) if a == axis else n for a, n in enumerate(x.shape))
        after = x.alias(shorter, lambda a: a.swapaxes(0, axis)[1:].swapaxes(0, axis))
        x = after - x.alias(shorter, lambda a: a.swapaxes(0, axis)[:-1].swapaxes(0, axis))
    return x
