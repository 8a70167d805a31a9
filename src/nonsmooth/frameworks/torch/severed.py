"""Severed dependences: where the result depends on the point through what carries no derivative.

A value cut off from the graph (`detach`, `no_grad`), one that left through `.item()`, and a user's own backward are
such whatever the point is. Comparisons, indices and integers that reach the result other than as the predicate of a
`where` or an `if` are constant nearby, unless what they compare ties at the point: there the program jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from nonsmooth.dictionary import Kind, Nonsmooth, Select
from nonsmooth.frameworks.framework import Severed
from nonsmooth.frameworks.torch.arguments import refs_of
from nonsmooth.frameworks.torch.evaluate import replay
from nonsmooth.frameworks.torch.forcing import RANKING, choices
from nonsmooth.frameworks.torch.pieces import met_at
from nonsmooth.frameworks.torch.plan import moving_values
from nonsmooth.frameworks.torch.predicates import SIDES
from nonsmooth.frameworks.torch.protection import RUNNING_STATISTICS
from nonsmooth.program import Program, Ref, Step

__all__ = ["reached_steps", "severed"]


class _Slice:
    """What the result of a program depends on, sorted by how."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.found: dict[int, Severed] = {}
        self.discrete: dict[int, Step] = {}
        self.reached: set[int] = set()
        self.compared = {c for g in program.guards for c in g.comparisons}
        self.moving = moving_values(program)
        self._seen: dict[tuple[int, bool], int] = {}
        self._writers: dict[int, list[Step]] = {}
        for step in program.steps:
            for value in {*step.results, *step.mutates} - {None}:
                self._writers.setdefault(value, []).append(step)  # type: ignore[arg-type]
        self._walk([(r.value, False) for r in refs_of(program.result)], len(program.steps))
        for guard in program.guards:
            self._guard(program.steps[guard.step], guard.outcome)

    def _walk(self, start: list[tuple[int, bool]], end: int) -> None:
        """Follow values, as they are before a step, back to the point.

        True marks a predicate, whose comparisons are looked after elsewhere.
        """
        stack = [(*item, end) for item in start]
        while stack:
            value, predicate, before = stack.pop()
            if self._seen.get((value, predicate), -1) >= before or not self.program.values[value].depends_on_point:
                continue
            self._seen[value, predicate] = before
            for step in self._writers.get(value, ()):
                if step.index < before:
                    stack += [(*item, step.index) for item in self._step(step, value, predicate)]

    def _step(self, step: Step, value: int, predicate: bool) -> Iterator[tuple[int, bool]]:
        """Say what a value depends on through one of the steps that write it."""
        refs = list(refs_of((step.args, dict(step.kwargs))))
        if step.label.rstrip("_") in RUNNING_STATISTICS:  # they are written, not read, unless nothing is written
            refs = [r for r in refs if r.value not in step.mutates]
        reals = [r for r in refs if r.value in self.moving]
        if reals or isinstance(step.operation, Select):
            self.reached.add(step.index)
        if step.operation.kind is Kind.OPAQUE:
            message = f"the user's own function {step} has kinks that are not known"
            self.found[step.index] = Severed("opaque", step, message)
        if self._real(Ref(value)):
            if reals and value in self.moving and not self.program.values[value].differentiable:
                message = f"the result depends on the point through {step}, which is cut off from the derivative"
                self.found[step.index] = Severed("detached", step, message)
            chosen = step.operands[0] if isinstance(step.operation, Select) else None
            yield from ((r.value, r == chosen) for r in refs)
        elif predicate and not step.mutates and (_looked_after(step) or step.index in self.compared):
            yield from () if reals else ((r.value, True) for r in refs)
        elif reals:
            self.discrete[step.index] = step
        else:
            yield from ((r.value, False) for r in refs)

    def _guard(self, step: Step, outcome: Any) -> None:
        """Follow what Python has seen."""
        refs = [r for r in refs_of((step.args, dict(step.kwargs))) if self.program.values[r.value].depends_on_point]
        left = isinstance(outcome, float) or (isinstance(outcome, torch.Tensor) and outcome.is_floating_point())
        if left and any(r.value in self.moving for r in refs):
            message = f"a value that depends on the point left the program at {step.where}"
            self.found[step.index] = Severed("escaped", step, message)
        else:
            self._walk([(r.value, True) for r in refs if r.value not in self.moving], step.index)

    def _real(self, ref: Ref) -> bool:
        """Tell a value that can carry a derivative."""
        return self.program.values[ref.value].dtype.startswith(("float", "bfloat", "complex"))


def _looked_after(step: Step) -> bool:
    """Tell the boolean steps whose ties the evaluation follows: comparisons and logic, and what never ties."""
    name = step.label.rstrip("_")
    return name in SIDES or name in ("isnan", "isinf", "isfinite") or step.operation.name in ("logic", *_MOVED)


