"""Spectral operations: eigenvalues of symmetric matrices, kinked where they are repeated.

With A = U diag(l) U' and the orthonormal columns U_c of a cluster of equal eigenvalues, the derivatives of these
eigenvalues along T are the eigenvalues of the compression U_c' A(T) U_c in ascending order; the set is made of the
diagonals of Q' U_c' A(T) U_c Q over the orthonormal bases Q. Singular values are the largest eigenvalues of the dilation
[0 M; M' 0], so that repeated and zero singular values are the same theory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.dictionary.eigenspaces import Bases, SingularBases
from nonsmooth.dictionary.operation import Along, Array, Call, Kind, Nonsmooth, Rule, counted, device_of, on_host
from nonsmooth.dictionary.weights import Block
from nonsmooth.errors import ConventionError

__all__ = ["SPECTRALS", "Spectral"]

ROUNDING = 8.0
"""Eigenvalues nearer than this, in units of rounding times size of the matrix times largest eigenvalue, are repeated."""

RULES = ("even", "first", "last")
"""The words for a basis of an eigenspace: the mean over all bases; the basis as the eigenvalue solver returns it."""


@dataclass(frozen=True, kw_only=True)
class Spectral(Nonsmooth):
    """Eigenvalues of a symmetric matrix that is linear in the operand.

    `image(call, operands)` gives the matrices, their two axes last; `picked(call, values)` picks the returned values out
    of all eigenvalues in ascending order; `dilated` says that the matrices are dilations. As eigenvalues are rounded, two
    of them within rounding are repeated.

    The rule is "even" (or a number): the mean over a cluster; "first" or "last": the basis as it comes; an array of the
    matrix's shape: the basis that diagonalises its compression.

    >>> import array_api_compat.numpy as xp
    >>> call = Call(xp, (xp.eye(2),), {}, xp.ones(2))
    >>> SPECTRALS[0].active(call)["repeated"].tolist()
    [True, True]

    Source: Lewis1996.
    """

    kind: Kind = Kind.SPECTRAL
    kinks: tuple[str, ...] = ("repeated",)
    image: Callable[[Call, tuple[Array, ...]], Array] = field(repr=False)
    picked: Callable[[Call, Array], Array] = field(repr=False)
    dilated: bool = False

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the gap of each value to the nearest other eigenvalue."""
        return {"repeated": self.picked(call, self._nearest(call))}

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Mark the values that are repeated, up to rounding."""
        values, _ = self._spectrum(call)
        limit = self.picked(call, call.xp.broadcast_to(self._limit(call, values, tol), values.shape))
        return {"repeated": self.margins(call)["repeated"] <= limit}

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give the diagonal of Q' U' A(T) U Q, averaged over clusters by "even"."""
        xp, rule = call.xp, rules["repeated"]
        if isinstance(rule, str) and rule not in RULES:
            raise ConventionError(
                f"at_kinks gives {rule!r} for {self.name!r} at repeated values: use one of {RULES} or an array."
            )
        basis, same = self._chosen(call, rule, tol)
        moved = self.image(call, tangents)
        rates = xp.real(xp.sum(xp.conj(basis) * xp.matmul(moved, basis), axis=-2))
        if isinstance(rule, int | float) or (isinstance(rule, str) and rule == "even"):
            weights = xp.astype(same, rates.dtype)
            rates = xp.sum(weights * rates[..., None, :], axis=-1) / xp.sum(weights, axis=-1)
        return self.picked(call, rates)

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give, for each pair of a cluster, the gap of the eigenvalues of its compressed tangent, divided by the size."""
        xp = call.xp
        basis, same = self._chosen(call, rules["repeated"], 0.0)
        moved = xp.matmul(xp.conj(xp.matrix_transpose(basis)), xp.matmul(self.image(call, tangents), basis))
        rates = xp.real(xp.linalg.diagonal(moved))
        gap = (rates[..., :, None] - rates[..., None, :]) ** 2 + 4 * xp.abs(moved) ** 2
        n = gap.shape[-1]
        pair = same & (xp.arange(n, device=device_of(gap))[:, None] < xp.arange(n, device=device_of(gap))[None, :])
        return {"repeated": xp.where(pair, xp.sqrt(gap) / n, xp.full_like(gap, float("inf")))}

    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Start with the basis of the eigenvalue solver; z are the compressions of the tangent to the eigenspaces."""
        xp = call.xp
        basis, same = self._chosen(call, "first", tol)
        numbers = xp.reshape(
            xp.arange(int(np.prod(tuple(basis.shape[:-1]))), device=device_of(basis)), basis.shape[:-1]
        )
        shown = on_host(self.picked(call, numbers)).ravel()
        place_of = dict(zip(shown.tolist(), range(len(shown)), strict=True))
        n, together, values = basis.shape[-1], on_host(same), on_host(self._spectrum(call)[0])
        blocks = []
        for line in np.ndindex(*together.shape[:-2]):
            row = int(np.ravel_multi_index(line, together.shape[:-2])) if line else 0
            heads = together[line].argmax(axis=-1)
            for first in sorted(set(heads.tolist())):
                members = np.flatnonzero(heads == first)
                returned = tuple(k for k, i in enumerate(members) if row * n + i in place_of)
                if len(members) > 1 and returned:
                    places = np.asarray([[place_of[row * n + members[k]] for k in returned]])
                    blocks.append(self._cluster(call, line, basis, members, values[line], returned, places, tol))
        return {"repeated": "first"}, blocks

    def _cluster(
        self,
        call: Call,
        line: Any,
        basis: Array,
        members: Any,
        values: Any,
        returned: tuple[int, ...],
        places: Any,
        tol: float,
    ) -> Block:
        """Make the block of one cluster of equal eigenvalues."""
        xp, m = call.xp, len(members)
        columns = basis[(*line, slice(None), slice(int(members[0]), int(members[-1]) + 1))]
        complex_ = bool(xp.isdtype(basis.dtype, "complex floating"))
        weights: Bases = Bases(m, returned, complex_)
        limit = ROUNDING * len(values) * float(xp.finfo(basis.dtype).eps) * np.abs(values).max()
        if self.dilated and np.abs(values[members]).max() <= max(limit, tol):
            weights = _zero_cluster(on_host(columns), call.operands[0].shape[-2], m, returned, complex_)

        def compressed(tangents: Sequence[Array]) -> Array:
            inner = xp.matmul(xp.conj(xp.matrix_transpose(columns)), self.image(call, tuple(tangents))[line])
            inner = xp.reshape(xp.matmul(inner, columns), (1, -1))
            return xp.concat((xp.real(inner), xp.imag(inner)), axis=-1) if complex_ else inner

        return Block("repeated", weights, places, compressed)

    def _spectrum(self, call: Call) -> tuple[Array, Array]:
        """Give all eigenvalues in ascending order, and the eigenvectors as columns."""
        values, vectors = call.xp.linalg.eigh(self.image(call, call.operands))
        return values, vectors

    def _nearest(self, call: Call) -> Array:
        """Give the gap of each eigenvalue to its nearer neighbour."""
        xp = call.xp
        values, _ = self._spectrum(call)
        gap = values[..., 1:] - values[..., :-1]
        edge = xp.full_like(values[..., :1], float("inf"))
        return xp.minimum(xp.concat((edge, gap), axis=-1), xp.concat((gap, edge), axis=-1))

    def _limit(self, call: Call, values: Array, tol: float) -> Array:
        """Give the gap up to which neighbours are repeated."""
        xp, n = call.xp, values.shape[-1]
        size = xp.max(xp.abs(values), axis=-1, keepdims=True) if n else xp.ones_like(values)
        rounding = ROUNDING * n * float(xp.finfo(values.dtype).eps) * size
        return xp.where(rounding > tol, rounding, xp.full_like(rounding, tol))

    def _chosen(self, call: Call, rule: Rule, tol: float) -> tuple[Array, Array]:
        """Give the chosen basis of eigenvectors, and which of them share a cluster."""
        if isinstance(rule, Along):
            return rule.once("basis", lambda: self._basis(call, rule.map(lambda t: self.image(call, t)), tol))  # type: ignore[no-any-return]
        plain = isinstance(rule, str | int | float)
        return self._basis(call, [] if plain else [rule], tol)

    def _basis(self, call: Call, matrices: Sequence[Array], tol: float) -> tuple[Array, Array]:
        """Diagonalise the compressions of matrices one after the other, each inside the clusters that are left.

        The cluster's number, times more than the norm, is added to the diagonal: one decomposition keeps the order.
        """
        xp = call.xp
        values, basis = self._spectrum(call)
        limit = self._limit(call, values, tol)
        first = same = _clusters(xp, values, limit)
        for matrix in matrices:
            matrix = xp.astype(matrix, basis.dtype)
            inner = xp.matmul(xp.conj(xp.matrix_transpose(basis)), xp.matmul(matrix, basis))
            inner = xp.where(same, inner, xp.zeros_like(inner))
            size = xp.max(xp.sum(xp.abs(inner), axis=-1), axis=-1)[..., None]
            number = xp.astype(_numbers(xp, same), values.dtype)
            shift = number * (4 * size + 1)
            rates, turn = xp.linalg.eigh(inner + _diagonal(xp, shift, inner))
            basis = xp.matmul(basis, turn)
            split = ROUNDING * values.shape[-1] * float(xp.finfo(values.dtype).eps)
            same = same & _clusters(xp, rates, split * (xp.max(shift, axis=-1, keepdims=True) + size))
        return basis, first


