"""Normalisation: entries less their mean, over their deviation, by layers, groups, batches; weights by their norm."""

from __future__ import annotations

from math import prod

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Axes, Numbers, Shape

__all__: list[str] = []


def _given(call: Called, name: str) -> Numbers | None:
    """Give an operand by the name of the argument that it is; None if it was left out."""
    names = call.attributes["given"]
    return call.operands[names.index(name)] if name in names else None


def _moments(x: Numbers, axes: Axes) -> tuple[Numbers, Numbers, Numbers]:
    """Give the mean, the entries less it, and their mean square."""
    mean = x.mean(axes, keep=True)
    centred = x - mean
    return mean, centred, centred.apply("square").mean(axes, keep=True)


def _inverse_deviation(variance: Numbers, eps: float) -> Numbers:
    """1 / sqrt(v + eps)."""
    return (variance + eps).apply("sqrt").apply("reciprocal")


def _affine(call: Called, found: Numbers, shape: Shape) -> Numbers:
    """Give w u + b, with weights of some shape, as far as they are given."""
    weight, bias = _given(call, "weight"), _given(call, "bias")
    if weight is not None:
        found = found * weight.alias(shape, lambda a: a.reshape(shape))
    return found if bias is None else found + bias.alias(shape, lambda a: a.reshape(shape))


def _channels(x: Numbers) -> Shape:
    """Give the shape of one number for each channel."""
    return (x.shape[1], *(1 for _ in x.shape[2:]))


@define("layer_norm")
def layer_norm(call: Called) -> list[Numbers]:
    """(u - mean) / sqrt(variance + eps) over the last axes, w u + b."""
    x, axes = call.x, call.attributes["axes"]
    mean, centred, variance = _moments(x, axes)
    inverse = _inverse_deviation(variance, float(call.attributes.get("eps") or 0.0))
    return [_affine(call, centred * inverse, x.shape[min(axes, default=0) :] if axes else ()), mean, inverse]


@define("rms_norm")
def rms_norm(call: Called) -> Numbers:
    """Give u / sqrt(mean u^2 + eps) over the last axes, times w."""
    x, axes = call.x, call.attributes["axes"]
    inverse = _inverse_deviation(x.apply("square").mean(axes, keep=True), float(call.attributes.get("eps") or 0.0))
    return _affine(call, x * inverse, x.shape[min(axes, default=0) :] if axes else ())


@define("group_norm")
def group_norm(call: Called) -> list[Numbers]:
    """The layer norm of groups of channels, w u + b by channels."""
    x, groups = call.x, int(call.attributes.get("group", call.attributes.get("num_groups", 1)))
    rows = (x.shape[0], groups, x.size // max(x.shape[0] * groups, 1))
    mean, centred, variance = _moments(x.alias(rows, lambda a: a.reshape(rows)), 2)
    inverse = _inverse_deviation(variance, float(call.attributes["eps"]))
    found = (centred * inverse).alias(x.shape, lambda a: a.reshape(x.shape))
    pair = (x.shape[0], groups)
    return [_affine(call, found, _channels(x)), *(m.alias(pair, lambda a: a.reshape(pair)) for m in (mean, inverse))]


@define("instance_norm")
def instance_norm(call: Called) -> Numbers:
    """The layer norm of every channel of every image; with given moments, the batch norm."""
    x = call.x
    if call.attributes.get("use_input_stats", True):
        _, centred, variance = _moments(x, tuple(range(2, x.ndim)))
        eps = float(call.attributes["eps"])
        return _affine(call, centred * _inverse_deviation(variance, eps), _channels(x))
    return _by_given_moments(call)


@define("batch_norm")
def batch_norm(call: Called) -> Numbers | list[Numbers]:
    """The norm of every channel over the batch; with given moments in evaluation.

    In training the moments that a layer keeps move towards those of the batch: (1 - a) r + a m.
    """
    x, shape = call.x, _channels(call.x)
    if not call.attributes.get("training", True) and _given(call, "running_mean") is not None:
        return _by_given_moments(call)
    axes = tuple(a for a in range(x.ndim) if a != 1)
    mean, centred, variance = _moments(x, axes)
    inverse = _inverse_deviation(variance, float(call.attributes["eps"]))
    found = _affine(call, centred * inverse, shape)
    momentum, terms = float(call.attributes.get("momentum", 0.1) or 0.0), x.size // max(x.shape[1], 1)
    for name, moment in (("running_mean", mean), ("running_var", variance)):
        kept = _given(call, name)
        if kept is not None:
            new = moment.detached().alias(kept.shape, lambda a, s=kept.shape: a.reshape(s))
            new = new * (terms / max(terms - 1, 1)) if name == "running_var" else new
            _ = kept.detached() * (1 - momentum) + new * momentum
    flat = (x.shape[1],)
    return [found, *(m.alias(flat, lambda a: a.reshape(flat)) for m in (mean, inverse))]


def _by_given_moments(call: Called) -> Numbers:
    """(u - mean) / sqrt(variance + eps) by moments that are given, w u + b."""
    x, shape = call.x, _channels(call.x)
    mean, variance = _given(call, "running_mean"), _given(call, "running_var")
    assert mean is not None and variance is not None
    inverse = _inverse_deviation(variance, float(call.attributes["eps"]))
    centred = x - mean.alias(shape, lambda a: a.reshape(shape))
    return _affine(call, centred * inverse.alias(shape, lambda a: a.reshape(shape)), shape)


@define("weight_norm")
def weight_norm(call: Called) -> list[Numbers]:
    """Give v (g / |v|), the norm over all axes but one."""
    v, g = call.operands[:2]
    kept = int(call.attributes.get("dim", 0))
    axes = tuple(a for a in range(v.ndim) if a != kept % max(v.ndim, 1)) if kept != -1 else tuple(range(v.ndim))
    norm = v.apply("square").sum(axes, keep=True).apply("sqrt")
    whole = g.alias(norm.shape, lambda a: a.reshape(norm.shape)) if g.size == norm.size else g
    shape = call.results[1] if len(call.results) > 1 else norm.shape
    scale = norm.alias(shape, lambda a: a.reshape(shape)) if prod(shape) == norm.size else norm
    return [v * (whole / norm), scale]
