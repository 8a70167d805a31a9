"""Eigenproblems, singular values, the matrix exponential: elementary as a whole, with counts that are stated.

No finite scalar program gives eigenvalues. What stands here are conventions that are stated, not derived: the leading terms
of the usual algorithms, half of them products and half additions, whatever a library runs and however often it iterates.
Pullbacks are those of the formulas by which frameworks differentiate them, by the number of their products of matrices.

Source: GolubVanLoan2013.
"""

from __future__ import annotations

from collections import Counter
from math import prod

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers
from nonsmooth.cost.tally import Whole

__all__: list[str] = []


def _operations(count: float) -> Counter[str]:
    """Split a count of operations into products and additions."""
    whole = round(count)
    return Counter(mul=whole - whole // 2, add=whole // 2)


def _product(m: float, k: float, n: float) -> float:
    """Count a product of matrices."""
    return 2 * m * k * n


def _whole(call: Called, name: str, evaluation: float, pull: float) -> list[Numbers]:
    """State what one matrix costs; a pushed direction costs what a pulled one does."""
    x = call.x
    stack = prod(x.shape[:-2])
    moving = any(o.moving for o in call.operands)
    each = [_operations(stack * n) for n in (evaluation, pull if moving else 0)]
    numbers = sum(o.size for o in call.operands if o.moving)
    call.tally.wholes.append(Whole(name, each[0], Counter(), each[1], Counter(each[1]), numbers))
    return [x.like(shape, moving) for shape in call.results]


@define("linalg_eigh")
def symmetric_eigenproblem(call: Called) -> list[Numbers]:
    """A = V diag(l) V': 9 n^3; back, V (diag g + F o (V' G)) V' is three products."""
    n = call.x.shape[-1]
    return _whole(call, "linalg_eigh", 9 * n**3, 3 * _product(n, n, n) + 3 * n * n)


@define("eigvalsh")
def symmetric_eigenvalues(call: Called) -> list[Numbers]:
    """The eigenvalues alone: 4 n^3 / 3; back, the vectors that are then needed, and V diag(g) V'."""
    n = call.x.shape[-1]
    return _whole(call, "eigvalsh", 4 * n**3 / 3, (9 - 4 / 3) * n**3 + _product(n, n, n) + n * n)


@define("linalg_eig")
def eigenproblem(call: Called) -> list[Numbers]:
    """A = V diag(l) V^-1: 25 n^3, in complex numbers; back, two products and a solution, each of four real ones."""
    n = call.x.shape[-1]
    return _whole(call, "linalg_eig", 25 * n**3, 4 * (2 * _product(n, n, n) + 8 * n**3 / 3))


@define("svdvals")
def singular_values(call: Called) -> list[Numbers]:
    """The singular values alone: 4 m n^2 - 4 n^3 / 3; back, the vectors that are then needed, and U diag(g) V'."""
    n, m = sorted(call.x.shape[-2:])
    values, whole = 4 * m * n**2 - 4 * n**3 / 3, 14 * m * n**2 + 8 * n**3
    return _whole(call, "svdvals", values, whole - values + _product(m, n, n) + m * n)


@define("linalg_svd")
def singular_decomposition(call: Called) -> list[Numbers]:
    """A = U S V': 14 m n^2 + 8 n^3; back, four products with each factor and two of n x n matrices."""
    n, m = sorted(call.x.shape[-2:])
    return _whole(call, "linalg_svd", 14 * m * n**2 + 8 * n**3, 4 * _product(m, n, n) + 2 * _product(n, n, n))


@define("linalg_pinv")
def pseudoinverse(call: Called) -> list[Numbers]:
    """V S^-1 U' of a singular value decomposition; back, -A+' G' A+' and two projections: six products."""
    n, m = sorted(call.x.shape[-2:])
    return _whole(call, "linalg_pinv", 14 * m * n**2 + 8 * n**3 + _product(n, n, m) + n * n, 6 * _product(m, n, n))


@define("linalg_matrix_exp")
def exponential(call: Called) -> list[Numbers]:
    """Give exp A by Taylor's polynomial of degree 18 in five products, which is stated: squarings depend on the values.

    Back, the exponential of a matrix of twice the size with a zero block: three products for each.

    Source: BaderBlanesCasas2019.
    """
    n = call.x.shape[-1]
    return _whole(call, "linalg_matrix_exp", 5 * _product(n, n, n), 15 * _product(n, n, n))
