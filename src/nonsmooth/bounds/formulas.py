"""Functions of one number that a program writes out, entry by entry: their range, slopes and curvature on intervals.

`x * (1 + tanh(...)) / 2` or `where(x > 0, x, 0)` are bounded far too high step by step, for x goes in more than once. Here
such a formula is bounded as one function of x: the values, slopes and second derivatives of its steps are enclosed on small
cells of the interval that x reaches, which become exact as the cells shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nonsmooth.bounds.constants.activations import ACTIVATIONS
from nonsmooth.bounds.constants.elementwise import ELEMENTARY, power
from nonsmooth.bounds.constants.entries import product, total
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.constants.scalar import OnIntervals, ScalarFunction, entrywise
from nonsmooth.bounds.reach import Floats, Local
from nonsmooth.program import Ref, Step

if TYPE_CHECKING:
    from nonsmooth.bounds.composites import Composites

__all__ = ["Formula", "read_formula"]

CELLS = 2048
"""Cells of the interval, closer to each other near 0."""

PARTS, ROUNDS = 16, 4
"""Into how many parts cells are divided that may hold an extreme, and how often."""

LARGEST = 64
"""The most steps of a formula."""

GAP = 1e-13
"""How far from a point where a choice changes its sides are looked at, relative to its size or 1: rounding ends before."""

SAME = 1e-9
"""How far values and slopes from both sides may lie apart, relative to their size, to count as the same."""

Interval = tuple[Floats, Floats]

ORDERS: Mapping[str, Any] = {
    **dict.fromkeys("gt ge greater greater_equal".split(), np.greater),
    **dict.fromkeys("lt le less less_equal".split(), np.less),
}
SAME_VALUE = frozenset("copy cast clone contiguous detach".split())
BINARY = frozenset("add sub rsub mul div maximum minimum where".split())


class Jet(NamedTuple):
    """Enclosures of a value, its slope and its second derivative, cell by cell."""

    value: Interval
    slope: Interval
    second: Interval


@dataclass(frozen=True)
class Node:
    """A step of a formula: its name, what it takes (nodes, numbers), and its function of one number if it is one."""

    name: str
    parts: tuple[Any, ...] = ()
    function: OnIntervals | None = None


@dataclass(frozen=True, eq=False)
class Formula:
    """A function of one number that is made of others, as `entrywise` asks for: on one interval of all entries."""

    root: Ref
    node: Node
    points: tuple[float, ...] = field(default=())

    def range(self, low: Floats, high: Floats) -> Interval:
        """Give the range."""
        ends, _, _ = self._cells(float(np.min(low)), float(np.max(high)))
        return self._least(ends, lambda jet: jet.value), self._largest(ends, lambda jet: jet.value)

    def slopes(self, low: Floats, high: Floats) -> Interval:
        """Give the least and the largest slope; infinite where it jumps."""
        ends, jumps, _ = self._cells(float(np.min(low)), float(np.max(high)))
        if jumps:
            return np.asarray(-inf), np.asarray(inf)
        return self._least(ends, lambda jet: jet.slope), self._largest(ends, lambda jet: jet.slope)

    def curvature(self, low: Floats, high: Floats) -> Floats:
        """Give sup |a''|; infinite where it jumps or has a kink."""
        ends, jumps, kinks = self._cells(float(np.min(low)), float(np.max(high)))
        if jumps or kinks:
            return np.asarray(inf)
        least, most = self._least(ends, lambda jet: jet.second), self._largest(ends, lambda jet: jet.second)
        return np.maximum(np.abs(least), np.abs(most))

    def _least(self, ends: Interval | None, read: Callable[[Jet], Interval]) -> Floats:
        """Give the least of a quantity."""
        return -self._largest(ends, lambda jet: (-read(jet)[1], -read(jet)[0]))

    def _largest(self, ends: Interval | None, read: Callable[[Jet], Interval]) -> Floats:
        """Give the largest of a quantity: cells whose bound is above what is attained are divided, some times."""
        if ends is None:
            return np.asarray(inf)
        attained = -inf
        for _ in range(ROUNDS):
            upper = read(self._on(ends))[1]
            middle = ends[0] / 2 + ends[1] / 2
            attained = max(attained, float(np.max(read(self._on((middle, middle)))[0])))
            open_ = upper > attained + SAME * abs(attained)
            found = max(attained + SAME * abs(attained), float(np.max(upper)))
            if not np.any(open_) or not np.isfinite(found) or np.sum(open_) > CELLS:
                break
            low, high = (v[open_][:, None] for v in ends)
            cuts = low + (high - low) * np.linspace(0, 1, PARTS + 1)
            cuts[:, -1:] = high
            ends = cuts[:, :-1].ravel(), cuts[:, 1:].ravel()
        return np.asarray(found)

    def _cells(self, low: float, high: float) -> tuple[Interval | None, bool, bool]:
        """Give cells, and whether it jumps, or has a kink, at a point between two of them; None where nothing is known."""
        if not (np.isfinite(low) and np.isfinite(high)):
            return None, True, True
        met = [p for p in self.points if low <= p <= high]
        if low == high:
            return (np.array([low]), np.array([low])), False, False
        grid = np.clip(np.sinh(np.linspace(np.arcsinh(low), np.arcsinh(high), CELLS + 1)), low, high)
        grid[0], grid[-1] = low, high
        grid = np.unique(np.concatenate([grid, met]))
        gap = np.where(np.isin(grid, met), GAP * np.maximum(np.abs(grid), 1.0), 0.0)
        ends = grid[:-1] + gap[:-1], grid[1:] - gap[1:]
        kept = ends[0] <= ends[1]
        ends = ends[0][kept], ends[1][kept]
        kinks = False
        for p in met:
            beyond = GAP * max(abs(p), 1.0)
            beside = self._on((np.array([p - 2 * beyond, p + beyond]), np.array([p - beyond, p + 2 * beyond])))
            if _apart(beside.value):
                return None, True, True
            kinks = kinks or (low < p < high and _apart(beside.slope))
        return (None, True, True) if not ends[0].size else (ends, False, kinks)

    def _on(self, ends: Interval) -> Jet:
        """Enclose the formula on intervals."""
        one, zero = np.ones_like(ends[0]), np.zeros_like(ends[0])
        with np.errstate(all="ignore"):
            return _jet(self.node, Jet(ends, (one, one), (zero, zero)), {})


def _apart(interval: Interval) -> bool:
    """Tell whether enclosures from the left and from the right differ."""
    low, high = interval
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        return True
    return bool(np.max(high) - np.min(low) > SAME * (1 + np.max(np.abs(high))))


# --- enclosures -------------------------------------------------------------------------------------------------------


def _jet(node: Any, x: Jet, known: dict[int, Jet]) -> Jet:
    """Enclose a node, each once."""
    if not isinstance(node, Node):
        value, zero = np.full_like(x.value[0], float(node)), np.zeros_like(x.value[0])
        return Jet((value, value), (zero, zero), (zero, zero))
    if id(node) not in known:
        known[id(node)] = _widened(_enclosed(node, x, known))
    return known[id(node)]


def _widened(jet: Jet) -> Jet:
    """Make room for rounding, and for what has no number."""
    found = []
    for low, high in jet:
        slack = 4e-16
        low, high = np.where(np.isnan(low), -inf, low), np.where(np.isnan(high), inf, high)
        found.append((low - slack * np.abs(low), high + slack * np.abs(high)))
    return Jet(*found)


def _enclosed(node: Node, x: Jet, known: dict[int, Jet]) -> Jet:
    """Enclose a node by its parts: the chain rule, and the rule of Leibniz."""
    if node.name == "x":
        return x
    if node.name in ORDERS:
        return _order(node, x, known)
    parts = [_jet(p, x, known) for p in node.parts]
    if node.function is not None:
        return _composed(node.function, parts[0])
    if node.name == "where":
        condition, a, b = parts
        chosen, other = condition.value[0] > 0, condition.value[1] <= 0
        return Jet(*(_either(chosen, other, p, q) for p, q in zip(a, b, strict=True)))
    a, b = parts
    if node.name == "add":
        return Jet(*(total(p, q) for p, q in zip(a, b, strict=True)))
    if node.name == "sub":
        return Jet(*(total(p, (-q[1], -q[0])) for p, q in zip(a, b, strict=True)))
    if node.name in ("maximum", "minimum"):
        first, second = (a, b) if node.name == "maximum" else (b, a)
        chosen, other = first.value[0] > second.value[1], second.value[0] > first.value[1]
        slope, bend = (_either(chosen, other, p, q) for p, q in zip(first[1:], second[1:], strict=True))
        kink = ~(chosen | other)
        bend = np.where(kink, -inf, bend[0]), np.where(kink, inf, bend[1])
        return Jet(_extreme(node.name, a.value, b.value), slope, bend)
    return _multiplied(a, b)


def _extreme(name: str, a: Interval, b: Interval) -> Interval:
    """Give the interval of a maximum or a minimum."""
    function = np.maximum if name == "maximum" else np.minimum
    return function(a[0], b[0]), function(a[1], b[1])


def _either(chosen: Any, other: Any, a: Interval, b: Interval) -> Interval:
    """Give one of two enclosures, or both where the choice is open."""
    low, high = np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
    return np.where(chosen, a[0], np.where(other, b[0], low)), np.where(chosen, a[1], np.where(other, b[1], high))


def _multiplied(a: Jet, b: Jet) -> Jet:
    """Enclose a product."""
    crossed = product(a.slope, b.slope)
    return Jet(
        product(a.value, b.value),
        total(product(a.slope, b.value), product(a.value, b.slope)),
        total(total(product(a.second, b.value), product(a.value, b.second)), (2 * crossed[0], 2 * crossed[1])),
    )


def _composed(function: OnIntervals, u: Jet) -> Jet:
    """Enclose a(u): a'(u) u', a''(u) u'^2 + a'(u) u''."""
    slopes = function.slopes(*u.value)
    if isinstance(function, ScalarFunction):
        bend = function.seconds(*u.value)
    else:
        size = function.curvature(*u.value)
        bend = -size, size
    squares = product(u.slope, u.slope)
    squares = np.maximum(squares[0], 0.0), squares[1]
    return Jet(
        function.range(*u.value), product(slopes, u.slope), total(product(bend, squares), product(slopes, u.second))
    )


def _order(node: Node, x: Jet, known: dict[int, Jet]) -> Jet:
    """Enclose a comparison with a number: 0 or 1 on a cell; it may jump where that is open."""
    a, b = (_jet(p, x, known).value for p in node.parts)
    above, below = (a, b) if ORDERS[node.name] is np.greater else (b, a)
    yes, no = above[0] > below[1], above[1] < below[0]
    zero = np.zeros_like(x.value[0])
    steep = np.where(yes | no, 0.0, inf)
    return Jet((np.where(yes, 1.0, 0.0), np.where(no, 0.0, 1.0)), (zero - steep, steep), (zero - steep, steep))


@bound_operation("formula")
def formula(call: Called) -> Local:
    """Constants of a function of one number that runs over the entries: sup |a'|, sup |a''| by enclosures on cells.

    As near as the cells are small: within 1% where the interval is not longer than some tens.
    """
    local = entrywise(call.attributes["formula"], call.x, "a formula of one number")
    return Local(local.lipschitz, local.smoothness, local.norm, local.low, local.high)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_formula(reader: Composites, step: Step) -> Formula | None:
    """Read a step as a function of one value that it takes more than once; None if it is none."""
    if not step.results or step.results[0] is None or reader.operation(step) not in BINARY:
        return None
    result = Ref(step.results[0])
    chain = _alone(reader, result)
    if len(chain) < 2 or sum(_number(reader, i) is None for i in reader.items(step)) < 2:
        return None
    known: dict[int, Node] = {}
    node = _read(reader, result, chain[1], known)
    if node is None or len(known) > LARGEST:
        return None
    return Formula(chain[1], node, _points(known.values()))


def _alone(reader: Composites, item: Ref) -> tuple[Ref, ...]:
    """List the values of which alone a value is a function, entry by entry, the nearest first: itself, and others."""
    if item.value not in reader.chains:
        parts = _parts(reader, item)
        chains = [_alone(reader, p) for p in parts or () if isinstance(p, Ref)]
        common = [v for v in chains[0] if all(v in c for c in chains[1:])] if chains else []
        reader.chains[item.value] = (item, *common)
    return reader.chains[item.value]


def _number(reader: Composites, item: Any) -> float | None:
    """Give a number, or what is the same number at every entry."""
    if isinstance(item, bool | int | float):
        return float(item)
    if not isinstance(item, Ref):
        return None
    step = reader.made_by(item)
    if step is not None:
        if step.label in ("zeros_like", "ones_like"):
            return 0.0 if step.label == "zeros_like" else 1.0
        inner = reader.items(step) if reader.operation(step) in ("expand", *SAME_VALUE) else []
        return _number(reader, inner[0]) if len(inner) == 1 else None
    constant = reader.program.constants.get(item.value)
    if constant is None or not 0 < np.prod(reader.shape(item), dtype=int) <= 1_000_000:
        return None
    array = np.asarray(constant)
    if array.dtype.kind not in "fiub":
        return None
    first = float(array.flat[0])
    return first if np.isfinite(first) and np.all(array == first) else None


def _function(reader: Composites, step: Step) -> OnIntervals | None:
    """Give the function of one number that a step runs over the entries."""
    name, attributes = step.operation.name, reader.call(step).attributes
    if name in ("power", "pow"):
        exponent = attributes.get("exponent")
        return power(float(exponent)) if isinstance(exponent, int | float) else None
    if name in ACTIVATIONS:
        return ACTIVATIONS[name](attributes)
    return ELEMENTARY.get(name)


def _parts(reader: Composites, item: Ref) -> tuple[Any, ...] | None:
    """Give what the step that made a value takes entry by entry: values of its shape, and numbers; None if it does not."""
    step = reader.made_by(item)
    if step is None or step.mutates:
        return None
    name, items = reader.operation(step), reader.items(step)
    if name in BINARY or name == "compare":
        if len(items) != (3 if name == "where" else 2) or step.attributes.get("alpha", 1) != 1:
            return None
        if name == "compare" and step.label.rstrip("_") not in ORDERS:
            return None
    elif name in SAME_VALUE or _function(reader, step) is not None:
        items = items[:1]
    else:
        return None
    found = []
    for i in items:
        number = _number(reader, i)
        if number is None and (not isinstance(i, Ref) or reader.shape(i) != reader.shape(item)):
            return None
        found.append(i if number is None else number)
    real = "float" in reader.program.values[item.value].dtype or name == "compare"
    return tuple(found) if real else None


def _read(reader: Composites, item: Any, root: Ref, known: dict[int, Node]) -> Any:
    """Read a value as a formula of the root."""
    if not isinstance(item, Ref):
        return item
    if item == root:
        return known.setdefault(item.value, Node("x"))
    if item.value in known:
        return known[item.value]
    step, parts = reader.made_by(item), _parts(reader, item)
    if step is None or parts is None or len(known) > LARGEST:
        return None
    read = tuple(_read(reader, p, root, known) for p in parts)
    if any(p is None for p in read):
        return None
    name = reader.operation(step)
    if name in SAME_VALUE:
        known[item.value] = read[0] if isinstance(read[0], Node) else Node("add", (read[0], 0.0))
        return known[item.value]
    if name == "compare":
        if sorted(isinstance(p, Node) and p.name == "x" for p in read) != [False, True]:
            return None
        if isinstance(read[0], Node) and isinstance(read[1], Node):
            return None
        node = Node(step.label.rstrip("_"), read)
    elif name == "rsub":
        node = Node("sub", read[::-1])
    elif name == "div":
        inverse = 1 / read[1] if isinstance(read[1], float) and read[1] else Node("reciprocal", (read[1],), power(-1.0))
        node = Node("mul", (read[0], inverse))
    elif name in BINARY:
        node = Node(name, read)
    else:
        node = Node(name, read, _function(reader, step))
    known[item.value] = node
    return node


def _points(nodes: Any) -> tuple[float, ...]:
    """Give numbers at which a choice may change: those compared with, and kinks, with both signs."""
    found = {0.0}
    for node in nodes:
        if node.name in ORDERS or node.name in ("maximum", "minimum"):
            found |= {float(p) for p in node.parts if not isinstance(p, Node)}
        if isinstance(node.function, ScalarFunction):
            found |= {float(k) for k in (*node.function.kinks, *node.function.jumps)}
    return tuple(sorted(v for p in found for v in {p, -p} if np.isfinite(v)))
