"""The record of an elementary operation: its name, its kind, and where and how it is not differentiable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.dictionary.weights import Block
from nonsmooth.errors import RegistrationError

__all__ = [
    "Along",
    "Array",
    "Attributes",
    "Call",
    "Kind",
    "Nonsmooth",
    "Operation",
    "Rule",
    "Singularity",
    "counted",
    "device_of",
    "entries",
    "is_number",
    "lexicographic_sign",
    "on_host",
    "reduced_axes_last",
    "somewhere",
]

Array: TypeAlias = Any
"""An array of any framework that array-api-compat knows."""

Attributes: TypeAlias = Mapping[str, Any]
"""The arguments of a call that are not arrays to differentiate: bounds, axes, strides ..."""

Rule: TypeAlias = float | str | Array
"""A weight at a kink: a number, an array of numbers, a word that the kind of operation knows, or `Along` directions."""


@dataclass(frozen=True, eq=False)
class Along:
    """The rule that lets directions decide: the first one, then at its ties the second one, and so on.

    `tangents` holds, for each direction, the tangents of the operands. Along x + t v, t > 0 small, every kink that the
    direction decides lies on one side, and the rule is the weight of that side. It is the rule of one call, so that
    `known` keeps what several methods of the record would compute again: the masks of its active kinks.

    Source: Nesterov2005, KhanBarton2015.
    """

    tangents: tuple[tuple[Array, ...], ...]
    known: dict[str, Any] = field(default_factory=dict, repr=False)

    def map(self, function: Callable[[tuple[Array, ...]], Array]) -> list[Array]:
        """Apply a linear function of the operands to the tangents of every direction."""
        return [function(tangents) for tangents in self.tangents]

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Compute something when it is asked for the first time."""
        if name not in self.known:
            self.known[name] = compute()
        return self.known[name]


def lexicographic_sign(xp: Any, parts: list[Array]) -> Array:
    """Give the sign of the first part that is not zero, element by element."""
    sign = xp.sign(parts[0])
    for part in parts[1:]:
        sign = xp.where(sign == 0, xp.sign(part), sign)
    return sign


class Kind(StrEnum):
    """The kind of an operation, which says what happens at its bad points.

    >>> Kind.SWITCH.value, Kind.SWITCH.has_weights, Kind.JUMP.has_weights
    ('switch', True, False)
    """

    AFFINE = "affine"
    SMOOTH = "smooth"
    SWITCH = "switch"
    ORDER = "order"
    CONE = "cone"
    SPECTRAL = "spectral"
    SINGULAR = "singular"
    JUMP = "jump"
    INDEX = "index"
    OPAQUE = "opaque"

    @property
    def has_weights(self) -> bool:
        """Whether a kink of this kind is a choice among slopes, which a selection weighs."""
        return self in (Kind.SWITCH, Kind.ORDER, Kind.CONE, Kind.SPECTRAL)

    @property
    def is_smooth(self) -> bool:
        """Whether the framework's own derivative is the derivative everywhere."""
        return self in (Kind.AFFINE, Kind.SMOOTH, Kind.INDEX)


@dataclass(frozen=True)
class Call:
    """One evaluation of an operation: what it was given and what it returned.

    `operands` are the arrays in the order of the record, `result` the array that carries the derivative. A framework
    may bring its own `heaviside` (a, w) -> 0 for a < 0, w for a = 0 (w a number or an array, also of booleans), 1 for
    a > 0, where it has a faster one. Where
    tangents are carried beside the values, `tangents(k)` are those of the operands along the k-th direction, and
    `scale(k)` is the size of the terms that they were summed from: rounding is relative to it. `known` keeps what a
    record has found out about the call.
    """

    xp: Any
    operands: tuple[Array, ...]
    attributes: Attributes
    result: Array = None
    heaviside: Callable[[Array, Any], Array] | None = None
    tangents: Callable[[int], tuple[Array, ...]] | None = None
    scale: Callable[[int], float] | None = None
    known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def step(self, argument: Array, weight: Any) -> Array:
        """Give H_w(a): 0 for a < 0, w for a = 0, 1 for a > 0."""
        if self.heaviside is not None:
            return self.heaviside(argument, weight)
        sign = self.xp.sign(argument)
        return (sign + 1) * 0.5 + (weight - 0.5) * (1 - sign * sign)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An elementary operation of the dictionary.

    A smooth, affine or index operation needs its name and kind alone: the framework evaluates and differentiates it.
    """

    name: str
    kind: Kind
    summary: str = ""
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a record without a usable name."""
        if not self.name.replace("_", "").replace(".", "").isalnum():
            raise RegistrationError(
                f"an operation needs a name of letters, digits and underscores; found {self.name!r}."
            )
        if self.kind is not Kind(self.kind):
            raise RegistrationError(f"operation {self.name!r}: {self.kind!r} is no kind; the kinds are {list(Kind)}.")

    def __str__(self) -> str:
        """Print the name."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Singularity(Operation):
    """An operation with bad points that leave the theory: jumps, and points where it is not Lipschitz.

    `distance(call)` is the distance of each element to the nearest bad point, in units of the operand. Of a jump that is
    `piecewise_constant`, as floor is and frac is not, the result does not move between them.
    """

    kind: Kind = Kind.SINGULAR
    distance: Any = field(default=None, repr=False)
    kink: str = "bad point"
    piecewise_constant: bool = False

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the distance of each element to the nearest bad point, under the name of that point."""
        return {self.kink: self.distance(call)}


