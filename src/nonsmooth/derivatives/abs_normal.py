"""Griewank's abs-normal form: the piecewise linear model of a program of switches at a point.

Every switch is affine pieces joined at the zeros of arguments a, so that it is made of |a|. With z the arguments of all
switches, active or not, and d the change of the point, the model of F is

    z = c + Z d + L |z|,    y = b + J d + Y |z|,    L strictly lower triangular.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from nonsmooth.derivatives.backprop import as_program
from nonsmooth.derivatives.field import flattened
from nonsmooth.derivatives.linearisation import Linearisation, linearise
from nonsmooth.derivatives.pieces import conditions
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import UsageError
from nonsmooth.program import Program, Step

__all__ = ["AbsNormal", "abs_normal"]

SWITCHES = 4096
"""How many switching variables a form may have: one row of Z costs a reverse sweep."""


@dataclass(frozen=True, eq=False)
class AbsNormal:
    """A piecewise linear function in abs-normal form, z = c + Z d + L |z|, y = b + J d + Y |z|.

    Attributes:
        c, Z, L: shapes (s,), (s, p), (s, s) for s switching variables and p coordinates of the point.
        b, J, Y: a number, shapes (p,) and (s,).
        values: the switching variables at the point, 0 at the active kinks.
        steps: the step of the program that each switching variable belongs to.

    Source: Griewank2013.
    """

    c: Floats
    Z: Floats
    L: Floats
    b: float
    J: Floats
    Y: Floats
    values: Floats
    steps: tuple[Step, ...] = field(repr=False, default=())
    flatten: Callable[[Any], Any] = field(repr=False, default=lambda v: v)

    @property
    def switches(self) -> int:
        """The number of switching variables."""
        return len(self.c)

    def arguments(self, d: Any) -> Floats:
        """Give z for a change d of the point.

        >>> import torch
        >>> import nonsmooth as ns
        >>> ns.abs_normal(lambda x: torch.relu(x[0].abs() - 1), torch.tensor([0.5])).arguments(torch.tensor([1.0]))
        array([1.5, 0.5])

        Source: Griewank2013.
        """
        z = self.c + self.Z @ self._vector(d)
        for i in range(len(z)):
            z[i] += self.L[i, :i] @ np.abs(z[:i])
        return np.asarray(z)

    def __call__(self, d: Any) -> float:
        """Give y for a change d of the point: F(x + d) up to o(|d|), and exactly if the program is piecewise affine."""
        return float(self.b + self.J @ self._vector(d) + self.Y @ np.abs(self.arguments(d)))

    def directional(self, v: Any) -> float:
        """Give the one-sided derivative of the model at d = 0 along v, which is F'(x; v).

        >>> import torch
        >>> import nonsmooth as ns
        >>> form = ns.abs_normal(lambda x: torch.relu(x).sum(), torch.tensor([0.0, 1.0]))
        >>> form.directional(torch.tensor([-1.0, 2.0]))
        2.0

        Source: Griewank2013.
        """
        direction = self._vector(v)
        moved, size = self.Z @ direction, np.zeros(len(self.c))
        for i in range(len(moved)):
            moved[i] += self.L[i, :i] @ size[:i]
            size[i] = abs(moved[i]) if self.values[i] == 0 else np.sign(self.values[i]) * moved[i]
        return float(self.J @ direction + self.Y @ size)

    def _vector(self, v: Any) -> Floats:
        """Read a vector of the point's space."""
        found = np.asarray(self.flatten(v), dtype=np.float64).ravel()
        if found.size != len(self.J):
            raise UsageError(f"the abs-normal form has {len(self.J)} coordinates; found a vector of {found.size}.")
        return found


