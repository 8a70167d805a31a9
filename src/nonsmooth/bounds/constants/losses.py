"""Constants of losses: of a term for each entry or sample, and of their sum or mean.

The terms of a loss move with entries or samples of their own. So the Hessian of a sum has the norm of its worst block, and
the gradient that of all blocks together: a mean over m samples has l = (l of a sample) / sqrt(m), L = (L of a sample) / m.

The file is long since every loss of the frameworks has its record here, in one scheme of reductions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import inf, log, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.entries import copies
from nonsmooth.bounds.constants.known import extremes, is_local, operand, place, sizes
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.constants.scalar import ScalarFunction
from nonsmooth.bounds.constants.softmax import likely
from nonsmooth.bounds.reach import Floats, Local, Reach, times

__all__ = ["class_gradient"]

_SILU_SLOPE = 1.0998394
"""sup |s(z) + z s'(z)| of the logistic function s."""


def _weight_of_terms(call: Called, terms: int) -> float:
    """Give the factor of the reduction: 1 / terms for a mean."""
    return 1 / max(terms, 1) if call.attributes.get("reduction", 0) == 1 else 1.0


def _reduced(
    call: Called,
    count: int,
    slopes: Mapping[int, tuple[float, float]],
    bends: Mapping[tuple[int, int], float],
    values: tuple[float, float],
    norm: float = inf,
    why: str = "",
) -> Local:
    """Reduce `count` terms: `slopes` are bounds of a term's slope in an operand and of the norm of all slopes together.

    `norm` bounds the sum of the sizes of all terms.
    """
    factor = _weight_of_terms(call, count)
    whole = call.attributes.get("reduction", 0) != 0
    lipschitz = [0.0] * len(call.operands)
    for i, (each, all_of_them) in slopes.items():
        lipschitz[i] = factor * all_of_them if whole else each
    smoothness = {pair: factor * bend for pair, bend in bends.items()}
    low, high = values
    if not whole:
        return Local(lipschitz, smoothness, norm, low, high, why=why)
    low, high = float(times(low, count)) * factor, float(times(high, count)) * factor
    norm = min(norm * factor, max(abs(low), abs(high)))
    return Local(lipschitz, smoothness, norm, max(low, -norm), min(high, norm), why=why)


# --- regression -------------------------------------------------------------------------------------------------------


def _residual(u: Reach, t: Reach) -> tuple[float, float, float]:
    """Bound u - t: the interval of its entries, and its norm; with both centers known, about their difference."""
    (a, b), (c, d) = extremes(u), extremes(t)
    low, high = a - d, b - c
    shape = np.broadcast_shapes(u.shape, t.shape)
    moved = sqrt(copies(u.shape, shape)) * u.distance + sqrt(copies(t.shape, shape)) * t.distance
    norm = sqrt(copies(u.shape, shape)) * u.norm + sqrt(copies(t.shape, shape)) * t.norm
    if u.center is not None and t.center is not None and moved < inf and prod(shape):
        center = np.asarray(u.center, float) - np.asarray(t.center, float)
        norm = min(norm, float(np.linalg.norm(center)) + moved)
        low, high = max(low, float(center.min()) - moved), min(high, float(center.max()) + moved)
    low, high = max(low, -norm), min(high, norm)
    return low, high, min(norm, sqrt(prod(shape)) * max(abs(low), abs(high)))


