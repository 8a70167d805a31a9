"""The elementary operations, one file per kind. It knows no framework.

`OPERATIONS` maps a name to its record; `register` adds one's own, with the names under which frameworks call it.
"""

from __future__ import annotations

from collections.abc import Iterator

from nonsmooth.dictionary.cone import CONES, Cone
from nonsmooth.dictionary.jump import JUMPS
from nonsmooth.dictionary.operation import Along, Call, Kind, Nonsmooth, Operation, Rule, Singularity
from nonsmooth.dictionary.order import ORDERS, Extremum, Ranking
from nonsmooth.dictionary.pooling import POOLINGS, Pooling
from nonsmooth.dictionary.select import Select
from nonsmooth.dictionary.singular import SINGULARS
from nonsmooth.dictionary.smooth import AFFINE, INDEX, SMOOTH, opaque
from nonsmooth.dictionary.spectral import SPECTRALS, Spectral
from nonsmooth.dictionary.switch import Switch, piecewise_linear
from nonsmooth.dictionary.switches import SWITCHES
from nonsmooth.errors import RegistrationError

__all__ = [
    "FRAMEWORK_NAMES",
    "OPERATIONS",
    "Along",
    "Call",
    "Cone",
    "Extremum",
    "Kind",
    "Nonsmooth",
    "Operation",
    "Pooling",
    "Ranking",
    "Rule",
    "Select",
    "Singularity",
    "Spectral",
    "Switch",
    "opaque",
    "operations",
    "piecewise_linear",
    "register",
]

OPERATIONS: dict[str, Operation] = {
    record.name: record
    for family in (AFFINE, SMOOTH, INDEX, SWITCHES, ORDERS, POOLINGS, CONES, SPECTRALS, SINGULARS, JUMPS)
    for record in family
}
"""Every record, by name."""

FRAMEWORK_NAMES: dict[str, dict[str, Operation]] = {}
"""The user's own registrations: framework -> the framework's operator -> record."""


def operations() -> Iterator[Operation]:
    """Walk the records in the order of their kinds and names."""
    kinds = list(Kind)
    yield from sorted(OPERATIONS.values(), key=lambda record: (kinds.index(record.kind), record.name))


def register(operation: Operation, **names: str) -> Operation:
    """Add one's own operation to the dictionary, under the names by which frameworks call it.

    The framework must know how to evaluate and differentiate the operator where it is smooth; the record says where it
    is not and what the slopes are there.

    Args:
        operation: the record: an `Operation` for a smooth one, a `Switch`, `Extremum`, `Cone` ... for one with kinks.
        names: framework = operator, for example `torch="mylib::shifted_relu"`.

    Raises:
        RegistrationError: the name is taken by another record, or no framework's operator is named.

    >>> shifted = piecewise_linear("shifted", kinks=("1",), breakpoints=lambda a: (1,), slopes=lambda a: (0, 1))
    >>> register(shifted, torch="mylib::shifted").name
    'shifted'
    >>> del OPERATIONS["shifted"], FRAMEWORK_NAMES["torch"]["mylib::shifted"]
    """
    if not isinstance(operation, Operation):
        raise RegistrationError(f"register takes a record (Operation, Switch, ...); found {type(operation).__name__}.")
    if not names:
        raise RegistrationError(
            f"name the operator of {operation.name!r} in a framework, e.g. torch='mylib::my_operator'."
        )
    known = OPERATIONS.get(operation.name)
    if known is not None and known != operation:
        raise RegistrationError(
            f"the dictionary already has an operation {operation.name!r} ({known.kind}); choose another name."
        )
    for framework, name in names.items():
        other = FRAMEWORK_NAMES.get(framework, {}).get(name)
        if other is not None and other != operation:
            raise RegistrationError(f"{framework}'s operator {name!r} is already registered as {other.name!r}.")
    OPERATIONS[operation.name] = operation
    for framework, name in names.items():
        FRAMEWORK_NAMES.setdefault(framework, {})[name] = operation
    return operation
