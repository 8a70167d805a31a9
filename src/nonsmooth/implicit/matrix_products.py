"""The joint spectral radius of finitely many matrices: how fast their products can grow, in any order.

    rho(S) = lim  max { |M_1 ... M_n| : M_i in S }^(1/n)

For each n: max (spectral radius of a product of n)^(1/n) <= rho(S) <= max |product of n|^(1/n), in any one norm. A momentum
method whose gradient has a kink at the solution multiplies matrices of such a set, and each may be stable when their
products are not.

Source: BoltePauwelsVaiter2022, Gripenberg1996.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from nonsmooth.errors import UsageError

__all__ = ["JointSpectralRadius", "joint_spectral_radius"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

CUT = 1e-9
"""Branches whose bound is within this of the lower bound, relative to it, are cut."""


@dataclass(frozen=True)
class JointSpectralRadius:
    """Bounds of the joint spectral radius.

    Attributes:
        lower: the spectral radius of the product of `word`, to the power 1 / its length.
        upper: a bound of the growth of all products.
        word: which matrices, the first to act first; of its cyclic shifts, which are as large, the last in order.
        matrices: how many there are; `products` how many products were looked at.
        status: "computed": both bounds hold in exact arithmetic, and were evaluated in floating point.
    """

    lower: float
    upper: float
    word: tuple[int, ...]
    matrices: int
    products: int
    status: str = "computed"

    @property
    def letters(self) -> str:
        """The word in print."""
        return " ".join(map(str, self.word))

    def __str__(self) -> str:
        """Print the bounds."""
        return (
            f"joint spectral radius of {self.matrices} matrices in [{self.lower:.6g}, {self.upper:.6g}] (computed); "
            f"reached by the word {self.letters}"
        )


def joint_spectral_radius(
    matrices: Sequence[Any] | Any, *, tolerance: float = 1e-3, limit: int = 20_000, length: int = 40
) -> JointSpectralRadius:
    """Bound the joint spectral radius of finitely many square matrices, by Gripenberg's branch and bound.

        max over words w of rho(M_w)^(1/|w|)  <=  rho(S)  <=  lower bound + tolerance, or what the branches left show

    Norms are those of an ellipsoid that the matrices nearly share. Products of elements of the convex hull grow no faster.
    Status: `computed`. The search ends when `limit` products were looked at; the bounds hold all the same.

    Args:
        matrices: square, of one size, finite.
        tolerance: how near the two bounds should come, relative to the lower one.
        limit: how many products to look at.
        length: the longest product.

    Raises:
        UsageError: no matrices, or not square, or not finite.

    >>> import numpy as np
    >>> heavy_ball = [np.array([[1.75 - h, -0.75], [1.0, 0.0]]) for h in (1.0, 0.25)]     # curvature 1 and 1/4
    >>> [round(float(abs(np.linalg.eigvals(M)).max()), 3) for M in heavy_ball]            # each is stable
    [0.866, 0.866]
    >>> found = joint_spectral_radius(heavy_ball, length=4)
    >>> round(found.lower**4, 6), len(found.word)                                         # words of four grow by 9/8
    (1.125, 4)

    Source: Gripenberg1996.
    """
    stack = _checked(matrices)
    change = _norm_change(stack)
    stack = change @ stack @ np.linalg.inv(change)
    words: list[tuple[int, ...]] = [(i,) for i in range(len(stack))]
    products, bounds = stack, np.linalg.norm(stack, 2, axis=(1, 2))
    lower, word = _best(stack, words, 0.0, ())
    closed, seen = 0.0, len(stack)
    for _ in range(2, length + 1):
        target = lower * (1 + tolerance)
        open_ = bounds > target * (1 - CUT)
        closed = max([closed, *bounds[~open_]])
        products, bounds, words = products[open_], bounds[open_], [w for w, o in zip(words, open_, strict=True) if o]
        if not words or seen + len(words) * len(stack) > limit:
            break
        products = (stack[:, None] @ products[None]).reshape(-1, *stack.shape[1:])
        words = [(*w, i) for i in range(len(stack)) for w in words]
        roots = np.linalg.norm(products, 2, axis=(1, 2)) ** (1 / len(words[0]))
        bounds = np.minimum(np.tile(bounds, len(stack)), roots)
        lower, word = _best(products, words, lower, word)
        seen += len(words)
    upper = max([lower, min(closed, math.inf), lower if not len(bounds) else float(bounds.max())])
    turns = [word[i:] + word[:i] for i in range(len(word))]  # all reach it: which is found first hangs on rounding
    return JointSpectralRadius(lower, upper, max(turns), len(stack), seen)


def _checked(matrices: Any) -> Floats:
    """Read the matrices."""
    try:
        stack = np.stack([np.asarray(M, dtype=np.float64) for M in matrices])
    except (TypeError, ValueError):
        stack = np.zeros(0)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or not stack.size:
        raise UsageError("joint_spectral_radius: pass square matrices of one size, at least one.")
    if not np.isfinite(stack).all():
        raise UsageError("joint_spectral_radius: the matrices hold values that are not finite.")
    return stack


def _best(products: Floats, words: list[tuple[int, ...]], lower: float, word: tuple[int, ...]) -> tuple[float, Any]:
    """Give the best spectral radius so far, per step, and its word."""
    radii = np.abs(np.linalg.eigvals(products)).max(1) ** (1 / len(words[0]))
    place = int(radii.argmax())
    return (float(radii[place]), words[place]) if radii[place] > lower * (1 + 1e-12) or not word else (lower, word)


def _norm_change(stack: Floats) -> Floats:
    """Give R such that |R x| is a norm in which the matrices are small: P = R'R solves P = I + sum M'PM / g^2, g large."""
    n = stack.shape[1]
    if n > 24:
        return np.eye(n)
    total = sum(np.kron(M.T, M.T) for M in stack)
    g = math.sqrt(float(np.abs(np.linalg.eigvals(total)).max())) * 1.05
    if not g:
        return np.eye(n)
    if len(stack) == 1:
        P = solve_discrete_lyapunov(stack[0].T / g, np.eye(n))
    else:
        P = np.linalg.solve(np.eye(n * n) - total / g**2, np.eye(n).ravel()).reshape(n, n)
    return np.asarray(np.linalg.cholesky((P + P.T) / 2).T)
