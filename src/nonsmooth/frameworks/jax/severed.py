"""Severed dependences in jax: what of the shared analysis has other names here."""

from __future__ import annotations

from nonsmooth.frameworks.replay.severed import Dependences
from nonsmooth.program import Program

__all__ = ["dependences"]


class JaxDependences(Dependences):
    """What the result of a program depends on, sorted by how."""


def dependences(program: Program) -> JaxDependences:
    """Analyse a program once."""
    known = program.__dict__.get("_jax_slice")
    if known is None:
        known = program.__dict__["_jax_slice"] = JaxDependences(program)
    return known  # type: ignore[no-any-return]
