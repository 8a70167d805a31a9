"""Sampled limits of gradients: directions decide every kink of a linearisation, one after the other, in small algebra.

Along x + t v the kinks are resolved by the tangents of their arguments; the gradient of that selection is a limit of
gradients, hence in dF(x), if every kink that matters is decided by more than rounding.
"""

from __future__ import annotations

import numpy as np

from nonsmooth.derivatives.cells import Cells
from nonsmooth.derivatives.linearisation import Linearisation
from nonsmooth.dictionary.eigenspaces import Bases, SingularBases
from nonsmooth.dictionary.weights import Block, Floats, Permutations, Vertices

__all__ = ["decided", "sampled_limits"]

MARGIN = 2.0**12
"""A tangent of fewer units of rounding than this, relative to the terms that it was summed from, decides nothing."""


def sampled_limits(system: Linearisation, samples: int, seed: int) -> Cells:
    """Follow random directions; give the limits of gradients along those that decide every kink.

    Programs with an `if` or a `where` that ties are left to `subgradient`, which checks that their branches join.
    """
    found = Cells(complete=False)
    if system.sweeps.evaluation.ties or any(b.own is not None for b in system.blocks):
        return found
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        gradient = _limit_along(system, (rng.standard_normal(system.J.size), rng.standard_normal(system.J.size)))
        if gradient is not None:
            found.gradients.append(gradient)
            found.count += 1
    return found


def _limit_along(system: Linearisation, directions: tuple[Floats, Floats]) -> Floats | None:
    """Decide the kinks along a direction, and give the gradient; None where a tangent is lost in rounding.

    The other direction is a witness: what is zero along both is zero, and decides nothing.
    """
    zeta, eps = [system.push(d) for d in directions], system.framework.eps(system.sweeps.evaluation.result)
    u = [np.zeros(len(system.Y)) for _ in directions]
    sizes, size, chosen = np.zeros(len(system.Y)), abs(system.L), []
    for place, block in enumerate(system.blocks):
        kinks = np.arange(system.first_kink[place], system.first_kink[place + 1])
        rows, columns = system.z_of(kinks, place), system.u_of(kinks, place)
        z = [a[rows] + (system.L[rows.ravel()] @ b).reshape(rows.shape) for a, b in zip(zeta, u, strict=True)]
        scale = np.abs(zeta[0][rows]) + (size[rows.ravel()] @ sizes).reshape(rows.shape)
        noise = MARGIN * eps * scale.max(axis=1, initial=0.0)
        W, certain = decided(block, z[0], z[1], noise)
        if not certain:
            return None
        for a, b in zip(u, z, strict=True):
            a[columns] = np.einsum("nrm,nm->nr", W, b)
        sizes[columns] = np.einsum("nrm,nm->nr", np.abs(W), scale)
        chosen.append((W, rows, columns))
    y, cotangents = system.Y.copy(), np.zeros(len(zeta[0]))
    for W, rows, columns in reversed(chosen):
        cotangents[rows] = np.einsum("nr,nrm->nm", y[columns], W)
        y += system.L[rows.ravel()].T @ cotangents[rows].ravel()
    return np.asarray(system.J + system.pull(cotangents))


def decided(block: Block, z: Floats, other: Floats, noise: Floats) -> tuple[Floats, bool]:
    """Choose the weights along a direction; tell whether what did not decide is zero along the witness too."""
    weights, noise = block.weights, noise[:, None]
    if block.orientation is not None:
        if weights.compared > 1:
            return _clamped(block, z, other, noise)
        lost = (np.abs(z) <= noise) & (np.abs(other) > noise)
        return (block.orientation * z > 0).astype(float)[:, None, :], not lost.any()
    sign = -1.0 if block.negative else 1.0
    if isinstance(weights, Permutations):
        return _sorted(weights, sign * z, sign * other, noise)
    if isinstance(weights, Vertices):
        values, witness = sign * (z @ weights.rows.T), sign * (other @ weights.rows.T)
        best = np.argmax(values, axis=1)[:, None]
        behind = np.take_along_axis(values, best, axis=1) - values
        apart = np.abs(np.take_along_axis(witness, best, axis=1) - witness)
        return weights.rows[best], not ((behind <= noise) & (apart > noise)).any()
    if isinstance(weights, Bases):
        order = np.broadcast_to(np.arange(1.0, weights.outputs + 1), (len(z), weights.outputs))
        return weights.choose(order, z), _apart(weights, z, noise)
    lost = (np.abs(z).max(axis=1, keepdims=True) <= noise) & (np.abs(other).max(axis=1, keepdims=True) > noise)
    return weights.choose(np.ones((len(z), weights.outputs)), z), not lost.any()


def _clamped(block: Block, z: Floats, other: Floats, noise: Floats) -> tuple[Floats, bool]:
    """Decide a clamp whose bounds tie: min(max(0, c_1), c_2) of c_k = z_1 + .. + z_k; see `cells`."""
    orientation = np.sign(block.orientation)
    if weights_of_a_clamp(orientation):
        flip = np.where(orientation[:, :1] < 0, -1.0, 1.0)
        values, witness = (flip * np.concatenate([0 * a[:, :1], np.cumsum(a, axis=1)], axis=1) for a in (z, other))
        top = (values[:, 1] > values[:, 0]).astype(int)
        n = np.arange(len(z))
        chosen = np.where(values[n, 2] < values[n, top], 2, top)
        lost = [
            (np.abs(values[n, i] - values[n, j]) <= noise[:, 0]) & (np.abs(witness[n, i] - witness[n, j]) > noise[:, 0])
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        return block.weights.extreme()[chosen], not np.any(lost)
    return block.weights.extreme()[np.zeros(len(z), dtype=int)], False


def weights_of_a_clamp(orientation: Floats) -> bool:
    """Tell two breakpoints at each of which the slope changes the other way, element by element."""
    return orientation.shape[1] == 2 and bool(np.all(orientation[:, 0] * orientation[:, 1] <= 0))


def _apart(weights: Bases, z: Floats, noise: Floats) -> bool:
    """Tell whether the eigenvalues (singular values) of the compressed tangents are distinct."""
    if isinstance(weights, SingularBases):
        rates = np.sort(np.linalg.svd(weights.between(z), compute_uv=False), axis=1)
        rates = np.concatenate([np.zeros((len(z), 1)), rates], axis=1)
    else:
        rates = np.linalg.eigvalsh(weights.matrix(z))
    return bool((np.diff(rates, axis=1) > noise).all())


def _sorted(weights: Permutations, z: Floats, other: Floats, noise: Floats) -> tuple[Floats, bool]:
    """Sort the tied entries by their tangents."""
    r, eye = list(weights.returned), np.eye(weights.size)
    entry, witness = (np.concatenate([np.zeros((len(z), 1)), a], axis=1) for a in (z, other))
    order = np.argsort(entry, axis=1, kind="stable")
    gaps, apart = (np.abs(np.diff(np.take_along_axis(a, order, axis=1), axis=1)) for a in (entry, witness))
    return (eye[order[:, r]] - eye[r])[:, :, 1:], not ((gaps <= noise) & (apart > noise)).any()