def _of_residual(call: Called, function: ScalarFunction, name: str) -> Local:
    """Give the constants of the terms a(u - t) with a'(0) = 0: the slopes' norm is at most sup |a''| |u - t|."""
    u, t = call.operands[:2]
    shape = np.broadcast_shapes(u.shape, t.shape)
    count = prod(shape)
    if not count:
        return Local([0.0] * len(call.operands))
    low, high, norm = _residual(u, t)
    at = np.asarray(low), np.asarray(high)
    slopes = function.slopes(*at)
    steepest = float(max(abs(slopes[0]), abs(slopes[1])))
    least, most = (float(v) for v in function.range(*at))
    curved = float(function.curvature(*at))
    around = np.minimum(at[0], 0.0), np.maximum(at[1], 0.0)
    bound = float(function.curvature(*around))
    together = min(sqrt(count) * steepest, float(times(bound, norm)))
    total = min(float(times(most, count)), float(times(bound, norm**2)) / 2, float(times(sqrt(count) * steepest, norm)))
    often = [sqrt(copies(w.shape, shape)) for w in (u, t)]
    each = {i: (often[i] * steepest, often[i] * together) for i in (0, 1)}
    bends = {(i, j): float(times(curved, often[i] * often[j])) for i, j in ((0, 0), (0, 1), (1, 1))}
    why = f"`{name}` has a kink in the set" if curved == inf else ""
    return _reduced(call, count, each, bends, (max(least, 0.0), most), total, why)


_SQUARE = ScalarFunction(np.square, lambda t: 2 * t, lambda t: 2 + 0 * np.clip(t, -1, 1), turns=(0.0,))


@bound_operation("mse_loss")
def squares(call: Called) -> Local:
    """Constants of (u - t)^2, with |u - t| <= r on the set: a sum has l = 2 r, L = 2, a mean over n entries 2 r/n, 2/n.

    All are attained where the residual reaches r. (Half the square, as papers write it: l = r, L = 1.)

    Source: derived, docs/theory/bounds_constants.md.
    """
    return _of_residual(call, _SQUARE, "mse_loss")


def _huber(delta: float, scale: float) -> ScalarFunction:
    """Give scale times (d^2 / 2 up to delta, then delta (|d| - delta/2))."""

    def value(d: Floats) -> Floats:
        size = np.abs(d)
        return scale * np.where(size <= delta, np.square(np.minimum(size, delta)) / 2, delta * (size - delta / 2))

    def second(d: Floats) -> Floats:
        return scale * np.where(np.abs(d) <= delta, 1.0, 0.0)

    points = (-delta, delta)
    return ScalarFunction(
        value,
        lambda d: scale * np.clip(d, -delta, delta),
        second,
        (0.0,),
        points,
        (0.0, *points),
        points if delta == 0 else (),
    )


@bound_operation("smooth_l1_loss")
def smooth_absolute(call: Called) -> Local:
    """Constants of d^2/(2 beta) for |d| < beta, else |d| - beta/2: a term has l = 1, L = 1/beta (beta = 0: a kink).

    A sum over n entries has l = min(sqrt(n), |u - t|/beta); all are attained where residuals reach beyond beta.

    Source: derived, docs/theory/bounds_constants.md.
    """
    beta = call.number("beta", 1.0)
    if beta == 0:
        size = ScalarFunction(np.abs, np.sign, lambda d: 0 * np.clip(d, -1, 1), kinks=(0.0,), turns=(0.0,))
        return _of_residual(call, size, "smooth_l1_loss")
    return _of_residual(call, _huber(beta, 1 / beta), "smooth_l1_loss")


@bound_operation("huber_loss")
def huber(call: Called) -> Local:
    """Constants of d^2/2 for |d| < delta, else delta (|d| - delta/2): a term has l = delta, L = 1.

    A sum over n entries has l = min(sqrt(n) delta, |u - t|); all are attained where residuals reach beyond delta.

    Source: derived, docs/theory/bounds_constants.md.
    """
    return _of_residual(call, _huber(call.number("delta", 1.0), 1.0), "huber_loss")


# --- two classes ------------------------------------------------------------------------------------------------------


def _logistic(z: Floats) -> Floats:
    """Compute 1 / (1 + exp(-z))."""
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))


def _logistic_bend(low: Floats, high: Floats) -> Floats:
    """Give sup s'(z) of the logistic function on intervals."""
    nearest = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    found = _logistic(nearest)
    return found * (1 - found)