_MOVED = (
    "view",
    "reshape",
    "expand",
    "unsqueeze",
    "squeeze",
    "select",
    "slice",
    "transpose",
    "permute",
    "clone",
    "cast",
)


def _slice_of(program: Program) -> _Slice:
    """Analyse a program once."""
    known = program.__dict__.get("_torch_slice")
    if known is None:
        known = program.__dict__["_torch_slice"] = _Slice(program)
    return known


def reached_steps(program: Program) -> set[int]:
    """Give the steps on which the result depends."""
    return _slice_of(program).reached


def severed(program: Program, leaves: list[torch.Tensor], items: list[torch.Tensor]) -> tuple[Severed, ...]:
    """List the severed dependences of the result at a point."""
    sliced = _slice_of(program)
    found = [sliced.found[k] for k in sorted(sliced.found)]
    padded = {k for k in sliced.reached if program.steps[k].attributes.get("padding_idx") not in (None, -1)}
    halves = {k for k in sliced.reached if program.steps[k].operation.name in ONE_TRIANGLE}
    if not sliced.discrete and not padded and not halves:
        return tuple(found)
    calls = met_at(program, leaves, items, frozenset(sliced.discrete) | padded | halves)
    for step in (program.steps[k] for k in sorted(halves)):
        if not _is_symmetric(calls[step.index][0][0]):
            message = (
                f"{step} reads one triangle of a matrix that is not symmetric; torch differentiates its symmetric part"
            )
            found.append(Severed("triangle", step, message))
    for step in (program.steps[k] for k in sorted(padded)):
        if bool((calls[step.index][0][1] == step.attributes["padding_idx"]).any()):
            message = f"{step} reads the row of its padding_idx, to which torch gives no gradient although the value depends on it"
            found.append(Severed("detached", step, message))
    orders = {k for k, s in sliced.discrete.items() if isinstance(s.operation, Nonsmooth)}
    tied = _tied_orders(program, leaves, items) if orders else set()
    for index, step in sorted(sliced.discrete.items()):
        if index in tied if index in orders else _ties(step, *calls[index]):
            message = f"the result depends on the outcome of {step} itself, which ties there: the program may jump"
            found.append(Severed("jump", step, message))
    return tuple(found)


ONE_TRIANGLE = ("eigvalsh", "linalg_eigh", "linalg_cholesky")
"""Operations on symmetric matrices: their derivatives are those on the space of symmetric matrices."""


def _is_symmetric(matrix: torch.Tensor) -> bool:
    """Tell a symmetric (Hermitian) matrix, up to rounding."""
    size = float(matrix.abs().max()) if matrix.numel() else 0.0
    eps = torch.finfo(matrix.dtype).eps
    return bool(((matrix - matrix.mH).abs() <= 1024 * eps * size).all())


def _tied_orders(program: Program, leaves: list[torch.Tensor], items: list[torch.Tensor]) -> set[int]:
    """Find the order operations of which two candidates tie."""
    with torch.enable_grad():
        point = [t.detach().requires_grad_() for t in leaves]
        calls = replay(program, point, items, observe=True).calls
    return {
        c.step.index
        for c in calls
        if isinstance(c.step.operation, Nonsmooth)
        and any(bool((m <= 0).any()) for m in c.step.operation.margins(c.call).values())
    }


def _ties(step: Step, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether what a discrete step decides ties; of one that is not known it is assumed."""
    name = step.label.rstrip("_")
    if name in SIDES:
        return bool((torch.as_tensor(args[0]) == torch.as_tensor(args[1])).any())
    if name in RANKING:
        return bool(choices(step, args, kwargs))
    if name in ("isnan", "isinf", "isfinite"):
        return False
    test = _TESTS.get(name if name in _TESTS else step.operation.name)
    return True if test is None else test(args, kwargs)


def _argsort(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell equal entries along the sorted axis."""
    dims = [a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)]
    values = args[0].sort(kwargs.get("dim", dims[0] if dims else -1)).values
    axis = kwargs.get("dim", dims[0] if dims else -1)
    return bool((values.diff(dim=axis) == 0).any())


def _bucket(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell a value that is equal to a boundary."""
    del kwargs
    first, second = (torch.as_tensor(a) for a in args[:2])
    return bool(torch.isin(first.reshape(-1), second.reshape(-1)).any())


def _zero(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell an entry 0."""
    del kwargs
    return bool((args[0] == 0).any())


def _whole(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell an entry that is a whole number."""
    del kwargs
    return bool((args[0] == args[0].trunc()).any())


_TESTS: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "argsort": _argsort,
    "bucketize": _bucket,
    "searchsorted": _bucket,
    "nonzero": _zero,
    "count_nonzero": _zero,
    "logic": _zero,
    "signbit": _zero,
    "is_nonzero": _zero,
    "cast": _whole,
}
"""How ties of discrete steps are told, by their label or their record."""
