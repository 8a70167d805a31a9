"""The weights of spectral kinks: the orthonormal bases of an eigenspace, and the pairs of them at the singular value 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nonsmooth.dictionary.weights import Floats, WeightSet

__all__ = ["Bases", "SingularBases"]


@dataclass(frozen=True, eq=False)
class Bases(WeightSet):
    """The orthonormal bases of an eigenspace: z holds the m x m compression Z of the tangent, real parts, then imaginary.

    W z = (q_k' Z q_k - e_k' Z e_k) for the returned places k, over the orthonormal systems q. It is no convex set: its
    hull is meant.
    """

    size: int
    returned: tuple[int, ...]
    imaginary: bool = False
    count = math.inf

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """The number of eigenvalues returned."""
        return len(self.returned)

    @property
    def compared(self) -> int:  # type: ignore[override]
        """The number of entries of the compression."""
        return self.size**2 * (2 if self.imaginary else 1)

    @property
    def rank(self) -> int:
        """The dimension of the symmetric (Hermitian) matrices."""
        return self.size**2 if self.imaginary else self.size * (self.size + 1) // 2

    @property
    def key(self) -> tuple[Any, ...]:
        """Size and places."""
        return ("bases", self.size, self.returned, self.imaginary)

    def centre(self) -> tuple[Floats, Floats]:
        """Give 0 and 2: |u| is at most twice the sum of the |z|."""
        return np.zeros((self.outputs, self.compared)), np.full((self.outputs, self.compared), 2.0)

    def extreme(self) -> Floats:
        """Refuse: there are infinitely many bases."""
        raise ValueError("an eigenspace has no finite list of bases")

    def matrix(self, z: Floats) -> Any:
        """Give the compressions, shape (n, m, m)."""
        parts = z.reshape(len(z), -1, self.size, self.size)
        whole = parts[:, 0] + 1j * parts[:, 1] if self.imaginary else parts[:, 0]
        return (whole + np.conj(np.swapaxes(whole, -1, -2))) / 2

    def systems(self, y: Floats, z: Floats) -> Any:
        """Give the orthonormal systems as columns that pair large weights with large eigenvalues, shape (n, m, r)."""
        _, vectors = np.linalg.eigh(self.matrix(z))
        whole = np.zeros((len(y), self.size))
        whole[:, list(self.returned)] = y
        rank = np.argsort(np.argsort(whole, axis=-1, kind="stable"), axis=-1, kind="stable")
        return np.take_along_axis(vectors, rank[:, None, list(self.returned)], axis=-1)

    def choose(self, y: Floats, z: Floats) -> Floats:
        """Give the matrices of Z -> q_k' Z q_k - e_k' Z e_k."""
        q = self.systems(y, z)
        e = np.eye(self.size)[None, :, list(self.returned)]
        whole = np.einsum("nir,njr->nrij", np.conj(q), q) - np.einsum("nir,njr->nrij", e, e)
        parts = [whole.real, -whole.imag] if self.imaginary else [whole.real]
        return np.stack(parts, axis=2).reshape(len(z), self.outputs, -1)

    def bound(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bound |u| by twice the Frobenius norm."""
        size = np.linalg.norm(np.maximum(np.abs(low), np.abs(high)), axis=-1, keepdims=True)
        size = 2 * size * np.ones((1, self.outputs))
        return -size, size


@dataclass(frozen=True, eq=False)
class SingularBases(Bases):
    """The pairs of orthonormal systems (u_k, v_k) of the singular value 0, in the coordinates of the dilation.

    z holds the compression of the dilation [0 M; M' 0] to its null space; `split` are the orthonormal coordinates
    of that space in which the first `left` belong to M M', the others to M'M. Singular values are at least 0 on either
    side of a zero, so that a value may move by -u'Mv: the bases run over all signs.
    """

    split: Any = None
    left: int = 0

    @property
    def rank(self) -> int:
        """The dimension of the matrices U'MV."""
        return self.left * (self.size - self.left) * (2 if self.imaginary else 1)

    @property
    def key(self) -> tuple[Any, ...]:
        """The coordinates, which differ from matrix to matrix."""
        return ("singular bases", self.size, self.returned, self.imaginary, np.asarray(self.split).tobytes())

    def between(self, z: Floats) -> Any:
        """Give the matrices U'MV, shape (n, left, size - left)."""
        turned = self.split @ self.matrix(z) @ np.conj(np.swapaxes(self.split, -1, -2))
        return turned[:, : self.left, self.left :]

    def systems(self, y: Floats, z: Floats) -> Any:
        """Pair large absolute weights with large singular values: von Neumann."""
        u, _, vh = np.linalg.svd(self.between(z))
        v = np.conj(np.swapaxes(vh, -1, -2))
        rank = np.argsort(np.argsort(-np.abs(y), axis=-1, kind="stable"), axis=-1, kind="stable")
        sign = np.where(y < 0, -1.0, 1.0)[:, None, :]
        top = np.take_along_axis(u, rank[:, None, :], axis=-1) * sign
        pairs = np.concatenate([top, np.take_along_axis(v, rank[:, None, :], axis=-1)], axis=1) / math.sqrt(2)
        return np.conj(np.swapaxes(self.split, -1, -2)) @ pairs
