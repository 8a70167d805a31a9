"""The condition of the theorem at a derivative: the solution is looked at once more, and diagnosed if it lies on kinks.

The residual is captured once for each signature of its arguments. At every derivative its program is evaluated at the
solution, and what is zero at kinks compared with what the error of the solution can move it: its slope, measured there,
times a first-order bound |B^-1| |H| of that error, and where that is not enough its difference between y and y - B^-1 H,
the step of Newton's method. The length of that step also tells of a solution that is far
away though |H| is small, and the signs of a Hessian of one that is no minimiser.

Over 300 lines: all that is looked at before a derivative is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from nonsmooth.dictionary import Nonsmooth, Singularity, Switch
from nonsmooth.errors import ImplicitWarning, NonsmoothError, NotInvertible
from nonsmooth.frameworks.framework import Evaluation
from nonsmooth.frameworks.replay.plan import plan_of
from nonsmooth.frameworks.torch import TORCH
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import FAR, Options
from nonsmooth.implicit.torch.attached import Node
from nonsmooth.implicit.torch.slopes import slopes, without_branches
from nonsmooth.implicit.torch.trees import TREES, detached, met_equations, squared_norm
from nonsmooth.program import Program

__all__ = ["make_check"]

Place: TypeAlias = tuple[int, int, bool]
"""The step of an argument, which of its arguments it is, and whether the step is singular at bad points, not kinked."""

Arguments: TypeAlias = Mapping[Place, torch.Tensor]

NEAR = 10.0
"""A kink is looked at within so many bounds of the error of the solution, as in a diagnosis."""

ROUNDING = 16.0
"""... or so many units of rounding, times the size of the solution and |B^-1|."""

MOVED = 0.5
"""An argument may be zero at the solution if Newton's step leaves less of it than so many times what it changes."""

FOLLOWED = 1e-3
"""How far, relatively, a product with the derivative may be from a difference quotient."""


@dataclass
class _Known:
    """What is known of an equation for arguments of one signature."""

    program: Program | None
    severed: tuple[str, ...] = ()
    inside: str = ""


def make_check(equation: Equation, theta: tuple[Any, ...], options: Options) -> Callable[[Node], None] | None:
    """Give what is to be looked at before a derivative of a solution is given; None if nothing."""
    if options.check == "solves" or options.violated == "ignore":
        return None
    done: list[bool] = []

    def check(node: Node) -> None:
        if not done:
            with _outside_batches():
                _Check(equation, detached(theta), options, node).run()
            done.append(True)

    return check


@contextmanager
def _outside_batches() -> Iterator[None]:
    """Leave the batching of torch.autograd.grad(..., is_grads_batched=True), in which nothing random may run."""
    depth = torch._C._vmapmode_increment_nesting()
    for _ in range(depth):
        torch._C._vmapmode_decrement_nesting()
    try:
        yield
    finally:
        for _ in range(depth - 1):
            torch._C._vmapmode_increment_nesting()