def _softplus(z: float) -> float:
    """Compute log(1 + exp(z))."""
    return inf if z == inf else float(np.logaddexp(0.0, z))


@bound_operation("soft_margin_loss")
def soft_margin(call: Called) -> Local:
    """Constants of log(1 + exp(-t u)): with targets of size 1 a term has l = 1, L = 1/4, a sum over n entries sqrt(n), 1/4.

    Attained on unbounded sets (l) and at u = 0 (L); the slope s(-z) at the least margin z = t u of the set. Constants of a
    moving target are upper bounds.

    Source: derived, docs/theory/bounds_constants.md.
    """
    u, t = call.operands[:2]
    shape = np.broadcast_shapes(u.shape, t.shape)
    count = prod(shape)
    if not count:
        return Local([0.0, 0.0])
    (a, b), (c, d) = extremes(u), extremes(t)
    ends = [float(times(v, w)) for v in (a, b) for w in (c, d)]
    low, high = min(ends), max(ends)
    steep, curved = float(_logistic(np.asarray(-low))), float(_logistic_bend(np.asarray(low), np.asarray(high)))
    often = [sqrt(copies(w.shape, shape)) for w in (u, t)]
    each: dict[int, tuple[float, float]] = {}
    for i, other in enumerate((t, u)):
        term = float(times(often[i] * steep, sizes(other)))
        each[i] = (term, min(float(times(often[i] * often[1 - i] * steep, other.norm)), sqrt(count) * term))
    bends = {
        (0, 0): float(times(often[0] * curved, sizes(t) ** 2)),
        (0, 1): _SILU_SLOPE * often[0] * often[1],
        (1, 1): float(times(often[1] * curved, sizes(u) ** 2)),
    }
    norm = sqrt(count) ** (1 + (call.attributes.get("reduction", 0) != 0)) * log(2) + each[0][1] * u.norm
    return _reduced(call, count, each, bends, (_softplus(-high), _softplus(-low)), norm)


def _interval(x: Reach, fine: bool) -> tuple[Floats, Floats]:
    """Give the interval of entries: of each where that is known, or one of all."""
    if fine:
        return x.interval
    low, high = extremes(x)
    return np.asarray(low), np.asarray(high)


def _fine(u: Reach, t: Reach) -> bool:
    """Tell whether entries are looked at one by one: targets about which a center is known, of no huge number."""
    return t.center is not None and t.distance < inf and u.size <= 10_000_000


def _is_data(t: Reach) -> bool:
    """Tell a value that is known up to rounding."""
    return t.center is not None and not t.moves and t.distance <= 1e-6 * max(t.norm, 1.0)


def _factor(call: Called, name: str, fine: bool, default: int | None = None) -> tuple[Floats, Floats]:
    """Give the interval of a weight, 1 where there is none."""
    found = operand(call, name, default)
    return (np.array(1.0), np.array(1.0)) if found is None else _interval(found, fine)


def _no_weights(call: Called, local: Local) -> Local:
    """Give infinite constants to weights that move: nothing but predictions and targets is learnt by a loss."""
    lipschitz, why = list(local.lipschitz), local.why
    for i, w in enumerate(call.operands[2:], 2):
        if w.moves:
            lipschitz[i], why = inf, "a weight of the loss depends on the point"
    return Local(lipschitz, local.smoothness, local.norm, local.low, local.high, why=why)