def abs_normal(f: Callable[..., Any] | Program, x: Any, *data: Any) -> AbsNormal:
    """Give the abs-normal form of a program of switches at a point: its piecewise linear model.

        z = c + Z d + L |z|,    y = b + J d + Y |z|,    y(d) = F(x + d) + o(|d|),   y(0) = F(x)

    Switches are element-wise operations of pieces (relu, abs, clamp, maximum, ...), and `where` at a tie whose branches
    join. Status: `computed`.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point.
        data: what is not differentiated.

    Raises:
        UsageError: a kink of another kind is active (a tie of max or sort, a norm at 0, an `if`), or there are too many
            switches. NoField: the program jumps at the point, or is not Lipschitz there.

    >>> import torch
    >>> import nonsmooth as ns
    >>> form = ns.abs_normal(lambda x: torch.maximum(x[0], x[1].abs()), torch.tensor([0.0, 0.0]))
    >>> form.switches, form(torch.tensor([1.0, -3.0])), form.directional(torch.tensor([-1.0, -3.0]))
    (2, 3.0, 3.0)

    Source: Griewank2013.
    """
    program, framework = as_program(f, x, data)
    conditions(framework, program, x, data)
    system = linearise(framework, program, x, data, float("inf"))
    _check(system)
    value = float(framework.numpy(framework.scalar(system.sweeps.evaluation)).item())
    kappa, a = _switches(system)
    Z, L = system.rows()
    L, Y = L[:, system.kink_of_z], system.Y[system.kink_of_z]  # every switch adds one u, which each of its z acts on
    scale = np.divide(1.0, kappa, out=np.zeros_like(kappa), where=kappa != 0)
    A, B = scale[:, None] * Z, scale[:, None] * L * kappa / 2
    start = np.maximum(a, 0.0)
    N = np.eye(len(a)) - B
    c, Zs, Ls = (solve_triangular(N, p, lower=True, unit_diagonal=True) for p in (a - 2 * B @ start, A, B))
    half = Y * kappa / 2
    return AbsNormal(
        c=c,
        Z=Zs,
        L=np.tril(Ls, -1),
        b=float(value - 2 * half @ start + half @ c),
        J=system.J + half @ Zs,
        Y=half + half @ np.tril(Ls, -1),
        values=a,
        steps=tuple(system.kink(int(k)).step for k in system.kink_of_z),
        flatten=partial(flattened, framework, x),
    )


def _check(system: Linearisation) -> None:
    """Refuse what is no switch."""
    evaluation, n = system.sweeps.evaluation, int(system.first_z[-1])
    library = {"jax": "jax.numpy"}.get(system.framework.name, system.framework.name)
    if evaluation.ties:
        raise UsageError(
            f"abs_normal: an `if` on data ties at {evaluation.ties[0].step}; the form is of one program. Write the `if` as "
            f"{library}.where."
        )
    for call, block in zip(system.calls, system.blocks, strict=True):
        if block.orientation is None and block.own is None:
            raise UsageError(
                f"abs_normal: {call.step} has an active kink ({block.kink}) that is no switch. Write a maximum of two by "
                f"{library}.maximum; for other kinks use ns.field and ns.clarke."
            )
    if n > SWITCHES:
        raise UsageError(f"abs_normal: the program has {n} switching variables; the form is kept for up to {SWITCHES}.")


def _switches(system: Linearisation) -> tuple[Floats, Floats]:
    """Give, for every z, the factor by which it is a multiple of the switching argument, and that argument's value."""
    factors, values = [], []
    for place, block in enumerate(system.blocks):
        if block.orientation is not None:
            factors.append(np.ravel(block.orientation))
            values.append(np.ravel(block.values))
            continue
        chosen = slice(int(system.first_z[place]), int(system.first_z[place + 1]))
        z = np.hstack([part[chosen] for part in system.rows()])
        a = np.hstack([part[chosen] for part in system.dense_arguments])
        below = np.sum(a * a, axis=1)
        factors.append(np.divide(np.sum(z * a, axis=1), below, out=np.zeros_like(below), where=below > 0))
        values.append(np.zeros(len(z)))
    empty = [np.zeros(0)]
    return np.concatenate(factors or empty), np.concatenate(values or empty).astype(np.float64)
