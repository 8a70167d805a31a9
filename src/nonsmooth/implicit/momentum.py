"""Polyak's heavy ball as a map of states, and the products that its derivatives can run through.

    (x, p) -> (x - a grad f(x) + b (x - p), x),   B = [[(1 + b) I - a H, -b I], [I, 0]],   H in the conservative Jacobian of grad f

Where grad f has a kink at the solution there are several H, each with a stable B; products of different ones can grow, and
then the conservative Jacobians of the iterates are unbounded though the iterates converge: for f(x) = x^2 / 2 for x >= 0,
x^2 / 8 for x < 0, a = 1 and b = 3/4 by 9/8 every four steps.

Source: BoltePauwelsVaiter2022.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import capture
from nonsmooth.derivatives.linearisation import linearise
from nonsmooth.dictionary.weights import Vertices
from nonsmooth.errors import NonsmoothError, UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.derivative_convergence import DerivativeConvergence
from nonsmooth.implicit.matrix_products import JointSpectralRadius, joint_spectral_radius

__all__ = ["HeavyBall", "extreme_jacobians", "heavy_ball", "step_products"]

ENTRIES = 128
"""States of more entries are not looked at."""

ELEMENTS = 16
"""Nor are more extreme elements."""


class HeavyBall:
    """The map ((x, p), *theta) -> (x - a grad f(x, *theta) + b (x - p), x).

    Attributes:
        gradient: gradient(x, *theta) -> like x, or None: that of `objective`.
        step: a; momentum: b.
    """

    def __init__(self, objective: Any, gradient: Any, step: Any, momentum: Any) -> None:
        self.objective, self.gradient, self.step, self.momentum = objective, gradient, step, momentum
        self.__name__ = f"heavy_ball({getattr(objective or gradient, '__name__', 'f')})"

    def __call__(self, state: Any, *theta: Any) -> Any:
        """Make one step."""
        if not isinstance(state, tuple) or len(state) != 2:
            raise UsageError(
                "heavy_ball: the state is a pair (x, previous x); start with `start=(x0, x0)`, and take x from the "
                f"result. Found a {type(state).__name__}."
            )
        x, previous = state
        framework = find_framework([x])
        if self.gradient is not None:
            slope = self.gradient(x, *theta)
        else:
            slope = import_module(f"nonsmooth.implicit.{framework.name}.unrolled").gradient(self.objective, x, theta)
        leaves, structure = framework.flatten(x)
        before, slopes = framework.flatten(previous)[0], framework.flatten(slope)[0]
        if not len(leaves) == len(before) == len(slopes):
            raise UsageError("heavy_ball: x, the previous x and the gradient must have one structure.")
        moved = [
            y - self.step * g + self.momentum * (y - p) for y, p, g in zip(leaves, before, slopes, strict=True)
        ]  # fmt: skip
        return framework.unflatten(moved, structure), x


def heavy_ball(
    objective: Callable[..., Any] | None = None,
    *,
    step: Any,
    momentum: Any,
    gradient: Callable[..., Any] | None = None,
) -> HeavyBall:
    """Give the steps of the heavy ball as a map for `unroll`, whose state is the pair (x, previous x).

        (x, p) -> (x - step grad f(x) + momentum (x - p), x)

    Args:
        objective: f(x, *theta), scalar.
        step, momentum: numbers, or scalars of the framework.
        gradient: gradient(x, *theta) -> like x, instead of the objective.

    >>> import torch
    >>> import nonsmooth as ns
    >>> T = ns.implicit.heavy_ball(lambda x, t: ((x - t) ** 2).sum() / 2, step=0.5, momentum=0.25)
    >>> t, x0 = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True), torch.zeros(2, dtype=torch.float64)
    >>> x, _ = ns.implicit.unroll(T, 80)(t, start=(x0, x0))
    >>> x.sum().backward()
    >>> t.grad.round(decimals=6)
    tensor([1., 1.], dtype=torch.float64)

    Source: BoltePauwelsVaiter2022.
    """
    if (objective is None) == (gradient is None):
        raise UsageError("heavy_ball: pass an objective, or gradient=, and not both.")
    for name, number in (("step", step), ("momentum", momentum)):
        if isinstance(number, str | bool) or number is None:
            raise UsageError(f"heavy_ball: {name} is a number; found {number!r}.")
    return HeavyBall(objective, gradient, step, momentum)


def extreme_jacobians(T: Any, y: Any, theta: tuple[Any, ...], near: float = 0.0) -> list[Any] | None:
    """Give the derivatives of T in y under all extreme weights of the kinks at y; None where they cannot be listed.

    Every element of the conservative Jacobian is a mixture of them: B(W) = J + Y (I - W L)^-1 W Z is affine in each row of W.
    """
    framework = find_framework(y)
    system = linearise(framework, capture(T, y, *theta), y, theta, near)
    J, Y = system.sweeps.jacobian()
    if not system.count:
        return [J]
    kinks = [system.kink(i) for i in range(system.count)]
    if any(not isinstance(k.weights, Vertices) for k in kinks):
        return None
    vertices = [k.weights.extreme() for k in kinks if isinstance(k.weights, Vertices)]
    if math.prod(map(len, vertices)) > 4 * ELEMENTS:
        return None
    Z, L = system.dense_rows, system.dense_interactions
    found: list[Any] = []
    for element in itertools.product(*vertices):
        W = np.zeros((Y.shape[1], Z.shape[0]))
        for kink, weight in zip(kinks, element, strict=True):
            W[kink.u, kink.z] = weight
        B = J + Y @ np.linalg.solve(np.eye(len(W)) - W @ L, W @ Z)
        if not any(np.allclose(B, other, rtol=1e-12, atol=0) for other in found):
            found.append(B)
    return found if len(found) <= ELEMENTS else None


def step_products(
    T: Any, y: Any, theta: Any, read: DerivativeConvergence, near: float | None
) -> JointSpectralRadius | None:
    """Bound the growth of products of elements at the last iterate; None where T is too large or cannot be captured."""
    framework = find_framework(y)
    if sum(math.prod(leaf.shape) for leaf in framework.flatten(y)[0]) > ENTRIES:
        return None
    if near is None:
        near = read.tolerance * (1 + read.iterate_size) if read.iterates_converged else 0.0
    try:
        elements = extreme_jacobians(T, y, tuple(theta), near)
    except NonsmoothError:
        return None
    return None if elements is None else joint_spectral_radius(elements)
