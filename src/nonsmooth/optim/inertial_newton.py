"""INNA's formula, its hyper-parameters and the steps for which it is stable, in the numbers and arrays of any framework.

INNA discretises the second-order equation theta'' + alpha theta' + beta (d/dt) grad J(theta) + grad J(theta) = 0 (inertia, friction
alpha, Newton-like damping beta) without second derivatives, by a second variable psi.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, sqrt
from numbers import Real
from typing import Any

from nonsmooth.errors import UsageError

__all__ = ["check", "increments", "initial_psi", "stable_step"]


def initial_psi(theta: Any, *, alpha: Any, beta: Any) -> Any:
    """Give psi_0 = (1 - alpha beta) theta_0, for which the first step is along -g.

    >>> initial_psi(2.0, alpha=0.5, beta=0.1)
    1.9

    Source: Castera2021.
    """
    return (1 - alpha * beta) * theta


def increments(theta: Any, psi: Any, g: Any, *, gamma: Any, alpha: Any, beta: Any) -> tuple[Any, Any]:
    """Give what a step adds to theta and to psi; both are computed from the old values.

    d = (alpha - 1/beta) theta + psi/beta;  theta <- theta - gamma (d + beta g);  psi <- psi - gamma d.

    >>> increments(2.0, 1.9, 1.0, gamma=0.5, alpha=0.5, beta=0.1)        # d = 0: the first step
    (-0.05, -0.0)

    Source: Castera2021.
    """
    d = (psi - (1 - alpha * beta) * theta) / beta
    return -gamma * (d + beta * g), -gamma * d


def stable_step(curvature: float, alpha: float = 0.5, beta: float = 0.1) -> float:
    """Give the largest step under which INNA converges on every quadratic whose curvatures lie in (0, L].

    With T = alpha + beta L, the minimum of 2/alpha and of T/L if T^2 <= 4 L, else 4/(T + sqrt(T^2 - 4 L)). Status: `proved`: with a
    constant step below it the iterates tend to the minimiser at a linear rate; above it they diverge on some such quadratic.

    Args:
        curvature: L, the largest eigenvalue of the Hessian, in units of the loss per parameter squared.
        alpha: the friction of INNA.
        beta: its Newton-like damping.

    Raises:
        UsageError: L or beta is not positive, alpha is negative, or one of them is no finite number.

    >>> import nonsmooth as ns
    >>> ns.optim.stable_step(1.0), ns.optim.stable_step(10_000.0)
    (0.6, 0.002...)

    Source: derived, docs/theory/inna.md.
    """
    check("stable_step", "the call", {"curvature": curvature, "alpha": alpha, "beta": beta})
    t = alpha + beta * curvature
    apart = t * t - 4 * curvature
    largest = t / curvature if apart <= 0 else 4 / (t + sqrt(apart))
    return min(largest, 2 / alpha) if alpha else largest


_CONDITIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("a number >= 0", lambda x: 0 <= x < inf),
    "alpha": ("a number >= 0", lambda x: 0 <= x < inf),
    "beta": ("a number > 0", lambda x: 0 < x < inf),
    "sigma": ("a number in [0, 1)", lambda x: 0 <= x < 1),
    "eps": ("a number >= 0", lambda x: 0 <= x < inf),
    "weight_decay": ("a number >= 0", lambda x: 0 <= x < inf),
    "curvature": ("a number > 0", lambda x: 0 < x < inf),
}


def check(what: str, where: str, values: Mapping[str, Any]) -> None:
    """Refuse a hyper-parameter outside its range; those that are None are not known yet.

    >>> check("INNA", "parameter group 0", {"alpha": 0.5, "beta": 0.0})
    Traceback (most recent call last):
    nonsmooth.errors.UsageError: INNA: beta must be a number > 0; found 0.0 in parameter group 0.

    Source: Castera2021, BolteBoustanyPauwelsPurica2024.
    """
    for name, value in values.items():
        condition, holds = _CONDITIONS[name]
        if value is not None and not (isinstance(value, Real) and holds(value)):
            raise UsageError(f"{what}: {name} must be {condition}; found {value!r} in {where}.")
