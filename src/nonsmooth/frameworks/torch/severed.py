"""Severed dependences of torch programs: the operators and conventions that only torch has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from nonsmooth.frameworks.framework import Severed
from nonsmooth.frameworks.replay.severed import Dependences
from nonsmooth.frameworks.torch.protection import RUNNING_STATISTICS

__all__ = ["TorchDependences"]

ONE_TRIANGLE = ("eigvalsh", "linalg_eigh", "linalg_cholesky")
"""Operations on symmetric matrices: their derivatives are those on the space of symmetric matrices."""


def _is_symmetric(matrix: torch.Tensor) -> bool:
    """Tell a symmetric (Hermitian) matrix, up to rounding."""
    size = float(matrix.abs().max()) if matrix.numel() else 0.0
    eps = torch.finfo(matrix.dtype).eps
    return bool(((matrix - matrix.mH).abs() <= 1024 * eps * size).all())


def _argsort(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell equal entries along the sorted axis."""
    dims = [a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)]
    values = args[0].sort(kwargs.get("dim", dims[0] if dims else -1)).values
    axis = kwargs.get("dim", dims[0] if dims else -1)
    return bool((values.diff(dim=axis) == 0).any())


def _bucket(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell a value that is equal to a boundary."""
    del kwargs
    first, second = (torch.as_tensor(a) for a in args[:2])
    return bool(torch.isin(first.reshape(-1), second.reshape(-1)).any())


def _zero(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Tell an entry 0."""
    del kwargs
    return bool((args[0] == 0).any())


TESTS: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "argsort": _argsort,
    "bucketize": _bucket,
    "searchsorted": _bucket,
    "nonzero": _zero,
    "count_nonzero": _zero,
    "logic": _zero,
    "signbit": _zero,
    "is_nonzero": _zero,
}
"""How ties of discrete steps are told, by their label or their record."""


class TorchDependences(Dependences):
    """What the result of a torch program depends on, sorted by how."""

    written_only = frozenset(RUNNING_STATISTICS)
    tests = TESTS

    def beside(self) -> frozenset[int]:
        """Give the embeddings with a row that has no gradient, and the operations on symmetric matrices."""
        return self._padded() | self._halves()

    def _padded(self) -> frozenset[int]:
        """Give the embeddings with a padding row."""
        steps = self.program.steps
        return frozenset(k for k in self.reached if steps[k].attributes.get("padding_idx") not in (None, -1))

    def _halves(self) -> frozenset[int]:
        """Give the operations that read one triangle."""
        return frozenset(k for k in self.reached if self.program.steps[k].operation.name in ONE_TRIANGLE)

    def found_beside(self, calls: Mapping[int, tuple[Any, Any]]) -> list[Severed]:
        """List the triangles and padding rows that torch's derivatives leave out."""
        found = []
        for step in (self.program.steps[k] for k in sorted(self._halves())):
            if not _is_symmetric(calls[step.index][0][0]):
                message = (
                    f"{step} reads one triangle of a matrix that is not symmetric; torch differentiates its symmetric "
                    "part"
                )
                found.append(Severed("triangle", step, message))
        for step in (self.program.steps[k] for k in sorted(self._padded())):
            if bool((calls[step.index][0][1] == step.attributes["padding_idx"]).any()):
                message = (
                    f"{step} reads the row of its padding_idx, to which torch gives no gradient although the value "
                    "depends on it"
                )
                found.append(Severed("detached", step, message))
        return found