class _Check:
    """One look at a solution."""

    def __init__(self, equation: Equation, theta: tuple[Any, ...], options: Options, node: Node) -> None:
        self.equation, self.theta, self.options, self.node = equation, theta, options, node
        self.y = node.system.y
        self.known = self._recall()

    def run(self) -> None:
        """Probe the linear system, which bounds |B^-1| as well, look for kinks, and diagnose."""
        linear = self.node.system.linear
        linear.probe()
        if linear.chosen == "dense":
            self._accurate()
        if self.known.program is None:
            return
        if self.known.inside:
            self._nested()
            self._curved()
            return
        if self.known.severed and not self._follows():
            self._warn(
                f"its linear system may not be that of the equation, since {self.known.severed[0]}. Write the function so that "
                "autograd follows all of its dependence on the solution; where some of it is left out on purpose, pass "
                "check='solves' to be told no more"
            )
        try:
            where = self._kinked()
        except NonsmoothError as error:
            self._unchecked(error)
            return
        if where is not None:
            self._diagnose(where)
        else:
            self._curved()

    def _curved(self) -> None:
        """Say where a solution is no minimiser."""
        lowest = self.node.system.linear.negative_curvature()
        if lowest:
            self._warn(
                "the solution is no minimiser, though the gradient is 0 there: the Hessian has the eigenvalue "
                f"{lowest:.3g}. Start elsewhere; of stationary points take the root of the gradient"
            )

    def _nested(self) -> None:
        """Say where a function that solves another equation may be at a kink, of its own or of the other one."""
        try:
            smooth = self._follows() and self._kinked() is None
        except NonsmoothError:  # the solver inside comes to other values at its checks
            smooth = False
        if not smooth:
            self._warn(
                f"whether the condition of the implicit function theorem holds on kinks is undecided: {self.equation.name} solves "
                f"another equation inside, {self.known.inside}, and the steps of its solver are no part of the condition. Solve "
                "both as one equation, for the two unknowns together, which is decided; or pass check='solves' to be told no more"
            )

    def _accurate(self) -> None:
        """Say where Newton's step is long: |H| is small in the units of the equation, and |B^-1 H| is not in those of y."""
        system, eps = self.node.system, self.node.system.eps
        step = squared_norm(system.solve(self.node.value, transposed=False)) ** 0.5
        size = 1 + squared_norm(flatten(self.y)[0]) ** 0.5
        if step > max(FAR, 10 * (self.options.tolerance or eps**0.5)) * size:
            self._warn(
                f"the solution is not accurate enough: |H| = {squared_norm(self.node.value) ** 0.5:.2g} is small, but Newton's "
                f"step from there is {step:.2g} long, where 1 + |y| is {size:.2g}. Scale the equation, or let the solver go on, "
                "with a smaller tolerance"
            )

    def _recall(self) -> _Known:
        """Find what is known for this signature, or capture the residual."""
        table: dict[Any, _Known] = self.equation.__dict__.setdefault("_torch_programs", {})
        key = TORCH.signature(self.y, self.theta)
        if key not in table:
            table[key] = _Known(None)
            try:
                with met_equations() as inside:
                    program = table[key].program = self._capture()
                table[key].inside = inside[0] if inside else ""
                table[key].severed = self._severed(program)
            except NonsmoothError as error:
                self._unchecked(error)
        return table[key]

    def _capture(self) -> Program:
        """Capture H as a program in y."""

        def residual(y: Any, *theta: Any) -> Any:
            return self.equation.residual(TREES, y, theta)

        with torch.enable_grad():
            return TORCH.capture(residual, self.y, self.theta)

    def _severed(self, program: Program) -> tuple[str, ...]:
        """List where the dependence on y is cut off from the derivative: `detach`, `no_grad`, numpy, `item`."""
        found = TORCH.severed(program, self.y, self.theta)
        return tuple(s.message for s in found if s.rule in ("detached", "escaped"))

    def _follows(self) -> bool:
        """Tell whether B v is the difference quotient of H along a random v, though something is cut off."""
        system = self.node.system
        size = 1 + max((float(t.abs().max()) for t in flatten(self.y)[0] if t.numel()), default=0.0)
        step = size * system.eps ** (1 / 3)
        v = system.parts(np.random.default_rng(0).standard_normal(system.linear.size))
        with torch.no_grad():
            ahead, behind = (
                self.node.residual(
                    unflatten([t.detach() + s * d for t, d in zip(system.leaves, v, strict=True)], system.structure),
                    self.node.explicit,
                )
                for s in (step, -step)
            )
            quotient = (system.flat(flatten(ahead)[0]) - system.flat(flatten(behind)[0])) / (2 * step)
        product = system.flat(system.push(v))
        allowed = max(FOLLOWED, 10 * system.eps ** (2 / 3)) * (np.linalg.norm(product) + np.linalg.norm(quotient))
        return bool(np.linalg.norm(product - quotient) <= allowed)

    def _observed(self, y: Any) -> Evaluation:
        """Evaluate the program and what it meets that is not smooth."""
        assert self.known.program is not None
        with torch.no_grad():
            return TORCH.evaluate(self.known.program, y, self.theta, observe=True)

    def _beside(self, y: Any) -> Arguments:
        """Give what is zero at kinks near the solution, on its side of every `if` on data."""
        assert self.known.program is not None
        with torch.no_grad():
            return _arguments(TORCH.evaluate(without_branches(self.known.program), y, self.theta, observe=True))

    def _kinked(self) -> Any | None:
        """Give the point at which to diagnose if the solution may lie on kinks, else None."""
        seen = self._observed(self.y)
        if not self._reproduces(seen):
            self.known.program = self._capture()  # a mode of a module, say, has been changed
            seen = self._observed(self.y)
            if not self._reproduces(seen):
                self._unchecked(
                    "a tensor on which it depends, or a mode (autocast, say), has been changed since the solution was found."
                )
                return None
        system = self.node.system
        size = 1 + max((float(t.abs().max()) for t in flatten(self.y)[0] if t.numel()), default=0.0)
        inverse = system.linear.inverse_norm()
        rounding = ROUNDING * system.eps * size * max(1.0, inverse)
        error = inverse * float(sum(r.double().square().sum() for r in self.node.value)) ** 0.5
        distance = max(NEAR * error, rounding)
        here = _arguments(seen)
        steep = slopes(self._beside, here, self.y)
        near = {k for k, a in here.items() if _reached(k, a, distance * steep[k])}
        tied = self._tied(distance)
        if not near and not tied:
            return None
        step = system.solve(self.node.value, transposed=False)
        leaves, structure = flatten(self.y)
        nearer = unflatten([t - d for t, d in zip(leaves, step, strict=True)], structure)
        allowed = {k: rounding * steep[k] for k in near}
        kinked, crossed = _compare(here, self._beside(nearer), allowed)
        if crossed:
            self._warn(
                f"the solution is not accurate enough: it lies on the other side of {crossed} kink(s) than the solution to which "
                "Newton's step leads, so that its derivative is one of a neighbouring piece. Let the solver go on, with a "
                "smaller tolerance"
            )
        return nearer if kinked or tied else None

    def _tied(self, distance: float) -> bool:
        """Tell whether what an `if` on data compares may be equal at the solution."""
        program = self.known.program
        assert program is not None
        tying = plan_of(program).compared
        wanted = frozenset(c for g in program.guards if g.kind == "branch" for c in g.comparisons if c in tying)
        if not wanted:
            return False

        def differences(y: Any) -> dict[int, torch.Tensor]:
            found = TORCH.compared(without_branches(program), y, self.theta, wanted)
            return {k: torch.as_tensor(np.asarray(m)) for k, m in found.items()}

        here = differences(self.y)
        steep = slopes(differences, here, self.y)
        return any(bool((m <= distance * steep[k]).any()) for k, m in here.items())

    def _reproduces(self, seen: Evaluation) -> bool:
        """Tell whether the program gives the residual that was recorded."""
        scale = 1 + max((float(t.abs().max()) for t in flatten(self.y)[0] if t.numel()), default=0.0)
        found = flatten(seen.result)[0]
        return all(
            a.shape == b.shape and bool(((a.detach() - b).abs() <= 1e3 * self.node.system.eps * scale).all())
            for a, b in zip(found, self.node.value, strict=True)
        )

    def _diagnose(self, y: Any) -> None:
        """Decide over all elements, and raise or warn."""
        from nonsmooth.implicit.diagnosis import diagnose_equation

        with torch.enable_grad():
            found = diagnose_equation(self.equation, TREES, y, self.theta, self.options)
        if found.invertible:
            return
        if found.invertible is False and self.options.violated == "raise":
            raise NotInvertible(found.message())
        warnings.warn(found.message(), ImplicitWarning, stacklevel=3)

    def _unchecked(self, error: object) -> None:
        """Say that the condition was not checked, and why."""
        self._warn(
            f"whether the condition of the implicit function theorem holds on kinks was not checked: {error} Pass "
            "check='solves' to be told no more"
        )

    def _warn(self, what: str) -> None:
        """Warn of a derivative."""
        text = f"the derivative of the {self.equation.kind} of {self.equation.name}: {what}."
        warnings.warn(text, ImplicitWarning, stacklevel=3)


