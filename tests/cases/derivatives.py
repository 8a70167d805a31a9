"""Derivatives at kinks in closed form, and programs that have none: the tables of a long file.

`CLOSED`: F, x, F'(x; .) as a formula, and all limits of gradients at x. `CONES`: F with F(x + t v) = F(x) + t G(v), t >= 0, so
that F'(x; .) = G and the limits of gradients are the gradients of G, as torch computes them away from kinks. `REFUSED`:
programs that leave the theory, with the word of the rule they break.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

Function = Callable[[torch.Tensor], torch.Tensor]
Vector = tuple[float, ...]
Limits = Sequence[Vector] | Callable[[torch.Tensor], bool]

DTYPE = torch.float64


class Closed(NamedTuple):
    """F, the point, F'(x; v) as a function of v, and the limits of gradients: all of them, or how they are told."""

    f: Function
    x: Vector
    along: Function
    limits: Limits


class Coned(NamedTuple):
    """F, the point, and G with F(x + t v) = F(x) + t G(v) for small t >= 0; None for F itself, homogeneous, at 0."""

    f: Function
    x: torch.Tensor
    cone: Function | None = None


class Refused(NamedTuple):
    """F, the point, the rule that it breaks, and whether F'(x; v) along (1, 1) is refused as well."""

    f: Function
    x: Vector
    rule: str
    no_slope: bool = True


def constant(*numbers: float) -> torch.Tensor:
    """Give a vector of double precision."""
    return torch.tensor(numbers, dtype=DTYPE)


# --- one variable -----------------------------------------------------------------------------------------------------


def two_slopes(f: Function, t: float, right: float, left: float) -> Closed:
    """F of one variable with the slopes right and left of t."""
    limits = ((right,),) if right == left else ((right,), (left,))
    return Closed(lambda x: f(x[0]), (t,), lambda v: right * torch.relu(v[0]) - left * torch.relu(-v[0]), limits)


def relu2(t: torch.Tensor) -> torch.Tensor:
    return torch.relu(-t) + t


def my_relu(t: torch.Tensor) -> torch.Tensor:
    if t <= 0:
        return 0 * t
    return t


def absolute_by_chain(t: torch.Tensor) -> torch.Tensor:
    if t < 0:
        return -t
    elif t > 0:
        return t
    return t * 0


