"""Derivatives at kinks in closed form, and programs that have none: the tables of a long file, for every framework.

A program is a function of `xp`, the adapter of a framework (tests/adapters.py), and of x; what is expected of it is written in
numpy. `CLOSED`: F, x, F'(x; .) as a formula, and all limits of gradients at x. `CONES`: F with F(x + t v) = F(x) + t G(v),
t >= 0, so that F'(x; .) = G and the limits of gradients are the gradients of G, as the framework computes them away from
kinks. `REFUSED`: programs that leave the theory, with the word of the rule they break.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.adapters import Adapter
from tests.cases.spelling import Array, Program, Spelled, jax_only, torch_only, words

Vector = tuple[float, ...]
Limits = Sequence[Vector] | Callable[[np.ndarray], bool]


class Closed(NamedTuple):
    """F, the point, F'(x; v) as a function of v, and the limits of gradients: all of them, or how they are told."""

    f: Program
    x: Vector
    along: Callable[[np.ndarray], float]
    limits: Limits


class Coned(NamedTuple):
    """F, the point, and G with F(x + t v) = F(x) + t G(v) for small t >= 0; None for F itself, homogeneous, at 0."""

    f: Program
    x: np.ndarray
    cone: Program | None = None


class Refused(NamedTuple):
    """F, the point, the rule that it breaks, and whether F'(x; v) along (1, 1) is refused as well."""

    f: Program
    x: Vector
    rule: str
    no_slope: bool = True


def largest(xp: Adapter, a: Array, b: Array) -> Array:
    """Give max(a, b) of Python where an `if` is a `cond`."""
    return xp.cond(b > a, lambda a, b: b, lambda a, b: a, a, b)


def least(xp: Adapter, a: Array, b: Array) -> Array:
    """Give min(a, b) of Python where an `if` is a `cond`."""
    return xp.cond(b < a, lambda a, b: b, lambda a, b: a, a, b)


# --- one variable -----------------------------------------------------------------------------------------------------


def two_slopes(f: Program, t: float, right: float, left: float) -> Closed:
    """F of one variable with the slopes right and left of t."""
    limits = ((right,),) if right == left else ((right,), (left,))
    return Closed(of_entry(f), (t,), lambda v: right * max(v[0], 0.0) - left * max(-v[0], 0.0), limits)


def of_entry(f: Program) -> Program:
    """Read the first entry of the point."""
    if isinstance(f, Spelled):
        return Spelled(of_entry(f.torch) if f.torch else None, of_entry(f.jax) if f.jax else None)
    return lambda xp, x: f(xp, x[0])


def relu(xp: Adapter, t: Array) -> Array:
    return xp.relu(t)


def relu2(xp: Adapter, t: Array) -> Array:
    return xp.relu(-t) + t


def my_relu(xp: Adapter, t: Array) -> Array:
    if t <= 0:
        return 0 * t
    return t


def my_relu_by_cond(xp: Adapter, t: Array) -> Array:
    return xp.cond(t <= 0, lambda t: 0 * t, lambda t: t, t)


def absolute_by_chain(xp: Adapter, t: Array) -> Array:
    if t < 0:
        return -t
    elif t > 0:
        return t
    return t * 0


def absolute_by_conds(xp: Adapter, t: Array) -> Array:
    return xp.cond(t < 0, lambda t: -t, lambda t: xp.cond(t > 0, lambda t: t, lambda t: t * 0, t), t)


def relu_under_no_grad(xp: Adapter, t: Array) -> Array:
    import torch

    with torch.no_grad():
        positive = t > 0
    return torch.where(positive, t, torch.zeros_like(t))


def relu_of_stopped(xp: Adapter, t: Array) -> Array:
    return xp.where(xp.stop_gradient(t) > 0, t, xp.zeros_like(t))


def written(xp: Adapter, t: Array) -> Array:
    y = t * 2
    y.relu_()
    return y - t.abs()


def written_entries(xp: Adapter, t: Array) -> Array:
    out = xp.same(np.zeros(3), t)
    out[0] = xp.relu(t)
    out[1] = out[0] - xp.relu(-t)
    out[2:] = out[1] * 2
    return out[2] + out[1]


def set_entries(xp: Adapter, t: Array) -> Array:
    out = xp.same(np.zeros(3), t).at[0].set(xp.relu(t))
    out = out.at[1].set(out[0] - xp.relu(-t))
    out = out.at[2:].set(out[1] * 2)
    return out[2] + out[1]


def written_through_a_view(xp: Adapter, t: Array) -> Array:
    y = xp.stack([t, -t])
    view = y[1:]
    view.clamp_(min=0)
    return y[0] + 3 * y[1]


def rooted_in_place(xp: Adapter, t: Array) -> Array:
    y = xp.floor(t)
    y.sqrt_()
    return y + t


def loop(xp: Adapter, t: Array) -> Array:
    y, n = t + 1, 0
    while y <= 1 and n < 1:
        y, n = y + t, n + 1
    return y


def while_loop(xp: Adapter, t: Array) -> Array:
    return xp.while_loop(lambda s: (s[0] <= 1) & (s[1] < 1), lambda s: (s[0] + t, s[1] + 1), (t + 1, 0))[0]


def in_torch(name: str, *args: Any, **kwargs: Any) -> Spelled:
    """Name a function of torch.nn.functional that JAX has not."""

    def f(xp: Adapter, x: Array) -> Array:
        import torch.nn.functional as F

        return getattr(F, name)(x, *args, **kwargs)

    return torch_only(f)


def in_torch_of(name: str, *others: Callable[[Array], Array], **kwargs: Any) -> Spelled:
    """Name a loss of torch.nn.functional, of t and others that are made of t."""

    def f(xp: Adapter, t: Array) -> Array:
        import torch.nn.functional as F

        return getattr(F, name)(t, *(other(t) for other in others), **kwargs)

    return torch_only(f)


def minus_one(t: Array) -> Array:
    return t.new_tensor(-1.0)


def whole(xp: Adapter, t: Array) -> Array:
    """Turn to whole numbers."""
    return t.long() if xp.name == "torch" else t.astype(int)


def mapped(f: Callable[[Adapter, Array], Array]) -> Spelled:
    """Name a function of JAX that is mapped over an axis."""

    def jax_alone(xp: Adapter, t: Array) -> Array:
        import jax

        return jax.vmap(lambda t: f(xp, t))(t[None]).sum()

    return jax_only(jax_alone)


def bent_by_cond(xp: Adapter, t: Array) -> Array:
    return xp.cond(t > 0, lambda t: 3 * t + t * t, lambda t: 2 * t, t)


