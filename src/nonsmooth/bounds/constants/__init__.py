"""The constants of every operation: one record each, one file per kind."""

from __future__ import annotations

from nonsmooth.bounds.constants import (  # noqa: F401  (they fill the table)
    activations,
    arithmetic,
    attention,
    choices,
    convolutions,
    elementwise,
    embeddings,
    losses,
    moves,
    normalisation,
    norms,
    pooling,
    products,
    reductions,
    resampling,
    smoothed,
    softmax,
    special_functions,
)
from nonsmooth.bounds.constants.record import CONSTANTS, Called, bound_operation

__all__ = ["CONSTANTS", "Called", "bound_operation"]
