"""Shifts that cancel: values cut off by `stop_gradient` on which, by algebra, the result does not depend.

A stable softmax subtracts m = stop_gradient(max(x)) and divides it out again. With e any value in the place of m, each
value of the program that m reaches is, entry by entry,

    shifted: u + c(e),   or   scaled: u exp(c(e)),   u without e,   c a linear form with rational coefficients,

or nothing of that is known. The rules are identities of real functions: exp turns a shift into a factor and log turns it
back, sums keep a factor that their terms share, a difference or a quotient of equal forms is free of e. Where all
results and branches come out free of e, it may as well be constant, and the derivative that takes it for constant is
right. Forms are compared exactly. An entry that is infinite (or, scaled, 0) as a constant of the program fits any form.

Source: derived, docs/theory/subgradient.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.dictionary.operation import on_host
from nonsmooth.frameworks.jax.walk import Bind, Whole
from nonsmooth.program import Program, Ref, Step, references
from nonsmooth.program.affine import upstream

__all__ = ["cancelled", "serving"]

Forms = np.ndarray[Any, Any]
"""For each entry the number of its linear form: `NO_FORM` for zero, `ANY_FORM` where every form is right."""

NO_FORM, ANY_FORM = 0, -1

LIMIT = 200_000
"""How many forms are told apart before it is given up."""


class _Lost(Exception):
    """How a value depends on e is not known."""


@dataclass(frozen=True, eq=False)
class _Moved:
    """How a value depends on e: shifted by, or scaled by the exponential of, `times` the form of each entry."""

    kind: Literal["shifted", "scaled"]
    times: Fraction
    forms: Forms

    @property
    def free(self) -> bool:
        """Whether it does not depend on e."""
        return self.times == 0 or bool((self.forms <= NO_FORM).all())


@dataclass(frozen=True, eq=False)
class _Input:
    """What a step reads: how it depends on e, and its content where that is a constant of the program."""

    moved: _Moved | None
    shape: tuple[int, ...]
    real: bool
    constant: Any = None

    def fits_any(self, kind: str) -> Any:
        """Mark the entries that fit any form."""
        if self.constant is None:
            return np.zeros(self.shape, dtype=bool)
        content = np.broadcast_to(on_host(self.constant), self.shape)
        infinite = np.isinf(content)
        return infinite | (content == 0) if kind == "scaled" else infinite

    def number(self) -> Fraction | None:
        """Give a constant whose entries are all the same."""
        content = None if self.constant is None else np.unique(on_host(self.constant).astype(np.float64))
        return Fraction(float(content[0])) if content is not None and _is_number(content) else None


def _is_number(content: Any) -> bool:
    """Tell one finite number."""
    return bool(content.size == 1 and np.isfinite(content[0]))


@dataclass
class _Table:
    """The linear forms in the entries of e, by number; the first ones are the entries themselves."""

    terms: list[tuple[tuple[int, Fraction], ...]] = field(default_factory=lambda: [()])
    numbers: dict[tuple[tuple[int, Fraction], ...], int] = field(default_factory=lambda: {(): NO_FORM})

    def number(self, terms: Mapping[int, Fraction]) -> int:
        """Number a form."""
        key = tuple(sorted((k, c) for k, c in terms.items() if c))
        if key not in self.numbers:
            if len(self.terms) > LIMIT:
                raise _Lost
            self.numbers[key] = len(self.terms)
            self.terms.append(key)
        return self.numbers[key]

    def combined(self, forms: Sequence[int], times: Sequence[Fraction]) -> int:
        """Give the number of a linear combination of forms."""
        if ANY_FORM in forms:
            return ANY_FORM
        total: dict[int, Fraction] = {}
        for form, factor in zip(forms, times, strict=True):
            for entry, coefficient in self.terms[form]:
                total[entry] = total.get(entry, Fraction(0)) + factor * coefficient
        return self.number(total)

    def each(self, rows: Forms, times: Sequence[Fraction]) -> Forms:
        """Combine the forms along the last axis."""
        flat = rows.reshape(-1, rows.shape[-1])
        unique, places = np.unique(flat, axis=0, return_inverse=True)
        found = np.array([self.combined(tuple(map(int, row)), times) for row in unique], dtype=np.int32)
        return found[places.reshape(-1)].reshape(rows.shape[:-1])


def cancelled(program: Program) -> frozenset[int]:
    """Give the steps `stop_gradient` whose values the result, by algebra, does not depend on."""
    stops = [s for s in program.steps if s.label == "stop_gradient" and _depends(program, s)]
    if not stops:
        return frozenset()
    numbers = _numbered(program, stops)
    cuts: dict[Any, list[Step]] = {}
    for step in stops:
        cuts.setdefault(numbers[step.args[0].value], []).append(step)
    found: frozenset[int] = frozenset()
    for steps in sorted(
        cuts.values(), key=lambda s: -s[-1].index
    ):  # the last first: what it is made of serves it alone
        if _Cone(program, steps, serving(program, found)).closes():
            found |= {s.index for s in steps}
    return found


def serving(program: Program, cancelled: frozenset[int]) -> set[int]:
    """Give the steps from which results and branches are computed, those of cancelled values left out."""
    found = {g.step for g in program.guards}
    waiting = [r.value for r in references(program.result)]
    waiting += [r.value for k in found for r in references(program.steps[k].args)]
    while waiting:
        step = program.producer.get(waiting.pop())
        if step is not None and step.index not in found:
            found.add(step.index)
            if step.index not in cancelled:
                waiting += [r.value for r in references(step.args)]
    return found


def _depends(program: Program, step: Step) -> bool:
    """Tell a step whose first result depends on the point."""
    value = step.results[0]
    return value is not None and program.values[value].depends_on_point


def _numbered(program: Program, steps: list[Step]) -> dict[int, int]:
    """Give equal values equal numbers, as far as they are computed by the same primitives from the same."""
    needed = upstream(program, steps)
    numbers = {v: v for v in range(len(program.values))}
    known: dict[Any, Step] = {}
    for step in (s for s in program.steps if s.index in needed):
        args = tuple(numbers[a.value] if isinstance(a, Ref) else (type(a), repr(a)) for a in step.args)
        types = tuple(program.values[v].dtype for v in step.results if v is not None)
        try:
            same = known.setdefault((step.label, args, types, step.forced, frozenset(step.kwargs.items())), step)
        except TypeError:  # a parameter that cannot be compared
            continue
        if isinstance(step.target, Bind) and isinstance(same.target, Bind):
            pairs = zip(step.results, same.results, strict=True)
            numbers.update({v: w for v, w in pairs if v is not None and w is not None})
    return numbers


class _Cone:
    """The values that a cut one reaches: the same value, cut off in one or several places."""

    def __init__(self, program: Program, cuts: list[Step], serving: set[int]) -> None:
        self.program, self._cuts, self._serving = program, cuts, serving
        self.table = _Table()
        self.moved: dict[int, _Moved] = {}

    def closes(self) -> bool:
        """Tell whether every way from the value to results and branches cancels it."""
        values = self.program.values
        waiting: list[int] = []
        for cut in self._cuts:
            value = cut.results[0]
            if value is None or not values[value].dtype.startswith(("float", "bfloat")):
                return False
            size = math.prod(values[value].shape)
            if size > LIMIT:
                return False
            forms = [self.table.number({k: Fraction(1)}) for k in range(size)]
            start = _Moved("shifted", Fraction(1), np.array(forms, dtype=np.int32).reshape(values[value].shape))
            self._write(value, start, waiting)
        try:
            done = {s.index for s in self._cuts}
            while waiting:
                index = heapq.heappop(waiting)
                if index in self._serving and index not in done:
                    done.add(index)
                    self._follow(self.program.steps[index], waiting)
        except _Lost:
            return False
        return not any(r.value in self.moved for r in references(self.program.result))

    def _write(self, value: int, moved: _Moved, waiting: list[int]) -> None:
        """Write down how a value depends on e, and look at what reads it."""
        if not moved.free:
            self.moved[value] = moved
            for step in self.program.uses.get(value, ()):
                heapq.heappush(waiting, step.index)

    def _follow(self, step: Step, waiting: list[int]) -> None:
        """Follow one step."""
        rule = RULES.get(step.label)
        if rule is None:
            raise _Lost
        found = rule(self, step, [self._input(a) for a in step.args])
        for value, moved in zip(step.results, found if isinstance(found, list) else [found], strict=False):
            if value is not None and moved is not None:
                self._write(value, replace(moved, forms=self._shaped(moved.forms, value)), waiting)

    def _shaped(self, forms: Forms, value: int) -> Forms:
        """Give forms the shape of a value."""
        shape = self.program.values[value].shape
        if forms.shape != shape and math.prod(forms.shape) != math.prod(shape):
            raise _Lost
        return forms.reshape(shape)

    def _input(self, argument: Any) -> _Input:
        """Describe what a step reads."""
        if not isinstance(argument, Ref):
            return _Input(None, (), isinstance(argument, float), argument)
        value = self.program.values[argument.value]
        real = value.dtype.startswith(("float", "bfloat"))
        constant = self.program.constants.get(argument.value) if real else None
        return _Input(self.moved.get(argument.value), value.shape, real, constant)

    # --- forms --------------------------------------------------------------------------------------------------------

    def aligned(self, inputs: Sequence[_Input]) -> tuple[str, Fraction, list[Forms]]:
        """Give the forms of all inputs, as multiples of one number, if they depend on e in one way."""
        moved = [i.moved for i in inputs if i.moved is not None]
        if len({m.kind for m in moved}) != 1:
            raise _Lost
        kind, times = moved[0].kind, moved[0].times
        same = all(m.times == times for m in moved)
        found = []
        for given in inputs:
            if given.moved is None:
                found.append(np.where(given.fits_any(kind), ANY_FORM, NO_FORM).astype(np.int32))
            elif same:
                found.append(given.moved.forms)
            else:
                found.append(self.table.each(given.moved.forms[..., None], [given.moved.times]))
        return kind, times if same else Fraction(1), found

    def summed(self, inputs: Sequence[_Input], signs: Sequence[int], kind: str) -> _Moved:
        """Add the forms of inputs up, each with its sign."""
        moved = [i.moved for i in inputs]
        if any(m is not None and m.kind != kind for m in moved):
            raise _Lost
        arrays = [np.where(i.fits_any(kind), ANY_FORM, NO_FORM) if i.moved is None else i.moved.forms for i in inputs]
        times = [Fraction(s) * (Fraction(1) if m is None else m.times) for s, m in zip(signs, moved, strict=True)]
        rows = np.stack(np.broadcast_arrays(*arrays), axis=-1)
        held = [r for r in np.moveaxis(rows, -1, 0) if (r > NO_FORM).any()]
        plain = all(((r == held[0]) | (r == ANY_FORM)).all() for r in held)
        if plain:  # one form, several times
            total = sum((t for t, m in zip(times, moved, strict=True) if m is not None), Fraction(0))
            wild = (rows == ANY_FORM).any(axis=-1)
            return _Moved(moved_kind(kind), total, np.where(wild, ANY_FORM, held[0]).astype(np.int32))
        return _Moved(moved_kind(kind), Fraction(1), self.table.each(rows, times))


def moved_kind(kind: str) -> Literal["shifted", "scaled"]:
    """Give the name of a kind its type."""
    return "shifted" if kind == "shifted" else "scaled"


def _joined(arrays: Sequence[Forms]) -> Forms:
    """Give the form that arrays share, entry by entry."""
    rows = np.stack(np.broadcast_arrays(*arrays), axis=-1)
    return np.asarray(_along(rows, (rows.ndim - 1,))[..., 0])


def _along(forms: Forms, axes: Sequence[int]) -> Forms:
    """Give the form that entries share along axes, which stay with size 1."""
    axes = tuple(int(a) for a in axes)
    if any(forms.shape[a] == 0 for a in axes):
        raise _Lost
    shared = np.asarray(forms.max(axis=axes, keepdims=True)) if axes else forms
    if not bool(((forms == shared) | (forms == ANY_FORM)).all()):
        raise _Lost
    return shared


# --- rules: how the results of a step depend on e ---------------------------------------------------------------------

Rule = Callable[[_Cone, Step, list[_Input]], "_Moved | list[_Moved | None] | None"]


def _only(inputs: list[_Input], *kinds: str) -> _Moved:
    """Give how the first input depends on e, the only one that does."""
    moved = inputs[0].moved
    if moved is None or moved.kind not in kinds or any(i.moved is not None for i in inputs[1:]):
        raise _Lost
    return moved


def _same(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Pass a value on."""
    return _only(inputs, "shifted", "scaled")


