"""The constants of every operation: one record each, one file per kind."""

from __future__ import annotations

from nonsmooth.bounds.constants.record import CONSTANTS, Called, bound_operation

__all__ = ["CONSTANTS", "Called", "bound_operation"]
