"""Unrolled algorithms: differentiation through the steps, which tells whether the derivatives have settled.

    y_(k+1) = T(y_k, theta),   J_(k+1) = B_k J_k + A_k,   [A_k B_k] in J_T(theta, y_k)

If every B has norm <= rho < 1, the set of the J_k tends linearly to the fixed set of J -> B J + A. With momentum it need
not, though the iterates converge: not even in one dimension.

Source: BoltePauwelsVaiter2022.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, Literal, TypeAlias

from nonsmooth.errors import ImplicitWarning, NotConverged, UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.derivative_convergence import DerivativeConvergence, read_convergence
from nonsmooth.implicit.iteration import Iterates, Record, name_of
from nonsmooth.implicit.momentum import HeavyBall, step_products

__all__ = ["Unconverged", "Unrolled", "unroll", "user_level", "whole_number"]

Mode: TypeAlias = Literal["reverse", "forward"]
Unconverged: TypeAlias = Literal["raise", "warn", "ignore"]


class Unrolled:
    """y_K as a function of the parameters; calling it makes the steps, and the result differentiates.

    Attributes:
        monitor: what the last call saw; None before the first, and where nothing could be seen (see `unroll`).
    """

    def __init__(
        self, T: Callable[..., Any], steps: int, mode: Mode, unconverged: Unconverged, tolerance: float | None,
        tangents: int, seed: int,
    ) -> None:  # fmt: skip
        self.T, self.steps, self.mode, self.unconverged = T, steps, mode, unconverged
        self.tolerance, self.tangents, self.seed = tolerance, tangents, seed
        self.monitor: DerivativeConvergence | None = None

    def __call__(self, *theta: Any, start: Any) -> Any:
        """Make the steps from a start: a tree of arrays like what T returns, or a function of theta that gives one."""
        run = Iterates(self.T, self.steps, self.mode, self.tangents, self.seed, self._record)
        return _module(theta, start).iterate(run, start, theta)

    def report(self, *theta: Any, start: Any, tangents: int = 3, near: float | None = None) -> DerivativeConvergence:
        """Make the steps with more tangents, look at products of the elements at the last iterate, and tell what was seen.

        Args:
            theta, start: as in a call.
            tangents: how many random tangents to push.
            near: the distance within which kinks of T count as active at the last iterate; None: the tolerance, relative.
        """
        whole_number("tangents", tangents, 1)
        found: list[DerivativeConvergence] = []

        def keep(record: Record, y: Any, fixed: Any, needed: bool) -> None:
            read = self._read(record, tangents)
            found.append(replace(read, products=step_products(self.T, y, fixed, read, near)))

        module = _module(theta, start)
        values = module.detached(theta), (start if callable(start) else module.detached(start))
        module.iterate(Iterates(self.T, self.steps, "reverse", tangents, self.seed, keep), values[1], values[0])
        if not found:
            raise UsageError("report: the iterates have no values here (inside of jit or vmap); call it outside.")
        return found[-1]

    def _read(self, record: Record, tangents: int) -> DerivativeConvergence:
        return read_convergence(
            record.iterates, record.iterate_size, record.changes, record.size, record.eps, self.tolerance,
            0 if record.changes is None else tangents, record.reason,
        )  # fmt: skip

    def _record(self, record: Record, y: Any, theta: Any, needed: bool) -> None:
        """Keep what a call saw, and say what is wrong."""
        read = self._read(record, self.tangents)
        if isinstance(self.T, HeavyBall) and self.tangents and y is not None:
            read = replace(read, products=step_products(self.T, y, theta, read, None))
        self.monitor = read
        if not needed or self.unconverged == "ignore" or not self.tangents or not read.warning:
            return
        what = read.warning.rstrip(".")
        text = f"unroll({name_of(self.T)}, {self.steps}): {what}. (`report` tells more; unconverged='ignore' says nothing.)"
        if self.unconverged == "raise" and y is not None:
            raise NotConverged(text)
        warnings.warn(text, ImplicitWarning, stacklevel=user_level())


def user_level() -> int:
    """Give the level of the first caller outside of this chapter."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and "nonsmooth.implicit" in str(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    return level


