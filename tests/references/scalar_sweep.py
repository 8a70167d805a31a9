"""The scalar program of a captured program of torch, executed: numbers in the place of the shapes that a count sees.

`Nodes` has the methods of `cost.numbers.Numbers`; it runs every scalar operation on a tape. What moves entries is the
framework's own callable, run on the numbers of the tape instead of values, so that views, gathers, pads and writes in
place need no definition. Where a definition leaves open which entries an operation of the framework takes, the
framework is asked: a linear one by unit arrays, one that chooses by ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch

from nonsmooth.cost.definitions import DEFINITIONS, Called, tally_of
from nonsmooth.cost.numbers import Axes, Numbers, Shape, View
from nonsmooth.cost.tally import Sweep, Tally
from nonsmooth.frameworks.replay.arguments import fill, map_refs
from nonsmooth.frameworks.torch.names import arguments_of
from nonsmooth.frameworks.torch.shaped import _operands
from nonsmooth.program import Program, Ref, Step
from nonsmooth.program.shaped import ShapedCall
from tests.references.scalar_tape import SPECIAL, Tape

__all__ = ["Executed", "Nodes", "NotExecutable", "WrongValue", "execute"]

ROUNDING = {"floor": np.floor, "ceil": np.ceil, "round": np.round, "trunc": np.trunc}


class NotExecutable(Exception):
    """A definition that stands for its count alone, or a value that is no real number."""


class WrongValue(AssertionError):
    """A definition that does not compute what the framework computes."""


Ask = Callable[[dict[int, np.ndarray]], np.ndarray]
"""The operation of the framework as a function of some of its operands, by place: its first result."""


class Nodes(Numbers):
    """An array of numbers of a tape."""

    def __init__(
        self, ids: np.ndarray, moving: bool, tape: Tape, tally: Tally, ask: Ask | None = None, place: int | None = None
    ) -> None:
        super().__init__(ids.shape, moving, tally)
        self.ids, self.tape, self.ask, self.place = ids, tape, ask, place

    def like_ids(self, ids: Any, moving: bool | None = None) -> Nodes:
        """Give other numbers of the same tape."""
        ids = np.asarray(ids, dtype=np.int64)
        return Nodes(ids, self.moving if moving is None else moving, self.tape, self.tally, self.ask)

    def like(self, shape: Shape, moving: bool | None = None) -> Nodes:
        """Refuse an array of which only the shape is said."""
        raise NotExecutable("an array without entries")

    @property
    def values(self) -> np.ndarray:
        """The numbers."""
        return np.array([self.tape.values[i] for i in self.ids.reshape(-1)], dtype=float).reshape(self.shape)

    def _literal(self, value: Any) -> Nodes:
        """Write numbers down that do not move."""
        array = np.asarray(value, dtype=float)
        ids = np.array([self.tape.number(float(v)) for v in array.reshape(-1)], dtype=np.int64)
        return self.like_ids(ids.reshape(array.shape), False)

    def _as_nodes(self, other: Numbers | float) -> Nodes:
        """Write a number down."""
        if isinstance(other, Nodes):
            return other
        assert isinstance(other, int | float), other
        return self._literal(other)

    # --- scalar operations --------------------------------------------------------------------------------------------

    def apply(self, name: str, other: Numbers | float | None = None, *, times: int = 1) -> Nodes:
        """Run a scalar operation on every entry or pair of entries."""
        if times != 1 or name in ("special", "compare", "round"):
            raise NotExecutable(f"{name}, of which the definition does not say which")
        return self._run(name, other)

    def special(self, function: str, other: Numbers | float | None = None) -> Nodes:
        """Run a special function."""
        if function not in SPECIAL:
            raise NotExecutable(function)
        return self._run("special", other, SPECIAL[function][0], function)

    def rounded(self, how: str) -> Nodes:
        """Round."""
        return self._run("round", None, ROUNDING[how])

    def exceeds(self, other: Numbers | float) -> Nodes:
        """Compare."""
        return self._run("compare", other, lambda x, y: float(x > y))

    def equals(self, other: Numbers | float) -> Nodes:
        """Compare for equality."""
        return self._run("compare", other, lambda x, y: float(x == y))

    def _run(
        self, name: str, other: Numbers | float | None, value: Callable[..., Any] | None = None, what: object = None
    ) -> Nodes:
        """Run a scalar operation; of one that the tape does not know, the value is given."""
        tape, still = self.tape, name in ("compare", "round", "sign")
        if other is None:
            moving, pairs, shape = "x" if self.moving else "", [(i, -1) for i in self._flat()], self.shape
        else:
            second = self._as_nodes(other)
            moving = ("x" if self.moving else "") + ("y" if second.moving else "")
            one, two = np.broadcast_arrays(self.ids, second.ids)
            pairs, shape = list(zip(one.reshape(-1).tolist(), two.reshape(-1).tolist(), strict=True)), one.shape
        moving, found = "" if still else moving, []
        for x, y in pairs:
            given = None
            if value is not None:
                v = tape.values
                given = float(value(v[x]) if y < 0 else value(v[x], v[y]))
            found.append(tape.run(name, moving, x, y, given, what))
        return self.like_ids(np.array(found, dtype=np.int64).reshape(shape), bool(moving))

    def _flat(self) -> list[int]:
        """List the numbers."""
        return self.ids.reshape(-1).tolist()  # type: ignore[no-any-return]

    def _from(self, name: str, other: Numbers | float) -> Nodes:
        """Run a scalar operation whose first argument is a number."""
        return self._as_nodes(other)._run(name, self)

    def select(self, one: Numbers | float, other: Numbers | float) -> Nodes:
        """Choose by conditions."""
        a, b, tape = self._as_nodes(one), self._as_nodes(other), self.tape
        moving = ("x" if a.moving else "") + ("y" if b.moving else "")
        condition, x, y = np.broadcast_arrays(self.ids, a.ids, b.ids)
        found = []
        for c, i, j in zip(condition.reshape(-1), x.reshape(-1), y.reshape(-1), strict=True):
            holds = bool(tape.values[c])
            found.append(tape.run("select", moving, int(i), int(j), tape.values[i if holds else j], holds))
        return self.like_ids(np.array(found, dtype=np.int64).reshape(condition.shape), bool(moving))

    # --- moves --------------------------------------------------------------------------------------------------------

    def alias(self, shape: Shape, view: View = None, *by: Numbers) -> Nodes:
        """Show entries under another shape."""
        return self.joined((), shape, view, *by)

    def joined(self, others: Sequence[Numbers], shape: Shape, view: View = None, *by: Numbers) -> Nodes:
        """Show entries of several arrays as one."""
        arrays = [self, *others]
        if view is not None:
            ids = np.asarray(view(*(a.ids for a in arrays), *(b.values for b in by)))
        elif not others and prod(shape) == self.size and _ones_aside(shape) == _ones_aside(self.shape):
            ids = self.ids.reshape(shape)
        else:
            raise NotExecutable("a view of which the definition does not say how")
        assert ids.shape == tuple(shape), (ids.shape, shape)
        return self.like_ids(ids, any(a.moving for a in arrays))

    def known(self, shape: Shape, how: View = None, *of: Numbers) -> Nodes:
        """Write numbers down that integer work finds."""
        if how is None:
            raise NotExecutable("numbers of which the definition does not say how")
        found = np.asarray(how(*(a.values for a in of)), dtype=float)
        assert found.shape == tuple(shape), (found.shape, shape)
        return self._literal(found)

    def detached(self) -> Nodes:
        """Give the same numbers, not differentiated."""
        return self.like_ids(self.ids, False)

    # --- folds --------------------------------------------------------------------------------------------------------

    def _groups(self, axes: Axes, keep: bool) -> tuple[Shape, np.ndarray]:
        """Lay the entries that go into each result in the rows of a table."""
        shape, _ = self._reduced(axes, keep)
        chosen = range(self.ndim) if axes is None else [axes] if isinstance(axes, int) else list(axes)
        removed = sorted({a % self.ndim for a in chosen}) if self.ndim else []
        kept = [a for a in range(self.ndim) if a not in removed]
        return shape, self.ids.transpose(*kept, *removed).reshape(prod(shape), -1) if self.size else np.zeros(
            (prod(shape), 0), dtype=int
        )

    def _folded(self, name: str, axes: Axes, keep: bool) -> Nodes:
        """Fold the entries of each row."""
        shape, rows = self._groups(axes, keep)
        moving = "xy" if self.moving else ""
        return self.like_ids(np.array([self._fold(name, moving, row) for row in rows]).reshape(shape))

    def _fold(self, name: str, moving: str, row: Sequence[int]) -> int:
        """Fold numbers from the left; none are 0, or 1."""
        if not len(row):
            return self.tape.number(float(name == "mul"))
        total = int(row[0])
        for i in row[1:]:
            total = self.tape.run(name, moving, total, int(i))
        return total

    def largest(self, axes: Axes = None, *, keep: bool = False) -> Nodes:
        """Compare the entries of each row one after another."""
        shape, rows = self._groups(axes, keep)
        found = []
        for row in rows:
            best = int(row[0])
            for i in row[1:]:
                holds = self.tape.values[i] > self.tape.values[best]
                self.tape.run("compare", "", int(i), best, float(holds))
                best = int(i) if holds else best
            found.append(best)
        return self.like_ids(np.array(found).reshape(shape))

    def cumulated(self, name: str, axis: int) -> Nodes:
        """Keep every partial result."""
        moving, found = "xy" if self.moving else "", np.moveaxis(self.ids, axis, 0).copy()
        for k in range(1, len(found)):
            for p in np.ndindex(found.shape[1:]):
                found[(k, *p)] = self.tape.run(name, moving, int(found[(k - 1, *p)]), int(found[(k, *p)]))
        return self.like_ids(np.moveaxis(found, 0, axis))

    # --- what the framework is asked ----------------------------------------------------------------------------------

    def _asked(self, operands: dict[int, np.ndarray]) -> np.ndarray:
        """Ask the framework."""
        if self.ask is None:
            raise NotExecutable("a step that cannot be asked")
        return self.ask(operands)

    def accumulated(self, source: Numbers, name: str = "add") -> Nodes:
        """Fold every entry of a source into the place to which the framework sends it."""
        assert isinstance(source, Nodes)
        ones = {0: np.ones(self.shape), -1: np.ones(source.shape)}
        before, found = self._asked(ones), self.ids.copy()
        moving = self.moving or source.moving
        for k, i in enumerate(source._flat()):
            ones[-1].reshape(-1)[k] = 3.0
            (place,) = np.argwhere(self._asked(ones) != before)
            ones[-1].reshape(-1)[k] = 1.0
            found[tuple(place)] = self.tape.run(name, "xy" if moving else "", int(found[tuple(place)]), i)
        return self.like_ids(found, moving)

    def gathered(self, shape: Shape, sums: int, places: View = None, *by: Numbers) -> Nodes:
        """Sum the entries of every result."""
        terms: list[list[int]] = [[] for _ in range(prod(shape))]
        said = None if places is None else zip(*places(*(b.values for b in by)), strict=True)
        for out, entry in self._terms(shape) if said is None else said:
            terms[out].append(int(self.ids.reshape(-1)[entry]))
        assert sum(max(len(t) - 1, 0) for t in terms) == sums, "additions"
        moving = "xy" if self.moving else ""
        return self.like_ids(np.array([self._fold("add", moving, t) for t in terms]).reshape(shape))

    def _terms(self, shape: Shape) -> Iterator[tuple[int, int]]:
        """Ask which entries the framework sums into each result."""
        for entry in range(self.size):
            unit = np.zeros(self.size)
            unit[entry] = 1.0
            found = self._asked({0: unit.reshape(self.shape)})
            if found.shape != tuple(shape) or not np.isin(found, (0.0, 1.0)).all():
                raise NotExecutable("sums of which the definition does not say of what")
            yield from ((int(out), entry) for out in np.flatnonzero(found))

    def chosen(self, shape: Shape, comparisons: int, how: View = None) -> Nodes:
        """Choose entries as the definition or the framework does; the comparisons are those that are stated."""
        self.tape.counts["compare"] += comparisons
        if how is not None:
            return self.like_ids(self.ids.reshape(-1)[np.asarray(how(self.values), dtype=int)].reshape(shape))
        order = np.argsort(self.values.reshape(-1), kind="stable")
        ranks = np.empty(self.size)
        ranks[order] = np.arange(1, self.size + 1)
        found = self._asked({0: ranks.reshape(self.shape)})
        if found.size != prod(shape):
            raise NotExecutable("a choice of which the definition does not say how")
        return self.like_ids(self.ids.reshape(-1)[order[found.astype(int) - 1]].reshape(shape))

    def contracted(self, other: Numbers, shape: Shape, terms: int, equation: str | None = None) -> Nodes:
        """Sum the products that an equation or the framework says."""
        pairs = None
        if equation is not None:
            pairs = lambda *unused: _pairs_of(equation, self.shape, other.shape)  # noqa: E731
        return self.bilinear(other, shape, prod(shape) * terms, prod(shape) * max(terms - 1, 0), pairs)

    def bilinear(self, other: Numbers, shape: Shape, products: int, sums: int, pairs: View = None) -> Nodes:
        """Sum the products of pairs of entries."""
        assert isinstance(other, Nodes)
        moving = ("x" if self.moving else "") + ("y" if other.moving else "")
        terms: list[list[int]] = [[] for _ in range(prod(shape))]
        one, two, n = self._flat(), other._flat(), 0
        for out, i, j in self._pairs(other, shape) if pairs is None else zip(*pairs(), strict=True):
            terms[out].append(self.tape.run("mul", moving, one[i], two[j]))
            n += 1
        assert n == products, f"{n} products and not {products}"
        assert sum(max(len(t) - 1, 0) for t in terms) == sums, "additions"
        folded = [self._fold("add", "xy" if moving else "", t) for t in terms]
        return self.like_ids(np.array(folded, dtype=np.int64).reshape(shape), bool(moving))

    def _pairs(self, other: Nodes, shape: Shape) -> Iterator[tuple[int, int, int]]:
        """Ask for which pairs of entries the framework multiplies: units for one of them, codes for the other."""
        if self.place is None or other.place is None:
            raise NotExecutable("products of which the definition does not say of what")
        codes = np.arange(1.0, other.size + 1).reshape(other.shape)
        for i in range(self.size):
            unit = np.zeros(self.size)
            unit[i] = 1.0
            found = self._asked({self.place: unit.reshape(self.shape), other.place: codes}).reshape(-1)
            assert found.size == prod(shape)
            yield from ((int(out), i, int(found[out]) - 1) for out in np.flatnonzero(found))


def _ones_aside(shape: Shape) -> list[int]:
    """Give the sizes that are not 1."""
    return [n for n in shape if n != 1]


def _pairs_of(equation: str, left: Shape, right: Shape) -> tuple[list[int], list[int], list[int]]:
    """Walk the products of an equation: flat places of the result and of both factors; dots and sizes of 1 broadcast."""
    sides, result = equation.replace(" ", "").split("->")
    one, two = sides.split(",")
    stacks = [shape[: len(shape) - len(side.replace("...", ""))] for side, shape in ((one, left), (two, right))]
    n = len(np.broadcast_shapes(*stacks))
    one, two = (side.replace("...", "ABCDEFGH"[n - len(s) : n]) for side, s in zip((one, two), stacks, strict=True))
    result = result.replace("...", "ABCDEFGH"[:n])
    sizes = dict.fromkeys(one + two, 1)
    for letter, size in zip(one + two, (*left, *right), strict=True):
        sizes[letter] = max(sizes[letter], size) if size else 0
    letters = result + "".join(dict.fromkeys(c for c in one + two if c not in result))
    places = np.indices([sizes[c] for c in letters]).reshape(len(letters), -1) if letters else np.zeros((0, 1), int)
    at, found = dict(zip(letters, places, strict=True)), []
    for side, shape in ((result, tuple(sizes[c] for c in result)), (one, left), (two, right)):
        flat = np.zeros(places.shape[1], dtype=np.int64)
        for c, size in zip(side, shape, strict=True):
            flat = flat * size + (at[c] if size > 1 else 0)
        found.append(flat.tolist())
    return found[0], found[1], found[2]


# --- programs ---------------------------------------------------------------------------------------------------------


@dataclass
class Executed:
    """A program that was executed: its tape, the numbers of its result and inputs, what was counted, what was stated."""

    tape: Tape
    results: np.ndarray
    inputs: list[np.ndarray]
    stated: Sweep
    used: Counter[str] = field(default_factory=Counter)

    @property
    def value(self) -> np.ndarray:
        """The result."""
        return np.array([self.tape.values[i] for i in self.results.reshape(-1)]).reshape(self.results.shape)

    def gradient(self) -> tuple[list[np.ndarray], Counter[str]]:
        """Run the reverse sweep: the gradient, and what it counted."""
        cotangents, counts = self.tape.pull({int(i): 1.0 for i in self.results.reshape(-1)})
        return [_table(cotangents, ids) for ids in self.inputs], counts

    def directional(self, directions: Sequence[Sequence[np.ndarray]]) -> tuple[list[float], Counter[str], Counter[str]]:
        """Run the forward sweep: derivatives along directions, what was counted once, and what for all of them."""
        starts = [
            {
                int(i): float(v)
                for ids, t in zip(self.inputs, d, strict=True)
                for i, v in zip(ids.flat, t.flat, strict=True)
            }
            for d in directions
        ]
        tangents, once, each = self.tape.push(starts)
        return [sum(t.get(int(i), 0.0) for i in self.results.reshape(-1)) for t in tangents], once, each


def _table(numbers: dict[int, float], ids: np.ndarray) -> np.ndarray:
    """Read numbers of the tape."""
    return np.array([numbers.get(int(i), 0.0) for i in ids.reshape(-1)]).reshape(ids.shape)


def execute(program: Program, x: Any, data: tuple[Any, ...] = ()) -> Executed:
    """Execute the scalar program of a program at a point, every step beside torch's own."""
    return _Run(program, x, data).executed()


