"""A naive transcription: elements B(W) from the definition, and whether random ones have determinants of one sign."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nonsmooth.dictionary.weights import DualBall, Floats, WeightSet
from nonsmooth.implicit.invertibility import Lifted

__all__ = ["drawn_elements", "eliminated"]


def eliminated(system: Lifted, element: list[Floats]) -> Floats:
    """Give B(W) kink by kink, in the order of the program: z = Z dy + L u, u = W z, H = J dy + Y u."""
    n = system.J.shape[1]
    u = np.zeros((system.Y.shape[1], n))
    for W, z, place in zip(element, system.z, system.u, strict=True):
        u[place] = W @ (system.Z[z] + system.L[z] @ u)
    return np.asarray(system.J + system.Y @ u)


def drawn_elements(system: Lifted, count: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Draw elements from the interior of the weights and from their faces."""
    for _ in range(count):
        yield eliminated(system, [_drawn(w, rng) for w in system.weights])


def _drawn(weights: WeightSet, rng: np.random.Generator) -> Floats:
    """Draw a weight: of a ball from all radii, else a mixture of extreme ones, often of few."""
    if isinstance(weights, DualBall):
        direction = rng.standard_normal(weights.compared)
        return direction[None] / np.linalg.norm(direction) * rng.random() ** (1 / weights.compared)
    extreme = weights.extreme()
    return np.asarray(np.einsum("c,crm->rm", rng.dirichlet(np.full(len(extreme), 0.4)), extreme))
