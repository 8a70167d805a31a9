"""The solvers of the library: Anderson's iteration, a semismooth Newton method, accelerated proximal gradients.

They find a solution and nothing else: whether it is one is checked afterwards, as for the solver of a user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from nonsmooth.errors import NotConverged, NotInvertible, UsageError
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.system import System
from nonsmooth.implicit.torch.trees import TREES

__all__ = ["default_solver"]

Map: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

MEMORY = 6
"""How many steps Anderson's iteration combines."""

REGULARISATION = 1e-12
"""Of Anderson's least squares, relative to the largest product of two residuals."""

GROWTH = 2.0
"""A combined step whose residual is larger by this factor is taken back, and the memory with it."""

PATIENCE = 30
"""After how many steps without a better residual a solver that has reached the tolerance ends."""

FAR = 1e-2
"""Newton's method goes on from an iterate with a smaller residual, relative to 1 + |y|, and from the start otherwise."""

NEWTON = 50
"""How many steps of Newton's method are made."""

HALVINGS = 30
"""How often a step is halved until the residual falls."""


class Flat:
    """The layout of a tree of tensors as one vector."""

    def __init__(self, tree: Any) -> None:
        leaves, self.structure = flatten(tree)
        self.shapes = [t.shape for t in leaves]
        self.dtypes = [t.dtype for t in leaves]
        self.vector = torch.cat([t.detach().reshape(-1) for t in leaves])

    def tree(self, vector: torch.Tensor) -> Any:
        """Give the tree of a vector."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        leaves = [p.reshape(s).to(d) for p, s, d in zip(parts, self.shapes, self.dtypes, strict=True)]
        return unflatten(leaves, self.structure)

    @staticmethod
    def lay(tree: Any) -> torch.Tensor:
        """Give the vector of a tree."""
        return torch.cat([t.reshape(-1) for t in flatten(tree)[0]])


class Best:
    """The best iterate so far, and whether to go on."""

    def __init__(self, goal: float, tolerance: float) -> None:
        self.goal, self.tolerance = goal, tolerance
        self.vector: torch.Tensor | None = None
        self.error, self.since = float("inf"), 0

    def ends(self, vector: torch.Tensor, residual: torch.Tensor) -> bool:
        """Note an iterate with its residual; tell whether it is as good as it gets."""
        error = float(residual.norm() / (1 + vector.norm()))
        self.since += 1
        if error < self.error:
            self.since = 0 if error < self.error / 2 else self.since
            self.vector, self.error = vector, error
        return self.error <= self.goal or (self.error <= self.tolerance and self.since >= PATIENCE)


def default_solver(equation: Equation, theta: tuple[Any, ...], start: Any, options: Options, tolerance: float) -> Any:
    """Solve an equation from a start by the library's own method for its kind; give the best iterate.

    The goal is a residual of eps^(3/4) (the accuracy of a derivative is that of its solution), or the tolerance where the
    options name one.
    """
    if start is None:
        raise UsageError(
            f"{equation.name} has no solver and no start: pass start=, a tensor or a tree of tensors like the solution, at which "
            "the solver of the library begins, or a solver of your own."
        )
    layout = Flat(start)
    eps = torch.finfo(layout.vector.dtype).eps
    best = Best(options.tolerance or eps**0.75, tolerance)

    def residual(vector: torch.Tensor) -> torch.Tensor:
        return layout.lay(equation.residual(TREES, layout.tree(vector), theta))

    with torch.no_grad():
        if equation.kind == "fixed point":
            anderson(lambda v: v - residual(v), layout.vector, best, options.iterations)
        elif equation.kind == "argmin":
            proximal_gradient(equation, theta, layout, residual, best, options.iterations)
        if best.error > (tolerance if equation.kind == "fixed point" else best.goal):
            begin = layout.vector if best.vector is None or best.error > FAR else best.vector
            newton(equation, theta, layout, residual, begin, best, options)
            if equation.prox is not None:
                exact_zeros(residual, best)
    return layout.tree(layout.vector if best.vector is None else best.vector)


def anderson(step: Map, vector: torch.Tensor, best: Best, iterations: int) -> None:
    """Iterate y <- T(y), combined over the last steps so that the combined residual is least (Anderson's type II).

    A step whose residual has grown by `GROWTH` over the best is taken back and a plain step made from there.
    """
    points: list[torch.Tensor] = []
    residuals: list[torch.Tensor] = []
    anchor, anchored = vector, float("inf")
    for _ in range(iterations):
        moved = step(vector)
        residual = moved - vector
        if not bool(torch.isfinite(residual).all()):
            if not points:
                return
            vector, points, residuals = anchor, [], []
            continue
        if best.ends(vector, residual):
            return
        size = float(residual.norm())
        if size > GROWTH * anchored and points:
            vector, points, residuals = anchor, [], []
            anchored = float("inf")
            continue
        if size < anchored:
            anchor, anchored = moved, size
        points, residuals = [*points[-MEMORY + 1 :], moved], [*residuals[-MEMORY + 1 :], residual]
        vector = combined(points, residuals)


def combined(points: list[torch.Tensor], residuals: list[torch.Tensor]) -> torch.Tensor:
    """Give the affine combination of points whose residuals combine to the least."""
    if len(points) == 1:
        return points[0]
    last = residuals[-1]
    differences = torch.stack([last - r for r in residuals[:-1]], dim=1).double()
    gram = differences.T @ differences
    gram.diagonal().add_(REGULARISATION * float(gram.diagonal().max()) + torch.finfo(gram.dtype).tiny)
    weights = torch.linalg.lstsq(gram, differences.T @ last.double()[:, None]).solution.squeeze(1).to(last.dtype)
    if not bool(torch.isfinite(weights).all()):
        return points[-1]
    steps = torch.stack([points[-1] - p for p in points[:-1]], dim=1)
    return torch.sub(points[-1], steps @ weights)


def newton(
    equation: Equation,
    theta: tuple[Any, ...],
    layout: Flat,
    residual: Map,
    vector: torch.Tensor,
    best: Best,
    options: Options,
) -> None:
    """Solve H(y) + B d = 0 with an element B of the conservative Jacobian, and halve d until |H| falls."""
    found = residual(vector)
    for _ in range(min(options.iterations, NEWTON)):
        if not bool(torch.isfinite(found).all()) or best.ends(vector, found):
            return
        with torch.enable_grad():
            system = System(lambda y: equation.residual(TREES, y, theta), layout.tree(vector), equation, options)
        try:
            direction = layout.lay(system.solve_tree(layout.tree(found)))
        except (NotInvertible, NotConverged):
            return
        length = 1.0
        for _ in range(HALVINGS):
            trial = vector - length * direction
            after = residual(trial)
            if bool(torch.isfinite(after).all()) and float(after.norm()) < (1 - length / 4) * float(found.norm()):
                break
            length /= 2
        else:
            best.ends(trial, after)
            return
        vector, found = trial, after


def exact_zeros(residual: Map, best: Best) -> None:
    """Make one proximal step, y - H(y), after which entries are zero that the prox makes zero and Newton's method nearly."""
    if best.vector is None:
        return
    stepped = best.vector - residual(best.vector)
    error = float(residual(stepped).norm() / (1 + stepped.norm()))
    if error <= 2 * max(best.error, best.goal):
        best.vector, best.error = stepped, error


def proximal_gradient(
    equation: Equation, theta: tuple[Any, ...], layout: Flat, residual: Map, best: Best, iterations: int
) -> None:
    """Minimise f + g by accelerated proximal gradient steps with backtracking, restarted where momentum points uphill."""

    def value_and_gradient(vector: torch.Tensor) -> tuple[float, torch.Tensor]:
        tree = layout.tree(vector)
        gradient = layout.lay(TREES.gradient(equation.function, tree, theta))  # refuses what is no scalar
        return float(equation.function(tree, *theta)), gradient

    def prox(vector: torch.Tensor, step: float) -> torch.Tensor:
        return vector if equation.prox is None else layout.lay(equation.prox(layout.tree(vector), step, *theta))

    here = ahead = layout.vector
    if equation.prox is not None:
        here = ahead = prox(here, equation.step)
    step, inertia = 1.0, 1.0
    for count in range(iterations):
        value, gradient = value_and_gradient(ahead)
        if not bool(torch.isfinite(gradient).all()):
            return
        for _ in range(2 * HALVINGS):
            after = prox(ahead - step * gradient, step)
            moved = after - ahead
            bound = value + float(gradient @ moved) + float(moved @ moved) / (2 * step)
            if float(equation.function(layout.tree(after), *theta)) <= bound + 1e-12 * (1 + abs(value)):
                break
            step /= 2
        if (float(moved.norm()) <= best.goal * step or count % 10 == 9) and best.ends(after, residual(after)):
            return
        if float((ahead - after) @ (after - here)) > 0:
            inertia, ahead = 1.0, after
        else:
            later = (1 + (1 + 4 * inertia**2) ** 0.5) / 2
            ahead = after + (inertia - 1) / later * (after - here)
            inertia = later
        here = after
        step *= 1.1
    best.ends(here, residual(here))
