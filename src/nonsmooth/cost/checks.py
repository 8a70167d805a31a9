"""What the constructions of this chapter are given: whole numbers, and arrays of one framework whose shapes fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from sys import float_info
from typing import Any, TypeAlias

from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Framework, find_framework

__all__ = ["check_arrays", "framework_of", "positive_number", "whole_number", "whole_numbers"]

Letters: TypeAlias = "Sequence[str | int]"
"""A shape: a letter stands for one size wherever it is met."""


def whole_number(asked: str, name: str, given: Any, *, least: int = 1) -> int:
    """Read a whole number, or say what was given instead."""
    if not _is_whole(given, least):
        raise UsageError(f"{asked}: {name}={given!r}; pass a whole number, {least} or more.")
    return int(given)


def whole_numbers(asked: str, name: str, given: Any, *, least: int = 1, count: int = 1) -> tuple[int, ...]:
    """Read whole numbers, or say what was given instead.

    >>> whole_numbers("count", "sizes", [4, 8])
    (4, 8)
    """
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else None
    if found is None or len(found) < count or not all(_is_whole(n, least) for n in found):
        raise UsageError(
            f"{asked}: {name}={given!r}; pass a list of {count} or more whole numbers, each {least} or more."
        )
    return tuple(map(int, found))


def _is_whole(number: Any, least: int) -> bool:
    """Tell a whole number that is not too small."""
    return not isinstance(number, bool) and isinstance(number, Integral) and int(number) >= least


def positive_number(asked: str, name: str, given: Any, most: float = float_info.max) -> float:
    """Read a number that is positive and not too large, or say what was given instead."""
    if isinstance(given, bool) or not (isinstance(given, Real) and 0 < float(given) <= most):
        limit = f"in (0, {most:g}]" if most < float_info.max else "that is positive and finite"
        raise UsageError(f"{asked}: {name}={given!r}; pass a number {limit}.")
    return float(given)


def framework_of(asked: str, name: str, like: Any) -> Framework:
    """Find the framework of one array."""
    framework = find_framework(like)
    if not framework.holds(like):
        raise UsageError(
            f"{asked}: {name} is to be an array of a framework, such as a tensor of torch; found a {type(like).__name__}."
        )
    return framework


def check_arrays(asked: str, arrays: Mapping[str, tuple[Any, Letters]]) -> Framework:
    """Find the framework of some arrays by name, whose shapes are given in letters.

    >>> import torch
    >>> check_arrays("product", {"A": (torch.ones(2, 3), "mk"), "x": (torch.ones(3), "k")}).name
    'torch'
    """
    framework, sizes = find_framework([array for array, _ in arrays.values()]), dict[str, int]()
    for name, (array, letters) in arrays.items():
        framework_of(asked, name, array)
        shape = tuple(array.shape)
        wanted = [n if isinstance(n, int) else sizes.get(n) for n in letters]
        if len(shape) != len(letters) or any(n not in (None, size) for n, size in zip(wanted, shape, strict=True)):
            known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items() if letter in letters)
            text = f"({', '.join(map(str, letters))}{',' if len(letters) == 1 else ''})"
            raise UsageError(
                f"{asked}: {name} has the shape {shape}; it is to have the shape {text}{known and f' with {known}'}."
            )
        sizes |= {n: size for n, size in zip(letters, shape, strict=True) if isinstance(n, str)}
    return framework
