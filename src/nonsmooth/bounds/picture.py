"""Bounds as a picture: the constants layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nonsmooth.bounds.bounds import Bounds

__all__ = ["draw_bounds"]


def draw_bounds(path: Path, bounds: Bounds) -> None:
    """Draw m, l and L of every layer on a logarithmic axis."""
    raise NotImplementedError