def _zero_cluster(columns: Any, rows: int, size: int, returned: tuple[int, ...], complex_: bool) -> SingularBases:
    """Split the null space of the dilation [0 M; M' 0] into the parts of M M' and M'M."""
    _, singular, turn = np.linalg.svd(columns[:rows], full_matrices=False)
    _, other, back = np.linalg.svd(columns[rows:], full_matrices=False)
    k = int(np.sum(singular > 0.5))
    split = np.concatenate([turn[:k], back[: int(np.sum(other > 0.5))]])
    return SingularBases(size, returned, complex_, split, k)


def _clusters(xp: Any, values: Array, limit: Array) -> Array:
    """Mark the pairs that belong to one run of neighbours within the limit."""
    head = xp.zeros_like(counted(xp, values[..., :1] > 0))
    apart = counted(xp, values[..., 1:] - values[..., :-1] > limit)
    number = xp.cumulative_sum(xp.concat((head, apart), axis=-1), axis=-1)
    return number[..., :, None] == number[..., None, :]


def _numbers(xp: Any, same: Array) -> Array:
    """Number the clusters: how many entries precede the first of each."""
    n = same.shape[-1]
    place = xp.broadcast_to(xp.arange(n, device=device_of(same)), same.shape)
    return xp.min(xp.where(same, place, xp.full_like(place, n)), axis=-1)


