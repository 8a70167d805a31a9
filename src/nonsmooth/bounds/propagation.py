"""The walk over a program: what every value reaches while the blocks run through their sets, step by step.

The file is long: one walk, with what a step may do besides giving a result (jump, write in place, be a part of a formula).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf, prod, sqrt
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.bounds.composites import Composites
from nonsmooth.bounds.constants import CONSTANTS, Called
from nonsmooth.bounds.jacobian import InputTangents
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, compose
from nonsmooth.bounds.region import Block, radii_of
from nonsmooth.dictionary import OPERATIONS, Kind
from nonsmooth.errors import UnlistedOperation
from nonsmooth.program import Program, Ref, Step, references
from nonsmooth.program.affine import FACTORS

__all__ = ["After", "Walked", "propagate"]

KEEPS_OPERATOR = frozenset("t transpose permute clone contiguous detach cast copy moveaxis".split())
"""Operations after which a matrix has the same spectral norm."""

PRODUCTS = frozenset("mul div square power pow exp abs complex_abs".split())
"""Operations on entries, and products, that have the same constants for complex numbers, an interval being a bound of |u|."""

After: TypeAlias = Callable[[Step, tuple[Reach, ...], Local, Reach], Reach]
"""What may change the reach of the first result of a step, given what its operands reach and its constants."""


@dataclass(frozen=True, eq=False)
class Walked:
    """A step with the constants of its operation on the set, and what its first result reaches."""

    step: Step
    local: Local
    reach: Reach


def propagate(
    program: Program,
    blocks: Sequence[Block],
    known: Mapping[int, Any],
    after: After | None = None,
    budget: float = inf,
) -> tuple[dict[int, Reach], list[Walked]]:
    """Walk a program once: the reach of every value that is left at the end, and the constants of every step.

        z = phi(u_1, ..., u_p),  constants of phi on the reach of its operands  ->  reach of z  (`compose`)

    `known` gives arrays of the framework for inputs and data: centers of the sets and what is fixed; None where shapes
    alone are known. Any program is served, not only chains: what flows together adds, what stands side by side adds as
    squares. `after` may change what the first result of a step reaches: it is given the step, what its operands reach, and
    its constants. `budget` is how many multiplications the norm of a known matrix or kernel may take.

    Raises:
        UnlistedOperation: an operation has no constants; by name and line.

    Source: RouletHarchaoui2019; derived, docs/theory/bounds.md.
    """
    return _Walk(program, blocks, known, after, budget).run()


class _Walk:
    """One walk: the reaches so far."""

    def __init__(
        self,
        program: Program,
        blocks: Sequence[Block],
        known: Mapping[int, Any],
        after: After | None = None,
        budget: float = inf,
    ) -> None:
        self.after, self.budget = after, budget
        self.program, self.count, self.radii = program, len(blocks), radii_of(blocks)
        leaves, items = ([known.get(v) for v in values] for values in (program.inputs, program.data))
        self.values = program.framework.step_by_step(program, leaves, items)
        self.env = {b.value: b.reach(place, self.count, budget) for place, b in enumerate(blocks)}
        inputs = [place for place, b in enumerate(blocks) if b.kind == "inputs" and after is None]
        self.tangents = InputTangents(inputs, [b.value for b in blocks], self.radii)
        self.composites = Composites(program).by_step
        self.last = {ref.value: step.index for step in program.steps for ref in _reads(step)}
        for k, found in self.composites.items():
            self.last |= {r.value: max(k, self.last.get(r.value, k)) for c in found for r in c.items}
        self.kept = {r.value for r in references(program.result)}

    def run(self) -> tuple[dict[int, Reach], list[Walked]]:
        """Walk; what is too large for a number is infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.walk()

    def walk(self) -> tuple[dict[int, Reach], list[Walked]]:
        """Walk step by step, and let go of what no later step reads."""
        walked = []
        for step in self.program.steps:
            walked += self.step(step)
            over = [v for v, last in self.last.items() if last == step.index and v not in self.kept]
            self.values.release(over)
            self.tangents.release(over)
            for value in over:
                self.env.pop(value, None)
        return {v: self.reach(Ref(v)) for v in self.kept}, walked

    def reach(self, item: Any) -> Reach:
        """Give the reach of an operand: a value, or a number."""
        if not isinstance(item, Ref):
            return Reach.constant(np.asarray(0.0 if item is None else item), self.count)
        if item.value not in self.env:
            value, center = self.program.values[item.value], self.values.center(item.value)
            self.env[item.value] = self.unknown(item.value) if center is None else Reach.constant(center, self.count)
            assert self.env[item.value].shape == value.shape or center is not None
        return self.env[item.value]

    def unknown(self, value: int) -> Reach:
        """Give the reach of a constant or of data without values: between what was drawn, else anywhere."""
        low, high = self.program.options.get("drawn", {}).get(value, (-inf, inf))
        zero = np.zeros(self.count), np.zeros((self.count, self.count))
        return Reach(self.program.values[value].shape, inf, *zero, np.array(low), np.array(high))

    def step(self, step: Step) -> list[Walked]:
        """Walk one step."""
        if not step.results:
            return []
        call = self.program.framework.shaped(self.program, step)
        items = [o.item for o in call.operands]
        operands = tuple(map(self.reach, items))
        hidden = tuple(u for r in _reads(step) if r not in items and (u := self.reach(r)).moves)
        read = tuple(map(self.reach, _reads(step)))
        self.values.advance(step)
        locals_ = self._locals(step, call, operands, read, len(hidden))
        shown = [o for m in step.mutates for o in (m, *self.program.shared.get(m, ()))]
        written = [r for r in (*step.results, *shown) if r is not None]
        self.tangents.follow([r.value for r in _reads(step)], written)
        followed = not hidden and self._all_real(step)
        if not followed:
            self.tangents.release(written)
        precision, first = self.values.precision(step), None
        for place, value in enumerate(step.results):
            if value is None:
                continue
            local = locals_[min(place, len(locals_) - 1)]
            shape = call.results[place] if place < len(call.results) else self.program.values[value].shape
            local = self._of_kind(step, value, local, shape, hidden=len(hidden))
            every = (*operands, *hidden)[: len(local.lipschitz)]
            found = compose(shape, local, every, self.radii, partial(self.values.center, value), precision)
            if step.operation.name in KEEPS_OPERATOR and len(shape) == 2:
                found = replace(found, operator=min(found.operator, operands[0].operator))
            if place == 0:
                found = self._as_whole(step, found)
            if place == 0 and followed:
                found = self.tangents.refine(call, operands, local, value, found, partial(self._evaluate, step, items))
            if self.after is not None and place == 0:
                found = self.after(step, every, local, found)
            self.env[value] = found
            first = first or Walked(step, local, found)
        self.written(step, read)
        return [first] if first is not None and first.reach.moves else []

    def _locals(
        self, step: Step, call: Any, operands: tuple[Reach, ...], read: Sequence[Reach], hidden: int
    ) -> list[Local]:
        """Give the constants of a step for each result; what is fixed and known needs none."""
        results = [r for r in step.results if r is not None]
        if not any(u.moves for u in read) and all(self.values.center(r) is not None for r in results):
            return [Local([0.0] * len(operands))] * len(step.results)
        items = [o.item for o in call.operands]
        constants = self.constants(step, call, items, operands)
        return [self._jumping(step, items, operands, local, hidden) for local in constants]

    def _all_real(self, step: Step) -> bool:
        """Tell whether all that a step reads and gives of what moves is real: tangents see nothing else."""
        values = (*(r.value for r in _reads(step)), *(r for r in step.results if r is not None))
        return all("float" in self.program.values[v].dtype for v in values if v in self.tangents.touched)

    def _of_kind(self, step: Step, value: int, local: Local, shape: Shape, *, hidden: int) -> Local:
        """Adapt constants to entries that are not real: complex ones have no order; whole numbers that move jump."""
        if self._is_complex(value):
            return replace(local, low=-inf, high=inf)
        if _is_real(self.program, value):
            return local
        local = replace(local, lipschitz=[inf if c else 0.0 for c in local.lipschitz])
        if step.operation.name not in ("cast", "copy") or hidden:
            return local
        if self.program.values[value].dtype == "bool":
            return replace(local, norm=sqrt(prod(shape)), low=0.0, high=1.0)
        return replace(local, low=np.floor(local.low), high=np.ceil(local.high))

    def _is_complex(self, value: int) -> bool:
        """Tell a value of complex numbers."""
        return "complex" in self.program.values[value].dtype

    def _as_whole(self, step: Step, found: Reach) -> Reach:
        """Take the least of a bound and of those of the formulas that end at a step."""
        for composite in self.composites.get(step.index, ()):
            operands = tuple(map(self.reach, composite.items))
            other = compose(found.shape, composite.constants(operands, found.shape), operands, self.radii)
            found = replace(
                found,
                norm=min(found.norm, other.norm),
                lipschitz=np.minimum(found.lipschitz, other.lipschitz),
                smoothness=np.minimum(found.smoothness, other.smoothness),
                low=np.maximum(found.low, other.low),
                high=np.minimum(found.high, other.high),
            )
        return found

    def constants(self, step: Step, call: Any, items: list[Any], operands: tuple[Reach, ...]) -> list[Local]:
        """Ask the record of an operation for its constants on what its operands reach."""
        name = _name(step, call)
        record = CONSTANTS.get(name)
        if record is None or call.attributes.get("pullback"):
            raise UnlistedOperation(
                f"bounds: the operation {step} has no constants. Give it some with nonsmooth.bounds.constants."
                f"bound_operation({name!r}), or write it with operations that have."
            )
        values = [*(r for r in step.results if r is not None), *(i.value for i in items if isinstance(i, Ref))]
        if any(map(self._is_complex, values)) and not _serves_complex(name):
            why = f"`{name}` of complex numbers has no constants"
            pairs = {(i, j): inf for j in range(len(operands)) for i in range(j + 1)}
            return [Local([inf] * len(operands), pairs, why=why)]
        evaluate: Any = partial(self._evaluate, step, items)
        pull: Any = partial(self._pull, step, items)
        whole = [i for i in items if isinstance(i, Ref) and not _is_real(self.program, i.value)]
        if any(self.reach(i).moves for i in whole):  # a run with the indices at the center says nothing of the others
            evaluate = pull = _unknown
        called = Called(name, operands, call.attributes, call.results, evaluate, pull, self.budget)
        try:
            found = record(called)
        except OverflowError:
            pairs = {(i, j): inf for j in range(len(operands)) for i in range(j + 1)}
            why = f"the constants of `{name}` on so large a set exceed double precision"
            return [Local([inf] * len(operands), pairs, why=why)]
        return found if isinstance(found, list) else [found]

    def _jumping(self, step: Step, items: list[Any], operands: tuple[Reach, ...], local: Local, hidden: int) -> Local:
        """Let a result jump with what no derivative sees: whole numbers and truth values that move, and what they index."""
        constants = list(local.lipschitz)
        for place, (item, reach) in enumerate(zip(items, operands, strict=True)):
            whole = isinstance(item, Ref) and not _is_real(self.program, item.value)
            if whole and reach.moves:
                constants[place] = inf
        if constants == list(local.lipschitz) and not hidden:
            return local
        why = local.why or f"`{step.operation.name}` depends on whole numbers or truth values that may jump in the set"
        constants += [inf] * hidden
        jumps = {(p, p): inf for p, c in enumerate(constants) if c == inf}
        return replace(local, lipschitz=constants, smoothness={**local.smoothness, **jumps}, why=why)

    def _evaluate(self, step: Step, items: list[Any], *arrays: Any) -> Floats | None:
        """Run the operation of a step at other operands."""
        found: Floats | None = self.values.evaluate(step, items, arrays)
        return found

    def _pull(
        self, step: Step, items: list[Any], arrays: Sequence[Any], cotangent: Floats
    ) -> tuple[Floats, ...] | None:
        """Pull a cotangent back through a step at other operands."""
        found: tuple[Floats, ...] | None = self.values.pull(step, items, arrays, cotangent)
        return found

    def written(self, step: Step, read: Sequence[Reach]) -> None:
        """Take account of what a write in place does to values that are no results, and to those that show the memory.

        Each of their entries is as it was or one of those written: the two parts add as squares.
        """
        for value in step.mutates:
            if value not in step.results:  # running statistics: nothing is known of what is written
                jumps = np.where(np.any([u.lipschitz > 0 for u in read], axis=0), inf, 0.0)
                self.env[value] = replace(self.unknown(value), lipschitz=jumps, smoothness=np.add.outer(jumps, jumps))
                self.values.release([value])
        for value in step.mutates:
            for other in self.program.shared.get(value, ()):
                shown = other in self.env or self.values.center(other) is not None
                if shown and other not in step.results:
                    old, new = self.reach(Ref(other)), self.env[value]
                    low, high = (
                        np.minimum(np.min(old.low), np.min(new.low)),
                        np.maximum(np.max(old.high), np.max(new.high)),
                    )
                    local = Local([1.0, 1.0], {}, float(np.hypot(old.norm, new.norm)), low, high, stacked=True)
                    self.env[other] = compose(old.shape, local, (old, new), self.radii)
                    self.values.release([other])


def _name(step: Step, call: Any) -> str:
    """Name the record of a step: the dictionary lists a division by a number among the products, and it is none here."""
    return "div" if call.operation == "mul" and step.label.startswith(("div", "true_div")) else str(call.operation)


def _serves_complex(name: str) -> bool:
    """Tell an operation whose constants on |u| <= ||u|| are those of complex entries too: linear ones, products, powers."""
    linear = name in OPERATIONS and OPERATIONS[name].kind in (Kind.AFFINE, Kind.INDEX)
    return linear or name in PRODUCTS or name in FACTORS


def _unknown(*arrays: Any) -> None:
    """Give nothing."""


def _is_real(program: Program, value: int) -> bool:
    """Tell a value of real or complex numbers from whole numbers and truth values."""
    return any(word in program.values[value].dtype for word in ("float", "complex"))


def _reads(step: Step) -> list[Ref]:
    """List the values that a step reads."""
    return list(dict.fromkeys(references((step.args, dict(step.kwargs)))))
