"""A case is one program: the same words for every framework, or its words in each, where their languages differ."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import pytest

from tests.adapters import Adapter, served

__all__ = [
    "Array",
    "Function",
    "Program",
    "Spelled",
    "jax_only",
    "on_each",
    "said_in",
    "spelled",
    "torch_only",
    "words",
]

Array: TypeAlias = Any
Function: TypeAlias = Callable[[Array], Array]


class Spelled(NamedTuple):
    """One program in the words of each framework: an `if` on data is a `cond` in JAX. None where it has none."""

    torch: Callable[..., Array] | None
    jax: Callable[..., Array] | None


Program: TypeAlias = Callable[..., Array] | Spelled
"""A function of the adapter `xp` and of x, or one for each framework."""


def torch_only(f: Callable[..., Array]) -> Spelled:
    """Mark what can be said in torch alone: writing in place, values that leave, functions that JAX has not."""
    return Spelled(f, None)


def jax_only(f: Callable[..., Array]) -> Spelled:
    """Mark what can be said in JAX alone: transforms, and functions that torch has not."""
    return Spelled(None, f)


def said_in(f: Program, framework: str) -> bool:
    """Tell whether a program can be said in a framework."""
    return not isinstance(f, Spelled) or getattr(f, framework) is not None


def words(f: Program, framework: str) -> Callable[..., Array]:
    """Give the function of the adapter and of x that is a program in a framework."""
    return getattr(f, framework) if isinstance(f, Spelled) else f


def spelled(f: Program, xp: Adapter) -> Function:
    """Give a program as a function of x alone, in a framework: no frame is added to its own."""
    return functools.partial(words(f, xp.name), xp)


def on_each(table: Mapping[str, Any], keep: Callable[[Any], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Run a test of `xp` and `name` on every framework in which a case of a table can be said."""
    return pytest.mark.parametrize(
        ("xp", "name"),
        [(on, name) for on in served() for name, case in table.items() if keep(case) and said_in(case.f, on)],
        indirect=["xp"],
    )
