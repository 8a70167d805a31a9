"""Formulas at kinks, each written once for every framework: functions of an adapter and a point; one table, hence a long file.

The points hold zeros, ties, bounds and equal pairs, exactly representable, so that all frameworks meet the same kinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["FORMULAS", "Formula"]

Array = Any


@dataclass(frozen=True)
class Formula:
    """A scalar function of an adapter and a point, and points at its kinks; `needs` are operations that may be missing."""

    name: str
    function: Callable[[Any, Array], Array]
    points: tuple[Any, ...]
    needs: tuple[str, ...] = ()


NEAR = (
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, -1.0, 0.0, 0.5, 3.0],
    [-0.5, -3.0, 0.5, 6.0, 1.0, 0.0],
)
TIES = ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 2.0, 0.0, 2.0, 1.0], [0.0, 0.0, 3.0, 3.0, -1.0, -1.0])
LONG = ([1.0] * 40, [float(k % 3) for k in range(40)])
GRID = ([[0.0, 0.0, 0.0]] * 2, [[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]])
IMAGES = (
    [[[[1.0] * 4] * 4]],
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 0.0, 4.0, 4.0], [3.0, 3.0, 0.0, 4.0]]]],
    [[[[0.0, 0.0, -1.0, -1.0]] * 4]],
)
CUBES = ([[[[[1.0, 1.0, 2.0, 0.0]] * 4] * 4]], [[[[[0.0] * 4] * 4] * 4]])
LINES = ([[[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]]], [[[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]]])


def read(fw: Any, values: Array) -> Array:
    """Add up values with the weights 1, 2, 3, ..., so that every one of them can be told from the others."""
    count = 1
    for n in values.shape:
        count *= n
    ramp = fw.constant([float(k + 1) for k in range(count)])
    return fw.sum(fw.reshape(values, (count,)) * ramp)


def ramp(fw: Any, x: Array) -> Array:
    """Give 2, 4, ... 2n, halved and shifted: other slopes for other entries."""
    return fw.constant([1.0 + 0.5 * k for k in range(x.shape[0])])


def pairs(fw: Any, x: Array) -> tuple[Array, Array]:
    """Split a point in two halves that move by themselves."""
    half = x.shape[0] // 2
    return x[:half], x[half:]


def elementwise(name: str, *arguments: float, points: Any = NEAR, needs: tuple[str, ...] = ()) -> Formula:
    """Read one elementwise operation."""
    label = f"{name}({', '.join(['x', *map(str, arguments)])})"
    return Formula(label, lambda fw, x: read(fw, getattr(fw, name)(x, *arguments)), points, needs)


def binary(name: str, *, needs: tuple[str, ...] = ()) -> Formula:
    """Read an operation of two arrays that meet."""

    def function(fw: Any, x: Array) -> Array:
        a, b = pairs(fw, x)
        return read(fw, getattr(fw, name)(a, b)) + 0.25 * read(fw, getattr(fw, name)(3.0 * b, a))

    return Formula(f"{name}(a, b)", function, TIES + NEAR, needs)


def order(name: str, *arguments: Any, points: Any = TIES + LONG, **more: Any) -> Formula:
    """Read an operation that ranks entries."""
    needs = more.pop("needs", ())
    label = f"{name}({', '.join(['x', *map(str, arguments), *(f'{k}={v}' for k, v in more.items())])})"

    def function(fw: Any, x: Array) -> Array:
        found = getattr(fw, name)(x, *arguments, **more)
        return read(fw, fw.reshape(found, (1,)) if len(found.shape) == 0 else found)

    return Formula(label, function, points, needs)


def of(text: str, function: Callable[[Any, Array], Array], points: Any = NEAR, needs: tuple[str, ...] = ()) -> Formula:
    """Name a formula by its text."""
    return Formula(text, function, points, needs)


SEGMENTS = [0, 0, 1, 1, 2, 2]

SWITCHES = [
    elementwise("relu"),
    elementwise("abs"),
    elementwise("leaky_relu", 0.25),
    elementwise("leaky_relu", 2.0),
    elementwise("relu6"),
    elementwise("hardtanh"),
    elementwise("hardsigmoid"),
    elementwise("hardswish"),
    elementwise("elu"),
    elementwise("elu", 2.0),
    elementwise("selu"),
    elementwise("softshrink", 0.5, needs=("softshrink",)),
    elementwise("threshold", 0.5, needs=("threshold",)),
    elementwise("prelu", 0.25, needs=("prelu",)),
    elementwise("prelu", 0.5, needs=("prelu",)),
    elementwise("clip", -0.5, 1.0),
    elementwise("clip", 0.0, 0.0),
    elementwise("clip_low", 0.0),
    elementwise("clip_high", 0.5),
    binary("clip_low"),
    binary("clip_high"),
    of("copysign(x, 1 - 2 k)", lambda fw, x: read(fw, fw.copysign(x, 3.0 - 2.0 * ramp(fw, x))), needs=("copysign",)),
    binary("maximum"),
    binary("minimum"),
    binary("fmax"),
    binary("fmin"),
    of("clip(a, b, b + 1)", lambda fw, x: read(fw, fw.clip(x[:3], x[3:], x[3:] + 1.0)), TIES),
    of("clip(b, a - 1, a)", lambda fw, x: read(fw, fw.clip(x[:3], x[3:] - 1.0, x[3:])), TIES),
    of("where(x > 0, 2 x, x)", lambda fw, x: read(fw, fw.where(x > 0, 2 * x, x))),
    of("where(a >= b, a, b)", lambda fw, x: read(fw, fw.where(x[:3] >= x[3:], x[:3], x[3:])), TIES),
    of("where(x == 0, 5 x, x)", lambda fw, x: read(fw, fw.where(x == 0, 5 * x, x))),
    of(
        "2 x if x[0] > 0 else x",
        lambda fw, x: read(fw, fw.cond(x[0] > 0, lambda y: 2 * fw.relu(y), lambda y: fw.abs(y) + y, x)),
    ),
]

ORDERS = [
    order("max"),
    order("min"),
    order("amax", 0),
    order("amin", 0),
    order("max_along", 0),
    order("min_along", 0),
    of("max_along(x, 1) of rows", lambda fw, x: read(fw, fw.max_along(fw.reshape(x, (2, 3)), 1)), TIES),
    of("chosen", lambda fw, x: fw.chosen(x) * 2.0, TIES + LONG),
    order("sort"),
    order("sort", descending=True),
    order("top", 2),
    order("top", 5),
    order("bottom", 3),
    order("kth", 3),
    order("median", points=([1.0, 1.0, 1.0], [2.0, 3.0, 2.0, 2.0, 4.0], [1.0] * 33)),
    of(
        "median of columns",
        lambda fw, x: read(fw, _median(fw, fw.reshape(x, (3, 5)))),
        ([1.0] * 15, [float(k % 2) for k in range(15)]),
    ),
    order("quantile", 0.25, points=(*TIES, [1.0] * 33)),
    order("cummax", needs=("cummax",)),
    order("cummin", needs=("cummin",)),
    of("segment_max(x)", lambda fw, x: read(fw, fw.segment_max(x, SEGMENTS, 3)), TIES),
    of("segment_min(x)", lambda fw, x: read(fw, fw.segment_min(x, SEGMENTS, 3)), TIES),
    of("max_pool(x, 2) of lines", lambda fw, x: read(fw, fw.max_pool(x, 2)), LINES),
    of("max_pool(x, 3, 1, 1) of lines", lambda fw, x: read(fw, fw.max_pool(x, 3, 1, 1)), LINES),
    of("max_pool(x, 2) of images", lambda fw, x: read(fw, fw.max_pool(x, 2)), IMAGES),
    of("max_pool(x, 3, 1) of images", lambda fw, x: read(fw, fw.max_pool(x, 3, 1)), IMAGES),
    of("max_pool(relu(x), 2) of images", lambda fw, x: read(fw, fw.max_pool(fw.relu(x), 2)), IMAGES),
    of("max_pool(x, 2) of cubes", lambda fw, x: read(fw, fw.max_pool(x, 2)), CUBES),
    of("max_pool(x, 3, 1) of cubes", lambda fw, x: read(fw, fw.max_pool(x, 3, 1)), CUBES),
    of("adaptive_max_pool(x, 2) of images", lambda fw, x: read(fw, fw.adaptive_max_pool(x, 2)), IMAGES),
]

CONES = [
    *(order("norm", p, points=NEAR + TIES) for p in (2.0, 1.0, 3.0, 1.5, float("inf"))),
    of("length(x)", lambda fw, x: fw.length(x), NEAR),
    of("norm of rows", lambda fw, x: read(fw, fw.norm(x, 2.0, 1)), GRID),
    of("norm of rows, p = 1", lambda fw, x: read(fw, fw.norm(x, 1.0, 1)), GRID),
    of("norm of rows, p = inf", lambda fw, x: read(fw, fw.norm(x, float("inf"), 1)), GRID),
    of("matrix_norm(x)", lambda fw, x: fw.matrix_norm(x), GRID),
    of("std(x)", lambda fw, x: fw.std(x), TIES),
    of("std of rows", lambda fw, x: read(fw, fw.std(x, 1)), GRID),
    of("hypot(a, b)", lambda fw, x: read(fw, fw.hypot(x[:3], x[3:])), NEAR),
    of("|a + ib|", lambda fw, x: read(fw, fw.complex_abs(x[:3], x[3:])), NEAR),
    of(
        "cdist(a, b)",
        lambda fw, x: read(fw, fw.cdist(fw.reshape(x, (3, 2))[:2], fw.reshape(x, (3, 2))[1:])),
        TIES,
        ("cdist",),
    ),
]

WHOLE = [
    of("relu(x) - relu(-x)", lambda fw, x: read(fw, fw.relu(x) - fw.relu(-x))),
    of("relu2, relu3", lambda fw, x: read(fw, fw.relu(x) + 3.0 * (fw.relu(-x) + x))),
    of("sqrt(|x|) ** 2 - |x|", lambda fw, x: read(fw, fw.sqrt(fw.abs(x) + 1.0) ** 2 - fw.abs(x))),
    of("softplus by hand", lambda fw, x: read(fw, fw.maximum(x, 0.0 * x) + fw.log1p(fw.exp(-fw.abs(x))))),
    of("hinge by relu", lambda fw, x: fw.mean(fw.relu(1.0 - x * _labels(fw, x)))),
    of("hinge by maximum", lambda fw, x: fw.mean(fw.maximum(1.0 - x * _labels(fw, x), 0.0 * x))),
    of("hinge by clip", lambda fw, x: fw.mean(fw.clip(1.0 - x * _labels(fw, x), 0.0, 2.0))),
    of("huber by where", lambda fw, x: fw.sum(_huber(fw, x, 0.5))),
    of("l1_loss", lambda fw, x: fw.l1_loss(x, 0.0 * ramp(fw, x)), needs=("l1_loss",)),
    of("huber_loss", lambda fw, x: fw.huber_loss(x, 0.0 * ramp(fw, x)), needs=("huber_loss",)),
    of("mean absolute error", lambda fw, x: fw.mean(fw.abs(x - fw.constant([0.0, 1.0, -1.0, 0.0, 0.5, 3.0])))),
    of("triplet margin", lambda fw, x: fw.maximum(_distance(fw, x, 2) - _distance(fw, x, 4) + 1.0, 0.0 * x[0]), TIES),
    of("total variation", lambda fw, x: fw.sum(fw.abs(x[1:] - x[:-1])), TIES),
    of("elastic net", lambda fw, x: fw.norm(x, 1.0) + 0.5 * fw.sum(fw.square(x))),
    of("group lasso", lambda fw, x: fw.sum(fw.norm(x, 2.0, 1)) + fw.sum(fw.square(x - 1.0)), GRID),
    of("range", lambda fw, x: fw.max(x) - fw.min(x), TIES),
    of("median absolute value", lambda fw, x: fw.median(fw.abs(x[:5])), NEAR),
    of("max of |x|, twice", lambda fw, x: fw.max(fw.abs(x)) + fw.norm(x, float("inf"))),
    of("trimmed mean", lambda fw, x: fw.mean(fw.sort(x)[1:-1]), TIES),
    of("softmax of the two largest", lambda fw, x: read(fw, fw.softmax(fw.top(x, 2), -1)), TIES),
    of("logsumexp(relu(x))", lambda fw, x: fw.logsumexp(fw.relu(x)) + fw.max(x)),
    of("stopped", lambda fw, x: read(fw, fw.abs(x) * fw.stop_gradient(fw.relu(x) + 1.0))),
    of("relu(relu(x) - relu(x))", lambda fw, x: read(fw, fw.relu(fw.relu(x) - fw.abs(x)))),
]


def _median(fw: Any, x: Array) -> Array:
    """Give the medians of rows of odd length."""
    if fw.name == "torch":
        return fw.median(x, 1).values
    return fw.median(x, axis=1)


def _labels(fw: Any, x: Array) -> Array:
    """Give labels 1, -1, 1, ..."""
    return fw.constant([1.0 - 2.0 * (k % 2) for k in range(x.shape[0])])


def _distance(fw: Any, x: Array, place: int) -> Array:
    """Give the distance of a pair to the first one, in the norm with p = 1."""
    return fw.norm(x[:2] - x[place : place + 2], 1.0)


def _huber(fw: Any, x: Array, delta: float) -> Array:
    """Give x^2 / 2 near 0 and a line elsewhere."""
    return fw.where(fw.abs(x) <= delta, 0.5 * fw.square(x), delta * (fw.abs(x) - 0.5 * delta))


FORMULAS = SWITCHES + ORDERS + CONES + WHOLE
"""The formulas."""