@dataclass(frozen=True, kw_only=True)
class Nonsmooth(Operation):
    """An operation with kinks: points where several slopes are active and a selection weighs them.

    The contract, in array terms that hold under compilation (masks, never lists of indices):

    * `margins(call)`: for each named kink, the distance of every kink element to it;
    * `active(call, tol)`: the masks `margins <= tol`;
    * `push(call, rules, tangents, tol)`: the tangent of the result under the weights, *linear* in the tangents.
      Its transpose, the pullback, comes from the framework;
    * `arguments_along(call, rules, tangents)`: for each named kink the tangents of the differences that decide it;
    * `cut(call)`: rules, and blocks of active kinks whose u = W z, added to `push` under these rules, gives all pushes.
    """

    kinks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a record whose kinks have no names."""
        super().__post_init__()
        if not self.kinks:
            raise RegistrationError(f"{self.kind} operation {self.name!r} names no kink, e.g. kinks=('0',).")

    @abstractmethod
    def margins(self, call: Call) -> dict[str, Array]:
        """Give the distance of every kink element to each named kink."""

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Give the masks of the elements within `tol` of each named kink."""
        return {name: margin <= tol for name, margin in self.margins(call).items()}

    def active_under(self, call: Call, rules: Mapping[str, Rule]) -> Mapping[str, Array]:
        """Give the masks of the active kinks, computed once for the rules of a call."""
        along = next((r for r in rules.values() if isinstance(r, Along)), None)
        if along is None:
            return self.active(call)
        return along.once("active", lambda: self.active(call))  # type: ignore[no-any-return]

    @abstractmethod
    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give the tangent of the result under the weights, linear in the tangents."""

    @abstractmethod
    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give the sizes of the tangents of the switching arguments at the active kinks, infinity elsewhere.

        The pieces compared are those that the rules (`Along` the first directions) select: asked with the tangents of
        the deciding direction it gives the margins of the decision, and with those of another direction it tells
        whether an argument that the first one leaves at zero has a derivative at all.
        """

    @abstractmethod
    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Give the rules of a first selection, and the active kinks as blocks that turn it into every other one."""


def is_number(value: Any) -> bool:
    """Tell a plain number; the numbers of numpy are arrays without axes.

    >>> is_number(1.0), is_number(np.float64(1.0))
    (True, False)
    """
    return type(value) in (int, float)


def on_host(array: Array) -> Any:
    """Give an array to numpy."""
    array = array.cpu() if hasattr(array, "cpu") else array
    try:
        given = np.asarray(array)
    except TypeError:  # numpy has no bfloat16
        given = np.asarray(array.float())
    return given.astype(np.float32) if given.dtype.kind == "V" else given  # JAX's bfloat16 is a type of its own


def device_of(array: Array) -> Any:
    """Give the device on which to make another array; None where the framework sees to that itself, as JAX does."""
    device = getattr(array, "device", None)
    return device if isinstance(device, str) or hasattr(device, "type") else None


def counted(xp: Any, mask: Array) -> Array:
    """Give 1 where a mask holds and 0 elsewhere, in the framework's own integers."""
    return xp.where(mask, 1, 0)


def somewhere(xp: Any, mask: Array) -> bool:
    """Tell whether a mask holds anywhere; under compilation, where nothing is known yet, that it may."""
    try:
        return bool(xp.any(mask))
    except TypeError:  # a tracer has no truth value
        return True


def entries(xp: Any, array: Array, places: Any) -> Array:
    """Take entries of the flat array, in the shape of their places; linear in the array."""
    index = np.asarray(places)
    taken = xp.take(xp.reshape(array, (-1,)), xp.asarray(index.reshape(-1), device=device_of(array)))
    return xp.reshape(taken, index.shape)


def reduced_axes_last(call: Call, array: Array) -> Array:
    """Lay the axes that a reduction removes (attribute `dim`, all of them if it is empty) last and flat."""
    xp, axes = call.xp, call.attributes.get("dim")
    if axes is None or axes in ([], ()) or array.ndim == 0:
        return xp.reshape(array, (*(1,) * len(call.result.shape), -1))
    axes = (axes,) if isinstance(axes, int) else axes
    axes = sorted(a % array.ndim for a in axes)
    kept = [a for a in range(array.ndim) if a not in axes]
    array = xp.permute_dims(array, (*kept, *axes))
    return xp.reshape(array, (*array.shape[: len(kept)], -1))