def three_by_switch(xp: Adapter, t: Array) -> Array:
    from jax import lax

    branches = [lambda t: -t, lambda t: t * t, lambda t: 2 * t - 1]
    return lax.switch(whole(xp, t > 0) + whole(xp, t > 1), branches, t)


def interpolated(xp: Adapter, t: Array) -> Array:
    from jax import numpy as jnp

    return jnp.interp(t, jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 1.0, 4.0]))


def piecewise(xp: Adapter, t: Array) -> Array:
    from jax import numpy as jnp

    return jnp.piecewise(t, [t < 0, t >= 0], [lambda t: -t, lambda t: t * t])


def of_table(xp: Adapter, t: Array) -> Array:
    return xp.same(np.array([1.0, 5.0, 2.0, 7.0]), t)[whole(xp, xp.floor(t))] * t


def if_whole(xp: Adapter, t: Array) -> Array:
    if whole(xp, xp.floor(t)) == 2:
        return t * t - 2 * t
    return t / 2


def cond_whole(xp: Adapter, t: Array) -> Array:
    return xp.cond(whole(xp, xp.floor(t)) == 2, lambda t: t * t - 2 * t, lambda t: t / 2, t)


def if_number(xp: Adapter, t: Array) -> Array:
    if whole(xp, t > 0) == 1:
        return 3 * t
    return t


def cond_number(xp: Adapter, t: Array) -> Array:
    return xp.cond(whole(xp, t > 0) == 1, lambda t: 3 * t, lambda t: t, t)


SCALE, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