def _module(theta: tuple[Any, ...], start: Any) -> Any:
    """Give the module that iterates arrays of the framework of start and parameters."""
    framework = find_framework(list(theta) if callable(start) else [*theta, start])
    return import_module(f"nonsmooth.implicit.{framework.name}.unrolled")


def whole_number(name: str, number: Any, least: int) -> None:
    """Refuse what is no count."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise UsageError(f"{name}={number!r}: pass an integer, {least} or more.")


def unroll(
    T: Callable[..., Any],
    steps: int,
    *,
    mode: Mode = "reverse",
    unconverged: Unconverged = "warn",
    tolerance: float | None = None,
    tangents: int = 1,
    seed: int = 0,
) -> Unrolled:
    """Differentiate through the steps of an iteration, and tell whether the derivatives have converged.

        y_(k+1) = T(y_k, theta),   k = 0 .. steps - 1;   the result is y_K, with the derivative of all steps

    The derivative is that of y_K as the framework computes it (an element of the conservative Jacobian of y_K): exact for
    y_K, and near that of the fixed point only once it has settled. This is monitored: random tangents are pushed beside the
    iterates, and their changes, the linear rate of these and what remains are kept in `.monitor` (`sampled`). An
    `ImplicitWarning` says where derivatives have not converged or diverge; for the map of `heavy_ball` it also says where
    products of its elements at the last iterate grow (`computed`). The tangents cost about one more evaluation of T each.

    In JAX the steps are a `lax.scan`, to be used with jit, vmap, grad and jvp; where values are traced, the monitor speaks
    when the compiled function runs. Under vmap of torch nothing is monitored.

    Args:
        T: T(y, *theta) -> like y.
        steps: how many.
        mode: "reverse": through the graph of all steps, in all that T depends on, closed-over modules too. "forward": the
            Jacobian in theta is carried along, one tangent for each entry, in memory that does not grow with the steps;
            a `start` that depends on theta is then a function of it.
        unconverged: "warn" where derivatives have not converged, "raise" `NotConverged` (compiled: warn), or "ignore" it.
        tolerance: what may remain to change, relative; None: the root of the unit of rounding.
        tangents: how many are pushed; 0: no monitor.
        seed: of the tangents; the user's generators stay as they are.

    Raises:
        UsageError: T gives something unlike y; no steps; in forward mode what it would not reach.
        NotConverged: the iterates are not finite.

    >>> import torch
    >>> import nonsmooth as ns
    >>> halve = ns.implicit.unroll(lambda y, x: torch.relu(y) / 2 + x, steps=60)      # y = 2 x for x > 0
    >>> x = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    >>> y = halve(x, start=torch.zeros((), dtype=torch.float64))
    >>> y.backward()
    >>> y.item(), x.grad.item(), round(halve.monitor.rate, 3), halve.monitor.converged
    (6.0, 2.0, 0.5, True)

    Source: BoltePauwelsVaiter2022, GriewankWalther2008.
    """
    whole_number("steps", steps, 1)
    if not callable(T):
        raise UsageError(f"T is a function T(y, *theta); found a {type(T).__name__}.")
    for name, value, choices in (
        ("mode", mode, ("reverse", "forward")),
        ("unconverged", unconverged, ("raise", "warn", "ignore")),
    ):
        if value not in choices:
            raise UsageError(f"{name}={value!r} means nothing: choose one of {', '.join(choices)}.")
    whole_number("tangents", tangents, 0)
    if tolerance is not None and not 0 < tolerance < float("inf"):
        raise UsageError(f"tolerance={tolerance!r}: a tolerance is a positive number.")
    return Unrolled(T, steps, mode, unconverged, tolerance, tangents, seed)