def _diagonal(xp: Any, entries: Array, like: Array) -> Array:
    """Put entries on the diagonal of a matrix."""
    eye = xp.eye(entries.shape[-1], dtype=xp.bool, device=device_of(entries))
    spread = xp.broadcast_to(entries[..., None, :], like.shape)
    return xp.astype(xp.where(eye, spread, xp.zeros_like(spread)), like.dtype)


def _symmetric(call: Call, operands: tuple[Array, ...]) -> Array:
    """Give the symmetric (Hermitian) part, as frameworks differentiate it."""
    (a,), xp = operands, call.xp
    return (a + xp.conj(xp.matrix_transpose(a))) / 2


def _dilation(call: Call, operands: tuple[Array, ...]) -> Array:
    """Give [0 M; M' 0]."""
    (a,), xp = operands, call.xp
    m, n = a.shape[-2:]
    top = xp.concat((xp.zeros((*a.shape[:-2], m, m), dtype=a.dtype, device=device_of(a)), a), axis=-1)
    zero = xp.zeros((*a.shape[:-2], n, n), dtype=a.dtype, device=device_of(a))
    bottom = xp.concat((xp.conj(xp.matrix_transpose(a)), zero), axis=-1)
    return xp.concat((top, bottom), axis=-2)


def _largest(call: Call, values: Array) -> Array:
    """Pick the largest values, in descending order, as many as are returned."""
    return call.xp.flip(values, axis=-1)[..., : call.result.shape[-1]]


SPECTRALS: tuple[Spectral, ...] = (
    Spectral(
        name="eigvalsh",
        image=_symmetric,
        picked=lambda call, values: values,
        summary="the eigenvalues of a symmetric matrix, ascending",
    ),
    Spectral(name="svdvals", image=_dilation, picked=_largest, dilated=True, summary="the singular values, descending"),
)
"""The spectral operations of the dictionary."""
