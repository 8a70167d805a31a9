"""The picture of a Keras model on its backends: how far the gradients of the frameworks are apart, by variable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nonsmooth.audit.result import Change
from nonsmooth.report.picture import Panel, draw_maps

if TYPE_CHECKING:
    from nonsmooth.studies.keras_backends import KerasModel

__all__ = ["draw_model"]

ROWS = 24
"""How many variables of a model are drawn: those that differ most."""


def draw_model(path: Path, model: KerasModel, rounding: float) -> None:
    """Map ||g_a - g_b|| / ||g_b|| by variable and pair of frameworks."""
    pairs = tuple(model.differences)
    names = list(next(iter(model.norms.values())))
    most = sorted(names, key=lambda n: -max((model.differences[p][n].size for p in pairs), default=0.0))[:ROWS]
    rows = tuple(n for n in names if n in most)

    def value(change: Change) -> float | None:
        return None if change.relative is None else change.relative if change.size > rounding else 0.0

    panel = Panel(
        model.name,
        rows,
        pairs,
        tuple(tuple(value(model.differences[p][n]) for p in pairs) for n in rows),
        tuple(tuple(model.differences[p][n].text(rounding) for p in pairs) for n in rows),
    )
    words = "The same weights and data on each backend; every gradient by the framework itself."
    draw_maps(
        path, f"{model.name}: where the gradients of the frameworks differ", words, [panel], "|g_a - g_b| / |g_b|"
    )
