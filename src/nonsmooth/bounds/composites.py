"""Formulas of several steps that are better bounded as one map: sums of products, softmax, normalisations, attention.

Constants multiply along a program, so that a formula whose parts cancel is bounded far too high step by step. Where its
last step is met, the formula is known again by its steps, and bounded as a map of what went into it; the walk takes the
least of both bounds. What is known again is what the steps compute: nothing is claimed from names.

The file is long since every formula has its reading here, in one scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, prod
from typing import Any

import numpy as np

from nonsmooth.bounds.constants.record import CONSTANTS, Called, bound_operation
from nonsmooth.bounds.formulas import read_formula
from nonsmooth.bounds.reach import Local, Reach, Shape, times
from nonsmooth.program import Program, Ref, Step
from nonsmooth.program.shaped import ShapedCall

__all__ = ["Composite", "Composites"]


@dataclass(frozen=True)
class Composite:
    """A value as a map of earlier ones: the record that bounds it, the values that went in, attributes of the record.

    The record sees them with their axes in the order of `axes`, and the value in that of the last one; the value is its
    result times `factor`.
    """

    record: str
    items: tuple[Ref, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    axes: tuple[tuple[int, ...], ...] = ()

    def constants(self, operands: tuple[Any, ...], shape: tuple[int, ...]) -> Local:
        """Ask the record."""
        if self.axes:
            operands = tuple(_turned(u, a) for u, a in zip(operands, self.axes, strict=False))
            shape = tuple(shape[a] for a in self.axes[-1])
        found = CONSTANTS[self.record](Called(self.record, operands, self.attributes, (shape,)))
        local = found[0] if isinstance(found, list) else found
        if self.axes:
            low, high = (float(f(v)) if np.size(v) else 0.0 for f, v in ((np.min, local.low), (np.max, local.high)))
            local = replace(local, low=low, high=high)
        return local if self.factor == 1 else _scaled(local, self.factor)


def _turned(u: Reach, axes: tuple[int, ...]) -> Reach:
    """Give the reach of a value with its axes in another order."""

    def turn(v: Any) -> Any:
        return np.transpose(v, axes) if np.ndim(v) == len(axes) else np.asarray(v)

    low, high = (
        turn(v) if v.ndim in (0, len(axes)) else np.asarray(f(v)) for f, v in ((np.min, u.low), (np.max, u.high))
    )
    center = None if u.center is None else turn(u.center)
    return replace(u, shape=tuple(u.shape[a] for a in axes), low=low, high=high, center=center)


def _scaled(local: Local, factor: float) -> Local:
    """Give the constants of a multiple."""
    size = abs(factor)
    ends = times(factor, local.low), times(factor, local.high)
    return replace(
        local,
        lipschitz=[float(times(size, c)) for c in local.lipschitz],
        smoothness={pair: float(times(size, c)) for pair, c in local.smoothness.items()},
        norm=float(times(size, local.norm)),
        low=np.minimum(*ends),
        high=np.maximum(*ends),
        slopes=None,
    )


@bound_operation("sum of products")
def sum_of_products(call: Called) -> Local:
    """Give c sum_i u_i v_i over some axes, n factors of each: |.| <= c ||u|| ||v||, l = c ||v||, c ||u||, L = c.

    The sums over the other axes are the entries of a vector, whose norm is at most the sum of their sizes.
    """
    u, v = call.operands
    c = abs(call.number("factor", 1.0))
    return Local([c * v.norm, c * u.norm], {(0, 1): c}, c * u.norm * v.norm)


@dataclass(frozen=True)
class Statistic:
    """A number for each group of entries: the value below, its shape with axes of size 1, and that of the groups.

    Where the groups have axes of their own (`groups`), it was reshaped to the shape of the entries later.
    """

    item: Any
    shape: Shape
    groups: Shape | None = None


class Composites:
    """The composites of a program, by the value that they give."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._written = {m for step in program.steps for m in step.mutates}
        self._calls: dict[int, ShapedCall] = {}
        self.chains: dict[int, tuple[Ref, ...]] = {}

    @cached_property
    def by_step(self) -> Mapping[int, tuple[Composite, ...]]:
        """The composites that end at each step; none whose values are written to in place."""
        found = {}
        for step in self.program.steps:
            if len([r for r in step.results if r is not None]) >= 1 and not step.mutates:
                kept = tuple(c for c in self._of(step) if all(self._is_kept(c, r) for r in c.items))
                if kept:
                    found[step.index] = kept
        return found

    def _is_kept(self, composite: Composite, item: Ref) -> bool:
        """Tell values that nothing writes to, and that are real where a formula needs it."""
        real = composite.record == "sum of products" or "float" in self.program.values[item.value].dtype
        return real and item.value not in self._written

    def _of(self, step: Step) -> Iterator[Composite]:
        """Recognise the formulas that end at a step."""
        name = self.operation(step)
        if name in ("sum", "mean"):
            yield from self._products(step)
        if name == "div":
            yield from self._softmax(step)
        if name in ("div", "mul"):
            yield from self._normalised(step)
        if name in ("log", "add"):
            yield from self._log_sum(step)
        if name == "sub":
            yield from self._log_softmax(step)
        if name in ("matmul", "bmm"):
            yield from self._attention(step)
        yield from self._formula(step)

    # --- reading ------------------------------------------------------------------------------------------------------

    def call(self, step: Step) -> ShapedCall:
        """Give a step as shapes."""
        if step.index not in self._calls:
            self._calls[step.index] = self.program.framework.shaped(self.program, step)
        return self._calls[step.index]

    def items(self, step: Step) -> list[Any]:
        """Give the operands of a step as references and numbers."""
        return [o.item for o in self.call(step).operands]

    def operation(self, step: Step) -> str:
        """Name the operation of a step; a division by a number is one."""
        name = step.operation.name
        return "div" if name == "mul" and step.label.startswith(("div", "true_div")) else name

    def made_by(self, item: Any, *names: str) -> Step | None:
        """Give the step that made a value, if it is one of some operations and the value is not written to later."""
        step = self.program.producer.get(item.value) if isinstance(item, Ref) else None
        if step is None or item.value in self._written or (names and self.operation(step) not in names):
            return None
        if item in (*step.args, *step.operands):  # what gives its operand back
            return None
        return step if step.results and step.results[0] == item.value else None

    def shape(self, item: Ref) -> tuple[int, ...]:
        """Give the shape of a value."""
        return self.program.values[item.value].shape

    def spread(self, item: Any) -> tuple[Any, tuple[int, ...] | None]:
        """Undo what puts axes of size 1 into a value, and spreads them: the value below, and the shape before spreading."""
        shape = self.shape(item) if isinstance(item, Ref) else None
        while (step := self.made_by(item, "unsqueeze", "view", "reshape", "expand", "detach", "copy")) is not None:
            below = self.items(step)[0]
            if not isinstance(below, Ref):
                break
            same_rank = len(self.shape(below)) == len(self.shape(item))
            placed = self.call(step).attributes.get("placed")
            if step.operation.name == "expand" and shape != self.shape(item):  # axes of size 1 have moved since
                break
            if step.operation.name == "expand" and same_rank and placed is None:
                shape = self.shape(below)
            elif placed is not None:
                inner = self.shape(below)
                shape = tuple(inner[placed.index(d)] if d in placed else 1 for d in range(len(self.shape(item))))
            elif [n for n in self.shape(below) if n != 1] != [n for n in shape or () if n != 1]:
                break
            item = below
        return item, shape

    # --- sums of products ---------------------------------------------------------------------------------------------

    def _products(self, step: Step) -> Iterator[Composite]:
        """Recognise c sum u v: a sum or a mean of a product of equal shapes, times numbers."""
        item, factor = self.items(step)[0], 1.0
        if step.operation.name == "mean":
            before, after = self.call(step).operands[0].size, self.call(step).size
            factor = after / before if before else 0.0
        while (scaled := self.made_by(item, "mul", "div", "neg")) is not None:
            items = self.items(scaled)
            numbers = [i for i in items if not isinstance(i, Ref)]
            name = self.operation(scaled)
            if name == "neg":
                item, factor = items[0], -factor
            elif len(numbers) == 1 and isinstance(items[0], Ref):
                item, factor = items[0], factor * float(numbers[0]) if name == "mul" else factor / float(numbers[0])
            elif len(numbers) == 1 and name == "mul":
                item, factor = items[1], factor * float(numbers[0])
            else:
                break
        made = self.made_by(item, "mul", "square", "power")
        if made is None:
            return
        items = self.items(made)
        exponent = self.call(made).attributes.get("exponent")
        if made.operation.name == "square" or (made.operation.name == "power" and exponent == 2):
            items = [items[0], items[0]]
        if made.operation.name == "power" and exponent != 2:
            return
        if len(items) == 2 and all(isinstance(i, Ref) and self.shape(i) == self.shape(item) for i in items):
            yield Composite("sum of products", tuple(items), {"factor": factor})

    # --- softmax ------------------------------------------------------------------------------------------------------

    def _softmax(self, step: Step) -> Iterator[Composite]:
        """Recognise exp(y) / sum(exp(y)) along axes, y = x - m with an m that is the same along them."""
        above, below = (*self.items(step), None)[:2]
        exponential = self.made_by(above, "exp")
        sums, shape = self.spread(below)
        total = self.made_by(sums, "sum")
        if exponential is None or total is None or self.items(total)[0] != above:
            return
        axes = tuple(self.call(total).attributes.get("axes", ()))
        if shape is None or not self._reduced(self.shape(above), axes, shape):
            return
        inner = self.items(exponential)[0]
        yield Composite("softmax", (self._unshifted(inner, axes),), {"axes": axes, "dim": axes[0] if axes else None})

    def _unshifted(self, item: Ref, axes: tuple[int, ...]) -> Ref:
        """Give x for x - m, m the same along the axes."""
        shift = self.made_by(item, "sub")
        if shift is None or shift.attributes.get("alpha", 1) != 1 or len(self.items(shift)) != 2:
            return item
        x, m = self.items(shift)
        if not isinstance(x, Ref) or self.shape(x) != self.shape(item):
            return item
        if not isinstance(m, Ref):
            return x
        shape = self.spread(m)[1]
        return x if shape is not None and self._reduced(self.shape(item), axes, shape) else item

    @staticmethod
    def _reduced(shape: tuple[int, ...], axes: tuple[int, ...], reduced: tuple[int, ...]) -> bool:
        """Tell whether a shape is another one with axes of size 1 in the place of some."""
        return tuple(1 if a in axes else n for a, n in enumerate(shape)) == reduced

    # --- logarithms of sums of powers ---------------------------------------------------------------------------------

    def _log_of_sum(self, item: Any) -> tuple[Ref, tuple[int, ...]] | None:
        """Read log sum exp(y) along axes: give y and the axes."""
        logarithm = self.made_by(item, "log")
        if logarithm is None:
            return None
        inner = self.spread(self.items(logarithm)[0])[0]
        while (positive := self.made_by(inner, "abs")) is not None:
            inner = self.spread(self.items(positive)[0])[0]
        total = self.made_by(inner, "sum")
        exponential = None if total is None else self.made_by(self.items(total)[0], "exp")
        if total is None or exponential is None or not isinstance(self.items(exponential)[0], Ref):
            return None
        return self.items(exponential)[0], tuple(self.call(total).attributes.get("axes", ()))

    def _log_sum_exp(self, item: Any) -> tuple[Ref, tuple[int, ...]] | None:
        """Read log sum exp x, also as log sum exp(x - m) + m: give x and the axes."""
        if (known := self.made_by(item, "logsumexp")) is not None:
            return self.items(known)[0], tuple(self.call(known).attributes.get("axes", ()))
        step = self.made_by(item, "add")
        if step is None or len(self.items(step)) != 2 or step.attributes.get("alpha", 1) != 1:
            return self._log_of_sum(item)
        for part, shift in (self.items(step), self.items(step)[::-1]):
            found = self._log_of_sum(self.spread(part)[0])
            taken = None if found is None else self.made_by(found[0], "sub")
            if found is None or taken is None or taken.attributes.get("alpha", 1) != 1:
                continue
            x = self._unshifted(*found)
            if x != found[0] and self.spread(self.items(taken)[1])[0] == self.spread(shift)[0]:
                return x, found[1]
        return None

    def _log_sum(self, step: Step) -> Iterator[Composite]:
        """Recognise log sum exp x along axes, with a shift that is added again or without."""
        found = self._log_sum_exp(Ref(step.results[0])) if step.results[0] is not None else None
        if found is not None:
            yield Composite("logsumexp", (found[0],), {"axes": found[1]})

    def _log_softmax(self, step: Step) -> Iterator[Composite]:
        """Recognise x - log sum exp x, and (x - m) - log sum exp(x - m)."""
        items = self.items(step)
        if len(items) != 2 or not all(isinstance(i, Ref) for i in items) or step.attributes.get("alpha", 1) != 1:
            return
        below, shape = self.spread(items[1])
        found = self._log_sum_exp(below)
        if found is None or shape is None or items[0] != found[0]:
            return
        if self._reduced(self.shape(items[0]), found[1], self._padded(shape, items[0])):
            yield Composite("log_softmax", (self._unshifted(*found),), {"axes": found[1]})

    # --- normalisations -----------------------------------------------------------------------------------------------

    def _padded(self, shape: Shape, item: Ref) -> Shape:
        """Put axes of size 1 before a shape, as spreading does."""
        return (1,) * (len(self.shape(item)) - len(shape)) + shape

    def _below(self, s: Statistic) -> Statistic:
        """Undo what spreads a statistic, and what gives it the shape of the entries."""
        item, shape = self.spread(s.item)
        if shape is None:
            return s
        long, short = ([n for n in v if n != 1] for v in (s.shape, shape))
        s = replace(s, item=item, shape=s.shape if long == short or len(shape) != len(s.shape) else shape)
        step = self.made_by(item, "view", "reshape")
        if step is None or s.groups is not None or self.shape(item) != s.shape:
            return s
        below = self.items(step)[0]
        return self._below(Statistic(below, self.shape(below), self.shape(below)))

    def _average(self, s: Statistic) -> tuple[Ref, tuple[int, ...], Statistic] | None:
        """Read the mean along axes: give what is averaged, the axes, and the statistic below."""
        s, factor = self._below(s), 1.0
        while (step := self.made_by(s.item, "mul", "div")) is not None:
            items = self.items(step)
            if len(items) == 2 and isinstance(items[0], Ref) and isinstance(items[1], int | float) and items[1]:
                factor = factor * items[1] if self.operation(step) == "mul" else factor / items[1]
                s = self._below(replace(s, item=items[0]))
            else:
                return None
        step = self.made_by(s.item, "sum", "mean")
        if step is None:
            return None
        call, y = self.call(step), self.items(step)[0]
        factor *= call.operands[0].size if step.operation.name == "sum" else call.size
        if not call.size or abs(factor / call.size - 1) > 1e-9 or not isinstance(y, Ref):
            return None
        return y, tuple(call.attributes.get("axes", ())), s

    def _squared(self, item: Any) -> Any:
        """Give y for y^2."""
        step = self.made_by(item, "square", "power", "pow", "mul")
        if step is None:
            return None
        items = self.items(step)
        if step.operation.name == "mul":
            return items[0] if len(items) == 2 and items[0] == items[1] else None
        exponent = 2 if step.operation.name == "square" else self.call(step).attributes.get("exponent")
        return items[0] if exponent == 2 else None

    def _variance(self, s: Statistic) -> tuple[Ref, tuple[int, ...], Statistic, bool] | None:
        """Read a variance, or a mean of squares: give the entries, the axes, the statistic, and whether a mean was taken off."""
        s = self._below(s)
        while (step := self.made_by(s.item, "maximum", "clamp", "where", "relu")) is not None:
            items, attributes = self.items(step), self.call(step).attributes
            if step.operation.name == "where":
                inner = [items[1]] if items[0] is True else []
            elif step.operation.name == "maximum":
                inner = (
                    [i for i in items if isinstance(i, Ref)]
                    if 0 in [i for i in items if not isinstance(i, Ref)]
                    else []
                )
            else:
                floor = 0 if step.operation.name == "relu" else attributes.get("min")
                inner = items[:1] if floor == 0 and attributes.get("max") is None else []
            if len(inner) != 1:
                return None
            s = self._below(replace(s, item=inner[0]))
        if (step := self.made_by(s.item, "var")) is not None:
            attributes = self.call(step).attributes
            if attributes.get("correction", 1) == 0 or attributes.get("unbiased") is False:
                return self.items(step)[0], tuple(attributes.get("axes", ())), s, True
            return None
        if (step := self.made_by(s.item, "sub")) is not None and len(self.items(step)) == 2:
            of_squares, of_mean = self.items(step)
            average = self._average(replace(s, item=of_squares))
            x = None if average is None else self._squared(average[0])
            mean = self._squared(self.spread(of_mean)[0])
            other = None if x is None or mean is None else self._average(replace(s, item=mean))
            if x is not None and average and other and other[:2] == (x, average[1]):
                return x, average[1], average[2], True
            return None
        average = self._average(s)
        y = None if average is None else self._squared(average[0])
        if average is None or not isinstance(y, Ref):
            return None
        x = self._centred(y, average[1])
        return (y, average[1], average[2], False) if x is None else (x, average[1], average[2], True)

    def _centred(self, item: Any, axes: tuple[int, ...] | None = None) -> Ref | None:
        """Give x for x - mean of x along axes."""
        step = self.made_by(item, "sub")
        if step is None or len(self.items(step)) != 2 or step.attributes.get("alpha", 1) != 1:
            return None
        x, m = self.items(step)
        if not isinstance(x, Ref) or not isinstance(m, Ref) or self.shape(x) != self.shape(item):
            return None
        average = self._average(Statistic(m, self.shape(m)))
        if (
            average is None
            or (axes is not None and average[1] != axes)
            or not self._stands(average[0], x, average[2], average[1])
        ):
            return None
        return average[0]

    def _stands(self, entries: Ref, x: Ref, s: Statistic, axes: tuple[int, ...]) -> bool:
        """Tell whether a statistic of entries stands beside those of x, which are the same or were reshaped from it."""
        if s.groups is None:
            return entries == x and self._reduced(self.shape(x), axes, self._padded(s.shape, x))
        reshaped = self.made_by(entries, "view", "reshape")
        same = reshaped is not None and self.items(reshaped)[0] == x and self.shape(entries) == s.groups
        return same and self._reduced(self.shape(entries), axes, s.shape)

    def _deviation(self, item: Ref, power: int) -> tuple[Statistic, float] | None:
        """Read (variance + eps)^(-1/2), or what is divided by as its inverse: give the variance and eps."""
        s = self._below(Statistic(item, self.shape(item)))
        step = self.made_by(s.item, "rsqrt", "sqrt", "power", "pow", "reciprocal")
        if step is not None and step.operation.name == "reciprocal":
            s, power = self._below(replace(s, item=self.items(step)[0])), -power
            step = self.made_by(s.item, "sqrt", "power", "pow")
        if step is None:
            return None
        exponents = {"rsqrt": -0.5, "sqrt": 0.5, "reciprocal": 0.0}
        exponent = exponents.get(step.operation.name, self.call(step).attributes.get("exponent"))
        if exponent is None or exponent * power != -0.5:
            return None
        s = self._below(replace(s, item=self.items(step)[0]))
        added = self.made_by(s.item, "add")
        if added is None:
            return s, 0.0
        numbers = [i for i in self.items(added) if isinstance(i, int | float)]
        values = [i for i in self.items(added) if isinstance(i, Ref)]
        if len(numbers) != 1 or len(values) != 1 or added.attributes.get("alpha", 1) != 1:
            return None
        return replace(s, item=values[0]), float(numbers[0])

    def _factors(self, item: Any, power: int = 1) -> tuple[float, list[tuple[Ref, int]]]:
        """Read a product as numbers, and values with the powers 1 and -1."""
        if not isinstance(item, Ref):
            return (float(item) ** power if isinstance(item, int | float) and item else inf), []
        step = self.made_by(item, "mul", "div")
        items = self.items(step) if step is not None else []
        if step is None or len(items) != 2:
            return 1.0, [(item, power)]
        signs = (power, -power if self.operation(step) == "div" else power)
        parts = [self._factors(i, s) for i, s in zip(items, signs, strict=True)]
        return parts[0][0] * parts[1][0], parts[0][1] + parts[1][1]

    def _normalised(self, step: Step) -> Iterator[Composite]:
        """Recognise w (x - mean) / sqrt(variance + eps), in any order of the factors, and w x / sqrt(mean square + eps)."""
        if step.results[0] is None:
            return
        result = Ref(step.results[0])
        number, factors = self._factors(result)
        if not 2 <= len(factors) <= 4 or not 0 < abs(number) < inf:
            return
        for place, (item, power) in enumerate(factors):
            deviation = self._deviation(item, power)
            variance = None if deviation is None else self._variance(deviation[0])
            if deviation is None or variance is None:
                continue
            rest = factors[:place] + factors[place + 1 :]
            for at, (top, sign) in enumerate(rest):
                weights = rest[:at] + rest[at + 1 :]
                if sign == 1 and self.shape(top) == self.shape(result) and len(weights) <= 1:
                    yield from self._scaled_groups(top, variance, deviation[1], number, weights, result)

    def _scaled_groups(
        self, top: Ref, variance: Any, eps: float, number: float, weights: list[tuple[Ref, int]], result: Ref
    ) -> Iterator[Composite]:
        """Give the composite of a numerator, a variance and what is left of a product."""
        entries, axes, s, centred = variance
        if centred:
            taken = self.made_by(top, "sub")
            if (
                taken is None
                or self._centred(top, axes) != entries
                or not self._stands(entries, self.items(taken)[0], s, axes)
            ):
                return
        elif not self._stands(entries, self._less_nothing(top), s, axes):
            return
        items, attributes = [entries], {"axes": axes, "eps": eps, "centred": centred}
        if weights:
            weight, power = weights[0]
            if power != 1 or number != 1:
                return
            shape = self._padded(self.shape(weight), result)
            attributes["met"] = _groups_met(shape, self.shape(result), self.shape(entries), axes)
            items.append(weight)
        yield Composite("normalisation", tuple(items), attributes, number)

    def _less_nothing(self, item: Ref) -> Ref:
        """Give x for x - 0."""
        step = self.made_by(item, "sub")
        if step is None or len(self.items(step)) != 2:
            return item
        x, zero = self.items(step)
        constant = self.program.constants.get(zero.value) if isinstance(zero, Ref) else zero
        if constant is None or not isinstance(x, Ref) or self.shape(x) != self.shape(item):
            return item
        return x if not np.any(np.asarray(constant)) else item

    # --- attention ----------------------------------------------------------------------------------------------------

    def _product(self, item: Any) -> tuple[list[Ref], tuple[Any, Any], tuple[Any, Any]] | None:
        """Read a product of stacks of matrices: the operands, the axes that are contracted, and those beside."""
        step = self.made_by(item, "matmul", "bmm")
        if step is None:
            return None
        call, items = self.call(step), self.items(step)
        if len(items) != 2 or not all(isinstance(i, Ref) for i in items):
            return None
        ranks = [len(self.shape(i)) for i in items]
        if "contracted" in call.attributes:
            return items, call.attributes["contracted"], call.attributes["beside"]
        if ranks[0] != ranks[1] or ranks[0] < 2 or self.shape(items[0])[:-2] != self.shape(items[1])[:-2]:
            return None
        stack = tuple(range(ranks[0] - 2))
        return items, ((ranks[0] - 1,), (ranks[0] - 2,)), (stack, stack)

    def _probabilities(self, item: Any) -> tuple[Ref, int] | None:
        """Read softmax along one axis: give the scores and the axis."""
        step = self.made_by(item, "softmax", "div")
        if step is None:
            return None
        if step.operation.name == "softmax":
            axes = tuple(self.call(step).attributes.get("axes", ()))
            scores = self.items(step)[0] if len(self.items(step)) == 1 else None
        else:
            found = next(self._softmax(step), None)
            scores, axes = (found.items[0], found.attributes["axes"]) if found else (None, ())
        return (scores, axes[0]) if isinstance(scores, Ref) and len(axes) == 1 else None

    def _attention(self, step: Step) -> Iterator[Composite]:
        """Recognise softmax(s Q K') V, stacks of them, with axes in any order."""
        outer = self._product(Ref(step.results[0])) if step.results[0] is not None else None
        if outer is None:
            return
        items, contracted, beside = outer
        for side in (0, 1):
            found = self._probabilities(items[side])
            if found is None or contracted[side] != (found[1],):
                continue
            scores, keys = found
            scale, factors = self._factors(scores)
            inner = self._product(factors[0][0]) if len(factors) == 1 and factors[0][1] == 1 else None
            if inner is None or not 0 < abs(scale) < inf:
                continue
            yield from self._attended(
                step, inner, keys, scale, (items[1 - side], contracted[1 - side], beside[side], beside[1 - side], side)
            )

    def _attended(self, step: Step, inner: Any, keys: int, scale: float, outer: Any) -> Iterator[Composite]:
        """Put the axes of queries, keys, values and result in order: stacks, rows, columns."""
        (a, b), contracted, beside = inner
        values, along, stack_p, stack_v, side = outer
        rests = [
            [d for d in range(len(self.shape(i))) if d not in (*contracted[j], *beside[j])]
            for j, i in enumerate((a, b))
        ]
        stack = len(beside[0])
        if any(len(r) != 1 for r in rests) or any(len(c) != 1 for c in contracted) or keys < stack:
            return
        key = keys - stack
        q, k = (b, a) if key == 0 else (a, b)
        j, i = (0, 1) if key == 0 else (1, 0)
        if sorted(stack_p) != list(range(stack)):
            return
        rest_v = [d for d in range(len(self.shape(values))) if d not in (*along, *stack_v)]
        if len(rest_v) != 1 or len(along) != 1:
            return
        order_v = [stack_v[stack_p.index(d)] for d in range(stack)]
        result = len(self.call(step).results[0])
        places = [stack_p.index(d) for d in range(stack)]
        last = (result - 2, result - 1) if side == 0 else (result - 1, result - 2)
        axes = (
            (*beside[i], rests[i][0], contracted[i][0]),
            (*beside[j], rests[j][0], contracted[j][0]),
            (*order_v, along[0], rest_v[0]),
            (*places, *last),
        )
        yield Composite("scaled_dot_product_attention", (q, k, values), {"scale": scale}, axes=axes)

    # --- functions of one number --------------------------------------------------------------------------------------

    def _formula(self, step: Step) -> Iterator[Composite]:
        """Recognise what is a function of one value, entry by entry, that goes in more than once."""
        formula = read_formula(self, step)
        if formula is not None:
            yield Composite("formula", (formula.root,), {"formula": formula})


def _groups_met(weight: Shape, result: Shape, entries: Shape, axes: tuple[int, ...]) -> int:
    """Count the groups that the weight meets that meets most; all of them where that would take long."""
    kept = tuple(1 if d in axes else n for d, n in enumerate(entries))
    if entries == result:
        return prod(n for n, w, k in zip(result, weight, kept, strict=True) if w == 1 and k != 1)
    if prod(result) > 1_000_000:
        return min(prod(kept), prod(result) // max(prod(weight), 1))
    groups = np.broadcast_to(np.arange(prod(kept)).reshape(kept), entries).reshape(result)
    owners = np.broadcast_to(np.arange(prod(weight)).reshape(weight), result)
    pairs = np.unique(np.stack([owners.ravel(), groups.ravel()]), axis=1)
    return int(np.bincount(pairs[0]).max(initial=0))