@bound_operation("binary_cross_entropy_with_logits")
def binary_cross_entropy_of_logits(call: Called) -> Local:
    """Constants of w ((1 - t) u + (1 + (q - 1) t) log(1 + exp(-u))), q the weight of the positive class: in u a term has

        l = w max |1 - t - (1 + (q - 1) t) (1 - s(u))|  <= w max(1, q),    L = w (1 + (q - 1) t) / 4  <= w max(1, q) / 4

    for 0 <= t <= 1, s the logistic function on its interval; a sum has the norm of the l of its terms. Attained. In t,
    where it moves: |u| + |q - 1| log(1 + exp(-u)), which is affine.

    Source: derived, docs/theory/bounds_constants.md.
    """
    u, t = call.operands[:2]
    shape = np.broadcast_shapes(u.shape, t.shape)
    if not prod(shape):
        return Local([0.0] * len(call.operands))
    fine = _fine(u, t)
    a, b = _interval(u, fine)
    targets, rest = _interval(t, fine), (1 - _logistic(b), 1 - _logistic(a))
    weights = _factor(call, "weight", fine)
    positive = _factor(call, "pos_weight", fine)
    weight = np.maximum(*np.abs(weights))
    slope, crossed, most = np.array(0.0), np.array(0.0), np.array(0.0)
    for s, q, r in product(targets, positive, rest):
        kappa = 1 + times(q - 1, s)
        slope = np.maximum(slope, np.abs(1 - s - times(kappa, r)))
        crossed = np.maximum(crossed, np.abs(1 + times(q - 1, r)))
        most = np.maximum(most, np.abs(kappa))
    slope, crossed = times(slope, weight), times(crossed, weight)
    curved = times(times(most, _logistic_bend(a, b)), weight)
    together = _norm_over(slope, shape)
    tail = _softplus(-float(np.min(a)))
    gain = max(float(np.max(np.abs(q - 1))) for q in positive)
    by_target = float(
        times(np.max(weight), max(abs(float(np.min(a))), abs(float(np.max(b)))) + float(times(gain, tail)))
    )
    slopes = {
        0: (float(np.max(slope)), together),
        1: (by_target, min(sqrt(prod(shape)) * by_target, _target_slope(call, u, weight, gain, prod(shape)))),
    }
    bends = {(0, 0): float(np.max(curved)), (0, 1): float(np.max(crossed))}
    at_zero = log(2) * float(np.max(times(most, weight)))
    norm = prod(shape) ** (1.0 if call.attributes.get("reduction", 0) else 0.5) * at_zero + together * u.norm
    least = 0.0 if _proper(targets) and float(np.min(positive[0])) >= 0 and float(np.min(weights[0])) >= 0 else -inf
    top = (
        at_zero + slopes[0][0] * max(abs(float(np.min(a))), abs(float(np.max(b))))
        if np.all(np.isfinite([a.min(), b.max()]))
        else inf
    )
    return _no_weights(call, _reduced(call, prod(shape), slopes, bends, (least, top), norm))


def _target_slope(call: Called, u: Reach, weight: Floats, gain: float, count: int) -> float:
    """Bound the norm of the slopes in the targets, (|u_i| + |q - 1| log(1 + exp(-u_i)))_i, by that of u."""
    return float(times(np.max(weight), (1 + gain) * u.norm + gain * sqrt(count) * log(2)))


def _norm_over(each: Floats, shape: tuple[int, ...]) -> float:
    """Give the norm of numbers that spread over a shape."""
    full = np.broadcast_shapes(each.shape, ())
    return float(np.linalg.norm(each)) * sqrt(prod(shape) / max(prod(full), 1))


def _proper(targets: tuple[Floats, Floats]) -> bool:
    """Tell whether all targets are probabilities."""
    return bool(np.min(targets[0]) >= -1e-9 and np.max(targets[1]) <= 1 + 1e-9)


