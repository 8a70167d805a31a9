"""The condition for large equations: B is never laid out, the coupling of the kinks costs one linear solve for each.

    K = L - Z J^-1 Y:   row i of it is L_i - l'Y with J'l = Z_i',   a Krylov solve by reverse sweeps

That J itself is invertible is told by a random right-hand side, which a singular J cannot reach: status `sampled`.

Source: derived, docs/theory/implicit.md.
"""

from __future__ import annotations

import numpy as np

from nonsmooth.derivatives.linearisation import Linearisation
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NotConverged, NotInvertible
from nonsmooth.implicit.invertibility import Coupling, Invertibility
from nonsmooth.implicit.linear import LinearSystem

__all__ = ["decide_large", "inverse_norm", "transposed"]

ROWS = 512
"""How many rows of K are computed at most."""


def decide_large(system: Linearisation, unknowns: int, eps: float, limit: int, name: str) -> Invertibility:
    """Decide whether B(W) is invertible for all weights of the kinks of a large equation."""
    count = int(system.first_z[-1])
    if count > ROWS:
        return Invertibility(None, f"{system.count} active kinks of {unknowns} unknowns are too many")
    linear = transposed(system, unknowns, eps, name)
    try:
        linear.probe()
        Z, L = system.rows()
        solved = linear.solve(Z.T, transposed=True).T if count else np.zeros((0, unknowns))
    except (NotConverged, NotInvertible) as error:
        return Invertibility(None, f"the first selection does not solve linear systems: {error}")
    through = np.array([system.sweeps.pull_results(row)[1] for row in solved]).reshape(L.shape)
    noise = 10 * linear.tolerance * (np.abs(L) + np.linalg.norm(through, axis=1, keepdims=True))
    kinks = [system.kink(k) for k in range(system.count)]
    coupling = Coupling(L - through, noise, [k.weights for k in kinks], [k.z for k in kinks], [k.u for k in kinks])
    return coupling.decide(linear.tolerance, limit)


def inverse_norm(system: Linearisation, unknowns: int, eps: float) -> float:
    """Estimate how far B^-1 moves a random vector of length 1; infinity if it is not known."""
    linear = transposed(system, unknowns, eps)
    try:
        linear.probe()
    except (NotConverged, NotInvertible):
        return float("inf")
    return linear.inverse_norm()


def transposed(system: Linearisation, unknowns: int, eps: float, name: str = "the equation") -> LinearSystem:
    """Give J' as a linear system of reverse sweeps."""

    def pull(vector: Floats) -> Floats:
        return system.sweeps.pull_results(np.asarray(vector))[0]

    def refuse(*_: Floats) -> Floats:
        raise NotImplementedError("large equations are solved transposed")

    tolerance = max(1e-10, 10 * eps)
    return LinearSystem(unknowns, refuse, pull, lambda: np.zeros((0, 0)), False, eps, tolerance, "gmres", 0.0, name)
