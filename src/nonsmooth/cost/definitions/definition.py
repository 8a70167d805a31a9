"""The definition of an operation as a scalar program, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nonsmooth.cost.numbers import Numbers, Shape
from nonsmooth.cost.tally import Tally
from nonsmooth.errors import RegistrationError
from nonsmooth.program.shaped import ShapedCall

__all__ = ["DEFINITIONS", "Called", "Definition", "define", "tally_of"]


@dataclass(frozen=True)
class Called:
    """A call of an operation as its definition sees it: arrays of numbers, attributes, the shapes of the results.

    Arrays that were left out (a bias) are not among the operands; `tally` is where what no array shows is counted.
    """

    operands: tuple[Numbers, ...]
    attributes: Mapping[str, Any]
    results: tuple[Shape, ...]
    tally: Tally

    @property
    def x(self) -> Numbers:
        """The first operand."""
        return self.operands[0]

    @property
    def shape(self) -> Shape:
        """The shape of the first result."""
        return self.results[0]

    def operand(self, place: int) -> Numbers | float:
        """Give an operand, or stand in for a number of Python: a number that does not move."""
        return self.operands[place] if place < len(self.operands) else 1.0


Definition: TypeAlias = Callable[[Called], "Numbers | Sequence[Numbers] | None"]
"""A scalar program in terms of arrays: it gives its results, whose shapes are compared with the program's."""

DEFINITIONS: dict[str, Definition] = {}
"""The scalar program of every operation of the dictionary, by name."""


def define(*names: str) -> Callable[[Definition], Definition]:
    """Give operations of the dictionary, one's own among them, their scalar program.

    The definition is called with the arrays of a step, of which it sees the shapes alone, and writes the operation in
    scalar operations on their entries; what it runs is what is counted.

    Raises:
        RegistrationError: an operation has a definition already, or what is given is no name, or no function.

    >>> from nonsmooth.program.shaped import ShapedOperand
    >>> @define("my_square_sum")
    ... def square_sum(call):
    ...     return call.x.apply("square").sum()
    >>> tally_of(ShapedCall("my_square_sum", (ShapedOperand((3,), True),), ((),))).sweep().backprop.total()
    18
    >>> del DEFINITIONS["my_square_sum"]

    The 18 are 3 squares and 2 additions; for each square 2 x (one addition), a product and an addition to the cotangent
    of x; for each addition two.
    """
    if not names or any(type(name) is not str or not name for name in names):
        raise RegistrationError(f"define takes the names of operations: define('mine'); found {names!r}.")

    def decorate(definition: Definition) -> Definition:
        if not callable(definition):
            raise RegistrationError(f"define: a scalar program is a function of a call; found {definition!r}.")
        for name in names:
            if name in DEFINITIONS:
                raise RegistrationError(f"define: the operation {name!r} has a scalar program already.")
            DEFINITIONS[name] = definition
        return definition

    return decorate


def tally_of(call: ShapedCall) -> Tally | None:
    """Count the scalar operations of a call; None for an operation without a definition.

    Integer and logical work is free, whatever operation it runs: an addition of indices, a comparison of labels.

    >>> counter = ShapedCall("add", (), ((),), discrete=True)
    >>> tally_of(counter).sweep().evaluation.total()
    0

    Raises:
        RegistrationError: the definition runs what is no scalar operation, or gives results of other shapes than the
            program's.
    """
    tally = Tally()
    if call.discrete:
        return tally
    definition = DEFINITIONS.get(call.operation)
    if definition is None:
        return None
    operands = tuple(Numbers(o.shape, o.moving, tally) for o in call.operands)
    found = _run(definition, Called(operands, call.attributes, call.results, tally), call.operation)
    for result, shape in zip(found, call.results, strict=False):
        if result.shape != shape:
            raise _defect(call.operation, f"gives the shape {result.shape}, the program has {shape}")
    return tally


def _run(definition: Definition, called: Called, operation: str) -> tuple[Numbers, ...]:
    """Run a scalar program, and give its results; what goes wrong inside is said to be its fault."""
    try:
        given = definition(called)
    except (RegistrationError, LookupError, TypeError, ValueError, AttributeError) as error:
        what = str(error) if isinstance(error, RegistrationError) else f"fails with {type(error).__name__}: {error}"
        raise _defect(operation, what) from error
    found = () if given is None else (given,) if isinstance(given, Numbers) else given
    if not isinstance(found, tuple | list) or not all(isinstance(result, Numbers) for result in found):
        raise _defect(operation, f"gives {given!r} where it may give arrays of its call, several of them, or None")
    return tuple(found)


def _defect(operation: str, what: str) -> RegistrationError:
    """Say what is wrong with a scalar program."""
    return RegistrationError(f"the scalar program of {operation!r} {what}. Mend what was given to `define`.")