def relu_under_no_grad(t: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        positive = t > 0
    return torch.where(positive, t, torch.zeros_like(t))


def written(t: torch.Tensor) -> torch.Tensor:
    y = t * 2
    y.relu_()
    return y - t.abs()


def written_entries(t: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(3, dtype=t.dtype)
    out[0] = torch.relu(t)
    out[1] = out[0] - torch.relu(-t)
    out[2:] = out[1] * 2
    return out[2] + out[1]


def written_through_a_view(t: torch.Tensor) -> torch.Tensor:
    y = torch.stack([t, -t])
    view = y[1:]
    view.clamp_(min=0)
    return y[0] + 3 * y[1]


def loop(t: torch.Tensor) -> torch.Tensor:
    y, n = t + 1, 0
    while y <= 1 and n < 1:
        y, n = y + t, n + 1
    return y


MINUS_ONE = torch.tensor(-1.0)
SCALE, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

CLOSED: dict[str, Closed] = {
    # smooth functions written with kinks
    "identity": two_slopes(lambda t: torch.relu(t) - torch.relu(-t), 0, 1, 1),
    "zero": two_slopes(lambda t: torch.relu(t) - relu2(t), 0, 0, 0),
    "zero by absolute values": two_slopes(lambda t: t.abs() - (-t).abs(), 0, 0, 0),
    "identity by max and min": two_slopes(lambda t: t.clamp(min=0) + t.clamp(max=0), 0, 1, 1),
    "one third": two_slopes(lambda t: torch.relu(-t) - torch.relu(t) + t + 1 / 3, 0, 0, 0),
    "sine outside": two_slopes(lambda t: 2 * relu2(torch.sin(t)) - torch.sin(t).abs(), 0, 1, 1),
    "sine inside": two_slopes(lambda t: torch.sin(torch.relu(t) - torch.relu(-t)), 0, 1, 1),
    "softplus, relu": two_slopes(lambda t: torch.relu(t) + torch.log1p(torch.exp(-t.abs())), 0, 0.5, 0.5),
    "softplus, maximum": two_slopes(
        lambda t: torch.maximum(t, torch.zeros_like(t)) + torch.log1p(torch.exp(-torch.abs(t))), 0, 0.5, 0.5
    ),
    "cross entropy of logits": two_slopes(
        lambda t: t.clamp(min=0) - t * 0.3 + torch.log1p(torch.exp(-t.abs())), 0, 0.2, 0.2
    ),
    "log sum exp by hand": two_slopes(
        lambda t: (m := torch.stack([t, -t]).max()) + torch.log(torch.exp(t - m) + torch.exp(-t - m)), 0, 0, 0
    ),
    "square of a relu": two_slopes(lambda t: torch.relu(t) ** 2, 0, 0, 0),
    "relu of a square": two_slopes(lambda t: torch.relu(t * t), 0, 0, 0),
    # switches
    "relu": two_slopes(torch.relu, 0, 1, 0),
    "relu, otherwise": two_slopes(relu2, 0, 1, 0),
    "relu, a mean of two": two_slopes(lambda t: (torch.relu(t) + relu2(t)) / 2, 0, 1, 0),
    "relu of relu": two_slopes(lambda t: torch.relu(torch.relu(t)), 0, 1, 0),
    "abs": two_slopes(torch.abs, 0, 1, -1),
    "abs of abs and t": two_slopes(lambda t: torch.abs(t.abs() + t), 0, 2, 0),
    "leaky relu": two_slopes(lambda t: F.leaky_relu(t, 0.1), 0, 1, 0.1),
    "relu6": two_slopes(F.relu6, 6, 0, 1),
    "hardtanh": two_slopes(F.hardtanh, -1, 1, 0),
    "hardsigmoid": two_slopes(F.hardsigmoid, 3, 0, 1 / 6),
    "hardswish right": two_slopes(F.hardswish, 3, 1, 1.5),
    "hardswish left": two_slopes(F.hardswish, -3, -0.5, 0),
    "softshrink": two_slopes(F.softshrink, 0.5, 1, 0),
    "threshold": two_slopes(lambda t: F.threshold(t, 1.0, 1.0), 1, 1, 0),
    "elu": two_slopes(lambda t: F.elu(t, 2.0), 0, 1, 2),
    "celu": two_slopes(lambda t: F.celu(t, 2.0), 0, 1, 1),
    "selu": two_slopes(F.selu, 0, SCALE, SCALE * ALPHA),
    "softsign": two_slopes(F.softsign, 0, 1, 1),
    "l1 loss": two_slopes(lambda t: F.l1_loss(t, torch.zeros_like(t)), 0, 1, -1),
    "smooth l1, beta 0": two_slopes(lambda t: F.smooth_l1_loss(t, torch.zeros_like(t), beta=0.0), 0, 1, -1),
    "smooth l1": two_slopes(lambda t: F.smooth_l1_loss(t, torch.zeros_like(t)), 1, 1, 1),
    "hinge": two_slopes(lambda t: F.hinge_embedding_loss(t, MINUS_ONE), 1, 0, -1),
    "ranking": two_slopes(lambda t: F.margin_ranking_loss(t, t * 0, -MINUS_ONE), 0, 0, -1),
    "clamp at both bounds": two_slopes(lambda t: t.clamp(0, 0) + t, 0, 1, 1),
    "maximum with itself": two_slopes(lambda t: torch.maximum(t, t), 0, 1, 1),
    "fmin": two_slopes(lambda t: torch.fmin(t, 3 * t), 0, 1, 3),
    "where": two_slopes(lambda t: torch.where(t > 0, t, 3 * t), 0, 1, 3),
    "where, both sides": two_slopes(lambda t: torch.where((t < 0) | (t > 2), -t, t), 0, 1, -1),
    "masked fill": two_slopes(lambda t: (2 * t).masked_fill(t < 0, 0.0), 0, 2, 0),
    "mask without gradient": two_slopes(relu_under_no_grad, 0, 1, 0),
    # Python's branches
    "my relu": two_slopes(my_relu, 0, 1, 0),
    "chain of branches": two_slopes(absolute_by_chain, 0, 1, -1),
    "conditional expression": two_slopes(lambda t: t * 2 if t >= 0 else t * 5, 0, 2, 5),
    "max of Python": two_slopes(lambda t: max(t, 2 * t), 0, 2, 1),
    "abs of Python": two_slopes(lambda t: max([t, -t, t * 0]), 0, 1, -1),
    "while": two_slopes(loop, 0, 1, 2),
    # in place
    "relu in place": two_slopes(written, 0, 1, 1),
    "entries written": two_slopes(written_entries, 0, 3, 3),
    "written through a view": two_slopes(written_through_a_view, 0, 1, -2),
}
"""The first of the table: functions of one variable."""

# --- several variables ------------------------------------------------------------------------------------------------

PAIR, TRIPLE = (0.0, 0.0), (0.0, 0.0, 0.0)
BASIS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
WEIGHTS = constant(1, 2, 4)
SHUFFLED = ((1.0, 2.0, 4.0), (1.0, 4.0, 2.0), (2.0, 1.0, 4.0), (2.0, 4.0, 1.0), (4.0, 1.0, 2.0), (4.0, 2.0, 1.0))
SIGNS = tuple((a, b) for a in (1.0, -1.0) for b in (1.0, -1.0))


def on_sphere(g: torch.Tensor) -> bool:
    return abs(float(g.norm()) - 1) < 1e-12


def smallest_by_sorted(x: torch.Tensor) -> torch.Tensor:
    return sorted(x)[0] * 1


def entry_of_argmax(x: torch.Tensor) -> torch.Tensor:
    return x[int(x.argmax())] * 2


CLOSED |= {
    "maximum": Closed(
        lambda x: torch.maximum(x[0], x[1]), (1.0, 1.0), lambda v: max(v[0], v[1]), ((1.0, 0.0), (0.0, 1.0))
    ),
    "max": Closed(lambda x: x.max(), (2.0, 2.0, 2.0), lambda v: v.max(), BASIS),
    "max of two of three": Closed(lambda x: x.amax(), (2.0, 1.0, 2.0), lambda v: v[[0, 2]].max(), (BASIS[0], BASIS[2])),
    "min along an axis": Closed(lambda x: x[None].min(1).values.sum(), TRIPLE, lambda v: v.min(), BASIS),
    "sum of absolute values": Closed(lambda x: x.abs().sum(), PAIR, lambda v: v.abs().sum(), SIGNS),
    "Khan and Barton": Closed(
        lambda x: torch.maximum(torch.minimum(x[0], -x[1]), x[1] - x[0]),
        PAIR,
        lambda v: torch.maximum(torch.minimum(v[0], -v[1]), v[1] - v[0]),
        ((1.0, 0.0), (0.0, -1.0), (-1.0, 1.0)),
    ),
    "sort": Closed(
        lambda x: x.sort().values @ WEIGHTS.to(x.dtype), TRIPLE, lambda v: v.sort().values @ WEIGHTS, SHUFFLED
    ),
    "sort downwards": Closed(
        lambda x: x.sort(descending=True).values @ WEIGHTS.to(x.dtype),
        TRIPLE,
        lambda v: v.sort(descending=True).values @ WEIGHTS,
        SHUFFLED,
    ),
    "sort, two tied": Closed(
        lambda x: x.sort().values @ WEIGHTS.to(x.dtype),
        (1.0, 0.0, 1.0),
        lambda v: v[1] + 2 * v[[0, 2]].min() + 4 * v[[0, 2]].max(),
        ((2.0, 1.0, 4.0), (4.0, 1.0, 2.0)),
    ),
    "sum of a sort": Closed(lambda x: x.sort().values.sum(), TRIPLE, lambda v: v.sum(), ((1.0, 1.0, 1.0),)),
    "top 2": Closed(
        lambda x: x.topk(2).values.sum(),
        TRIPLE,
        lambda v: v.topk(2).values.sum(),
        ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0)),
    ),
    "median": Closed(lambda x: x.median(), TRIPLE, lambda v: v.median(), BASIS),
    "second smallest": Closed(lambda x: x.kthvalue(2).values, TRIPLE, lambda v: v.kthvalue(2).values, BASIS),
    "quantile": Closed(
        lambda x: x.quantile(0.25),
        TRIPLE,
        lambda v: v.quantile(0.25),
        ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)),
    ),
    "top 2 by an `if`": Closed(
        lambda x: x[0] if x[0] >= x[1] else x[1], PAIR, lambda v: v.max(), ((1.0, 0.0), (0.0, 1.0))
    ),
    "sorted of Python": Closed(smallest_by_sorted, TRIPLE, lambda v: v.min(), BASIS),
    "max of a list": Closed(
        lambda x: max([x[0], 2 * x[1], x[2]]) * 1,
        TRIPLE,
        lambda v: max(v[0], 2 * v[1], v[2]),
        (BASIS[0], (0.0, 2.0, 0.0), BASIS[2]),
    ),
    "index of the largest": Closed(
        entry_of_argmax, TRIPLE, lambda v: 2 * v.max(), ((2.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 2.0))
    ),
    "2-norm": Closed(torch.linalg.vector_norm, TRIPLE, lambda v: v.norm(), on_sphere),
    "1-norm": Closed(
        lambda x: torch.linalg.vector_norm(x, 1),
        PAIR,
        lambda v: v.abs().sum(),
        SIGNS,
    ),
    "inf-norm": Closed(
        lambda x: torch.linalg.vector_norm(x, math.inf),
        PAIR,
        lambda v: v.abs().max(),
        ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)),
    ),
    "3-norm": Closed(
        lambda x: torch.linalg.vector_norm(x, 3),
        PAIR,
        lambda v: (v.abs() ** 3).sum() ** (1 / 3),
        lambda g: abs(float((g.abs() ** 1.5).sum()) - 1) < 1e-12,
    ),
    "hypot": Closed(lambda x: torch.hypot(x[0], x[1]), PAIR, lambda v: v.norm(), on_sphere),
    "standard deviation": Closed(
        lambda x: x.std(),
        (2.0, 2.0, 2.0),
        lambda v: v.std(),
        lambda g: abs(float(g.norm() ** 2) - 0.5) < 1e-12 and abs(float(g.sum())) < 1e-12,
    ),
    "norm of a norm": Closed(
        lambda x: torch.linalg.vector_norm(x) - x.abs().sum() * 0 + x[0],
        PAIR,
        lambda v: v.norm() + v[0],
        lambda g: abs(float((g - constant(1, 0)).norm()) - 1) < 1e-12,
    ),
    "square of a norm": Closed(lambda x: torch.linalg.vector_norm(x) ** 2, PAIR, lambda v: 0 * v.sum(), (PAIR,)),
    "largest eigenvalue": Closed(
        lambda x: torch.linalg.eigvalsh(torch.stack([x[0], x[1], x[1], x[2]]).reshape(2, 2))[1],
        TRIPLE,
        lambda v: (v[0] + v[2]) / 2 + torch.hypot((v[0] - v[2]) / 2, v[1]),
        # u u' with u = (cos a, sin a): (cos^2 a, 2 sin a cos a, sin^2 a)
        lambda g: abs(float(g[0] + g[2]) - 1) < 1e-12 and abs(float(g[1] ** 2 - 4 * g[0] * g[2])) < 1e-12,
    ),
    "sum of eigenvalues": Closed(
        lambda x: torch.linalg.eigvalsh(torch.stack([x[0], x[1], x[1], x[2]]).reshape(2, 2)).sum(),
        (1.0, 0.0, 1.0),
        lambda v: v[0] + v[2],
        ((1.0, 0.0, 1.0),),
    ),
    "nuclear norm of a vector": Closed(
        lambda x: torch.linalg.svdvals(x[None]).sum(), PAIR, lambda v: v.norm(), on_sphere
    ),
    "cusp": Closed(  # a limit of gradients from inside the cusp, (0, 1), is seen along no straight direction
        lambda x: torch.relu(x[1]) - torch.relu(x[1] - x[0] ** 2), PAIR, lambda v: 0 * v.sum(), (PAIR,)
    ),
}
"""Then those of several variables; the limits are those that straight directions see."""