def _converted(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Pass a value on that stays real."""
    if not jnp.issubdtype(step.kwargs["new_dtype"], jnp.floating):
        raise _Lost
    return _only(inputs, "shifted", "scaled")


def _rearranged(cone: _Cone, step: Step, inputs: list[_Input]) -> list[_Moved | None]:
    """Move forms as entries are moved, by the primitive itself."""
    if not all(i.real for i in inputs):
        raise _Lost
    kind, times, forms = cone.aligned(inputs)
    return _applied(step, moved_kind(kind), times, [jnp.asarray(f) for f in forms], dict(step.kwargs))


def _applied(
    step: Step, kind: Literal["shifted", "scaled"], times: Fraction, arrays: list[Any], kwargs: dict[str, Any]
) -> list[_Moved | None]:
    """Apply a primitive that moves entries to the numbers of forms."""
    found = step.target(*arrays, **kwargs)
    return [_Moved(kind, times, np.asarray(f)) for f in ([found] if step.single else found)]


def _gathered(cone: _Cone, step: Step, inputs: list[_Input]) -> list[_Moved | None]:
    """Look entries up, wherever, along axes on which the form does not depend."""
    moved, numbers = _only(inputs, "shifted", "scaled"), step.kwargs["dimension_numbers"]
    _along(moved.forms, numbers.start_index_map)
    forms = np.broadcast_to(_along(moved.forms, numbers.start_index_map), moved.forms.shape)
    filling = step.kwargs["fill_value"]  # of what lies outside; None stands for nan
    if filling is not None and math.isfinite(filling) and (moved.kind == "shifted" or filling != 0):
        raise _Lost
    indices = jnp.zeros(inputs[1].shape, dtype=jnp.int32)
    kwargs = {**step.kwargs, "mode": jax.lax.GatherScatterMode.CLIP, "fill_value": None}
    return _applied(step, moved.kind, moved.times, [jnp.asarray(forms), indices], kwargs)


def _sliced(cone: _Cone, step: Step, inputs: list[_Input]) -> list[_Moved | None]:
    """Take a slice, wherever it begins, along axes on which the form does not depend."""
    moved, sizes = _only(inputs, "shifted", "scaled"), step.kwargs["slice_sizes"]
    cut = [k for k, (part, whole) in enumerate(zip(sizes, moved.forms.shape, strict=True)) if part != whole]
    forms = np.broadcast_to(_along(moved.forms, cut), moved.forms.shape)
    starts = [jnp.zeros((), dtype=jnp.int32) for _ in inputs[1:]]
    return _applied(step, moved.kind, moved.times, [jnp.asarray(forms), *starts], dict(step.kwargs))


def _added(sign: int) -> Rule:
    """Add or subtract: shifts add up, factors have to agree."""

    def rule(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
        kind, times, forms = cone.aligned(inputs)
        if kind == "shifted":
            return cone.summed(inputs, (1, sign), kind)
        return _Moved("scaled", times, _joined(forms))

    return rule


def _multiplied(sign: int) -> Rule:
    """Multiply or divide: exponents add up; what is shifted takes numbers alone."""

    def rule(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
        kinds = {i.moved.kind for i in inputs if i.moved is not None}
        if kinds == {"scaled"}:
            return cone.summed(inputs, (1, sign), "scaled")
        place = 0 if inputs[0].moved is not None else 1
        moved, factor = inputs[place].moved, inputs[1 - place].number()
        if moved is None or moved.kind != "shifted" or factor is None or (sign < 0 and (place or not factor)):
            raise _Lost
        factor = factor if sign > 0 else 1 / factor
        if not factor:
            return _Moved("shifted", Fraction(0), moved.forms)
        shape = np.broadcast_shapes(inputs[0].shape, inputs[1].shape)
        return _Moved("shifted", moved.times * factor, np.broadcast_to(moved.forms, shape))

    return rule


def _negated(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Change the sign: of a shift, or of what is scaled."""
    moved = _only(inputs, "shifted", "scaled")
    return replace(moved, times=-moved.times) if moved.kind == "shifted" else moved


def _raised(power: Callable[[Step, list[_Input]], Fraction | None]) -> Rule:
    """Raise what is scaled to a constant power."""

    def rule(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
        moved, exponent = _only(inputs, "scaled"), power(step, inputs)
        if exponent is None or (exponent <= 0 and (moved.forms == ANY_FORM).any()):
            raise _Lost
        return replace(moved, times=moved.times * exponent)

    return rule


def _exp(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Turn a shift into a factor."""
    return replace(_only(inputs, "shifted"), kind="scaled")


def _log(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Turn a factor into a shift."""
    return replace(_only(inputs, "scaled"), kind="shifted")


def _homogeneous(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Pass a positive factor through a positively homogeneous function."""
    return _only(inputs, "scaled")


def _sign(cone: _Cone, step: Step, inputs: list[_Input]) -> None:
    """Take the sign, which a positive factor does not change."""
    _only(inputs, "scaled")


def _finite(cone: _Cone, step: Step, inputs: list[_Input]) -> None:
    """Ask for infinities and nan, which come and go with no form."""
    _only(inputs[:1], "shifted", "scaled")


def _sum(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Add entries up: shifts add up, factors have to agree."""
    moved, axes = _only(inputs, "shifted", "scaled"), tuple(int(a) for a in step.kwargs["axes"])
    if moved.kind == "scaled":
        return replace(moved, forms=_along(moved.forms, axes))
    kept = [k for k in range(moved.forms.ndim) if k not in axes]
    rows = moved.forms.transpose(*kept, *axes).reshape(*(moved.forms.shape[k] for k in kept), -1)
    count = rows.shape[-1]
    if not count:
        return replace(moved, times=Fraction(0))
    if bool((rows == rows[..., :1]).all()):
        return replace(moved, times=moved.times * count, forms=rows[..., 0])
    return replace(moved, forms=cone.table.each(rows, [Fraction(1)] * count))


def _extreme(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Take the largest or smallest of entries that move together."""
    moved = _only(inputs, "shifted", "scaled")
    return replace(moved, forms=_along(moved.forms, step.kwargs["axes"]))


def _place(cone: _Cone, step: Step, inputs: list[_Input]) -> None:
    """Take the place of the largest of entries that move together."""
    _along(_only(inputs, "shifted", "scaled").forms, step.kwargs["axes"])


def _compared(cone: _Cone, step: Step, inputs: list[_Input]) -> None:
    """Compare entries that move together."""
    _joined(cone.aligned(inputs)[2])


def _chosen(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Choose between entries that move together, by what does not depend on e."""
    if inputs[0].moved is not None:
        raise _Lost
    kind, times, forms = cone.aligned(inputs[1:])
    return _Moved(moved_kind(kind), times, _joined(forms))


def _extremum(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Take the larger or smaller of entries that move together."""
    kind, times, forms = cone.aligned(inputs)
    return _Moved(moved_kind(kind), times, _joined(forms))


def _soft_extremum(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Take log(exp(a) + exp(b)) of entries that are shifted together; a common factor does not pass it."""
    if any(i.moved is not None and i.moved.kind != "shifted" for i in inputs):
        raise _Lost
    return _extremum(cone, step, inputs)


def _ordered(axis: str, *kinds: str) -> Rule:
    """Sort or accumulate entries that move together along an axis."""

    def rule(cone: _Cone, step: Step, inputs: list[_Input]) -> list[_Moved | None]:
        moved = _only(inputs, *kinds)
        if step.kwargs.get("num_keys", 1) != 1 or any(i.real for i in inputs[1:]):
            raise _Lost
        shared = _along(moved.forms, (step.kwargs[axis],))
        shape = cone.program.values[step.results[0] or 0].shape
        return [replace(moved, forms=np.broadcast_to(shared, shape)), *(None for _ in step.results[1:])]

    return rule


def _contracted(cone: _Cone, step: Step, inputs: list[_Input]) -> _Moved:
    """Contract what is scaled with what does not depend on e, along axes that share a factor."""
    place = 0 if inputs[0].moved is not None else 1
    moved, other = inputs[place].moved, inputs[1 - place]
    if moved is None or moved.kind != "scaled" or other.moved is not None:
        raise _Lost
    contracted, batched = (pair[place] for pair in step.kwargs["dimension_numbers"])
    shared = _along(moved.forms, contracted)
    left = [k for k in range(shared.ndim) if k not in contracted and k not in batched]
    shared = shared.transpose(*batched, *left, *contracted).reshape([shared.shape[k] for k in (*batched, *left)])
    shape = cone.program.values[step.results[0] or 0].shape
    new = (1,) * (len(shape) - shared.ndim)
    middle = (*shared.shape[: len(batched)], *new, *shared.shape[len(batched) :]) if place else (*shared.shape, *new)
    return _Moved("scaled", moved.times, np.broadcast_to(shared.reshape(middle), shape))


def _log_softmax(cone: _Cone, step: Step, inputs: list[_Input]) -> None:
    """Take what is free of shifts along the axis that it adds up over."""
    assert isinstance(step.target, Whole)
    inner = step.target.equation.params["jaxpr"]
    axes = [q.params["axes"] for q in getattr(inner, "jaxpr", inner).eqns if q.primitive.name == "reduce_max"]
    _along(_only(inputs, "shifted").forms, axes[0] if axes else range(len(inputs[0].shape)))


def _constant_power(step: Step, inputs: list[_Input]) -> Fraction | None:
    """Give the exponent of a power, if it is a number."""
    return inputs[1].number()


RULES: Mapping[str, Rule] = {
    **dict.fromkeys("stop_gradient copy copy_p reduce_precision name device_put layout_constraint".split(), _same),
    "convert_element_type": _converted,
    **dict.fromkeys(
        "broadcast_in_dim reshape squeeze expand_dims transpose rev slice split unstack tile concatenate pad "
        "stack".split(),
        _rearranged,
    ),
    "gather": _gathered,
    "dynamic_slice": _sliced,
    **dict.fromkeys(("add", "add_any"), _added(1)),
    "sub": _added(-1),
    "mul": _multiplied(1),
    "div": _multiplied(-1),
    "neg": _negated,
    "exp": _exp,
    "log": _log,
    "sqrt": _raised(lambda step, inputs: Fraction(1, 2)),
    "rsqrt": _raised(lambda step, inputs: Fraction(-1, 2)),
    "cbrt": _raised(lambda step, inputs: Fraction(1, 3)),
    "square": _raised(lambda step, inputs: Fraction(2)),
    "integer_pow": _raised(lambda step, inputs: Fraction(int(step.kwargs["y"]))),
    "pow": _raised(_constant_power),
    **dict.fromkeys("abs relu leaky_relu".split(), _homogeneous),
    "sign": _sign,
    **dict.fromkeys("is_finite isnan".split(), _finite),
    **dict.fromkeys("eq ne lt le gt ge".split(), _compared),
    **dict.fromkeys("max min".split(), _extremum),
    "logaddexp": _soft_extremum,
    "select_n": _chosen,
    "reduce_sum": _sum,
    **dict.fromkeys("reduce_max reduce_min".split(), _extreme),
    **dict.fromkeys("argmax argmin".split(), _place),
    "sort": _ordered("dimension", "shifted", "scaled"),
    "top_k": _ordered("axis", "shifted", "scaled"),
    **dict.fromkeys("cummax cummin".split(), _ordered("axis", "shifted", "scaled")),
    "cumsum": _ordered("axis", "scaled"),
    "cumlogsumexp": _ordered("axis", "shifted"),
    "dot_general": _contracted,
    "log_softmax": _log_softmax,
}
"""How a primitive passes the dependence on e on; of those that are not listed nothing is known."""
