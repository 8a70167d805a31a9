"""Spectral norms of matrices, certified from above: what rounding may have done is part of the bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, ldexp, prod, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse.linalg import ArpackError, eigsh

from nonsmooth.bounds.sizes import UNIT, measured
from nonsmooth.errors import UsageError

__all__ = ["SpectralNorm", "largest_root", "largest_spectral_norm", "spectral_norm"]

Array: TypeAlias = NDArray[Any]

_NOT_FINITE = "spectral_norm: an entry of the matrix is not finite; its norm is not defined."

LARGE = 48
"""The size from which on matrices are factored one by one."""

BUDGET = 5e11
"""The multiplications that a bound may take by default: some seconds."""


@dataclass(frozen=True)
class SpectralNorm:
    """A spectral norm, enclosed: lower <= ||A|| <= upper."""

    lower: float
    upper: float

    @property
    def gap(self) -> float:
        """The relative width of the enclosure.

        >>> SpectralNorm(1.0, 1.5).gap
        0.5
        """
        return (self.upper - self.lower) / self.lower if self.lower > 0 else self.upper


def spectral_norm(matrices: Array, budget: float = BUDGET) -> SpectralNorm:
    """Enclose the spectral norm of a matrix, the largest one of a stack of them.

        lower <= max_b ||A_b|| <= upper

    Guarantee: proved, rounding included. With G = A A' (of the shorter side, d rows), the factorisation of Cholesky of
    s I - G runs to its end, so that ||G|| <= s + 4 (d + 4) u tr(s I - G); G as computed is within 4 (n + 4) u ||A||_F^2
    of A A', u = 2^-53, n the longer side. The s that is tried is the largest eigenvalue as computed. Where that would
    take more than `budget` multiplications: the least of ||A||_F and sqrt(||A||_1 ||A||_inf).

    Args:
        matrices: array of shape (..., m, n), real or complex.
        budget: the multiplications that may be spent.

    Raises:
        UsageError: an entry is not finite, or the array has fewer than two axes.

    >>> found = spectral_norm(np.array([[3.0, 0.0], [4.0, 5.0]]))
    >>> round(found.upper, 6), found.gap < 1e-9
    (6.708204, True)

    Source: Rump2006; Higham2002.
    """
    array = np.asarray(matrices)
    if array.ndim < 2:
        raise UsageError(f"spectral_norm: a matrix is needed, or a stack of them; found the shape {array.shape}.")
    stack = prod(array.shape[:-2])
    return largest_spectral_norm(iter([array.reshape(stack, *array.shape[-2:])]), budget)


def largest_spectral_norm(stacks: Iterable[Array], budget: float = BUDGET) -> SpectralNorm:
    """Enclose the largest spectral norm of all matrices of stacks, which are looked at one stack at a time.

    >>> found = largest_spectral_norm(np.full((2, 1, 1), float(c)) for c in range(3))
    >>> round(found.lower, 9), round(found.upper, 9)
    (2.0, 2.0)

    Raises:
        UsageError: an entry is not finite.

    Source: Rump2006; Higham2002.
    """
    lower = upper = 0.0
    for stack in stacks:
        if len(stack) and stack[0].size * min(stack.shape[1:]) > max(budget, 1e5):  # one is too many
            for matrix in stack:
                found = _by_one_pass(matrix)
                lower, upper = max(lower, found.lower), max(upper, found.upper)
            continue
        for part in _parts(stack):
            found = _enclosed(part, budget, lower)
            budget -= _work(part)
            lower, upper = max(lower, found.lower), max(upper, found.upper)
    return SpectralNorm(lower, upper)


def _by_one_pass(matrix: Array) -> SpectralNorm:
    """Enclose a norm by what one pass over a matrix gives."""
    sizes = measured(matrix)
    if not sizes.norm < inf and not np.all(np.isfinite(matrix)):
        raise UsageError(_NOT_FINITE)
    lower = max(sizes.peak, sizes.norm / sqrt(min(matrix.shape)))
    return SpectralNorm(min(lower * (1 - 1e-12), sizes.operator), sizes.operator)


def _parts(stack: Array) -> Iterator[Array]:
    """Cut a stack into parts of at most some million entries, the shorter side of the matrices first."""
    if not np.all(np.isfinite(stack)):
        raise UsageError(_NOT_FINITE)
    if not stack.size:
        return
    if stack.shape[1] > stack.shape[2]:
        stack = stack.swapaxes(1, 2)
    many = max(int(4e6 / (stack.shape[1] * stack.shape[2])), 1)
    for start in range(0, len(stack), many):
        part = stack[start : start + many]
        yield np.asarray(part, complex if np.iscomplexobj(part) else float)


def _work(part: Array) -> float:
    """Count the multiplications of Gram matrices and their factorisations."""
    return float(part.size * part.shape[1] * (4 if np.iscomplexobj(part) else 1))


def _enclosed(part: Array, budget: float, known: float) -> SpectralNorm:
    """Enclose the largest norm of some matrices, at least `known` from below where none is larger."""
    peak = float(np.max(np.abs(part)))
    if peak == 0:
        return SpectralNorm(0.0, 0.0)
    exponent = int(np.frexp(peak)[1])
    if abs(exponent) < 100:
        exponent = 0
    elif np.iscomplexobj(part):
        part = np.ldexp(part.real, -exponent) + 1j * np.ldexp(part.imag, -exponent)
    else:
        part = np.ldexp(part, -exponent)
    scaled = min(known, 1e300) * 2.0 ** -min(max(exponent, -1000), 1000)
    rows, columns = part.shape[1:]
    slack = 1 + 4 * (rows + columns + 8) * UNIT
    size = np.abs(part)
    lengths = np.einsum("bij,bij->bi", size, size)
    square = lengths.sum(1)
    cheap = slack * np.minimum(np.sqrt(square), np.sqrt(size.sum(1).max(1) * size.sum(2).max(1)))
    longest = float(np.sqrt(np.max(lengths))) / slack
    lower = max(longest, 0.0)
    rest = cheap > max(lower, scaled)
    least = float(np.max(cheap))
    if rows > 1 and np.any(rest) and _work(part[rest]) <= budget:
        found = _by_gram(part[rest], float(np.max(square[rest])), max(lower, scaled))
        lower, least = max(lower, found.lower), min(least, max(found.upper, float(np.max(cheap[~rest], initial=0.0))))
    return SpectralNorm(_scaled(lower * (1 - 4 * UNIT), exponent), _scaled(least * (1 + 4 * UNIT), exponent))


def _scaled(value: float, exponent: int) -> float:
    """Give value 2^exponent, upwards where it leaves the numbers."""
    try:
        return ldexp(value, exponent) if value == 0 else max(ldexp(value, exponent), 5e-324)
    except OverflowError:
        return inf


def largest_root(stacks: Iterable[Array], error: float) -> float:
    """Bound the root of the largest eigenvalue of Hermitian matrices that lie within `error` of those given.

    >>> round(largest_root([np.array([[[4.0, 0.0], [0.0, 1.0]]])], 0.0), 9)
    2.0

    Source: Rump2006.
    """
    lower = trial = 0.0
    d = 0
    for stack in stacks:
        d = stack.shape[-1]
        lower, trial = _certified(stack, lower, trial)
    return sqrt(_grown(trial, d) + error) * (1 + 4 * UNIT)


def _by_gram(part: Array, square: float, known: float) -> SpectralNorm:
    """Enclose the norm by the largest eigenvalue of all Gram matrices: one that is tried is certified by Cholesky."""
    d, n = part.shape[1:]
    if len(part) == 1 and not np.iscomplexobj(part):
        gram = (part[0] @ part[0].T)[None]  # half of the work
    else:
        gram = part @ part.conj().swapaxes(1, 2)
    error = 4 * (n + 4) * UNIT * square + 1e-250
    lower, trial = _certified(gram, 0.0, known * known)
    bound = _grown(trial, d) + error
    return SpectralNorm(sqrt(max(lower * (1 - _margin(gram)) - error, 0.0)), sqrt(bound) * (1 + 4 * UNIT))


def _grown(trial: float, d: int) -> float:
    """Give what a matrix of d rows that passed with s = `trial` may have as its norm: s + 4 (d + 4) u tr(s I - G)."""
    return trial * (1 + 4 * (d + 4) * UNIT * d)


def _margin(gram: Array) -> float:
    """Give how much more than the largest eigenvalue as computed is tried."""
    d = gram.shape[-1]
    return float(max(1e-12 if len(gram) == 1 else 1e-8, 16 * d * (d + 4) * UNIT))


def _certified(gram: Array, lower: float, trial: float) -> tuple[float, float]:
    """Give the largest eigenvalue that was met, and a number that passes the factorisation with each of some matrices.

    `lower` and `trial` are those of matrices before. Small matrices are tried all at once, large ones one by one: where one
    fails, its largest eigenvalue is tried from there on.
    """
    margin = widening = _margin(gram)
    if not np.any(gram):
        return lower, trial
    if trial == 0 or gram.shape[-1] < LARGE:
        largest = _largest_eigenvalue(gram[int(np.argmax(_growth(gram)))])
        lower, trial = max(lower, largest), max(trial, largest * (1 + margin))
    count = len(gram) if gram.shape[-1] < LARGE else 1
    open_ = [gram[k : k + count] for k in range(0, len(gram), count)]
    while open_:
        stack = open_.pop()
        if _positive(trial, stack):
            continue
        if len(stack) > 1:
            open_ += [stack[: len(stack) // 2], stack[len(stack) // 2 :]]
            continue
        largest = _largest_eigenvalue(stack[0])
        lower, trial = max(lower, largest), max(trial * (1 + widening), largest * (1 + margin))
        widening *= 2
        open_.append(stack)
    return lower, trial


def _growth(gram: Array) -> Array:
    """Estimate the largest eigenvalue of every matrix by the growth of a vector under some powers."""
    vector = np.abs(gram).sum(2) * np.exp(1j * np.arange(gram.shape[1])) if np.iscomplexobj(gram) else gram.sum(2)
    vector = vector + 1e-3 * np.cos(1.0 + np.arange(gram.shape[1])) * np.max(np.abs(vector), axis=1, keepdims=True)
    growth = np.zeros(len(gram))
    for _ in range(8):
        vector = vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-300)
        vector = (gram @ vector[:, :, None])[:, :, 0]
        growth = np.linalg.norm(vector, axis=1)
    return growth


def _largest_eigenvalue(gram: Array) -> float:
    """Compute the largest eigenvalue of a symmetric matrix, all of them where it is small."""
    if len(gram) > 400:
        start = np.cos(1.0 + np.arange(len(gram)))
        try:
            return float(eigsh(gram, k=1, v0=start.astype(gram.dtype), tol=1e-11, return_eigenvectors=False)[0])
        except ArpackError:
            pass
    return float(np.linalg.eigvalsh(gram)[-1])


def _positive(trial: float, stack: Array) -> bool:
    """Tell that the factorisation of Cholesky of s I - G runs to its end, for one matrix or all of a stack."""
    shifted = np.negative(stack)
    diagonal = np.arange(stack.shape[-1])
    shifted[:, diagonal, diagonal] += trial
    if len(stack) == 1:
        potrf = lapack.zpotrf if np.iscomplexobj(stack) else lapack.dpotrf
        return bool(potrf(shifted[0].T, lower=1, clean=0, overwrite_a=1)[1] == 0)
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True