@bound_operation("binary_cross_entropy")
def binary_cross_entropy(call: Called) -> Local:
    """Constants of -w (t log u + (1 - t) log(1 - u)) with a <= u <= b, 0 <= t <= 1: in u a term has

        l = w max |(1 - t)/(1 - u) - t/u|,    L = w max (t/u^2 + (1 - t)/(1 - u)^2)

    at the ends of the interval, where they are attained; infinite where u may be 0 or 1 and the target asks for the other.
    Other targets, and those that move, have upper bounds.

    Source: derived, docs/theory/bounds_constants.md.
    """
    u, t = call.operands[:2]
    shape = np.broadcast_shapes(u.shape, t.shape)
    if not prod(shape):
        return Local([0.0] * len(call.operands))
    fine = _fine(u, t)
    a, b = (np.clip(v, 0.0, 1.0) for v in _interval(u, fine))
    targets = _interval(t, fine)
    weight = np.maximum(*np.abs(_factor(call, "weight", fine, 2)))
    slope, curved, most = np.array(0.0), np.array(0.0), np.array(0.0)
    with np.errstate(divide="ignore"):
        for s, v in product(targets, (a, b)):
            yes, no = times(s, 1 / v), times(1 - s, 1 / (1 - v))
            odd = not _proper(targets)
            with np.errstate(invalid="ignore"):
                found = np.abs(yes) + np.abs(no) if odd else np.abs(no - yes)
            slope = np.maximum(slope, np.where(np.isnan(found), inf, found))
            curved = np.maximum(curved, np.abs(times(yes, 1 / v)) + np.abs(times(no, 1 / (1 - v))))
            most = np.maximum(most, np.minimum(np.abs(times(s, -np.log(v))), 100 * np.abs(s)))
            most = np.maximum(most, np.minimum(np.abs(times(1 - s, -np.log(1 - v))), 100 * np.abs(1 - s)))
        crossed = float(np.max(times(weight, 1 / a + 1 / (1 - b))))
        by_target = float(times(np.max(weight), np.max(np.maximum(np.abs(_log_odds(a)), np.abs(_log_odds(b))))))
    if not _proper(targets):
        most = 2 * most
    slope, curved = times(slope, weight), times(curved, weight)
    count = prod(shape)
    slopes = {0: (float(np.max(slope)), _norm_over(slope, shape)), 1: (by_target, sqrt(count) * by_target)}
    bends = {(0, 0): float(np.max(curved)), (0, 1): crossed}
    why = "a probability may be 0 or 1 in the set" if float(np.max(slope)) == inf else ""
    top = float(np.max(times(2 * most, weight)))
    return _no_weights(
        call, _reduced(call, count, slopes, bends, (-top if not _proper(targets) else 0.0, top), why=why)
    )


def _log_odds(v: Floats) -> Floats:
    """Compute log(v / (1 - v)), each logarithm not below -100."""
    return np.maximum(np.log(v), -100) - np.maximum(np.log(1 - v), -100)


# --- classes ----------------------------------------------------------------------------------------------------------


def class_gradient(total: Floats, least: Floats, squares: Floats) -> Floats:
    """Give sup_p |A p - a| over the simplex, sqrt(A^2 - 2 A min a + |a|^2), from A = sum a >= 0, min a and |a|^2.

    >>> float(class_gradient(np.array(1.0), np.array(0.0), np.array(1.0))) == sqrt(2)
    True
    """
    return np.sqrt(np.maximum(np.square(total) - 2 * total * least + squares, 0.0))


def _shares(call: Called, classes: int, axis: int) -> tuple[Floats, Floats, Floats, float] | None:
    """Give A, min a and |a|^2 of the loss sum_c a_c (logsumexp u - u_c) for each sample, and what a mean divides by.

    None where the targets are not known.
    """
    target, weight = call.operands[1], operand(call, "weight", 2)
    smoothing = call.number("label_smoothing", 0.0)
    if not _is_data(target) or (weight is not None and not _is_data(weight)):
        return None
    w = np.ones(classes) if weight is None else np.asarray(weight.center, float)
    labels = np.asarray(target.center)
    if target.shape == call.x.shape:
        shares = np.moveaxis(labels, axis, -1).astype(float) * (1 - smoothing) + smoothing / classes
        shares = (shares * w).reshape(-1, classes)
        total = shares.sum(-1)
        least = np.where(total >= 0, shares.min(-1), shares.max(-1))
        return total, least, np.square(shares).sum(-1), float(max(shares.shape[0], 1))
    labels = labels.reshape(-1).astype(int)
    counted = labels != int(call.number("ignore_index", -100))
    safe = np.where(counted & (labels >= 0) & (labels < classes), labels, 0)
    own = w[safe] * counted
    spread = smoothing / classes * w
    mean = float(own.sum())
    if not smoothing:
        least = np.zeros_like(own) if classes > 1 else own
        return own, least, np.square(own), mean
    peak = own * (1 - smoothing)
    total = (peak + spread.sum()) * counted
    others = np.array([np.min(np.delete(spread, c)) if classes > 1 else inf for c in range(classes)])
    least = np.minimum(others[safe], peak + spread[safe]) * counted
    squared = (np.square(spread).sum() + 2 * peak * spread[safe] + np.square(peak)) * counted
    return total, least, squared, mean


