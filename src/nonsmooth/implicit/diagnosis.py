"""Placeholder while the chapter is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LIMIT = 4096


@dataclass(frozen=True)
class Diagnosis:
    """See below."""

    invertible: bool | None
    status: str


def diagnose_equation(equation: Any, trees: Any, y: Any, theta: Any, options: Any, limit: int) -> Diagnosis:
    """Decide."""
    raise NotImplementedError
