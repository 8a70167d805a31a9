"""The record of an operation's constants, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.bounds.reach import Floats, Local, Reach, Shape
from nonsmooth.errors import RegistrationError

__all__ = ["CONSTANTS", "Called", "Constants", "bound_operation"]


@dataclass(frozen=True)
class Called:
    """A call of an operation as its record sees it.

    Operands that were left out (a bias) are not among `operands`; a number of Python is an operand of the shape () that
    does not move. `evaluate(*arrays)` runs the framework's operation in double precision with arrays of numpy in the
    places of the operands (None: at the operand's center), and gives its first result; `pull(arrays, cotangent)` gives
    the pullback of a cotangent to the operands. Both give None where that cannot be done: shapes alone are known, or a
    value stands in two places. `budget` is how many multiplications the norm of a known matrix or kernel, or the intervals
    of all entries of a product, may take.
    """

    operation: str
    operands: tuple[Reach, ...]
    attributes: Mapping[str, Any]
    results: tuple[Shape, ...]
    evaluate: Callable[..., Floats | None] = field(default=lambda *arrays: None, repr=False)
    pull: Callable[..., tuple[Floats, ...] | None] = field(default=lambda *arrays: None, repr=False)
    budget: float = inf

    @property
    def x(self) -> Reach:
        """The first operand."""
        return self.operands[0]

    @property
    def shape(self) -> Shape:
        """The shape of the first result."""
        return self.results[0]

    @property
    def given(self) -> tuple[str, ...]:
        """The names that the framework has for the operands; empty where it has none."""
        return tuple(self.attributes.get("given", ()))

    def number(self, name: str, default: float) -> float:
        """Give an attribute that is a number, or what stands for it where it is left out."""
        value = self.attributes.get(name, default)
        return float(default if value is None else value)

    def zeros(self, place: int) -> Floats:
        """Give zeros in the shape of an operand."""
        return np.zeros(self.operands[place].shape)


Constants: TypeAlias = Callable[[Called], "Local | list[Local]"]
"""The constants of an operation on what its operands reach: of its first result, or one for each result."""

CONSTANTS: dict[str, Constants] = {}
"""The constants of the operations of the dictionary, by name."""


def bound_operation(*names: str) -> Callable[[Constants], Constants]:
    """Give operations of the dictionary, one's own among them, their constants.

    The function is called with what the operands reach (`Called`), and gives the `Local` constants on it. Its docstring
    states the constants and their proof or source.

    Raises:
        RegistrationError: an operation has constants already.

    >>> @bound_operation("my_doubling")
    ... def doubling(call):
    ...     return Local([2.0], norm=2 * call.x.norm)
    >>> del CONSTANTS["my_doubling"]
    """

    def decorate(function: Constants) -> Constants:
        for name in names:
            if name in CONSTANTS:
                raise RegistrationError(f"bound_operation: the operation {name!r} has constants already.")
            CONSTANTS[name] = function
        return function

    return decorate
