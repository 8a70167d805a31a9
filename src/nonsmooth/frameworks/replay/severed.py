"""Severed dependences: where the result depends on the point through what carries no derivative.

A value cut off from the graph (`detach`, `no_grad`), one that left through `.item()`, and a user's own backward are
such whatever the point is. Comparisons, indices and integers that reach the result other than as the predicate of a
`where` or an `if` are constant nearby, unless what moves ties where they are made of it: there the program jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nonsmooth.dictionary import Kind, Nonsmooth, Select, Singularity
from nonsmooth.dictionary.operation import Array, on_host
from nonsmooth.frameworks.framework import Severed
from nonsmooth.frameworks.replay.arguments import refs_of
from nonsmooth.frameworks.replay.arrays import is_floating
from nonsmooth.frameworks.replay.forcing import RANKING, choices
from nonsmooth.frameworks.replay.pieces import met_at
from nonsmooth.frameworks.replay.plan import is_followed, moving_values
from nonsmooth.frameworks.replay.predicates import SIDES
from nonsmooth.program import Program, Ref, Step

__all__ = ["Dependences"]

TOTAL = frozenset(["eq_to", "lt_to", "le_to"])
"""Comparisons by the total order of numbers, which no `where` or `if` of a user's own makes."""

Test = Callable[[Any, Mapping[str, Any]], bool]
"""Tells from the arguments of a discrete step whether what it decides ties."""


