"""The proof of capture: the program is compared with the function, by values and native gradients.

Both are evaluated at the point, and at a random nearby point under the same guards. Values at the point alone prove
nothing: a program that has lost a dependency has the right value there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from nonsmooth.errors import ProofFailed, StaleProgram
from nonsmooth.frameworks.replay.forcing import unforced
from nonsmooth.program import Program, Proof

__all__ = ["Comparison", "Found"]

NEARBY = (0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4, 1e-5)
"""The distances, relative to the mean size of a leaf, at which nearby points are tried until one is on the same piece."""

LOST_AMONG = 1e-3
"""The part of the largest gradient below which a gradient is compared with that part: next to nothing is rounding."""

CANCELLED = 64.0
"""How many units of rounding of the terms of a value, where they cancel, may part the program from its function."""

Found = tuple[list[Any], list[Any]]
"""Results, and the gradient of their sum, each entry weighed by a fixed number so that none cancels."""


class Comparison(ABC):
    """A program and its function near one point, as a framework runs and differentiates both."""

    causes: str
    """What makes a program differ from its function in this framework."""

    def __init__(self, leaves: list[Any], items: list[Any], eps: float) -> None:
        self.leaves, self.items, self.eps = leaves, items, eps
        self.tolerance = 1e-9 if eps < 1e-15 else float(min(0.05, 2e3 * eps))

    @abstractmethod
    def moved(self, leaves: list[Any], scale: float) -> list[Any]:
        """Draw a nearby point: every floating leaf moves."""

    @abstractmethod
    def both(self, program: Program, place: int, leaves: list[Any], items: list[Any]) -> tuple[Found, Found] | None:
        """Run the program, which checks its guards first, and the function, at the point (place -1) or a nearby one.

        None where the function has no finite value.
        """

    @staticmethod
    @abstractmethod
    def same(a: Any, b: Any) -> bool:
        """Tell whether two arrays hold the same values, nan equal to nan."""

    @staticmethod
    @abstractmethod
    def hosted(array: Any) -> Any:
        """Give an array to numpy in double precision."""

    def prove(self, program: Program, *, forced: bool = False) -> Proof:
        """Compare at the point (unless outcomes are forced there) and at a nearby point.

        Raises:
            ProofFailed: values or gradients differ by more than rounding.
        """
        errors = [] if forced else [self._compare(program, -1, self.leaves, self.items)]
        self._judge(program, errors)
        beside = self._beside(unforced(program))
        self._judge(program, [*errors, beside])
        found = [e for e in (*errors, beside) if e is not None]
        value_error, gradient_error = (max((e[k] for e in found), default=0.0) for k in (0, 1))
        nearby = int(beside is not None)
        return Proof(value_error, gradient_error, nearby, self.tolerance, "sampled" if nearby else "computed")

    def _beside(self, program: Program) -> tuple[float, float] | None:
        """Compare at the first nearby point that is on the same piece and where the function is finite."""
        for attempt, scale in enumerate(NEARBY):
            point = self.moved(self.leaves, scale)
            items = self.moved(self.items, scale) if attempt % 2 == 0 else self.items
            try:
                error = self._compare(program, attempt, point, items)
            except StaleProgram:
                continue
            except Exception:  # the function need not be defined there
                continue
            if error is not None:
                return error
        return None

    def _compare(self, program: Program, place: int, leaves: list[Any], items: list[Any]) -> tuple[float, float] | None:
        """Give the relative differences of values and gradients; None where the function has no finite value."""
        found = self.both(program, place, leaves, items)
        if found is None:
            return None
        (ours, gradient), (theirs, native) = found
        slack = CANCELLED * self.eps * self._reach(leaves, native)
        return self._distance(ours, theirs, 0.0, slack), self._distance(gradient, native, LOST_AMONG)

    def _reach(self, leaves: list[Any], gradient: list[Any]) -> float:
        """Give sum |g_i x_i|, the size of the terms that may have cancelled in a value; 0 where no gradient is known."""
        pairs = list(zip(leaves, gradient, strict=False))
        if len(leaves) != len(gradient) or any(np.shape(x) != np.shape(g) for x, g in pairs):
            return 0.0
        with np.errstate(invalid="ignore", over="ignore"):
            total = sum(float(np.nansum(np.abs(self.hosted(x) * self.hosted(g)))) for x, g in pairs)
        return total if np.isfinite(total) else 0.0

    def _judge(self, program: Program, errors: Sequence[tuple[float, float] | None]) -> None:
        """Refuse a program that differs from its function by more than rounding."""
        for place, what in enumerate(("values", "native gradients")):
            error = max((e[place] for e in errors if e is not None), default=0.0)
            if not error <= self.tolerance:
                causes = "; ".join(f"{f.message} ({f.source})" for f in program.findings)
                raise ProofFailed(
                    f"capture: the program does not reproduce the {what} of the function: relative difference "
                    f"{error:.2g}, tolerance {self.tolerance:.1g}. "
                    + (f"Found on the way: {causes}. " if causes else "")
                    + f"Likely causes: {self.causes}. Its steps:\n"
                    + str(program)[:4000]
                )

    def _distance(self, a: list[Any], b: list[Any], part: float, slack: float = 0.0) -> float:
        """Give the largest relative difference of two lists of arrays beyond some slack, nan equal to nan.

        It is relative to the largest entry of an array, but at least to a part of the largest entry of all.
        """
        if len(a) != len(b) or any(np.shape(u) != np.shape(v) for u, v in zip(a, b, strict=True)):
            return float("inf")
        differing = [(u, v) for u, v in zip(a, b, strict=True) if not self.same(u, v)]
        floor = part * max(_size(self.hosted(v)) for v in b) if differing else 0.0
        return max((_relative(self.hosted(u), self.hosted(v), floor, slack) for u, v in differing), default=0.0)


def _relative(u: Any, v: Any, floor: float, slack: float) -> float:
    """Give the largest difference of two arrays beyond the slack, relative to the largest entry or to the floor."""
    bad = ~(np.isfinite(u) & np.isfinite(v))
    if not np.array_equal(u[bad], v[bad], equal_nan=True):
        return float("inf")
    u, v = u[~bad], v[~bad]
    scale = max(_size(u), _size(v), floor)
    return max(float(np.abs(u - v).max()) - slack, 0.0) / scale if u.size and scale else 0.0


def _size(array: Any) -> float:
    """Give the largest finite entry of an array."""
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max()) if finite.size else 0.0
