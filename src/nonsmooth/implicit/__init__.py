"""Derivatives of solutions: fixed points, roots, minimisers, layers and flows, with a check of the theorem's condition.

The classes of a framework are loaded when they are asked for: `import nonsmooth` imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nonsmooth.implicit.diagnosis import Diagnosis
    from nonsmooth.implicit.implicit_function import ImplicitFunction, argmin, diagnose, fixed_point, root
    from nonsmooth.implicit.options import Options

__all__ = [
    "Diagnosis",
    "ImplicitFunction",
    "Options",
    "argmin",
    "diagnose",
    "fixed_point",
    "root",
]

_HOMES = {
    "Diagnosis": "nonsmooth.implicit.diagnosis",
    "ImplicitFunction": "nonsmooth.implicit.implicit_function",
    "Options": "nonsmooth.implicit.options",
    "argmin": "nonsmooth.implicit.implicit_function",
    "diagnose": "nonsmooth.implicit.implicit_function",
    "fixed_point": "nonsmooth.implicit.implicit_function",
    "root": "nonsmooth.implicit.implicit_function",
}
"""The module of every public name; no module of this folder may have the name of another object."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
