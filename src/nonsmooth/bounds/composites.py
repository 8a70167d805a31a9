"""Formulas of several steps that are better bounded as one map: sums of products, softmax written out.

Constants multiply along a program, so that a formula whose parts cancel is bounded far too high step by step. Where its
last step is met, the formula is known again by its steps, and bounded as a map of what went into it; the walk takes the
least of both bounds. What is known again is what the steps compute: nothing is claimed from names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nonsmooth.bounds.constants.record import CONSTANTS, Called, bound_operation
from nonsmooth.bounds.reach import Local
from nonsmooth.program import Program, Ref, Step
from nonsmooth.program.shaped import ShapedCall

__all__ = ["Composite", "Composites"]


@dataclass(frozen=True)
class Composite:
    """A value as a map of earlier ones: the record that bounds it, the values that went in, attributes of the record."""

    record: str
    items: tuple[Ref, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def constants(self, operands: tuple[Any, ...], shape: tuple[int, ...]) -> Local:
        """Ask the record."""
        found = CONSTANTS[self.record](Called(self.record, operands, self.attributes, (shape,)))
        return found[0] if isinstance(found, list) else found


@bound_operation("sum of products")
def sum_of_products(call: Called) -> Local:
    """Give c sum_i u_i v_i over some axes, n factors of each: |.| <= c ||u|| ||v||, l = c ||v||, c ||u||, L = c.

    The sums over the other axes are the entries of a vector, whose norm is at most the sum of their sizes.
    """
    u, v = call.operands
    c = abs(call.number("factor", 1.0))
    return Local([c * v.norm, c * u.norm], {(0, 1): c}, c * u.norm * v.norm)


class Composites:
    """The composites of a program, by the value that they give."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._written = {m for step in program.steps for m in step.mutates}
        self._calls: dict[int, ShapedCall] = {}
        self._known: dict[int, tuple[Composite, ...]] = {}

    @cached_property
    def by_step(self) -> Mapping[int, tuple[Composite, ...]]:
        """The composites that end at each step; none whose values are written to in place."""
        found = {}
        for step in self.program.steps:
            if len([r for r in step.results if r is not None]) >= 1 and not step.mutates:
                kept = tuple(c for c in self._of(step) if not any(r.value in self._written for r in c.items))
                if kept:
                    found[step.index] = kept
        return found

    def _of(self, step: Step) -> Iterator[Composite]:
        """Recognise the formulas that end at a step."""
        if step.operation.name in ("sum", "mean"):
            yield from self._products(step)
        if self._name(step) == "div":
            yield from self._softmax(step)

    # --- reading ------------------------------------------------------------------------------------------------------

    def call(self, step: Step) -> ShapedCall:
        """Give a step as shapes."""
        if step.index not in self._calls:
            self._calls[step.index] = self.program.framework.shaped(self.program, step)
        return self._calls[step.index]

    def items(self, step: Step) -> list[Any]:
        """Give the operands of a step as references and numbers."""
        return [o.item for o in self.call(step).operands]

    def _name(self, step: Step) -> str:
        """Name the operation of a step; a division by a number is one."""
        name = step.operation.name
        return "div" if name == "mul" and step.label.startswith(("div", "true_div")) else name

    def made_by(self, item: Any, *names: str) -> Step | None:
        """Give the step that made a value, if it is one of some operations and the value is not written to later."""
        step = self.program.producer.get(item.value) if isinstance(item, Ref) else None
        if step is None or item.value in self._written or (names and self._name(step) not in names):
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
            if step.operation.name == "expand" and same_rank:
                shape = self.shape(below)
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
            name = self._name(scaled)
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
