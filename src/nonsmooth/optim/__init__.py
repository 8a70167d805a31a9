"""Optimisers with guarantees for programs that are not differentiable.

The classes of a framework are loaded when they are asked for: `import nonsmooth` imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__: list[str] = []

_HOMES: dict[str, str] = {}
"""The module of every public name."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
