"""Lists of which `make test` takes the beginning, and `make slow` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["shortened"]


def shortened(values: Iterable[Any], count: int) -> list[Any]:
    """Mark as slow all parameters, or tuples of them, but the first `count`."""
    return [v if k < count else _slow(v) for k, v in enumerate(values)]


def _slow(value: Any) -> Any:
    """Give a parameter, or a tuple of them, of the slow runs."""
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
