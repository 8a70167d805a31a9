"""The scaling of gradients by RMSprop that makes INNAprop of INNA, and the condition on its steps."""

from __future__ import annotations

from math import inf, log
from typing import Any

from nonsmooth.errors import UsageError

__all__ = ["STEP_CONDITION", "check_step", "log_sigma", "scaled", "second_moment"]

STEP_CONDITION = "the step must stay below beta"


def second_moment(v: Any, square: Any, *, sigma: Any) -> Any:
    """Give v <- sigma v + (1 - sigma) g^2, entry by entry.

    >>> second_moment(4.0, 2.0, sigma=0.5)
    3.0

    Source: BolteBoustanyPauwelsPurica2024.
    """
    return sigma * v + (1 - sigma) * square


def log_sigma(sigma: float) -> float:
    """Give log sigma, since 1 - sigma^k = -expm1(k log sigma) loses no digits while sigma^k is close to 1.

    >>> log_sigma(0.0)
    -inf
    """
    return log(sigma) if sigma else -inf


def scaled(g: Any, v: Any, *, correction: Any, eps: Any) -> Any:
    """Give g / (sqrt(v / (1 - sigma^k)) + eps); the correction 1 - sigma^k, k = 1, 2, ..., undoes the start from v = 0.

    >>> scaled(3.0, 4.5, correction=0.5, eps=0.0)
    1.0

    Source: BolteBoustanyPauwelsPurica2024.
    """
    return g / ((v / correction) ** 0.5 + eps)


def check_step(what: str, where: str, *, lr: Any, beta: Any) -> None:
    """Refuse a step that does not stay below beta; one that is None is not known yet.

    >>> check_step("INNAprop", "parameter group 0", lr=1.0, beta=0.9)
    Traceback (most recent call last):
    nonsmooth.errors.UsageError: INNAprop: the step must stay below beta; found lr 1.0 and beta 0.9 in parameter group 0. ...

    Source: BolteBoustanyPauwelsPurica2024.
    """
    if lr is not None and beta is not None and not lr < beta:
        raise UsageError(
            f"{what}: {STEP_CONDITION}; found lr {lr!r} and beta {beta!r} in {where}. Lower lr, or the largest value of its "
            "schedule, or raise beta."
        )
