"""Functions as equations that read all they use as arguments, and what was compiled for the same equations before.

A function is traced anew at every call, so that what it closes over may change in between; code that was compiled for
equal equations (`frameworks.jax.fingerprints`) is used again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import core
from jax import numpy as jnp

from nonsmooth.frameworks.jax.fingerprints import fingerprint

__all__ = ["Equations", "equations_of", "is_float"]

KEPT = 256
"""Of how many functions the compiled code is kept."""


@dataclass(frozen=True, eq=False)
class Equations:
    """The equations of a function; it is called with what it closed over, then with its arguments, all of them arrays.

    Attributes:
        jaxpr: the equations.
        compiled: what has been compiled of them, by name.
    """

    jaxpr: Any
    compiled: dict[Hashable, Any] = field(default_factory=dict)

    def __call__(self, *args: Any) -> list[Any]:
        """Evaluate them."""
        found: list[Any] = core.eval_jaxpr(self.jaxpr, args[: self.closed], *args[self.closed :])
        return found

    @property
    def closed(self) -> int:
        """How many arrays the function closed over."""
        return len(self.jaxpr.constvars)

    def once(self, name: Hashable, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """Give a function of these equations, compiled once."""
        compiled: Callable[..., Any] = self.known(name, lambda: jax.jit(make()))
        return compiled

    def known(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """Give what is known of these equations, made once."""
        if name not in self.compiled:
            self.compiled[name] = make()
        return self.compiled[name]


_KNOWN: OrderedDict[Hashable, Equations] = OrderedDict()


def equations_of(function: Callable[..., list[Any]], *args: Any) -> tuple[Equations, list[Any]]:
    """Give the equations of a function of arrays, and the arrays that it closes over, tracers among them."""
    closed = jax.make_jaxpr(function)(*args)
    try:
        key: Hashable = (len(closed.jaxpr.constvars), fingerprint(closed.jaxpr))
        hash(key)
    except Exception:  # an equation that cannot be compared is compiled anew
        return Equations(closed.jaxpr), list(closed.consts)
    known = _KNOWN.setdefault(key, Equations(closed.jaxpr))
    _KNOWN.move_to_end(key)
    while len(_KNOWN) > KEPT:
        _KNOWN.popitem(last=False)
    return known, list(closed.consts)


def is_float(leaf: Any) -> bool:
    """Tell an array of real numbers, which can be differentiated, from everything else."""
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape") and bool(jnp.issubdtype(leaf.dtype, jnp.floating))
