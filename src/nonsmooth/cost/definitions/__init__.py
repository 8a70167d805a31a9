"""The scalar program of every operation of the dictionary, a file for each family."""

from __future__ import annotations

from nonsmooth.cost.definitions import (  # noqa: F401  (they fill the table)
    accumulation,
    activations,
    attention,
    backward,
    choices,
    convolutions,
    elementwise,
    fourier,
    kernels,
    linear_algebra,
    losses,
    moves,
    normalisation,
    norms,
    order,
    pooling,
    products,
    recurrent,
    reductions,
    resampling,
    smoothed,
    softmax,
    special_functions,
    spectral,
)
from nonsmooth.cost.definitions.definition import DEFINITIONS, Called, Definition, define, tally_of

__all__ = ["DEFINITIONS", "Called", "Definition", "define", "tally_of"]
