"""Arrays of any framework: what the replay asks of them beyond the array API, numbers among them."""

from __future__ import annotations

from functools import cache
from typing import Any

from nonsmooth.dictionary.operation import Array, device_of
from nonsmooth.frameworks.replay.arguments import is_array

__all__ = [
    "as_array",
    "difference",
    "fits",
    "floating",
    "is_bool",
    "is_double",
    "is_floating",
    "is_real_floating",
    "size",
]


@cache
def _is(xp: Any, dtype: Any, kinds: str | tuple[str, ...]) -> bool:
    """Tell whether a type is of some kinds; asked at every comparison, and slow to find out."""
    return bool(xp.isdtype(dtype, kinds))


@cache
def _bits(xp: Any, dtype: Any) -> int:
    """Give the size of a floating type."""
    return int(xp.finfo(dtype).bits)


def as_array(xp: Any, value: Any, like: Array | None = None) -> Array:
    """Give a number as an array, beside another one; an array is passed on.

    A floating neighbour lends its type: 0.1 beside a double is the double 0.1.
    """
    if is_array(value):
        return value
    dtype = like.dtype if is_array(like) and is_floating(xp, like) else None  # type: ignore[union-attr]
    return xp.asarray(value, dtype=dtype, device=device_of(like))


def difference(xp: Any, a: Any, b: Any) -> Array:
    """Give a - b of arrays and numbers; of booleans and unsigned integers as floating numbers.

    >>> import numpy as np
    >>> difference(np, np.array([1, 2], dtype=np.uint8), 2)
    array([-1.,  0.], dtype=float32)
    """
    if is_array(a) and _wraps(xp, a):
        a = xp.astype(a, xp.float32)
    if is_array(b) and _wraps(xp, b):
        b = xp.astype(b, xp.float32)
    return a - b


def _wraps(xp: Any, array: Array) -> bool:
    """Tell booleans and unsigned integers, whose differences have no sign."""
    return _is(xp, array.dtype, ("bool", "unsigned integer"))


def floating(xp: Any, array: Array) -> Array:
    """Give an array in a floating type of at least single precision."""
    wide = _is(xp, array.dtype, "real floating") and _bits(xp, array.dtype) >= 32
    return array if wide else xp.astype(array, xp.float32)


def is_real_floating(xp: Any, value: Any) -> bool:
    """Tell an array of real floating numbers."""
    return is_array(value) and _is(xp, value.dtype, "real floating")


def is_floating(xp: Any, value: Any) -> bool:
    """Tell an array that can carry a derivative: of real or complex floating numbers."""
    return is_array(value) and _is(xp, value.dtype, ("real floating", "complex floating"))


def is_bool(xp: Any, value: Any) -> bool:
    """Tell an array of booleans."""
    return is_array(value) and _is(xp, value.dtype, "bool")


def is_double(xp: Any, value: Any) -> bool:
    """Tell an array of real numbers in double precision."""
    return bool(is_real_floating(xp, value) and _bits(xp, value.dtype) == 64)


def size(xp: Any, array: Array | None) -> float:
    """Give the largest absolute entry, 0 if there is none.

    >>> import numpy as np
    >>> size(np, np.array([1.0, -3.0])), size(np, np.zeros(0))
    (3.0, 0.0)
    """
    return 0.0 if array is None or 0 in array.shape else float(xp.max(xp.abs(array)))


def fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Tell whether an array of one shape can be broadcast to another.

    >>> fits((3, 1), (2, 3, 4)), fits((2,), (3,))
    (True, False)
    """
    if len(shape) > len(target):
        return False
    return all(n in (1, m) for n, m in zip(reversed(shape), reversed(target), strict=False))