def _arguments(seen: Evaluation) -> dict[Place, torch.Tensor]:
    """Give what is zero at the kinks that were met: with its sign at switches, as a distance elsewhere."""
    found: dict[Place, torch.Tensor] = {}
    for met in seen.calls:
        operation = met.step.operation
        assert isinstance(operation, Nonsmooth | Singularity)
        parts = operation.arguments(met.call) if isinstance(operation, Switch) else operation.margins(met.call).values()
        singular = isinstance(operation, Singularity)
        found |= {(met.step.index, k, singular): a for k, a in enumerate(parts)}
    return found


def _reached(place: Place, a: torch.Tensor, distance: torch.Tensor) -> bool:
    """Tell whether an argument is within a distance of its kink; of a singular step only whether it is at a bad point."""
    return bool((a <= 0 if place[-1] else a.abs() <= distance).any())


def _compare(here: Arguments, nearer: Arguments, rounding: Arguments) -> tuple[bool, int]:
    """Tell whether arguments of kinks may be zero at the solution, and how many change their sign on the way to it."""
    kinked, crossed = False, 0
    for place, allowed in rounding.items():
        a, b = here[place], nearer.get(place)
        if b is None or a.shape != b.shape:
            kinked = True
            continue
        kinked |= bool((b.abs() <= MOVED * (a - b).abs() + allowed).any())
        crossed += int(((a * b < 0) & (b.abs() > allowed)).sum())
    return kinked, crossed
