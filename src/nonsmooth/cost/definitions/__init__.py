"""The scalar program of every operation of the dictionary, a file for each family."""

from __future__ import annotations

from nonsmooth.cost.definitions import (  # noqa: F401  (they fill the table)
    accumulation,
    activations,
    backward,
    choices,
    elementwise,
    losses,
    moves,
    products,
    reductions,
    special_functions,
)
from nonsmooth.cost.definitions.definition import DEFINITIONS, Called, Definition, define, tally_of

__all__ = ["DEFINITIONS", "Called", "Definition", "define", "tally_of"]