def _unknown_shares(call: Called, classes: int, samples: int) -> tuple[Floats, Floats, Floats, float]:
    """Bound A, min a and |a|^2 of each sample, and what a mean divides by, where targets are not known."""
    weight, target = operand(call, "weight", 2), call.operands[1]
    low, high = (1.0, 1.0) if weight is None else extremes(weight)
    heavy = max(abs(low), abs(high))
    if target.shape == call.x.shape:
        smoothing = call.number("label_smoothing", 0.0)
        share = min(classes * sizes(target), sqrt(classes) * target.norm)
        total = heavy * ((1 - smoothing) * share + smoothing)
        least = 0.0 if extremes(target)[0] >= 0 and low >= 0 else -total
        return np.full(samples, total), np.full(samples, least), np.full(samples, total**2), float(samples)
    least = 0.0 if low >= 0 else -heavy
    return np.full(samples, heavy), np.full(samples, least), np.full(samples, heavy**2), max(low, 0.0) * samples


@bound_operation("cross_entropy_loss")
def cross_entropy(call: Called) -> Local:
    """Constants of sum_c a_c (logsumexp u - u_c), a the class, smoothed and weighted, or probabilities: a sample has

        l = sup_p |A p - a| = sqrt(A^2 - 2 A min a + |a|^2),    L = A / 2,    A = sum a

    sqrt(2) and 1/2 for a class. A sum has the norm of the l of its samples and the largest L; the mean over m of them
    sqrt(2/m) and 1/(2 m), that with weights divides by their sum. Attained on unbounded sets; on bounded ones l and L are
    taken down by the probabilities that are reached, to upper bounds. Targets that are not known count as classes, none of
    them ignored; moving probabilities have l = w |log p|, L_ut = sqrt(classes) w.

    The function is long since targets, weights and reductions change the same few numbers, in this order.

    Source: derived, docs/theory/bounds_constants.md (RouletHarchaoui2019 prints 2 and 2).
    """
    x = call.x
    axis = 1 if len(x.shape) > 1 else 0
    classes = x.shape[axis]
    samples = x.size // max(classes, 1)
    lipschitz = [0.0] * len(call.operands)
    if x.size == 0 or classes == 1:
        return Local(lipschitz, low=-inf, norm=inf)
    known = _shares(call, classes, axis)
    total, least, squared, mean = known if known is not None else _unknown_shares(call, classes, samples)
    probable = likely(x, (axis,))
    # several bounds of |A p - a|, the least of which counts
    slopes = np.minimum(
        class_gradient(total, least, squared), _reached(total, squared, probable.low, probable.high, classes)
    )
    negative = not bool(np.all(least >= 0))
    if negative:  # |A p - a| <= |A| + |a|, and sum |a| <= sqrt(classes) |a|
        slopes = np.abs(total) + np.sqrt(squared)
    elif known is not None and is_local(x):
        slopes = np.minimum(slopes, _about_center(call, axis, total, probable.first))
    if target_error := call.operands[1].distance if known is not None and call.operands[1].shape == x.shape else 0.0:
        heaviest = 1.0 if (given := operand(call, "weight", 2)) is None else sizes(given)
        slopes = slopes + (sqrt(classes) + 1) * heaviest * target_error
    largest = float(np.max(np.abs(total))) * (1 + 1e-12)
    curved = largest * probable.first
    reduction = call.attributes.get("reduction", 0)
    norm_of_slopes = float(np.linalg.norm(slopes))
    lipschitz[0], bend = (norm_of_slopes, curved) if reduction else (float(np.max(slopes)), curved)
    heavy = sqrt(classes * float(np.max(squared))) if negative else largest
    height = heavy * (probable.spread + log(classes))
    together = float(np.abs(total).sum()) * log(classes) + norm_of_slopes * x.norm if reduction else inf
    smoothness = {(0, 0): bend}
    if call.operands[1].moves:
        at = place(call, "weight", 2)
        heaviest = 1.0 if at is None else sizes(call.operands[at])
        smoothness[0, 1] = sqrt(classes) * heaviest
        lipschitz[1] = heaviest * (probable.spread + log(classes)) * sqrt(x.size if reduction else classes)
    if reduction == 1:
        factor = 1 / mean if mean > 0 else inf
        if known is None and call.operands[1].shape != x.shape:
            lipschitz[0] = _weighted_mean(call, samples, float(np.max(slopes)))
            bend_factor = factor
        else:
            lipschitz[0], bend_factor = float(times(lipschitz[0], factor)), factor
        lipschitz[1] = float(times(lipschitz[1], factor))
        smoothness = {pair: float(times(v, bend_factor)) for pair, v in smoothness.items()}
        together = float(times(together, factor))
        many = samples if negative else np.abs(total).sum() / max(largest, 1e-300)
        height = height * (1.0 if known is None else float(times(many, factor)))
    elif reduction == 2:
        height *= samples
    top = min(height, together)
    norm = top if reduction else min(sqrt(samples) * height, inf)
    why = "the weights of all samples may be 0" if reduction == 1 and mean <= 0 else ""
    below = -top if negative or np.any(total < 0) else 0.0
    return _no_weights(call, Local(lipschitz, smoothness, norm, below, top, why=why))