CLOSED: dict[str, Closed] = {
    # smooth functions written with kinks
    "identity": two_slopes(lambda xp, t: xp.relu(t) - xp.relu(-t), 0, 1, 1),
    "zero": two_slopes(lambda xp, t: xp.relu(t) - relu2(xp, t), 0, 0, 0),
    "zero by absolute values": two_slopes(lambda xp, t: xp.abs(t) - xp.abs(-t), 0, 0, 0),
    "identity by max and min": two_slopes(lambda xp, t: xp.clip(t, min=0) + xp.clip(t, max=0), 0, 1, 1),
    "one third": two_slopes(lambda xp, t: xp.relu(-t) - xp.relu(t) + t + 1 / 3, 0, 0, 0),
    "sine outside": two_slopes(lambda xp, t: 2 * relu2(xp, xp.sin(t)) - xp.abs(xp.sin(t)), 0, 1, 1),
    "sine inside": two_slopes(lambda xp, t: xp.sin(xp.relu(t) - xp.relu(-t)), 0, 1, 1),
    "softplus, relu": two_slopes(lambda xp, t: xp.relu(t) + xp.log1p(xp.exp(-xp.abs(t))), 0, 0.5, 0.5),
    "softplus, maximum": two_slopes(
        lambda xp, t: xp.maximum(t, xp.zeros_like(t)) + xp.log1p(xp.exp(-xp.abs(t))), 0, 0.5, 0.5
    ),
    "cross entropy of logits": two_slopes(
        lambda xp, t: xp.clip(t, min=0) - t * 0.3 + xp.log1p(xp.exp(-xp.abs(t))), 0, 0.2, 0.2
    ),
    "log sum exp by hand": two_slopes(
        lambda xp, t: (m := xp.max(xp.stack([t, -t]))) + xp.log(xp.exp(t - m) + xp.exp(-t - m)), 0, 0, 0
    ),
    "square of a relu": two_slopes(lambda xp, t: xp.relu(t) ** 2, 0, 0, 0),
    "relu of a square": two_slopes(lambda xp, t: xp.relu(t * t), 0, 0, 0),
    "asinh of both parts": two_slopes(lambda xp, t: xp.asinh(xp.relu(t)) - xp.asinh(xp.relu(-t)), 0, 1, 1),
    # switches
    "relu": two_slopes(relu, 0, 1, 0),
    "relu, otherwise": two_slopes(relu2, 0, 1, 0),
    "relu, a mean of two": two_slopes(lambda xp, t: (xp.relu(t) + relu2(xp, t)) / 2, 0, 1, 0),
    "relu of relu": two_slopes(lambda xp, t: xp.relu(xp.relu(t)), 0, 1, 0),
    "abs": two_slopes(lambda xp, t: xp.abs(t), 0, 1, -1),
    "abs of abs and t": two_slopes(lambda xp, t: xp.abs(xp.abs(t) + t), 0, 2, 0),
    "leaky relu": two_slopes(lambda xp, t: xp.leaky_relu(t, 0.1), 0, 1, 0.1),
    "relu6": two_slopes(lambda xp, t: xp.relu6(t), 6, 0, 1),
    "hardtanh": two_slopes(lambda xp, t: xp.hardtanh(t), -1, 1, 0),
    "hardsigmoid": two_slopes(lambda xp, t: xp.hardsigmoid(t), 3, 0, 1 / 6),
    "hardswish right": two_slopes(lambda xp, t: xp.hardswish(t), 3, 1, 1.5),
    "hardswish left": two_slopes(lambda xp, t: xp.hardswish(t), -3, -0.5, 0),
    "softshrink": two_slopes(in_torch("softshrink"), 0.5, 1, 0),
    "threshold": two_slopes(in_torch("threshold", 1.0, 1.0), 1, 1, 0),
    "elu": two_slopes(lambda xp, t: xp.elu(t, 2.0), 0, 1, 2),
    "celu": two_slopes(lambda xp, t: xp.celu(t, 2.0), 0, 1, 1),
    "selu": two_slopes(lambda xp, t: xp.selu(t), 0, SCALE, SCALE * ALPHA),
    "softsign": two_slopes(lambda xp, t: xp.softsign(t), 0, 1, 1),
    "l1 loss": two_slopes(in_torch_of("l1_loss", lambda t: t * 0), 0, 1, -1),
    "smooth l1, beta 0": two_slopes(in_torch_of("smooth_l1_loss", lambda t: t * 0, beta=0.0), 0, 1, -1),
    "smooth l1": two_slopes(in_torch_of("smooth_l1_loss", lambda t: t * 0), 1, 1, 1),
    "hinge": two_slopes(in_torch_of("hinge_embedding_loss", minus_one), 1, 0, -1),
    "ranking": two_slopes(in_torch_of("margin_ranking_loss", lambda t: t * 0, lambda t: -minus_one(t)), 0, 0, -1),
    "clip at both bounds": two_slopes(lambda xp, t: xp.clip(t, 0, 0) + t, 0, 1, 1),
    "maximum with itself": two_slopes(lambda xp, t: xp.maximum(t, t), 0, 1, 1),
    "fmin": two_slopes(lambda xp, t: xp.fmin(t, 3 * t), 0, 1, 3),
    "where": two_slopes(lambda xp, t: xp.where(t > 0, t, 3 * t), 0, 1, 3),
    "where, both sides": two_slopes(lambda xp, t: xp.where((t < 0) | (t > 2), -t, t), 0, 1, -1),
    "masked fill": two_slopes(
        Spelled(lambda xp, t: (2 * t).masked_fill(t < 0, 0.0), lambda xp, t: xp.where(t < 0, 0.0, 2 * t)), 0, 2, 0
    ),
    "mask of detached values": two_slopes(lambda xp, t: xp.where(xp.stop_gradient(t) > 0, t, -t), 0, 1, -1),
    "mask without gradient": two_slopes(Spelled(relu_under_no_grad, relu_of_stopped), 0, 1, 0),
    # Python's branches, and what they are in JAX
    "my relu": two_slopes(Spelled(my_relu, my_relu_by_cond), 0, 1, 0),
    "chain of branches": two_slopes(Spelled(absolute_by_chain, absolute_by_conds), 0, 1, -1),
    "conditional expression": two_slopes(
        Spelled(
            lambda xp, t: t * 2 if t >= 0 else t * 5,
            lambda xp, t: xp.cond(t >= 0, lambda t: t * 2, lambda t: t * 5, t),
        ),
        0,
        2,
        5,
    ),
    "max of Python": two_slopes(Spelled(lambda xp, t: max(t, 2 * t), lambda xp, t: largest(xp, t, 2 * t)), 0, 2, 1),
    "abs of Python": two_slopes(
        Spelled(lambda xp, t: max([t, -t, t * 0]), lambda xp, t: largest(xp, largest(xp, t, -t), t * 0)), 0, 1, -1
    ),
    "while": two_slopes(Spelled(loop, while_loop), 0, 1, 2),
    # whole numbers and masks: piecewise constant values, which tie only where what they are made of does
    "number of a comparison": two_slopes(lambda xp, t: xp.where(whole(xp, t > 0) == 1, t * t, 2 * t), 2, 4, 4),
    "number of a comparison, tied": two_slopes(lambda xp, t: xp.where(whole(xp, t > 0) == 1, 3 * t, t), 0, 3, 1),
    "scaled mask": two_slopes(lambda xp, t: xp.where(1 - 2.0 * (t > 0) < 0, t * t, 2 * t), 2, 4, 4),
    "scaled mask, tied": two_slopes(lambda xp, t: xp.where(1 - 2.0 * (t > 0) < 0, 3 * t, t), 0, 3, 1),
    "where on a floor": two_slopes(lambda xp, t: xp.where(xp.floor(t) == 2, t * t - 2 * t, t / 2), 2.5, 3, 3),
    "where on a sign": two_slopes(lambda xp, t: xp.where(2 * xp.sign(t) - 2 == 0, t, -t), 0.5, 1, 1),
    "where on a cast": two_slopes(lambda xp, t: xp.where(whole(xp, t) == 1, t * t, t), 1.5, 3, 3),
    "cast at zero": two_slopes(lambda xp, t: t * (whole(xp, t) + 2), 0, 2, 2),
    "times a cast": two_slopes(lambda xp, t: t * whole(xp, t), 1.5, 1, 1),
    "floor of a floor": two_slopes(lambda xp, t: t * xp.floor(xp.floor(t)), 1.5, 1, 1),
    "relu of a floor": two_slopes(lambda xp, t: t + xp.relu(xp.floor(t)) + xp.sqrt(xp.floor(t)), 0.5, 1, 1),
    "square root of a floor, and a kink": two_slopes(
        lambda xp, t: xp.abs(t - 0.5) + xp.sqrt(xp.maximum(xp.floor(t), xp.zeros_like(t))), 0.5, 1, -1
    ),
    "powers of a sign": two_slopes(lambda xp, t: t * (1 + xp.abs(xp.sign(t) - 1) ** 0.5), 0.5, 1, 1),
    "square root of a rounded number": two_slopes(lambda xp, t: t * t + xp.sqrt(3 * xp.round(t)), 0.25, 0.5, 0.5),
    "length of whole numbers": two_slopes(
        lambda xp, t: xp.relu(t - 0.5) + xp.hypot(xp.floor(t), xp.sign(t) - 1), 0.5, 1, 0
    ),
    "square root in place of a floor": two_slopes(torch_only(rooted_in_place), 0.5, 1, 1),
    "rest of a division": two_slopes(lambda xp, t: xp.remainder(t, 0.7), 1.5, 1, 1),
    "entry of a table": two_slopes(of_table, 1.5, 5, 5),
    "if on a floor": two_slopes(Spelled(if_whole, cond_whole), 2.5, 3, 3),
    "if on a number": two_slopes(Spelled(if_number, cond_number), 2, 3, 3),
    "if on a number, tied": two_slopes(Spelled(if_number, cond_number), 0, 3, 1),
    "mapped cond": two_slopes(mapped(bent_by_cond), 1, 5, 5),
    "mapped cond, other branch": two_slopes(mapped(bent_by_cond), -1, 2, 2),
    "mapped cond, tied": two_slopes(mapped(bent_by_cond), 0, 3, 2),
    "mapped switch": two_slopes(mapped(three_by_switch), 0.5, 1, 1),
    "piecewise": two_slopes(jax_only(piecewise), 2, 4, 4),
    "interpolation": two_slopes(jax_only(interpolated), 1.5, 3, 3),
    # in place
    "relu in place": two_slopes(torch_only(written), 0, 1, 1),
    "entries written": two_slopes(Spelled(written_entries, set_entries), 0, 3, 3),
    "written through a view": two_slopes(torch_only(written_through_a_view), 0, 1, -2),
}
"""The first of the table: functions of one variable."""

# --- several variables ------------------------------------------------------------------------------------------------

PAIR, TRIPLE = (0.0, 0.0), (0.0, 0.0, 0.0)
BASIS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
WEIGHTS = np.array([1.0, 2.0, 4.0])
SHUFFLED = ((1.0, 2.0, 4.0), (1.0, 4.0, 2.0), (2.0, 1.0, 4.0), (2.0, 4.0, 1.0), (4.0, 1.0, 2.0), (4.0, 2.0, 1.0))
SIGNS = tuple((a, b) for a in (1.0, -1.0) for b in (1.0, -1.0))


def on_sphere(g: np.ndarray) -> bool:
    return abs(float(np.linalg.norm(g)) - 1) < 1e-12


def symmetric(xp: Adapter, x: Array) -> Array:
    """Make the symmetric matrix of three entries."""
    return xp.stack([x[0], x[1], x[1], x[2]]).reshape(2, 2)


def smallest_by_sorted(xp: Adapter, x: Array) -> Array:
    return sorted(x)[0] * 1