# --- functions that are homogeneous about a point ----------------------------------------------------------------------


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw a constant."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


A, B, C = draw(8, 4), draw(8, 8, seed=1), draw(5, 8, seed=2)


def weigh(y: torch.Tensor) -> torch.Tensor:
    """Read all entries with different weights."""
    return (y * torch.linspace(1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


def through(read: Function) -> Function:
    """Read all entries of what a function returns."""
    return lambda x: weigh(read(x))


def pool(name: str, *args: Any, **kwargs: Any) -> Function:
    """Name a pooling."""
    return through(lambda x: getattr(F, name)(x, *args, **kwargs))


def group_sort(y: torch.Tensor) -> torch.Tensor:
    """Sort the entries in groups of two."""
    return y.reshape(-1, 2).sort(dim=1).values.reshape(-1)


def max_min(y: torch.Tensor) -> torch.Tensor:
    """Sort the entries in groups of two, by maximum and minimum."""
    a, b = y.chunk(2)
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b)])


def group_sort_network(x: torch.Tensor) -> torch.Tensor:
    return weigh(C.to(x.dtype) @ group_sort(B.to(x.dtype) @ group_sort(A.to(x.dtype) @ x)))


def max_min_network(x: torch.Tensor) -> torch.Tensor:
    return weigh(C.to(x.dtype) @ max_min(B.to(x.dtype) @ max_min(A.to(x.dtype) @ x)))


