"""The constants of every operation: one record each, one file per kind."""

from __future__ import annotations

import importlib
import pkgutil

from nonsmooth.bounds.constants.record import CONSTANTS, Called, bound_operation

__all__ = ["CONSTANTS", "Called", "bound_operation"]

for _module in pkgutil.iter_modules(__path__):
    try:  # while the records are being written
        importlib.import_module(f"{__name__}.{_module.name}")
    except Exception:
        pass