def smallest_by_conds(xp: Adapter, x: Array) -> Array:
    return -largest(xp, largest(xp, -x[0], -x[1]), -x[2]) * 1


def three_at_once(xp: Adapter, x: Array) -> Array:
    if x[0] > 0 and x[1] > 0 and x[0] + x[1] > 0:
        return xp.minimum(x[0], x[1])
    return 0 * x[0]


def three_at_once_of_cond(xp: Adapter, x: Array) -> Array:
    every = (x[0] > 0) & (x[1] > 0) & (x[0] + x[1] > 0)
    return xp.cond(every, lambda x: xp.minimum(x[0], x[1]), lambda x: 0 * x[0], x)


def entry_of_argmax(xp: Adapter, x: Array) -> Array:
    return x[int(x.argmax())] * 2


CLOSED |= {
    "maximum": Closed(lambda xp, x: xp.maximum(x[0], x[1]), (1.0, 1.0), np.max, ((1.0, 0.0), (0.0, 1.0))),
    "max": Closed(lambda xp, x: xp.max(x), (2.0, 2.0, 2.0), np.max, BASIS),
    "max of two of three": Closed(
        lambda xp, x: xp.amax(x, 0), (2.0, 1.0, 2.0), lambda v: max(v[0], v[2]), (BASIS[0], BASIS[2])
    ),
    "min along an axis": Closed(lambda xp, x: xp.min_along(x[None], 1).sum(), TRIPLE, np.min, BASIS),
    "max + min of two": Closed(lambda xp, x: xp.max(x) + xp.min(x), (3.0, 3.0), np.sum, ((1.0, 1.0),)),
    "sum of absolute values": Closed(lambda xp, x: xp.abs(x).sum(), PAIR, lambda v: np.abs(v).sum(), SIGNS),
    "Khan and Barton": Closed(
        lambda xp, x: xp.maximum(xp.minimum(x[0], -x[1]), x[1] - x[0]),
        PAIR,
        lambda v: max(min(v[0], -v[1]), v[1] - v[0]),
        ((1.0, 0.0), (0.0, -1.0), (-1.0, 1.0)),
    ),
    "sort": Closed(lambda xp, x: xp.sort(x) @ xp.same(WEIGHTS, x), TRIPLE, lambda v: np.sort(v) @ WEIGHTS, SHUFFLED),
    "sort downwards": Closed(
        lambda xp, x: xp.sort(x, descending=True) @ xp.same(WEIGHTS, x),
        TRIPLE,
        lambda v: np.sort(v)[::-1] @ WEIGHTS,
        SHUFFLED,
    ),
    "sort, two tied": Closed(
        lambda xp, x: xp.sort(x) @ xp.same(WEIGHTS, x),
        (1.0, 0.0, 1.0),
        lambda v: v[1] + 2 * min(v[0], v[2]) + 4 * max(v[0], v[2]),
        ((2.0, 1.0, 4.0), (4.0, 1.0, 2.0)),
    ),
    "sum of a sort": Closed(lambda xp, x: xp.sort(x).sum(), TRIPLE, np.sum, ((1.0, 1.0, 1.0),)),
    "top 2": Closed(
        lambda xp, x: xp.top(x, 2).sum(),
        TRIPLE,
        lambda v: np.sort(v)[1:].sum(),
        ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0)),
    ),
    "top 2 and bottom 1": Closed(
        lambda xp, x: xp.top(x, 2).sum() + xp.bottom(x, 1).sum(), (1.0, 1.0, 1.0), np.sum, ((1.0, 1.0, 1.0),)
    ),
    "median": Closed(lambda xp, x: xp.median(x), TRIPLE, np.median, BASIS),
    "second smallest": Closed(lambda xp, x: xp.kth(x, 2), TRIPLE, np.median, BASIS),
    "quantile": Closed(
        lambda xp, x: xp.quantile(x, 0.25),
        TRIPLE,
        lambda v: np.quantile(v, 0.25),
        ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5)),
    ),
    "top 2 by an `if`": Closed(
        Spelled(lambda xp, x: x[0] if x[0] >= x[1] else x[1], lambda xp, x: largest(xp, x[0], x[1])),
        PAIR,
        np.max,
        ((1.0, 0.0), (0.0, 1.0)),
    ),
    "sorted of Python": Closed(Spelled(smallest_by_sorted, smallest_by_conds), TRIPLE, np.min, BASIS),
    "three at once": Closed(
        Spelled(three_at_once, three_at_once_of_cond),
        PAIR,
        lambda v: max(min(v[0], v[1]), 0.0),
        ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)),
    ),
    "max of a list": Closed(
        Spelled(
            lambda xp, x: max([x[0], 2 * x[1], x[2]]) * 1,
            lambda xp, x: largest(xp, largest(xp, x[0], 2 * x[1]), x[2]) * 1,
        ),
        TRIPLE,
        lambda v: max(v[0], 2 * v[1], v[2]),
        (BASIS[0], (0.0, 2.0, 0.0), BASIS[2]),
    ),
    "index of the largest": Closed(
        Spelled(entry_of_argmax, lambda xp, x: x[xp.argmax(x)] * 2),
        TRIPLE,
        lambda v: 2 * v.max(),
        ((2.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 2.0)),
    ),
    "2-norm": Closed(lambda xp, x: xp.norm(x), TRIPLE, np.linalg.norm, on_sphere),
    "1-norm": Closed(lambda xp, x: xp.norm(x, 1), PAIR, lambda v: np.abs(v).sum(), SIGNS),
    "inf-norm": Closed(
        lambda xp, x: xp.norm(x, math.inf),
        PAIR,
        lambda v: np.abs(v).max(),
        ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)),
    ),
    "3-norm": Closed(
        lambda xp, x: xp.norm(x, 3),
        PAIR,
        lambda v: (np.abs(v) ** 3).sum() ** (1 / 3),
        lambda g: abs(float((np.abs(g) ** 1.5).sum()) - 1) < 1e-12,
    ),
    "hypot": Closed(lambda xp, x: xp.hypot(x[0], x[1]), PAIR, np.linalg.norm, on_sphere),
    "standard deviation": Closed(
        lambda xp, x: xp.std(x),
        (2.0, 2.0, 2.0),
        lambda v: v.std(ddof=1),
        lambda g: abs(float(g @ g) - 0.5) < 1e-12 and abs(float(g.sum())) < 1e-12,
    ),
    "norm of a norm": Closed(
        lambda xp, x: xp.norm(x) - xp.abs(x).sum() * 0 + x[0],
        PAIR,
        lambda v: np.linalg.norm(v) + v[0],
        lambda g: on_sphere(g - np.array([1.0, 0.0])),
    ),
    "square of a norm": Closed(lambda xp, x: xp.norm(x) ** 2, PAIR, lambda v: 0.0, (PAIR,)),
    "largest eigenvalue": Closed(
        lambda xp, x: xp.eigvalsh(symmetric(xp, x))[1],
        TRIPLE,
        lambda v: (v[0] + v[2]) / 2 + np.hypot((v[0] - v[2]) / 2, v[1]),
        # u u' with u = (cos a, sin a): (cos^2 a, 2 sin a cos a, sin^2 a)
        lambda g: abs(float(g[0] + g[2]) - 1) < 1e-12 and abs(float(g[1] ** 2 - 4 * g[0] * g[2])) < 1e-12,
    ),
    "sum of eigenvalues": Closed(
        lambda xp, x: xp.eigvalsh(symmetric(xp, x)).sum(),
        (1.0, 0.0, 1.0),
        lambda v: v[0] + v[2],
        ((1.0, 0.0, 1.0),),
    ),
    "nuclear norm of a vector": Closed(lambda xp, x: xp.svdvals(x[None]).sum(), PAIR, np.linalg.norm, on_sphere),
    "trace by eigenvalues": Closed(
        lambda xp, x: xp.eigvalsh(xp.diag(x)).sum(), (2.0, 2.0, 1.0), np.sum, ((1.0, 1.0, 1.0),)
    ),
    "sum of singular values": Closed(lambda xp, x: xp.svdvals(xp.diag(x)).sum(), (1.0, 1.0), np.sum, ((1.0, 1.0),)),
    "middle of sorted": Closed(
        Spelled(
            lambda xp, x: sorted(list(x))[1],
            lambda xp, x: largest(xp, least(xp, x[0], x[1]), least(xp, largest(xp, x[0], x[1]), x[2])),
        ),
        (1.0, 1.0, 1.0),
        np.median,
        BASIS,
    ),
    "pooling": Closed(
        lambda xp, x: xp.max_pool(x.reshape(1, 1, -1), 2).sum(), (1.0, 1.0), np.max, ((1.0, 0.0), (0.0, 1.0))
    ),
    "cusp": Closed(  # a limit of gradients from inside the cusp, (0, 1), is seen along no straight direction
        lambda xp, x: xp.relu(x[1]) - xp.relu(x[1] - x[0] ** 2), PAIR, lambda v: 0.0, (PAIR,)
    ),
}
"""Then those of several variables; the limits are those that straight directions see."""

