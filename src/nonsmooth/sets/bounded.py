"""A number that is known up to an interval."""

from __future__ import annotations

from typing import Any

__all__ = ["Bounded"]


class Bounded(float):
    """A number known up to an interval, which calculates as the one value that represents it.

        lower <= the number <= upper

    Status: that of whoever made it; a sum or product of two is a plain float.

    Attributes:
        lower: the lower bound.
        upper: the upper bound.
        exact: whether the two are the same number, or differ by rounding only, as the maker says.

    >>> Bounded(1.0), Bounded(0.5, 1.0), Bounded(0.5, 1.0) + 1
    (1.0, between 0.5 and 1.0, 2.0)
    """

    lower: float
    upper: float
    exact: bool

    def __new__(
        cls, lower: float, upper: float | None = None, value: float | None = None, exact: bool | None = None
    ) -> Bounded:
        """Represent the interval by `value`, else by its upper end; `exact` defaults to lower == upper."""
        lower = float(lower)
        upper = lower if upper is None else float(upper)
        self = super().__new__(cls, upper if value is None else value)
        self.lower, self.upper = lower, upper
        self.exact = lower == upper if exact is None else bool(exact)
        return self

    def __repr__(self) -> str:
        """Write the number, or its interval."""
        return float.__repr__(self) if self.exact else f"between {self.lower!r} and {self.upper!r}"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the interval through pickle and copy."""
        return type(self), (self.lower, self.upper, float(self), self.exact)