def _weighted_mean(call: Called, samples: int, slope: float) -> float:
    """Bound |(w_i g)_i| / sum w for classes that are not known: sqrt(sup w / (inf w m)) g/w."""
    weight = operand(call, "weight", 2)
    if weight is None:
        return slope / sqrt(samples)
    low, high = extremes(weight)
    if low < 0:  # their sum may be 0
        return inf
    per_weight = slope / high if high > 0 else 0.0
    return per_weight * min(1.0, sqrt(high / (max(low, 0.0) * samples))) if low > 0 else per_weight


def _reached(total: Floats, squared: Floats, low: float, high: float, classes: int) -> Floats:
    """Bound |A p - a|^2 = A^2 |p|^2 - 2 A <p, a> + |a|^2 with probabilities in [low, high]: |p|^2 <= high, <p, a> >= low A."""
    return np.sqrt(np.maximum(np.square(total) * (min(high, 1.0) - 2 * low) + squared, 0.0))


def _about_center(call: Called, axis: int, total: Floats, first: float) -> Floats:
    """Bound |A p - a| by its value at the center and A ||diag(p) - p p'|| times the distance."""
    x = call.x
    u = np.moveaxis(np.asarray(x.center, float), axis, -1).reshape(-1, x.shape[axis])
    powers = np.exp(u - u.max(-1, keepdims=True))
    p = powers / powers.sum(-1, keepdims=True)
    a = _own_shares(call, axis, x.shape[axis])
    at_center: Floats = np.linalg.norm(total[:, None] * p - a, axis=-1)
    return at_center * (1 + 1e-12) + 1e-15 + np.abs(total) * first * x.distance