class _Run:
    """One run: torch's values, and beside every floating one the numbers of the tape under which its entries stand."""

    def __init__(self, program: Program, x: Any, data: tuple[Any, ...]) -> None:
        self.program, self.tape, self.stated = program, Tape(), Tally().sweep()
        self.values: dict[int, Any] = {}
        self.ids: dict[int, torch.Tensor] = {}
        self.used: Counter[str] = Counter()
        framework = program.framework
        leaves = [t.detach() for t in framework.flatten(x)[0]]
        items = [t.detach() for t in framework.data_arrays(data)]
        for value, tensor in (
            *zip(program.inputs, leaves, strict=True),
            *zip(program.data, items, strict=True),
            *program.constants.items(),
        ):
            self.values[value] = tensor.detach().clone() if isinstance(tensor, torch.Tensor) else tensor
            self._literal(value)
        self.leaves = [self.ids[v].clone() for v in program.inputs]

    def executed(self) -> Executed:
        """Run all steps."""
        reached = self.program.framework.reached(self.program)
        with torch.no_grad():
            for step in self.program.steps:
                self._step(step, step.index in reached)
        (ref,) = [r for r in [self.program.result] if isinstance(r, Ref)]
        inputs = [t.numpy().astype(np.int64) for t in self.leaves]
        results = self.ids[ref.value].numpy().astype(np.int64)
        return Executed(self.tape, results, inputs, self.stated, self.used)

    def _literal(self, value: int) -> None:
        """Write the entries of a floating value down as numbers."""
        tensor = self.values[value]
        if not isinstance(tensor, torch.Tensor):
            return
        if tensor.is_complex():
            raise NotExecutable("complex numbers")
        if tensor.is_floating_point():
            numbers = [float(self.tape.number(v)) for v in tensor.double().reshape(-1).tolist()]
            self.ids[value] = torch.tensor(numbers, dtype=torch.float64).reshape(tensor.shape)

    def _step(self, step: Step, reached: bool) -> None:
        """Run one step on values and on numbers, and compare."""
        call = self.program.framework.shaped(self.program, step)
        tally = tally_of(call)
        if tally is None:
            raise NotExecutable(f"{step.operation} has no definition")
        if tally.wholes:
            raise NotExecutable(f"{step.operation} is elementary as a whole")
        self.stated = self.stated + (tally if reached else tally.still()).sweep()
        self.used[step.operation.name] += 1
        nodes = self._nodes(step, call, reached)  # before torch writes in place
        args, kwargs = fill(step.args, self.values), fill(dict(step.kwargs), self.values)
        definition = DEFINITIONS[call.operation]
        own = Tally()
        ask = self._ask(step)
        operands = tuple(Nodes(n, m, self.tape, own, ask, k) for k, (n, m) in enumerate(nodes))
        given = None if call.discrete else definition(Called(operands, call.attributes, call.results, own))
        for (name, _), times in own.scalars.items():
            self.tape.counts[name] += times  # what a definition states beside arrays: comparisons
        moves = given is None and any(v in self.ids for v in _refs(step)) and step.operation.name not in _MADE
        moved = self._moved(step) if moves else None
        output = step.target(*args, **kwargs)
        outputs = [output] if step.single else list(output)
        for result, out in zip(step.results, outputs, strict=False):
            if result is not None:
                self.values[result] = out
        found = (given,) if isinstance(given, Numbers) else tuple(given or ())
        self._write(step, found, moved)

    def _write(self, step: Step, found: tuple[Any, ...], moved: Any) -> None:
        """Keep the numbers of the results, and compare their values with torch's."""
        results = [r for r in step.results if r is not None]
        if step.mutates and found and results in ([], [step.mutates[0]]):
            if step.mutates[0] in self.ids:
                self.ids[step.mutates[0]].copy_(torch.from_numpy(found[0].ids.astype(float)))
        else:
            places = [k for k, r in enumerate(step.results) if r is not None]
            for k, (place, result) in enumerate(zip(places, results, strict=True)):
                self._keep(result, found[k] if k < len(found) else None, None if moved is None else moved[place])
            for value in step.mutates if found else ():
                self._literal(value)  # running statistics
        for value in (*step.results, *step.mutates):
            if value is not None and value in self.ids:
                self._compare(step, value)

    def _keep(self, result: int, found: Nodes | None, moved: Any) -> None:
        """Keep the numbers of one result, with torch's strides, which views ask for."""
        tensor = self.values[result]
        if not isinstance(tensor, torch.Tensor):
            return
        if tensor.is_complex():
            raise NotExecutable("complex numbers")
        if not tensor.is_floating_point():
            return
        if found is not None:
            like = torch.empty_like(tensor, dtype=torch.float64)
            self.ids[result] = like.copy_(torch.from_numpy(found.ids.astype(float)))
        elif isinstance(moved, torch.Tensor):
            self.ids[result] = moved
        else:
            self._literal(result)

    def _compare(self, step: Step, value: int) -> None:
        """Compare the numbers of a value with torch's."""
        ids, tensor = self.ids[value], self.values[value]
        assert ids.shape == tensor.shape, f"{step}: {tuple(ids.shape)} and {tuple(tensor.shape)}"
        numbers = np.array([self.tape.values[int(i)] for i in ids.reshape(-1).tolist()])
        expected = tensor.detach().double().reshape(-1).numpy()
        exact = torch.finfo(tensor.dtype).eps ** 0.5
        if not np.allclose(numbers, expected, rtol=exact, atol=exact, equal_nan=True):
            raise WrongValue(f"{step}: {numbers} and not {expected}")

    # --- operands -----------------------------------------------------------------------------------------------------

    def _nodes(self, step: Step, call: ShapedCall, reached: bool) -> list[tuple[np.ndarray, bool]]:
        """Give the numbers of the operands, and which of them move."""
        found = []
        for item, operand in zip(_operands(step), call.operands, strict=True):
            if isinstance(item, Ref) and item.value in self.ids:
                ids = self.ids[item.value].numpy().astype(np.int64)
            else:
                values = self._numbers(item)
                if not isinstance(item, Ref) and call.operation == "mul" and "div" in str(step.target):
                    values = 1 / values  # a division by a number is a product
                ids = np.array([self.tape.number(float(v)) for v in values.reshape(-1)]).reshape(values.shape)
            found.append((ids.astype(np.int64), operand.moving and reached))
        return found

    def _numbers(self, item: Any) -> np.ndarray:
        """Give the numbers of an operand that is no floating value: indices, conditions, plain numbers."""
        if not isinstance(item, Ref):
            return np.asarray(float(item) if isinstance(item, int | float) else 0.0)
        tensor = self.values[item.value]
        if tensor.is_complex():
            raise NotExecutable("complex numbers")
        return tensor.double().numpy()  # type: ignore[no-any-return]

    def _moved(self, step: Step) -> list[Any]:
        """Run a move on the numbers of the tape: a value that it writes is a number of the tape, too."""
        if not hasattr(step.target, "_schema"):
            output = step.target(*fill(step.args, {**self.values, **self.ids}), **step.kwargs)
            return [output] if step.single else list(output)
        named = arguments_of(step.target, step.args, step.kwargs)
        for name in ("value", "fill_value"):
            if isinstance(named.get(name), int | float) and not isinstance(named[name], bool):
                named[name] = float(self.tape.number(float(named[name])))
        if step.operation.name == "cast" and not step.mutates:
            (ref,) = list(_refs(step))[:1]
            return [self.ids[ref].clone()]
        env = {**self.values, **self.ids}
        for name, item in named.items():
            if step.mutates and name == "src" and isinstance(item, Ref) and item.value not in self.ids:
                self._cast(item.value, env)
        target = step.target
        schema = target._schema.arguments  # type: ignore[attr-defined]
        args = [fill(named[a.name], env) for a in schema if not a.kwarg_only]
        kwargs = {a.name: fill(named[a.name], env) for a in schema if a.kwarg_only and a.name != "dtype"}
        output = target(*args, **kwargs)
        return [output] if step.single else list(output)

    def _cast(self, value: int, env: dict[int, Any]) -> None:
        """Write whole numbers down that are copied into a floating array."""
        tensor = self.values[value].double()
        numbers = [float(self.tape.number(v)) for v in tensor.reshape(-1).tolist()]
        env[value] = torch.tensor(numbers, dtype=torch.float64).reshape(tensor.shape)

    def _ask(self, step: Step) -> Ask:
        """Give the step as a function of some operands; floating operands that are not given are 0."""
        items = _operands(step)
        values = dict(self.values)

        def ask(given: dict[int, np.ndarray]) -> np.ndarray:
            chosen = {k % len(items): v for k, v in given.items()}
            waiting: dict[int, list[Any]] = {}
            for k, item in enumerate(items):
                if isinstance(item, Ref):
                    waiting.setdefault(item.value, []).append(chosen.get(k))

            def put(ref: Ref) -> Any:
                tensor = values[ref.value]
                queue = waiting.get(ref.value, [])
                array = queue.pop(0) if len(queue) > 1 else queue[0] if queue else None
                if array is not None:
                    found = torch.tensor(array, dtype=tensor.dtype)
                    return found.reshape(tensor.shape) if found.numel() == tensor.numel() else found
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    return torch.zeros_like(tensor)
                return tensor

            args, kwargs = map_refs(step.args, put), map_refs(dict(step.kwargs), put)
            output = step.target(*args, **kwargs)
            first = output if step.single else output[0]
            return first.double().numpy().copy()  # type: ignore[no-any-return]

        return ask


_MADE = frozenset("create random constant integer logic compare nonzero item is_nonzero".split())
"""Operations whose results are new numbers."""


def _refs(step: Step) -> Iterator[int]:
    """Walk the values that a step takes."""
    found: list[int] = []
    map_refs((step.args, dict(step.kwargs)), lambda r: found.append(r.value))
    return iter(found)