class Dependences:
    """What the result of a program depends on, sorted by how; a framework adds what only it has."""

    written_only: frozenset[str] = frozenset()
    """Operators whose changed operands are written and not read."""

    untied: frozenset[str] = frozenset(["isnan", "isinf", "isfinite", "is_finite"])
    """Boolean operators that never tie."""

    moves: frozenset[str] = frozenset(
        "view reshape expand unsqueeze squeeze select slice transpose permute clone copy cast broadcast_in_dim "
        "expand_dims convert_element_type".split()
    )
    """Operations that pass the ties of a predicate on."""

    tests: Mapping[str, Test] = {}
    """How ties of discrete steps are told, by their label or their record; of the others they are assumed."""

    @classmethod
    def of(cls, program: Program) -> Dependences:
        """Analyse a program once."""
        known: Dependences | None = program.__dict__.get("_dependences")
        if known is None:
            known = program.__dict__["_dependences"] = cls(program)
        return known

    def __init__(self, program: Program) -> None:
        self.program = program
        self.found: dict[int, Severed] = {}
        self.discrete: dict[int, Step] = {}
        self.reached: set[int] = set()
        self.compared = {c for g in program.guards for c in g.comparisons}
        self.moving = moving_values(program)
        self._seen: dict[tuple[int, str], int] = {}
        self._writers: dict[int, list[tuple[Step, int]]] = {}
        for step in program.steps:
            for value in {*step.results, *step.mutates} - {None}:
                assert value is not None
                for shown in {value, *program.shared.get(value, ())} if value in step.mutates else {value}:
                    self._writers.setdefault(shown, []).append((step, value))
        self._walk([(r.value, "") for r in refs_of(program.result)], len(program.steps))
        for guard in program.guards:
            self._guard(program.steps[guard.step], guard.outcome)

    def _walk(self, start: list[tuple[int, str]], end: int) -> None:
        """Follow values, as they are before a step, back to the point.

        "where" and "if" mark what these decide by, the comparisons behind which are looked after elsewhere.
        """
        stack = [(*item, end) for item in start]
        while stack:
            value, predicate, before = stack.pop()
            if self._seen.get((value, predicate), -1) >= before or not self.program.values[value].depends_on_point:
                continue
            self._seen[value, predicate] = before
            for step, written in self._writers.get(value, ()):
                if step.index < before:
                    stack += [(*item, step.index) for item in self._step(step, written, predicate)]

    def _step(self, step: Step, value: int, serves: str) -> Iterator[tuple[int, str]]:
        """Say what a value depends on through one of the steps that write it, or memory that it shows."""
        refs = list(refs_of((step.args, dict(step.kwargs))))
        if step.label.rstrip("_") in self.written_only:
            refs = [r for r in refs if r.value not in step.mutates]
        reals = [r for r in refs if r.value in self.moving]
        if reals or isinstance(step.operation, Select):
            self.reached.add(step.index)
        if step.operation.kind is Kind.OPAQUE:
            message = f"the user's own function {step} has kinks that are not known"
            self.found[step.index] = Severed("opaque", step, message)
        if value not in self.moving and serves and self._looked_after(step, bool(reals), serves):
            yield from () if reals else ((r.value, serves) for r in refs)
        elif self._real(Ref(value)):
            if reals and value in self.moving and not self.program.values[value].differentiable:
                message = f"the result depends on the point through {step}, which is cut off from the derivative"
                self.found[step.index] = Severed("detached", step, message)
            chosen = step.operands[0] if isinstance(step.operation, Select) else None
            if (
                isinstance(step.operation, Select) and "repeats" in step.attributes
            ):  # both branches have the value of the other one
                refs = [r for r in refs if r == step.operands[3 - step.attributes["repeats"]]]
            yield from ((r.value, "where" if r == chosen else "") for r in refs)
        elif reals:
            self.discrete[step.index] = step
        else:
            yield from ((r.value, "") for r in refs)

    def _guard(self, step: Step, outcome: Any) -> None:
        """Follow what Python has seen."""
        refs = [r for r in refs_of((step.args, dict(step.kwargs))) if self.program.values[r.value].depends_on_point]
        left = isinstance(outcome, float | complex) or is_floating(self.program.framework.xp, outcome)
        if left and any(r.value in self.moving for r in refs):
            message = f"a value that depends on the point left the program at {step.where}"
            self.found[step.index] = Severed("escaped", step, message)
        else:
            self._walk([(r.value, "if") for r in refs if r.value not in self.moving], step.index)

    def _real(self, ref: Ref) -> bool:
        """Tell a value that can carry a derivative."""
        return self.program.values[ref.value].dtype.startswith(("float", "bfloat", "complex"))

    def _looked_after(self, step: Step, moving: bool, serves: str) -> bool:
        """Tell the discrete steps whose ties the evaluation follows or forces, and those that never tie."""
        name, record = step.label.rstrip("_"), step.operation.name
        if step.mutates or name in self.untied:
            return not step.mutates
        if serves == "if" and step.index in self.compared:
            return True
        if moving:
            return name in SIDES
        if serves == "if":  # ties are forced, whatever is made of their outcomes
            return name in SIDES or record == "logic" or record in self.moves
        return is_followed(self.program, step)

    # --- at a point ---------------------------------------------------------------------------------------------------

    def beside(self) -> frozenset[int]:
        """Give the steps that `found_beside` looks at."""
        return frozenset()

    def found_beside(self, calls: Mapping[int, tuple[Any, Any]]) -> list[Severed]:
        """List what a framework's own derivatives leave out, from the arguments of the steps of `beside`."""
        return []

    def severed(self, leaves: list[Array], items: list[Array]) -> tuple[Severed, ...]:
        """List the severed dependences of the result at a point."""
        found = [self.found[k] for k in sorted(self.found)]
        beside = self.beside()
        if not self.discrete and not beside:
            return tuple(found)
        calls = met_at(self.program, leaves, items, frozenset(self.discrete) | beside)
        found += self.found_beside({k: calls[k] for k in beside})
        orders = {k for k, s in self.discrete.items() if isinstance(s.operation, Nonsmooth | Singularity)}
        tied = self._tied_orders(leaves, items) if orders else set()
        for index, step in sorted(self.discrete.items()):
            if index in tied if index in orders else self._ties(step, *calls[index]):
                message = f"the result depends on the outcome of {step} itself, which ties there: the program may jump"
                found.append(Severed("jump", step, message))
        return tuple(found)

    def _tied_orders(self, leaves: list[Array], items: list[Array]) -> set[int]:
        """Find the order operations of which two candidates tie, and the jumps that are met."""
        calls = self.program.framework.replay(self.program, leaves, items, observe=True).calls
        return {
            c.step.index
            for c in calls
            if isinstance(c.step.operation, Nonsmooth | Singularity)
            and any(bool((on_host(m) <= 0).any()) for m in c.step.operation.margins(c.call).values())
        }

    def _ties(self, step: Step, args: Any, kwargs: Mapping[str, Any]) -> bool:
        """Tell whether what a discrete step decides ties; of one that is not known it is assumed."""
        name = step.label.rstrip("_")
        if name in SIDES or name in TOTAL:
            return bool(np.any(on_host(args[0] == args[1])))
        if name in RANKING:
            return bool(choices(self.program.framework.xp, step, args, kwargs))
        if name in self.untied:
            return False
        if step.operation.name == "cast":
            return self._cast_ties(step, args[0])
        test = self.tests.get(name) or self.tests.get(step.operation.name)
        return True if test is None else test(args, kwargs)

    def _cast_ties(self, step: Step, given: Array) -> bool:
        """Tell whether a cast jumps: at 0 to booleans, at the other whole numbers to whole numbers, to reals nowhere."""
        (value,) = step.results[:1]
        kind = "" if value is None else self.program.values[value].dtype
        if kind == "bool":
            return bool(np.any(on_host(given == 0)))
        xp = self.program.framework.xp
        real = xp.astype(given, xp.float32) if not is_floating(xp, given) else given
        return bool(np.any(on_host((xp.trunc(real) == real) & (real != 0))))
