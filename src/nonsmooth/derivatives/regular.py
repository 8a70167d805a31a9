"""Regularity: whether F is, at a point, a smooth function of convex kinks that pull the same way.

If no kink acts on another, F = G(x, u_1, .., u_k) with G smooth and u_i = phi_i(c_i(x)), c_i strictly differentiable;
if all Y_i phi_i are convex (or all concave) the chain rule of Clarke holds with equality, and dF(x) = conv D(x).
"""

from __future__ import annotations

import numpy as np

from nonsmooth.derivatives.groups import Groups
from nonsmooth.dictionary.eigenspaces import Bases, SingularBases
from nonsmooth.dictionary.weights import Block, DualBall, Floats, Permutations

__all__ = ["is_regular"]


def is_regular(groups: Groups) -> bool:
    """Tell whether the kinks on which the result depends do not interact, and are all convex or all concave in effect.

    Source: Clarke1983, Theorem 2.3.9.
    """
    system = groups.system
    if groups.families or groups.large is not None or system.sweeps.evaluation.ties:
        return False
    bends = []
    for place, kinks in groups.alone:
        block = system.blocks[place]
        if block.own is not None:
            return False
        bends.append(_bends(block, system.Y[system.u_of(kinks, place)], kinks - system.first_kink[place]))
    return any(all(np.all(sign * b >= 0) for b in bends) for sign in (1.0, -1.0))


def _bends(block: Block, y: Floats, members: Floats) -> Floats:
    """Give numbers that are all at least 0 where y'W z is convex at its weights, at most 0 where it is concave.

    A sum of ordered entries is convex if the weights grow with the order, a sum of singular values if they are equal.
    """
    weights = block.weights
    if block.orientation is not None:
        return np.asarray(y * block.orientation[members])
    if isinstance(weights, SingularBases):
        equal = bool(np.all(y == y[:, :1]))
        return y if equal else np.array([1.0, -1.0])
    if isinstance(weights, Permutations | Bases):
        whole = np.zeros((len(y), weights.size))
        whole[:, list(weights.returned)] = y
        grows = np.diff(whole, axis=1)
        return -grows if block.negative else grows
    if isinstance(weights, DualBall):
        return y
    return -y if block.negative else y
