"""Constants of normalisations: entries less their mean, over the deviation of their group, and weights by their norm.

All rest on h(t) = t / sqrt(1 + |t|^2), the gradient of sqrt(1 + |t|^2): with n entries in a group and u those entries less
their mean (or the entries themselves), c = sqrt(n) h(u / sqrt(n eps)).

The file is long: one theorem, the constants that follow for weights and biases, and a record for each way to form groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.entries import copies
from nonsmooth.bounds.constants.known import extremes, is_local, operand, place
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times

__all__ = ["UNIT_BEND", "Normalised", "bend", "normalised"]

UNIT_BEND = 48 / (25 * sqrt(5))
"""sup ||D^2 h|| = .858650..., attained at |t| = 1/2."""

_PLAIN = "eps is 0: where all entries of a group are alike, it is not even continuous"


@dataclass(frozen=True)
class Normalised:
    """The constants of z -> c, group by group; `low` and `high` are bounds of the variances on the set."""

    lipschitz: float
    smoothness: float
    norm: float
    peak: float
    low: float
    high: float
    count: int
    n: int

    def part(self, entries: int, groups: int, norm: float, eps: float, centred: bool) -> float:
        """Bound the norm of some entries of each of some groups."""
        share = self.n - 1 if centred and entries == 1 else self.n
        high = min(self.high, norm**2 / (self.n * groups))
        return sqrt(groups * share * _share(high, eps))


def bend(low: float, high: float, eps: float, line: bool) -> float:
    """Give eps sup ||D^2 h|| / eps for variances in an interval: with s^2 = variance / eps, of h at |t| = s it is

        3 s / (1 + s^2)^(5/2)  for s^2 <= 1/2 or on a line,     2 / (sqrt(3) (1 + s^2))  otherwise,

    which grows up to s = 1/2 and falls from there.

    >>> bend(0.0, inf, 1.0, False) == UNIT_BEND, round(bend(1.0, 4.0, 0.0, False), 6)
    (True, 1.154701)
    """
    if low <= eps / 4 <= high:
        return UNIT_BEND / eps if eps > 0 else (0.0 if line and low > 0 else inf)
    v = low if low > eps / 4 else high
    if v <= eps / 2 or line:
        return float(3 * sqrt(v) * eps / (eps + v) ** 2.5)
    return 2 / (sqrt(3) * (eps + v))


def _share(high: float, eps: float) -> float:
    """Give v / (v + eps), the part of the largest norm that is reached."""
    if high == inf or eps <= 0:
        return 1.0 if eps >= 0 else inf
    return high / (high + eps)


def _variances(x: Reach, rows: Callable[[Floats], Floats], n: int, centred: bool) -> tuple[float, float]:
    """Bound the variance (or mean square) of every group of n entries on the set."""
    low, high = 0.0, x.norm**2 / n
    least, most = extremes(x)
    widest = (most - least) / 2 if centred else max(abs(least), abs(most))
    high = min(high, widest**2)
    if not centred:
        low = max(least, -most, 0.0) ** 2
    if is_local(x):
        groups = rows(np.asarray(x.center, float))
        deviations = np.sqrt(groups.var(axis=1) if centred else np.mean(np.square(groups), axis=1))
        moved = x.distance / sqrt(n)
        # rounding: of the mean of n entries beside their size
        slack = 1e-13 * float(np.max(np.abs(groups)))
        low = max(low, max(float(deviations.min()) - moved - slack, 0.0) ** 2)
        high = min(high, (float(deviations.max()) + moved + slack) ** 2)
    return low, high


def normalised(x: Reach, rows: Callable[[Floats], Floats], n: int, eps: float, centred: bool) -> Normalised:
    """Give the constants of c on what x reaches, in groups of n entries, which `rows` shows as the rows of a matrix.

        l = 1 / sqrt(eps + v),  L = .8587 / (sqrt(n) eps)  or less (`bend`),  ||c|| <= sqrt(size v / (v + eps))

    v the least and the largest variance that the set allows; |c_i| <= sqrt(n - 1), without a mean taken off sqrt(n).

    Source: derived, docs/theory/bounds_constants.md.
    """
    count = x.size // n if n else 0
    free = n - 1 if centred else n
    if count == 0 or free == 0:
        return Normalised(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, count, n)
    if eps < 0:
        return Normalised(inf, inf, inf, inf, 0.0, inf, count, n)
    low, high = _variances(x, rows, n, centred)
    line = free == 1
    least = eps + low
    steepest = inf if least == 0 else (1 / sqrt(least) if not line else (eps / least) / sqrt(least))
    curved = bend(low, high, eps, line) / sqrt(n)
    peak = sqrt(free * _share(high, eps))
    if centred:
        a, b = extremes(x)
        peak = min(peak, inf if eps == 0 or b - a == inf else (b - a) * (n - 1) / n / sqrt(eps))
    total = sqrt(x.size * _share(x.norm**2 / x.size, eps))
    total = min(total, sqrt(x.size * _share(high, eps)))
    return Normalised(steepest, curved, total, peak, low, high, count, n)


def _matrix(axes: tuple[int, ...]) -> Callable[[Floats], Floats]:
    """Show an array as a matrix whose rows run along axes."""

    def rows(a: Floats) -> Floats:
        kept = [d for d in range(a.ndim) if d not in axes]
        n = prod(a.shape[d] for d in axes)
        return np.transpose(a, (*kept, *axes)).reshape(-1, n)

    return rows


def _eps(call: Called) -> float:
    """Read eps; where the framework takes that of the format, it is that of double precision or more."""
    return call.number("eps", 2.0**-52)


def _affine(call: Called, c: Normalised, eps: float, shape: Shape, centred: bool, groups: int) -> Local:
    """Give the constants of w c + b: w and b, of a shape that spreads over x, have each entry in some groups.

    l_x = |w| l_c,   l_w = norm of the entries of c that one weight meets,   L_xw = l_c,   L_xx = |w| L_c
    """
    weight, bias = operand(call, "weight", 1), operand(call, "bias", 2)
    at_weight, at_bias = place(call, "weight", 1), place(call, "bias", 2)
    x = call.x
    gain = 1.0 if weight is None else max(map(abs, extremes(weight)))
    lipschitz = [0.0] * len(call.operands)
    lipschitz[0] = float(times(gain, c.lipschitz))
    smoothness = {(0, 0): float(times(gain, c.smoothness))}
    low, high = (np.asarray(v) for v in (-gain * c.peak, gain * c.peak))
    norm = gain * c.norm
    if weight is not None and at_weight is not None:
        met = copies(weight.shape, x.shape) // max(groups, 1)
        lipschitz[at_weight] = c.part(met, groups, x.norm, eps, centred) if c.peak else 0.0
        smoothness[0, at_weight] = c.lipschitz
        low, high = _by_weights(weight, c.peak, shape)
        norm = min(norm, lipschitz[at_weight] * weight.norm)
    if bias is not None and at_bias is not None:
        lipschitz[at_bias] = sqrt(copies(bias.shape, x.shape))
        norm += lipschitz[at_bias] * bias.norm
        least, most = (np.broadcast_to(v, bias.shape) if v.ndim else v for v in bias.interval)
        low = low + (least.reshape(shape) if least.ndim else least)
        high = high + (most.reshape(shape) if most.ndim else most)
    why = _PLAIN if c.lipschitz == inf or c.smoothness == inf else ""
    return Local(lipschitz, smoothness, norm, low, high, why=why)


def _by_weights(weight: Reach, peak: float, shape: Shape) -> tuple[Floats, Floats]:
    """Give the interval of w c for each weight, spread as the weights are."""
    sizes = np.maximum(*np.abs(weight.interval))
    if sizes.ndim:
        sizes = np.broadcast_to(sizes, weight.shape).reshape(shape)
    return -sizes * peak, sizes * peak


def _moments(call: Called, c: Normalised, eps: float) -> list[Local]:
    """Give the constants of the means and of 1 / sqrt(eps + v), where they are results.

    The latter has l = 2 / (3 sqrt(3) sqrt(n) eps), L = 1 / (n eps^(3/2)) and is at most 1 / sqrt(eps + v).
    """
    rest = [0.0] * (len(call.operands) - 1)
    scale = sqrt(max(c.n, 1))
    low, high = extremes(call.x)
    mean = Local([1 / scale, *rest], norm=call.x.norm / scale, low=low, high=high)
    top = inf if eps + c.low <= 0 else 1 / sqrt(eps + c.low)
    slope, curved = (0.3849002 / (scale * eps), eps**-1.5 / scale**2) if eps > 0 else (inf, inf)
    if top < inf:
        slope, curved = min(slope, top**2 / scale), min(curved, 2 * top**3 / scale**2)
    why = _PLAIN if slope == inf else ""
    return [mean, Local([slope, *rest], {(0, 0): curved}, sqrt(max(c.count, 1)) * top, 0.0, top, why=why)]


def _channels(call: Called) -> Shape:
    """Give the shape of one number for each channel."""
    return (call.x.shape[1], *(1 for _ in call.x.shape[2:]))


def _results(call: Called, local: Local, c: Normalised, eps: float) -> Local | list[Local]:
    """Add the moments where they are results."""
    return [local, *_moments(call, c, eps)][: len(call.results)] if len(call.results) > 1 else local


# --- the operations ---------------------------------------------------------------------------------------------------


@bound_operation("layer_norm")
def layer_norm(call: Called) -> Local | list[Local]:
    """Constants of w (u - mean) / sqrt(eps + variance) + b over the last axes, n entries a group, g groups.

        l_x = |w| / sqrt(eps + v),  l_w = sqrt(g (n - 1)),  l_b = sqrt(g),  L_xx = .8587 |w| / (sqrt(n) eps),  L_xw = l_c

    Those of x and b are attained; l_w, too, in the limit of large x, for groups that stand apart. L_xw is an upper bound, at
    most sqrt(n / (n - 1)) too large.

    Source: derived, docs/theory/bounds_constants.md.
    """
    axes, eps = tuple(call.attributes["axes"]), _eps(call)
    n = prod(call.x.shape[a] for a in axes)
    c = normalised(call.x, _matrix(axes), n, eps, True)
    local = _affine(call, c, eps, call.x.shape[len(call.x.shape) - len(axes) :], True, c.count)
    return _results(call, local, c, eps)


@bound_operation("rms_norm")
def rms_norm(call: Called) -> Local:
    """Constants of w u / sqrt(eps + mean u^2): those of the layer norm without a mean, l_w = sqrt(g n) and |c_i| <= sqrt(n).

        l_x = |w| / sqrt(eps + v),   L_xx = .8587 |w| / (sqrt(n) eps),   L_xw = l_c

    All are attained.

    Source: derived, docs/theory/bounds_constants.md.
    """
    axes, eps = tuple(call.attributes["axes"]), _eps(call)
    n = prod(call.x.shape[a] for a in axes)
    c = normalised(call.x, _matrix(axes), n, eps, False)
    return _affine(call, c, eps, call.x.shape[len(call.x.shape) - len(axes) :], False, c.count)


@bound_operation("normalisation")
def normalisation(call: Called) -> Local:
    """Constants of w (u - mean) / sqrt(eps + variance) along any axes, or of w u / sqrt(eps + mean square), written out.

    w spreads over u, and meets `met` groups: l_w = sqrt(met (n - 1)), or sqrt(met n) where it meets more entries of each.

    Source: derived, docs/theory/bounds_constants.md.
    """
    axes, eps, centred = tuple(call.attributes["axes"]), _eps(call), bool(call.attributes["centred"])
    n = prod(call.x.shape[a] for a in axes)
    c = normalised(call.x, _matrix(axes), n, eps, centred)
    shape = call.operands[1].shape if len(call.operands) > 1 else ()
    return _affine(call, c, eps, shape, centred, int(call.attributes.get("met", 1)))


@bound_operation("group_norm")
def group_norm(call: Called) -> Local | list[Local]:
    """Constants of the layer norm of groups of channels of each image, weights and biases by channels.

        l_w = sqrt(images n)  (n - 1 where a channel is one entry),   l_b = sqrt(entries of a channel)

    Source: derived, docs/theory/bounds_constants.md.
    """
    x, eps = call.x, _eps(call)
    groups = int(call.attributes.get("group", call.attributes.get("num_groups", 1)))
    n = x.size // max(x.shape[0] * groups, 1)
    c = normalised(x, lambda a: a.reshape(-1, n), n, eps, True)
    return _results(call, _affine(call, c, eps, _channels(call), True, x.shape[0]), c, eps)


@bound_operation("instance_norm")
def instance_norm(call: Called) -> Local:
    """Constants of the layer norm of every channel of every image; with given moments, of the batch norm.

    Source: derived, docs/theory/bounds_constants.md.
    """
    if not call.attributes.get("use_input_stats", True):
        return _by_given_moments(call)
    x, eps = call.x, _eps(call)
    n = prod(x.shape[2:])
    c = normalised(x, lambda a: a.reshape(-1, n), n, eps, True)
    return _affine(call, c, eps, _channels(call), True, x.shape[0])


@bound_operation("batch_norm")
def batch_norm(call: Called) -> Local | list[Local]:
    """Constants of w (u - mean) / sqrt(eps + variance) + b by channels, over the batch and all positions: n entries.

        l_x = |w| / sqrt(eps + v),  l_w = l_b = sqrt(n),  L_xx = .8587 |w| / (sqrt(n) eps),  L_xw = l_c,  ||c|| <= sqrt(n d)

    In evaluation it is affine in u: l_x = max |w_k| / sqrt(eps + v_k). All are attained. With eps = 0 and variances that
    may vanish on the set l_x is infinite.

    Source: derived, docs/theory/bounds_constants.md (RouletHarchaoui2019 prints d n, 2 / sqrt(eps), 2 / (sqrt(n) eps)).
    """
    x = call.x
    if not call.attributes.get("training", True) and operand(call, "running_mean") is not None:
        local = _by_given_moments(call)
        empty = Local([0.0] * len(call.operands), norm=0.0, low=0.0, high=0.0)
        return [local, *[empty] * (len(call.results) - 1)] if len(call.results) > 1 else local
    eps, axes = _eps(call), tuple(a for a in range(len(x.shape)) if a != 1)
    n = x.size // max(x.shape[1], 1)
    c = normalised(x, _matrix(axes), n, eps, True)
    return _results(call, _affine(call, c, eps, _channels(call), True, 1), c, eps)


def _by_given_moments(call: Called) -> Local:
    """Give the constants of w (u - mean) / sqrt(eps + variance) + b with moments that are given."""
    x, shape, eps = call.x, _channels(call), _eps(call)
    mean, variance = operand(call, "running_mean"), operand(call, "running_var")
    weight, bias = operand(call, "weight"), operand(call, "bias")
    assert mean is not None and variance is not None

    def spread(v: Floats) -> Floats:
        return v.reshape(-1) if v.ndim else v

    least = eps + np.maximum(spread(variance.interval[0]), 0.0)
    with np.errstate(divide="ignore"):
        inverse = 1 / np.sqrt(least)
    gains = np.array(1.0) if weight is None else spread(np.maximum(*np.abs(weight.interval)))
    each = times(gains, inverse)
    n, channels = x.size // max(x.shape[1], 1), x.shape[1]
    low, high, far = _centred(x, mean, spread, n, channels)
    if x.size == 0:
        return Local([0.0] * len(call.operands), norm=0.0, low=0.0, high=0.0)
    steepest = float(np.max(each))
    lipschitz = [0.0] * len(call.operands)
    lipschitz[0] = steepest
    smoothness = {}
    ends = [times(e, g) for e in (low, high) for g in (-each, each)]
    if weight is None:
        ends = [times(low, inverse), times(high, inverse)]
    bottom, top = np.minimum.reduce(np.broadcast_arrays(*ends)), np.maximum.reduce(np.broadcast_arrays(*ends))
    norm = float(times(steepest, float(np.linalg.norm(np.broadcast_to(far, channels)))))
    norm = min(norm, float(times(steepest, x.norm + sqrt(n) * mean.norm)))
    at = place(call, "weight")
    if weight is not None and at is not None:
        lipschitz[at] = float(np.max(times(inverse, far)))
        smoothness[0, at] = float(np.max(inverse))
    at = place(call, "bias")
    if bias is not None and at is not None:
        lipschitz[at] = sqrt(n)
        norm += sqrt(n) * bias.norm
        bottom, top = bottom + spread(bias.interval[0]), top + spread(bias.interval[1])
    if bottom.ndim and bottom.size == channels:
        bottom, top = bottom.reshape(shape), top.reshape(shape)
    why = _PLAIN if steepest == inf else ""
    for name in ("running_mean", "running_var"):
        at = place(call, name)
        if at is not None and call.operands[at].moves:
            lipschitz[at], why = inf, "its running moments depend on the point"
    return Local(lipschitz, smoothness, norm, bottom, top, why=why)


def _centred(
    x: Reach, mean: Reach, spread: Callable[[Floats], Floats], n: int, channels: int
) -> tuple[Floats, Floats, Floats]:
    """Bound u - mean by channels: the interval of its entries, and its norm."""
    least, most = extremes(x)
    bottom, top = (spread(v) for v in mean.interval)
    low, high = least - top, most - bottom
    sizes = np.maximum(np.abs(low), np.abs(high))
    far = np.minimum(sqrt(n) * sizes, x.norm + sqrt(n) * np.maximum(np.abs(bottom), np.abs(top)))
    if is_local(x) and mean.center is not None and not mean.moves and channels:
        centred = np.asarray(x.center, float) - np.asarray(mean.center, float).reshape(-1, *(1,) * (len(x.shape) - 2))
        axes = tuple(a for a in range(centred.ndim) if a != 1)
        far = np.minimum(far, np.sqrt(np.square(centred).sum(axes)) + x.distance + sqrt(n) * mean.distance)
    return np.asarray(low), np.asarray(high), np.asarray(far)


# --- weights by their norm --------------------------------------------------------------------------------------------


@bound_operation("weight_norm")
def weight_norm(call: Called) -> Local | list[Local]:
    """Constants of g v / |v|, row by row, with |v| >= r on the set.

        l_g = 1,  l_v = |g| / r,  L_gv = 1 / r,  L_vv = 2 |g| / (sqrt(3) r^2);  the second result, |v|, has l_v = 1, L_vv = 1/r

    Attained where all rows have the norm r. Where r = 0 it is not Lipschitz.

    Source: derived, docs/theory/bounds_constants.md.
    """
    v, g = call.operands[:2]
    kept = int(call.attributes.get("dim", 0))
    axes = tuple(a for a in range(len(v.shape)) if kept == -1 or a != kept % max(len(v.shape), 1))
    n = prod(v.shape[a] for a in axes)
    r = 0.0
    if is_local(v):
        rows = np.sqrt(np.square(np.asarray(v.center, float)).sum(axes))
        r = max(float(np.min(rows)) - v.distance, 0.0) * (1 - 1e-14)
    least, most = extremes(g)
    gain = max(abs(least), abs(most))
    slope = (0.0 if n == 1 else 1 / r) if r > 0 else inf
    curved = (0.0 if n == 1 else 2 / (sqrt(3) * r * r)) if r > 0 else inf
    why = "" if r > 0 else "a row of the direction may be 0"
    rest = [0.0] * (len(call.operands) - 2)
    smoothness = {(0, 0): float(times(gain, curved)), (0, 1): slope}
    local = Local([float(times(gain, slope)), 1.0, *rest], smoothness, g.norm, -gain, gain, why=why)
    if len(call.results) < 2:
        return local
    length = Local([1.0, 0.0, *rest], {(0, 0): slope}, v.norm, r, v.norm, why=why)
    return [local, length]