def relu_network(x: torch.Tensor) -> torch.Tensor:
    return weigh(C.to(x.dtype) @ torch.relu(B.to(x.dtype) @ torch.relu(A.to(x.dtype) @ x)))


def maxout_in_python(x: torch.Tensor) -> torch.Tensor:
    return sum(max(row @ x, -row @ x) for row in A.to(x.dtype)[:3]) + min(x)


def segments(x: torch.Tensor) -> torch.Tensor:
    index = torch.tensor([0, 1, 0, 1])
    return torch.full((2,), -1.0, dtype=x.dtype).scatter_reduce(0, index, x, "amax")


def farthest(x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, x.flip(0) * 2).amax(1) - torch.cdist(x, 3 * x.roll(1, 0)).topk(2, 1).values.sum(1)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=DTYPE)


CONES: dict[str, Coned] = {
    "sort": Coned(through(lambda x: x.sort(1).values), zeros(3, 4)),
    "sort in loss": Coned(lambda x: torch.exp(weigh(x.sort().values)), zeros(5), lambda v: weigh(v.sort().values)),
    "msort": Coned(through(lambda x: x.msort()), zeros(3, 4)),
    "top 3": Coned(through(lambda x: x.topk(3).values), zeros(6)),
    "top 3, any order": Coned(lambda x: x.topk(3, sorted=False).values.sum(), zeros(6)),
    "bottom 2": Coned(through(lambda x: x.topk(2, 1, largest=False).values), zeros(3, 4)),
    "top 2 in a loss": Coned(
        lambda x: torch.logsumexp(x.topk(2).values, 0), zeros(5), lambda v: v.topk(2).values.sum() / 2
    ),
    "median along": Coned(through(lambda x: x.median(1).values), zeros(3, 4)),
    "median in a loss": Coned(lambda x: torch.sin(x.median()), zeros(5), lambda v: v.median()),
    "nan median": Coned(through(lambda x: x.nanmedian(0).values), zeros(3, 4)),
    "kth value": Coned(through(lambda x: x.kthvalue(3, 1).values), zeros(3, 4)),
    "quantiles": Coned(through(lambda x: x.quantile(torch.tensor([0.1, 0.5, 0.8], dtype=x.dtype))), zeros(5)),
    "cumulative maximum": Coned(through(lambda x: x.cummax(1).values), zeros(3, 4)),
    "cumulative minimum": Coned(through(lambda x: x.cummin(0).values), zeros(3, 4)),
    "range": Coned(lambda x: x.aminmax().max - x.aminmax().min, zeros(5)),
    "segments": Coned(through(segments), zeros(4), through(lambda v: torch.maximum(v[:2], v[2:]))),
    "max pool 1d": Coned(pool("max_pool1d", 3, 2), zeros(2, 7)),
    "max pool 2d": Coned(pool("max_pool2d", 2), zeros(1, 2, 4, 4)),
    "max pool 2d, padded": Coned(pool("max_pool2d", 3, 2, 1), zeros(1, 1, 5, 5)),
    "max pool 2d, dilated": Coned(pool("max_pool2d", 2, 1, 0, 2), zeros(1, 1, 5, 5)),
    "max pool 2d, ceiled": Coned(pool("max_pool2d", 3, 2, 0, 1, True), zeros(1, 1, 6, 6)),
    "max pool 3d": Coned(pool("max_pool3d", 2, 1), zeros(1, 3, 3, 3)),
    "adaptive max pool 1d": Coned(pool("adaptive_max_pool1d", 3), zeros(2, 7)),
    "adaptive max pool 2d": Coned(pool("adaptive_max_pool2d", 2), zeros(1, 2, 5, 5)),
    "adaptive max pool 3d": Coned(pool("adaptive_max_pool3d", 2), zeros(1, 3, 3, 3)),
    "max pool of a relu": Coned(lambda x: weigh(F.max_pool2d(torch.relu(x), 2)), zeros(1, 1, 4, 4)),
    "max pool in a loss": Coned(
        lambda x: F.cross_entropy(F.max_pool1d(x, 2), torch.tensor([0])),
        zeros(1, 6),
        lambda v: F.max_pool1d(v, 2).mean() - F.max_pool1d(v, 2)[0, 0],
    ),
    "group sort network": Coned(group_sort_network, zeros(4)),
    "max-min network": Coned(max_min_network, zeros(4)),
    "relu network": Coned(relu_network, zeros(4)),
    "maxout in Python": Coned(maxout_in_python, zeros(4)),
    "2-norms of rows": Coned(through(lambda x: torch.linalg.vector_norm(x, dim=1)), zeros(3, 4)),
    "Frobenius norm": Coned(torch.linalg.matrix_norm, zeros(3, 4)),
    "norm, 1.5": Coned(through(lambda x: x.norm(1.5, dim=1)), zeros(3, 4)),
    "norm, inf": Coned(through(lambda x: torch.linalg.vector_norm(x, math.inf, dim=1)), zeros(3, 4)),
    "group lasso": Coned(lambda x: sum(g.norm() for g in x.split(2)) + x.abs().sum(), zeros(6)),
    "deviations": Coned(through(lambda x: x.std(1)), torch.ones(3, 4, dtype=DTYPE), through(lambda v: v.std(1))),
    "distances": Coned(through(lambda x: torch.cdist(x, x[:2] * 2)), zeros(3, 2)),
    "distances, p = 1": Coned(through(lambda x: torch.cdist(x, x[:2] * 2, p=1)), zeros(3, 2)),
    "distances of equal points": Coned(through(F.pdist), torch.ones(3, 2, dtype=DTYPE), through(F.pdist)),
    "distance": Coned(
        lambda x: torch.dist(x[0], x[1], 2), torch.ones(2, 3, dtype=DTYPE), lambda v: (v[0] - v[1]).norm()
    ),
    "hypotenuses": Coned(through(lambda x: torch.hypot(x, x.flip(0) * 2)), zeros(3, 4)),
    "farthest and nearest": Coned(through(farthest), zeros(4, 2)),
    "eigenvalues": Coned(through(lambda x: torch.linalg.eigvalsh(x + x.T)), zeros(3, 3)),
    "eigenvalues about 1": Coned(
        through(lambda x: torch.linalg.eigvalsh(x + x.T)),
        torch.eye(3, dtype=DTYPE),
        through(lambda v: torch.linalg.eigvalsh(v + v.T)),
    ),
    "singular values": Coned(through(torch.linalg.svdvals), zeros(2, 3)),
    "nuclear norm": Coned(lambda x: torch.linalg.matrix_norm(x, "nuc"), zeros(3, 3)),
    "spectral norm": Coned(lambda x: torch.linalg.matrix_norm(x, 2), zeros(3, 2)),
    "nuclear norm at rank 1": Coned(
        lambda x: torch.linalg.matrix_norm(x, "nuc"),
        torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=DTYPE),
        lambda v: v[0, 0] + v[1, 1].abs(),
    ),
}
"""Losses of order operations, norms and spectra."""