def _own_shares(call: Called, axis: int, classes: int) -> Floats:
    """Write the weights a of all classes out, sample by sample."""
    target, weight = call.operands[1], operand(call, "weight", 2)
    smoothing = call.number("label_smoothing", 0.0)
    w = np.ones(classes) if weight is None else np.asarray(weight.center, float)
    labels = np.asarray(target.center)
    if target.shape == call.x.shape:
        shares = np.moveaxis(labels, axis, -1).astype(float) * (1 - smoothing) + smoothing / classes
        weighed: Floats = (shares * w).reshape(-1, classes)
        return weighed
    labels = labels.reshape(-1).astype(int)
    counted = labels != int(call.number("ignore_index", -100))
    safe = np.where(counted & (labels >= 0) & (labels < classes), labels, 0)
    found: Floats = (np.eye(classes)[safe] * (1 - smoothing) + smoothing / classes) * w * counted[:, None]
    return found


@bound_operation("nll_loss", "nll_loss2d")
def likelihood(call: Called) -> Local:
    """Constants of -w_t u_t, linear in u: a sample has l = w, a sum |w|, a mean |w| / sum w = 1/sqrt(m) without weights; L = 0.

    All are attained. Targets that are not known count as classes, none of them ignored.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x = call.x
    axis = 1 if len(x.shape) > 1 else 0
    classes = x.shape[axis] if x.shape else 1
    samples = x.size // max(classes, 1)
    lipschitz = [0.0] * len(call.operands)
    if x.size == 0:
        return Local(lipschitz)
    known = _shares(call, classes, axis)
    weights, least, _, mean = known if known is not None else _unknown_shares(call, classes, samples)
    reduction = call.attributes.get("reduction", 0)
    heaviest, signed = float(np.max(np.abs(weights))), bool(np.any(weights < 0) or np.any(least < 0))
    slope = float(np.linalg.norm(weights)) if reduction else heaviest
    if reduction == 1:
        slope = (
            _weighted_mean(call, samples, heaviest)
            if known is None
            else float(times(slope, 1 / mean if mean > 0 else inf))
        )
    lipschitz[0] = slope
    low, high = extremes(x)
    whole = float(np.abs(weights).sum())
    factor = whole if reduction == 2 else (1.0 if reduction else heaviest)
    if signed:  # a mean is none of entries then
        low, high = -max(-low, high, 0.0), max(-low, high, 0.0)
        factor = whole / mean if reduction == 1 and mean > 0 else (inf if reduction == 1 else factor)
    norm = float(times(slope, x.norm))
    top, bottom = float(times(factor, max(-low, 0.0))), -float(times(factor, max(high, 0.0)))
    why = "the weights of all samples may be 0" if slope == inf else ""
    return _no_weights(call, Local(lipschitz, {}, norm, bottom, top, why=why))


# --- sequences --------------------------------------------------------------------------------------------------------


@bound_operation("ctc_loss")
def alignments(call: Called) -> Local:
    """Constants of -log sum over alignments of exp of the sum of their log-probabilities, T times: l = sqrt(T), L = T/2.

    Its gradient are the expected numbers of labels at each time; its Hessian is minus the covariance of these numbers,
    whose range is sqrt(2 T) for directions of length 1. l is attained by a single alignment, L is an upper bound. A mean
    divides by the length of each target, at least 1, and by the batch.

    Source: derived, docs/theory/bounds_constants.md.
    """
    x = call.x
    times_, batch = x.shape[0], x.shape[1] if len(x.shape) > 2 else 1
    reduction = call.attributes.get("reduction", 0)
    slope, curved = sqrt(times_), times_ / 2
    if reduction:
        slope *= sqrt(batch)
    if reduction == 1:
        slope, curved = slope / max(batch, 1), curved / max(batch, 1)
    rest = [0.0] * (len(call.operands) - 1)
    return Local([slope, *rest], {(0, 0): curved})
