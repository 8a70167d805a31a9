"""Losses: a term for each entry or sample, and their sum or mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


def _optional(call: Called, start: int, *names: str) -> list[Numbers | None]:
    """Give the operands that may be left out: their attribute is None then."""
    rest = list(call.operands[start:])
    return [None if name in call.attributes or not rest else rest.pop(0) for name in names]


def _reduced(call: Called, terms: Numbers, count: Numbers | None = None) -> Numbers:
    """Reduce the terms of a loss: 0 none, 1 mean, 2 sum; a mean is over a count that may be given."""
    reduction = call.attributes.get("reduction", 0)
    if reduction == 0:
        return terms
    total = terms.sum()
    if reduction == 2:
        return total
    return total / (float(max(terms.size, 1)) if count is None else count)


# --- regression -------------------------------------------------------------------------------------------------------


@define("mse_loss")
def squares(call: Called) -> Numbers:
    """(u - t)^2."""
    return _reduced(call, (call.x - call.operands[1]).apply("square"))


@define("smooth_l1_loss")
def smooth_absolute(call: Called) -> Numbers:
    """d^2 / (2 beta) for |d| < beta, else |d| - beta / 2."""
    beta = float(call.attributes.get("beta", 1.0))
    size = (call.x - call.operands[1]).apply("abs")
    return _reduced(call, size.exceeds(beta).select(size - beta / 2, size.apply("square") * (0.5 / beta)))


@define("huber_loss")
def huber(call: Called) -> Numbers:
    """d^2 / 2 for |d| < delta, else delta (|d| - delta / 2)."""
    delta = float(call.attributes.get("delta", 1.0))
    size = (call.x - call.operands[1]).apply("abs")
    return _reduced(call, size.exceeds(delta).select((size - delta / 2) * delta, size.apply("square") * 0.5))


# --- two classes ------------------------------------------------------------------------------------------------------


@define("soft_margin_loss")
def soft_margin(call: Called) -> Numbers:
    """log(1 + exp(-t u))."""
    return _reduced(call, (-(call.x * call.operands[1])).apply("exp").apply("log1p"))


@define("binary_cross_entropy")
def binary_cross_entropy(call: Called) -> Numbers:
    """-w (t log u + (1 - t) log(1 - u)), the logarithms not below -100."""
    u, t = call.operands[:2]
    (weight,) = _optional(call, 2, "weight")
    likely = t * u.apply("log").apply("max", -100.0)
    terms = -(likely + (1.0 - t) * (1.0 - u).apply("log").apply("max", -100.0))
    return _reduced(call, terms if weight is None else terms * weight)


@define("binary_cross_entropy_with_logits")
def binary_cross_entropy_of_logits(call: Called) -> Numbers:
    """Give w ((1 - t) u + (1 + (q - 1) t) log(1 + exp(-u))), q the weight of the positive class."""
    u, t = call.operands[:2]
    weight, positive = _optional(call, 2, "weight", "pos_weight")
    tail = (-u).apply("exp").apply("log1p")
    if positive is not None:
        tail = ((positive - 1.0) * t + 1.0) * tail
    terms = (1.0 - t) * u + tail
    return _reduced(call, terms if weight is None else terms * weight)


# --- classes ----------------------------------------------------------------------------------------------------------


def _picked(a: Any, target: Any, axis: int) -> Any:
    """Take the entry of the class of every sample; the first one where the class is no class."""
    index = np.expand_dims(np.where((target >= 0) & (target < a.shape[axis]), target, 0).astype(int), axis)
    return np.take_along_axis(a, index, axis).squeeze(axis)


def _weights(call: Called, target: Numbers, weight: Numbers | None) -> Numbers | None:
    """Give the weights of the samples, 0 for those to ignore; None where all weigh 1."""
    ignored = call.attributes.get("ignore_index", -100)

    def counted(t: Any) -> Any:
        return (t != ignored).astype(float)

    if weight is None:
        return target.known(target.shape, counted, target) if ignored >= 0 else None
    place = lambda w, t: w[np.where(t == ignored, 0, t).astype(int)]  # noqa: E731
    weights = weight.alias(target.shape, place, target)
    return weights * target.known(target.shape, counted, target) if ignored >= 0 else weights


def _likelihood(call: Called, terms: Numbers, target: Numbers, weight: Numbers | None) -> Numbers:
    """Reduce the terms of samples with their weights, over the sum of which a mean is."""
    weights = _weights(call, target, weight)
    if weights is None:
        return _reduced(call, terms)
    mean = call.attributes.get("reduction", 0) == 1
    return _reduced(call, terms * weights, weights.sum() if mean else None)


@define("nll_loss", "nll_loss2d")
def likelihood(call: Called) -> Numbers:
    """-w_t u_t, t the class of the sample."""
    u, target = call.operands[:2]
    (weight,) = _optional(call, 2, "weight")
    axis = 1 if u.ndim > 1 else 0
    return _likelihood(call, -u.alias(target.shape, lambda a, t: _picked(a, t, axis), target), target, weight)


@define("cross_entropy_loss")
def cross_entropy(call: Called) -> Numbers:
    """log(sum exp u) - u_t, t the class of the sample; or of probabilities p of the classes sum_c p_c (log(sum exp u) - u_c).

    Smoothing by s gives the class 1 - s, and s / C to each of C classes. Both are written for the loss of a class of
    which no weight is smoothed; weighted and smoothed ones count the weights of every class.
    """
    u, target = call.operands[:2]
    (weight,) = _optional(call, 2, "weight")
    axis = 1 if u.ndim > 1 else 0
    top = u.detached().largest(axis, keep=True)
    log_sum = (u - top).apply("exp").sum(axis, keep=True).apply("log") + top
    smoothing, classes = float(call.attributes.get("label_smoothing", 0.0)), u.shape[axis]
    if target.shape == u.shape:
        return _cross_entropy_of_probabilities(call, log_sum - u, target, weight, smoothing, axis)
    picked = u.alias(target.shape, lambda a, t: _picked(a, t, axis), target)
    terms = log_sum.alias(target.shape, lambda a: a.reshape(target.shape)) - picked
    if not smoothing:
        return _likelihood(call, terms, target, weight)
    return _smoothed(call, terms, log_sum - u, target, weight, smoothing, axis, classes)


def _smoothed(
    call: Called,
    terms: Numbers,
    all_terms: Numbers,
    target: Numbers,
    weight: Numbers | None,
    smoothing: float,
    axis: int,
    classes: int,
) -> Numbers:
    """Mix the loss of the class with those of all classes."""
    spread = all_terms if weight is None else all_terms * _along(weight, all_terms, axis)
    mixed = spread.sum(axis) * (smoothing / classes)
    weights = _weights(call, target, weight)
    if weight is not None and weights is not None:
        mixed = terms * weights * (1 - smoothing) + mixed
    else:
        mixed = terms * (1 - smoothing) + mixed
    if call.attributes.get("ignore_index", -100) >= 0:
        counted = target.known(target.shape, lambda t: (t != call.attributes["ignore_index"]).astype(float), target)
        mixed = mixed * counted
    mean = call.attributes.get("reduction", 0) == 1
    return _reduced(call, mixed, weights.sum() if mean and weights is not None else None)


def _along(weight: Numbers, like: Numbers, axis: int) -> Numbers:
    """Lay the weights of the classes along their axis."""
    shape = tuple(n if a == axis else 1 for a, n in enumerate(like.shape))
    return weight.alias(shape, lambda w: w.reshape(shape))


def _cross_entropy_of_probabilities(
    call: Called, terms: Numbers, target: Numbers, weight: Numbers | None, smoothing: float, axis: int
) -> Numbers:
    """sum_c w_c p_c (log(sum exp u) - u_c), its mean over the samples."""
    if smoothing:
        target = target * (1 - smoothing) + smoothing / terms.shape[axis]
    terms = terms * target
    terms = terms if weight is None else terms * _along(weight, terms, axis)
    return _reduced(call, terms.sum(axis))


# --- sequences --------------------------------------------------------------------------------------------------------


@define("ctc_loss")
def alignments(call: Called) -> Numbers:
    """-log of the sum over all alignments of a sequence with its labels: the forward variables of its dynamic program.

    At each of T times, for each of 2 S + 1 places among the labels and the blanks between them, the logarithm of a sum of
    three numbers. Counted for sequences of the full lengths T and S, without the labels that repeat.
    """
    u, target = call.operands[:2]
    times, labels = u.shape[0], target.shape[-1] if target.ndim > 1 else max(target.size, 1)
    batch = u.shape[1] if u.ndim > 2 else 1
    places = batch * (2 * labels + 1)
    state = u.alias((places,))
    for _ in range(1, times):
        top = state.detached().apply("max", state.detached()).apply("max", state.detached())
        parts = [(state - top).apply("exp") for _ in range(3)]
        state = (parts[0] + parts[1] + parts[2]).apply("log") + top + u.alias((places,))
    last = state.alias((batch,))
    top = last.detached().apply("max", last.detached())
    loss = -(((last - top).apply("exp") + (last - top).apply("exp")).apply("log") + top)
    return _reduced(call, loss.alias((batch,)))