# --- functions that are homogeneous about a point ----------------------------------------------------------------------


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw a constant."""
    return np.random.default_rng(seed).standard_normal(shape)


A, B, C = draw(8, 4), draw(8, 8, seed=1), draw(5, 8, seed=2)


def weigh(xp: Adapter, y: Array) -> Array:
    """Read all entries with different weights."""
    return (y * xp.same(np.linspace(1, 2, math.prod(y.shape)).reshape(y.shape), y)).sum()


def through(read: Program) -> Program:
    """Read all entries of what a function returns."""
    if isinstance(read, Spelled):
        return Spelled(through(read.torch), through(read.jax) if read.jax else None)
    return lambda xp, x: weigh(xp, read(xp, x))


def pool(*args: int) -> Program:
    """Name a pooling by its window, stride, padding, dilation."""
    return through(lambda xp, x: xp.max_pool(x, *args))


def linear(xp: Adapter, matrix: np.ndarray, x: Array) -> Array:
    return xp.same(matrix, x) @ x


def group_sort(xp: Adapter, y: Array) -> Array:
    """Sort the entries in groups of two."""
    return xp.sort(y.reshape(-1, 2), 1).reshape(-1)


def max_min(xp: Adapter, y: Array) -> Array:
    """Sort the entries in groups of two, by maximum and minimum."""
    a, b = y[:4], y[4:]
    return xp.concat([xp.maximum(a, b), xp.minimum(a, b)])


def network(layer: Callable[[Adapter, Array], Array]) -> Program:
    """Name a network of two hidden layers."""
    return lambda xp, x: weigh(xp, linear(xp, C, layer(xp, linear(xp, B, layer(xp, linear(xp, A, x))))))


def maxout_in_python(xp: Adapter, x: Array) -> Array:
    return sum(max(row @ x, -row @ x) for row in xp.same(A, x)[:3]) + min(x)


def maxout_by_conds(xp: Adapter, x: Array) -> Array:
    least = -largest(xp, largest(xp, largest(xp, -x[0], -x[1]), -x[2]), -x[3])
    return sum(largest(xp, row @ x, -row @ x) for row in xp.same(A, x)[:3]) + least


def distances(xp: Adapter, x: Array, y: Array, p: float = 2.0) -> Array:
    """Give the distances of all pairs of rows by one norm of their differences."""
    return xp.norm(x[:, None] - y[None], p, 2)


def farthest_in_torch(xp: Adapter, x: Array) -> Array:
    import torch

    return torch.cdist(x, x.flip(0) * 2).amax(1) - torch.cdist(x, 3 * x.roll(1, 0)).topk(2, 1).values.sum(1)


def farthest(xp: Adapter, x: Array) -> Array:
    far = xp.amax(distances(xp, x, xp.flip(x) * 2), 1)
    return far - xp.top(distances(xp, x, 3 * xp.roll(x, 1, 0)), 2, 1).sum(1)


def pairs(xp: Adapter, x: Array) -> Array:
    import torch.nn.functional as F

    return F.pdist(x)


def cross_entropy_of_pool(xp: Adapter, x: Array) -> Array:
    return xp.cross_entropy(xp.max_pool(x[None], 2)[0, 0], 0)


def tangent_of_cross_entropy(xp: Adapter, v: Array) -> Array:
    y = xp.max_pool(v[None], 2)[0, 0]
    return y.mean() - y[0]


zeros, ones = np.zeros, np.ones

CONES: dict[str, Coned] = {
    "sort": Coned(through(lambda xp, x: xp.sort(x, 1)), zeros((3, 4))),
    "sort in loss": Coned(lambda xp, x: xp.exp(weigh(xp, xp.sort(x))), zeros(5), lambda xp, v: weigh(xp, xp.sort(v))),
    "msort": Coned(through(Spelled(lambda xp, x: x.msort(), lambda xp, x: xp.sort(x, 0))), zeros((3, 4))),
    "top 3": Coned(through(lambda xp, x: xp.top(x, 3)), zeros(6)),
    "top 3, any order": Coned(torch_only(lambda xp, x: x.topk(3, sorted=False).values.sum()), zeros(6)),
    "bottom 2": Coned(through(lambda xp, x: xp.bottom(x, 2, 1)), zeros((3, 4))),
    "top 2 in a loss": Coned(
        lambda xp, x: xp.logsumexp(xp.top(x, 2), 0), zeros(5), lambda xp, v: xp.top(v, 2).sum() / 2
    ),
    "median along": Coned(
        through(torch_only(lambda xp, x: x.median(1).values)), zeros((3, 4)), through(lambda xp, v: xp.kth(v, 2, 1))
    ),
    "median in a loss": Coned(lambda xp, x: xp.sin(xp.median(x)), zeros(5), lambda xp, v: xp.median(v)),
    "nan median": Coned(
        through(torch_only(lambda xp, x: x.nanmedian(0).values)), zeros((3, 4)), through(lambda xp, v: xp.kth(v, 2, 0))
    ),
    "kth value": Coned(through(lambda xp, x: xp.kth(x, 3, 1)), zeros((3, 4))),
    "quantiles": Coned(through(lambda xp, x: xp.quantile(x, [0.1, 0.5, 0.8])), zeros(5)),
    "cumulative maximum": Coned(through(lambda xp, x: xp.cummax(x, 1)), zeros((3, 4))),
    "cumulative minimum": Coned(through(lambda xp, x: xp.cummin(x, 0)), zeros((3, 4))),
    "range": Coned(
        Spelled(
            lambda xp, x: x.aminmax().max - x.aminmax().min,
            lambda xp, x: xp.max(x) - xp.min(x),
        ),
        zeros(5),
    ),
    "segments": Coned(
        through(lambda xp, x: xp.segment_max(x, [0, 1, 0, 1], 2)),
        zeros(4),
        through(lambda xp, v: xp.maximum(v[:2], v[2:])),
    ),
    "max pool 1d": Coned(pool(3, 2), zeros((1, 2, 7))),
    "max pool 2d": Coned(pool(2), zeros((1, 2, 4, 4))),
    "max pool 2d, padded": Coned(pool(3, 2, 1), zeros((1, 1, 5, 5))),
    "max pool 2d, dilated": Coned(through(in_torch("max_pool2d", 2, 1, 0, 2)), zeros((1, 1, 5, 5))),  # JAX: no backward
    "max pool 2d, ceiled": Coned(through(in_torch("max_pool2d", 3, 2, 0, 1, True)), zeros((1, 1, 6, 6))),
    "max pool 3d": Coned(pool(2, 1), zeros((1, 1, 3, 3, 3))),
    "adaptive max pool 1d": Coned(through(in_torch("adaptive_max_pool1d", 3)), zeros((2, 7))),
    "adaptive max pool 2d": Coned(through(in_torch("adaptive_max_pool2d", 2)), zeros((1, 2, 5, 5))),
    "adaptive max pool 3d": Coned(through(in_torch("adaptive_max_pool3d", 2)), zeros((1, 3, 3, 3))),
    "max pool of a relu": Coned(lambda xp, x: weigh(xp, xp.max_pool(xp.relu(x), 2)), zeros((1, 1, 4, 4))),
    "max pool in a loss": Coned(cross_entropy_of_pool, zeros((1, 6)), tangent_of_cross_entropy),
    "group sort network": Coned(network(group_sort), zeros(4)),
    "max-min network": Coned(network(max_min), zeros(4)),
    "relu network": Coned(network(relu), zeros(4)),
    "maxout in Python": Coned(Spelled(maxout_in_python, maxout_by_conds), zeros(4)),
    "2-norms of rows": Coned(through(lambda xp, x: xp.norm(x, 2, 1)), zeros((3, 4))),
    "Frobenius norm": Coned(lambda xp, x: xp.matrix_norm(x), zeros((3, 4))),
    "norm, 1.5": Coned(
        through(Spelled(lambda xp, x: x.norm(1.5, dim=1), lambda xp, x: xp.norm(x, 1.5, 1))), zeros((3, 4))
    ),
    "norm, inf": Coned(through(lambda xp, x: xp.norm(x, math.inf, 1)), zeros((3, 4))),
    "group lasso": Coned(lambda xp, x: xp.norm(x[:2]) + xp.norm(x[2:4]) + xp.norm(x[4:]) + xp.abs(x).sum(), zeros(6)),
    "deviations": Coned(through(lambda xp, x: xp.std(x, 1)), ones((3, 4)), through(lambda xp, v: xp.std(v, 1))),
    "distances": Coned(
        through(Spelled(lambda xp, x: xp.cdist(x, x[:2] * 2), lambda xp, x: distances(xp, x, x[:2] * 2))),
        zeros((3, 2)),
    ),
    "distances, p = 1": Coned(
        through(Spelled(lambda xp, x: xp.cdist(x, x[:2] * 2, p=1), lambda xp, x: distances(xp, x, x[:2] * 2, 1))),
        zeros((3, 2)),
    ),
    "distances of equal points": Coned(through(torch_only(pairs)), ones((3, 2)), through(pairs)),
    "distance": Coned(
        Spelled(lambda xp, x: xp.dist(x[0], x[1], 2), lambda xp, x: xp.norm(x[0] - x[1])),
        ones((2, 3)),
        lambda xp, v: xp.norm(v[0] - v[1]),
    ),
    "hypotenuses": Coned(through(lambda xp, x: xp.hypot(x, xp.flip(x) * 2)), zeros((3, 4))),
    "farthest and nearest": Coned(through(Spelled(farthest_in_torch, farthest)), zeros((4, 2))),
    "eigenvalues": Coned(through(lambda xp, x: xp.eigvalsh(x + x.T)), zeros((3, 3))),
    "eigenvalues about 1": Coned(
        through(lambda xp, x: xp.eigvalsh(x + x.T)), np.eye(3), through(lambda xp, v: xp.eigvalsh(v + v.T))
    ),
    "singular values": Coned(through(lambda xp, x: xp.svdvals(x)), zeros((2, 3))),
    "nuclear norm": Coned(lambda xp, x: xp.matrix_norm(x, "nuc"), zeros((3, 3))),
    "spectral norm": Coned(lambda xp, x: xp.matrix_norm(x, 2), zeros((3, 2))),
    "nuclear norm at rank 1": Coned(
        lambda xp, x: xp.matrix_norm(x, "nuc"),
        np.array([[2.0, 0.0], [0.0, 0.0]]),
        lambda xp, v: v[0, 0] + xp.abs(v[1, 1]),
    ),
}
"""Losses of order operations, norms and spectra."""

# --- programs that leave the theory ------------------------------------------------------------------------------------


def own_backward(xp: Adapter, x: Array) -> Array:
    import torch

    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, t: Array) -> Array:
            return t.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, g: Array) -> Array:
            return g

    return Clipped.apply(x[0]) * 2  # here


def own_vjp(xp: Adapter, x: Array) -> Array:
    import jax

    clipped = jax.custom_vjp(lambda t: xp.clip(t, min=0))
    clipped.defvjp(lambda t: (xp.clip(t, min=0), None), lambda _, g: (g,))
    return clipped(x[0]) * 2  # here


def masked_by_number(xp: Adapter, x: Array) -> Array:
    import torch

    with torch.no_grad():
        mask = (x[0] > 0).to(x.dtype)  # here
    return mask * (x[0] + 1)


def masked_by_stopped_number(xp: Adapter, x: Array) -> Array:
    mask = (xp.stop_gradient(x[0]) > 0).astype(x.dtype)  # here
    return mask * (x[0] + 1)


def cut_off(xp: Adapter, x: Array) -> Array:
    import torch

    with torch.no_grad():
        slope = x[0] * 2  # here
    return slope + x[0]


def written_through_a_view(xp: Adapter, x: Array) -> Array:
    y = x.new_zeros(3)
    y[:2] = x.detach() * x  # here
    return y[0] + xp.relu(y).sum()


def changed_through_views(xp: Adapter, x: Array) -> Array:
    y = x.new_zeros(3, 1)
    y.view(3)[1:].mul_(x).add_(x.detach())  # here
    return (y * x[0]).sum()


def mask_written_by_parts(xp: Adapter, x: Array) -> Array:
    mask = x.new_zeros(2) > 0
    mask[:1] = x[:1] > 0  # here
    return xp.where(mask, x + 1, x)[0]


def straight_through(xp: Adapter, x: Array) -> Array:
    rounded = xp.round(x[0] + 0.25)
    return x[0] + xp.stop_gradient(rounded - x[0])  # here


def jump_by_if(xp: Adapter, x: Array) -> Array:
    if x[0] > 0:  # here
        return x[0] + 1
    return x[0]


def jump_by_cond(xp: Adapter, x: Array) -> Array:
    return xp.cond(x[0] > 0, lambda x: x[0] + 1, lambda x: x[0], x)  # here


def branches_part(xp: Adapter, x: Array) -> Array:
    y = x[1] * 2
    if y > 0:  # here
        return x[0] + y
    return 2 * x[0] + y


def branches_of_cond_part(xp: Adapter, x: Array) -> Array:
    y = x[1] * 2
    return xp.cond(y > 0, lambda x, y: x[0] + y, lambda x, y: 2 * x[0] + y, x, y)  # here


def jump_at_a_corner(xp: Adapter, x: Array) -> Array:
    if x[0] > 0 and x[1] > 0:  # here
        return x[0] + x[1]
    return 0 * x[0]


def jump_at_a_corner_of_cond(xp: Adapter, x: Array) -> Array:
    return xp.cond((x[0] > 0) & (x[1] > 0), lambda x: x[0] + x[1], lambda x: 0 * x[0], x)  # here


def jump_beside_a_corner(xp: Adapter, x: Array) -> Array:
    if x[0] > 0 and x[1] > 0:  # here
        return x[1] + 0
    return 0 * x[0]


def jump_beside_a_corner_of_cond(xp: Adapter, x: Array) -> Array:
    inner = lambda x: xp.cond(x[1] > 0, lambda x: x[1] + 0, lambda x: 0 * x[0], x)  # noqa: E731
    return xp.cond(x[0] > 0, inner, lambda x: 0 * x[0], x)  # here


def jump_at_three(xp: Adapter, x: Array) -> Array:
    if x[0] > 0 and x[1] > 0 and x[0] + x[1] > 0:  # here
        return x[1] + 0
    return 0 * x[0]


def jump_at_three_of_cond(xp: Adapter, x: Array) -> Array:
    every = (x[0] > 0) & (x[1] > 0) & (x[0] + x[1] > 0)  # here
    return xp.cond(every, lambda x: x[1] + 0, lambda x: 0 * x[0], x)


def equal_by_if(xp: Adapter, x: Array) -> Array:
    if x[0] == 0:  # here
        return -x[0]
    return x[0]


def equal_by_cond(xp: Adapter, x: Array) -> Array:
    return xp.cond(x[0] == 0, lambda x: -x[0], lambda x: x[0], x)  # here


def square_by_if(xp: Adapter, x: Array) -> Array:
    if x[0] * x[0] > 0:  # here
        return x[0]
    return 2 * x[0]


def square_by_cond(xp: Adapter, x: Array) -> Array:
    return xp.cond(x[0] * x[0] > 0, lambda x: x[0], lambda x: 2 * x[0], x)  # here


def escaped(xp: Adapter, x: Array) -> Array:
    slope = 1.0 if x[0].item() > 0 else 2.0  # here
    return x[0] * slope


def escaped_float(xp: Adapter, x: Array) -> Array:
    known = float(x[0].detach())  # here
    return x[0] + max(known, 0.0)


def escaped_list(xp: Adapter, x: Array) -> Array:
    known = x.tolist()  # here
    return x[0] * (3.0 if known[0] > 0 else 1.0)


def escaped_numpy(xp: Adapter, x: Array) -> Array:
    known = x.detach().numpy()  # here
    return x[0] + float(abs(known[0]))


def other_data_by_argmax(xp: Adapter, x: Array) -> Array:
    place = xp.argmax(x)  # here
    return xp.stack([x[0], 2 * x[0]])[place]


def other_data_by_sort(xp: Adapter, x: Array) -> Array:
    order = xp.argsort(x)  # here
    return (x * 2 + 1)[order][0] + xp.stack([x[1], -x[1]])[order][1]


def entry_at_jump(xp: Adapter, x: Array) -> Array:
    place = xp.floor(x[0])  # here
    return xp.same(np.array([1.0, 5.0, 2.0, 7.0]), x)[whole(xp, place)] * x[0]


def piecewise_at_jump(xp: Adapter, x: Array) -> Array:
    from jax import numpy as jnp

    sides = [x[0] < 0, x[0] >= 0]  # here
    return jnp.piecewise(x[0], sides, [lambda t: -t, lambda t: t * t])


def interpolated_at_knot(xp: Adapter, x: Array) -> Array:
    from jax import numpy as jnp

    return jnp.interp(x[0], jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 1.0, 4.0]))  # here


def cast_by_if(xp: Adapter, x: Array) -> Array:
    number = x[0].long()  # here
    if number == 1:
        return x[0] * 1
    return 2 * x[0]


def cast_by_cond(xp: Adapter, x: Array) -> Array:
    number = x[0].astype(int)  # here
    return xp.cond(number == 1, lambda x: x[0] * 1, lambda x: 2 * x[0], x)


REFUSED: dict[str, Refused] = {
    "where: predicate without derivative": Refused(
        lambda xp, x: xp.where(x[0] * x[0] > 0, x[0], 2 * x[0]), PAIR, "flat"
    ),
    "where: branches part nearby": Refused(lambda xp, x: xp.where(x[1] > 0, x[0], 2 * x[0]), PAIR, "jump", False),
    "where: equality": Refused(lambda xp, x: xp.where(x[0] == 0, -x[0], x[0]), PAIR, "equality", False),
    "where: quadrant": Refused(
        lambda xp, x: xp.where((x[0] > 0) & (x[1] < 0), x[0] - x[1], 0 * x[0]), PAIR, "several", False
    ),
    "where: exclusive or": Refused(
        lambda xp, x: xp.where((x[0] > 0) ^ (x[1] > 0), -xp.abs(x[0]), xp.abs(x[0])), PAIR, "several", False
    ),
    "where: jump": Refused(lambda xp, x: xp.where(x[0] > 0, x[0] + 1, x[0]), PAIR, "jump"),
    "square root of an absolute value": Refused(
        lambda xp, x: xp.sqrt(xp.abs(x[0])) ** 2 - xp.abs(x[0]), PAIR, "singular"
    ),
    "square root": Refused(lambda xp, x: xp.sqrt(xp.relu(x[0])), PAIR, "singular"),
    "power": Refused(lambda xp, x: xp.abs(x[0]) ** 0.5, PAIR, "singular"),
    "sign": Refused(lambda xp, x: xp.sign(x[0]) * (x[0] + 1), PAIR, "jump"),
    "asinh by sign and logarithm": Refused(
        lambda xp, x: xp.sign(x[0]) * xp.log(xp.abs(x[0]) + xp.sqrt(x[0] * x[0] + 1)), PAIR, "jump"
    ),
    "floor": Refused(lambda xp, x: xp.floor(x[0]) + x[1], PAIR, "jump"),
    "round": Refused(lambda xp, x: xp.round(x[0]) * x[1], (0.5, 1.0), "jump"),
    "hardshrink": Refused(torch_only(lambda xp, x: xp.hardshrink(x[0])), (0.5, 0.0), "jump"),
    "remainder": Refused(lambda xp, x: xp.remainder(x[0], 1.0), (1.0, 0.0), "jump"),
    "comparison as a number": Refused(lambda xp, x: (x[0] > 0) * (x[0] + 1), PAIR, "jump"),
    "number of a jump": Refused(
        lambda xp, x: xp.where(xp.floor(x[0]) == 2, x[0] * x[0] - 2 * x[0], x[0] / 2), (2.0, 0.0), "jump"
    ),
    "times a cast": Refused(
        Spelled(lambda xp, x: x[0] * x[0].long(), lambda xp, x: x[0] * x[0].astype(int)), (2.0, 0.0), "jump"
    ),
    "where on a cast": Refused(
        Spelled(
            lambda xp, x: xp.where(x[0].long() == 1, x[0], 2 * x[0] - 1),
            lambda xp, x: xp.where(x[0].astype(int) == 1, x[0], 2 * x[0] - 1),
        ),
        (1.0, 0.0),
        "jump",
    ),
    "count of comparisons": Refused(lambda xp, x: xp.where((x > 0).sum() == 1, x[0], 2 * x[0]), PAIR, "jump"),
    "sum of comparisons": Refused(
        lambda xp, x: xp.where(whole(xp, x[0] > 0) + whole(xp, x[1] > 0) == 1, x[0], 2 * x[0]), PAIR, "jump"
    ),
    "if on a cast": Refused(Spelled(cast_by_if, cast_by_cond), (1.0, 0.0), "jump"),
    "entry of a table": Refused(entry_at_jump, (1.0, 0.0), "jump"),
    "piecewise": Refused(jax_only(piecewise_at_jump), PAIR, "jump"),
    "interpolation at a knot": Refused(jax_only(interpolated_at_knot), (1.0, 0.0), "jump"),
    "mask without gradient": Refused(Spelled(masked_by_number, masked_by_stopped_number), PAIR, "jump"),
    "indices of ties": Refused(other_data_by_argmax, PAIR, "jump"),
    "indices of a sort": Refused(other_data_by_sort, PAIR, "jump"),
    "if: jump": Refused(Spelled(jump_by_if, jump_by_cond), PAIR, "jump"),
    "if: branches part nearby": Refused(Spelled(branches_part, branches_of_cond_part), PAIR, "jump", False),
    "if: jump at a corner": Refused(Spelled(jump_at_a_corner, jump_at_a_corner_of_cond), PAIR, "jump", False),
    "if: jump beside a corner": Refused(
        Spelled(jump_beside_a_corner, jump_beside_a_corner_of_cond), PAIR, "jump", False
    ),
    "if: jump at three": Refused(Spelled(jump_at_three, jump_at_three_of_cond), PAIR, "jump", False),
    "if: equality": Refused(Spelled(equal_by_if, equal_by_cond), PAIR, "equality", False),
    "if: predicate without derivative": Refused(Spelled(square_by_if, square_by_cond), PAIR, "flat"),
    "detach": Refused(lambda xp, x: x[0] - xp.stop_gradient(x[0]) / 2, PAIR, "detached", False),
    "no grad": Refused(torch_only(cut_off), PAIR, "detached", False),
    "cut off, and written through a view": Refused(torch_only(written_through_a_view), PAIR, "detached", False),
    "changed through views": Refused(torch_only(changed_through_views), PAIR, "detached", False),
    "mask written by parts": Refused(torch_only(mask_written_by_parts), PAIR, "jump"),
    "straight through": Refused(straight_through, PAIR, "detached", False),
    "item": Refused(torch_only(escaped), PAIR, "escaped"),
    "float": Refused(torch_only(escaped_float), PAIR, "escaped"),
    "double where": Refused(  # harmless, and not seen to be
        lambda xp, x: xp.where(x[0] > 0, xp.sqrt(xp.where(x[0] > 0, x[0], 1.0)) ** 2, 0.0), PAIR, "jump"
    ),
    "list": Refused(torch_only(escaped_list), PAIR, "escaped"),
    "numpy": Refused(torch_only(escaped_numpy), PAIR, "escaped"),
    "own backward": Refused(Spelled(own_backward, own_vjp), (1.0, 0.0), "opaque"),
}
"""Programs that no certificate may cover; in functions of several lines the line to be named ends in "here"."""


def here(f: Program, framework: str) -> int:
    """Give the line that a refusal must name: the one that ends in "here", or that of a lambda."""
    function = words(f, framework)
    lines, first = inspect.getsourcelines(function)
    marked = [first + k for k, line in enumerate(lines) if line.rstrip().endswith("# here")]
    return marked[0] if marked else function.__code__.co_firstlineno