# --- programs that leave the theory ------------------------------------------------------------------------------------


class Clipped(torch.autograd.Function):
    """A user's own operation."""

    @staticmethod
    def forward(ctx: Any, t: torch.Tensor) -> torch.Tensor:
        return t.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g


def masked_by_number(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        mask = (x[0] > 0).to(x.dtype)  # here
    return mask * (x[0] + 1)


def cut_off(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        slope = x[0] * 2  # here
    return slope + x[0]


def straight_through(x: torch.Tensor) -> torch.Tensor:
    rounded = torch.round(x[0] + 0.25)
    return x[0] + (rounded - x[0]).detach()  # here


def jump_by_if(x: torch.Tensor) -> torch.Tensor:
    if x[0] > 0:  # here
        return x[0] + 1
    return x[0]


def branches_part(x: torch.Tensor) -> torch.Tensor:
    y = x[1] * 2
    if y > 0:  # here
        return x[0] + y
    return 2 * x[0] + y


def equal_by_if(x: torch.Tensor) -> torch.Tensor:
    if x[0] == 0:  # here
        return -x[0]
    return x[0]


def square_by_if(x: torch.Tensor) -> torch.Tensor:
    if x[0] * x[0] > 0:  # here
        return x[0]
    return 2 * x[0]


def escaped(x: torch.Tensor) -> torch.Tensor:
    slope = 1.0 if x[0].item() > 0 else 2.0  # here
    return x[0] * slope


def escaped_float(x: torch.Tensor) -> torch.Tensor:
    known = float(x[0].detach())  # here
    return x[0] + max(known, 0.0)


def escaped_list(x: torch.Tensor) -> torch.Tensor:
    known = x.tolist()  # here
    return x[0] * (3.0 if known[0] > 0 else 1.0)


def escaped_numpy(x: torch.Tensor) -> torch.Tensor:
    known = x.detach().numpy()  # here
    return x[0] + float(abs(known[0]))


def other_data_by_argmax(x: torch.Tensor) -> torch.Tensor:
    place = x.argmax()  # here
    return torch.stack([x[0], 2 * x[0]])[place]


def other_data_by_sort(x: torch.Tensor) -> torch.Tensor:
    order = x.sort().indices  # here
    return (x * 2 + 1)[order][0] + torch.stack([x[1], -x[1]])[order][1]


REFUSED: dict[str, Refused] = {
    "where: predicate without derivative": Refused(
        lambda x: torch.where(x[0] * x[0] > 0, x[0], 2 * x[0]), PAIR, "flat"
    ),
    "where: branches part nearby": Refused(lambda x: torch.where(x[1] > 0, x[0], 2 * x[0]), PAIR, "jump", False),
    "where: equality": Refused(lambda x: torch.where(x[0] == 0, -x[0], x[0]), PAIR, "equality", False),
    "where: jump": Refused(lambda x: torch.where(x[0] > 0, x[0] + 1, x[0]), PAIR, "jump"),
    "square root of an absolute value": Refused(lambda x: torch.sqrt(x[0].abs()) ** 2 - x[0].abs(), PAIR, "singular"),
    "square root": Refused(lambda x: torch.sqrt(torch.relu(x[0])), PAIR, "singular"),
    "power": Refused(lambda x: x[0].abs() ** 0.5, PAIR, "singular"),
    "sign": Refused(lambda x: torch.sign(x[0]) * (x[0] + 1), PAIR, "jump"),
    "asinh by sign and logarithm": Refused(
        lambda x: torch.sign(x[0]) * torch.log(x[0].abs() + torch.sqrt(x[0] * x[0] + 1)), PAIR, "jump"
    ),
    "floor": Refused(lambda x: torch.floor(x[0]) + x[1], PAIR, "jump"),
    "round": Refused(lambda x: torch.round(x[0]) * x[1], (0.5, 1.0), "jump"),
    "hardshrink": Refused(lambda x: F.hardshrink(x[0]), (0.5, 0.0), "jump"),
    "remainder": Refused(lambda x: torch.remainder(x[0], 1.0), (1.0, 0.0), "jump"),
    "comparison as a number": Refused(lambda x: (x[0] > 0) * (x[0] + 1), PAIR, "jump"),
    "mask without gradient": Refused(masked_by_number, PAIR, "jump"),
    "indices of ties": Refused(other_data_by_argmax, PAIR, "jump"),
    "indices of a sort": Refused(other_data_by_sort, PAIR, "jump"),
    "if: jump": Refused(jump_by_if, PAIR, "jump"),
    "if: branches part nearby": Refused(branches_part, PAIR, "jump", False),
    "if: equality": Refused(equal_by_if, PAIR, "equality", False),
    "if: predicate without derivative": Refused(square_by_if, PAIR, "flat"),
    "detach": Refused(lambda x: x[0] - x[0].detach() / 2, PAIR, "detached", False),
    "no grad": Refused(cut_off, PAIR, "detached", False),
    "straight through": Refused(straight_through, PAIR, "detached", False),
    "item": Refused(escaped, PAIR, "escaped"),
    "float": Refused(escaped_float, PAIR, "escaped"),
    "double where": Refused(  # harmless, and not seen to be
        lambda x: torch.where(x[0] > 0, torch.sqrt(torch.where(x[0] > 0, x[0], 1.0)) ** 2, 0.0), PAIR, "jump"
    ),
    "list": Refused(escaped_list, PAIR, "escaped"),
    "numpy": Refused(escaped_numpy, PAIR, "escaped"),
    "own backward": Refused(lambda x: Clipped.apply(x[0]) * 2, (1.0, 0.0), "opaque"),
}
"""Programs that no certificate may cover; in functions of several lines the line to be named ends in "here"."""


def here(f: Function) -> int:
    """Give the line that a refusal must name: the one that ends in "here", or that of a lambda."""
    lines, first = inspect.getsourcelines(f)
    marked = [first + k for k, line in enumerate(lines) if line.rstrip().endswith("# here")]
    return marked[0] if marked else f.__code__.co_firstlineno
