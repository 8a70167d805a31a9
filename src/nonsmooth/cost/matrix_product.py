"""p directional derivatives of a relu network are a product of matrices; one reverse sweep more, and so are those of a scalar one.

The network relu(A x) - relu(-A x) is A x, so that its one-sided derivatives at 0 along the columns of B are the columns of
A B. Those of a scalar network are p numbers; but a network can be written whose derivatives add up to the trace of C A B,
and the reverse sweep of that sum with respect to C is (A B)'. Hence p directional derivatives cost a product of matrices,
up to the factor 5 of the reverse sweep, while one gradient costs no more than 5 evaluations.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nonsmooth.cost.checks import check_arrays
from nonsmooth.derivatives.backprop import backprop, capture
from nonsmooth.derivatives.directional import directional
from nonsmooth.errors import UsageError
from nonsmooth.frameworks.framework import Framework, find_framework

__all__ = [
    "TracePoint",
    "product_by_directions",
    "product_by_reverse_sweep",
    "product_network",
    "sum_of_derivatives",
    "trace_by_directions",
    "trace_network",
]


class TracePoint(NamedTuple):
    """A point of the scalar network: what the matrices act on, shape (k,), and which output is wanted, shape (n,)."""

    y: Any
    s: Any


def product_network(x: Any, A: Any) -> Any:
    """Evaluate a relu network that is linear, and at 0 has a kink at every relu.

        F(x) = relu(A x) - relu(-A x) = A x,   F'(0; v) = A v

    Args:
        x: the point, shape (k,).
        A: shape (m, k).

    >>> import torch
    >>> product_network(torch.tensor([1.0, -1.0]), torch.tensor([[2.0, 3.0]]))
    tensor([-1.])

    Source: derived, docs/theory/matrix_product.md.
    """
    relu = check_arrays("product_network", {"x": (x, "k"), "A": (A, "mk")}).relu
    u = A @ x
    return relu(u) - relu(-u)


def product_by_directions(A: Any, B: Any) -> Any:
    """Multiply matrices by one-sided derivatives: n of them, of a relu network at a point where all its relus tie.

        A B = [F'(0; b_1) .. F'(0; b_n)],   F(x) = relu(A x) - relu(-A x)

    Status: `computed`.

    Args:
        A: shape (m, k).
        B: shape (k, n), its columns the directions.

    Returns:
        The product, shape (m, n).

    Raises:
        UsageError: no two matrices of one framework, or their shapes do not fit.

    >>> import torch
    >>> A, B = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [-1.0, 1.0]])
    >>> product_by_directions(A, B).tolist(), (A @ B).tolist()
    ([[-2.0, 3.0], [-4.0, 7.0]], [[-2.0, 3.0], [-4.0, 7.0]])

    Source: BolteBoustanyPauwelsPesquet2023, derived, docs/theory/matrix_product.md.
    """
    framework, (A, B) = _matrices("product_by_directions", A, B)
    origin = framework.array_like(A, np.zeros(A.shape[1]))
    program = capture(product_network, origin, A)
    return framework.stack([directional(program, origin, B[:, j], A) for j in range(B.shape[1])])


def trace_network(x: TracePoint, A: Any, C: Any, level: Any) -> Any:
    """Evaluate a scalar relu network whose derivative at 0 along (v, e_j) is the j-th entry of C A v.

        F(y, s) = sum_j relu(z_j + g_j) - relu(g_j),   z = C (relu(A y) - relu(-A y)),   g_j = T (2 s_j - sum_k s_k)

    At s = e_j the j-th gate g_j is T and opens, the others are -T and stay shut: F(v, e_j) = (C A v)_j, if no entry of
    C A v is larger than T. F is positively homogeneous, so that F'(0; v, e_j) is the same number.

    Args:
        x: the point (y, s), shapes (k,) and (n,).
        A: shape (m, k).
        C: shape (n, m).
        level: T, a positive scalar.

    >>> import torch
    >>> A, C = torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0], [-1.0]])
    >>> trace_network(TracePoint(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])), A, C, torch.tensor(8.0))
    tensor(-5.)

    Source: derived, docs/theory/matrix_product.md.
    """
    y, s = _pair(x)
    arrays = {"y": (y, "k"), "s": (s, "n"), "A": (A, "mk"), "C": (C, "nm")}
    if not isinstance(level, int | float):
        arrays["level"] = (level, "")
    relu, u = check_arrays("trace_network", arrays).relu, A @ y
    z, g = C @ (relu(u) - relu(-u)), level * (s + s - s.sum())
    return (relu(z + g) - relu(g)).sum()


def trace_by_directions(A: Any, B: Any, C: Any) -> Any:
    """Give n one-sided derivatives of one scalar relu network at 0, whose sum is the trace of C A B.

        F'(0; b_j, e_j) = (C A B)_jj

    Status: `computed`.

    Args:
        A: shape (m, k).
        B: shape (k, n).
        C: shape (n, m).

    Returns:
        The derivatives, shape (n,).

    Raises:
        UsageError: no three matrices of one framework, or their shapes do not fit.

    >>> import torch
    >>> A, B = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [-1.0, 1.0]])
    >>> trace_by_directions(A, B, torch.eye(2)).tolist()
    [-2.0, 7.0]

    Source: derived, docs/theory/matrix_product.md.
    """
    framework, (A, B) = _matrices("trace_by_directions", A, B)
    _, (C, _) = _matrices("trace_by_directions", C, A)
    n = B.shape[1]
    if C.shape[0] != n:
        raise UsageError(
            f"trace_by_directions: C A B has the shape {(C.shape[0], n)}, and a trace needs a square matrix."
        )
    bound = float(np.max(abs(framework.numpy(C)) @ abs(framework.numpy(A)) @ abs(framework.numpy(B))))
    if not math.isfinite(2 * bound):
        raise UsageError("trace_by_directions: the products of A, B and C overflow; scale the matrices.")
    level = framework.array_like(A, 2.0 ** math.ceil(math.log2(bound)) if bound > 1 else 1.0)
    origin = TracePoint(*(framework.array_like(A, np.zeros(size)) for size in (A.shape[1], n)))
    program = capture(trace_network, origin, A, C, level)
    units = framework.array_like(A, np.eye(n))
    return framework.stack([directional(program, origin, TracePoint(B[:, j], units[j]), A, C, level) for j in range(n)])


def sum_of_derivatives(C: Any, A: Any, B: Any) -> Any:
    """Run the forward sweep of the scalar network at 0 along all n directions, and add the derivatives up.

        S(C) = sum_j F'(0; b_j, e_j) = tr(C A B),   for |C A B| < 1 entry by entry (T = 1)

    At 0 the one-sided rule of relu sends a tangent w to relu(w): the sweep is this program. As a function of C it is
    differentiable at 0, whatever A and B are.

    Args:
        C: shape (n, m).
        A: shape (m, k).
        B: shape (k, n).

    >>> import torch
    >>> A, B = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [-1.0, 1.0]])
    >>> sum_of_derivatives(torch.tensor([[0.125, 0.0], [0.0, 0.125]]), A, B), torch.trace(A @ B) / 8
    (tensor(0.6250), tensor(0.6250))

    Source: derived, docs/theory/matrix_product.md.
    """
    framework = check_arrays("sum_of_derivatives", {"C": (C, "nm"), "A": (A, "mk"), "B": (B, "kn")})
    relu, u = framework.relu, A @ B
    z, g = C @ (relu(u) - relu(-u)), framework.array_like(A, 2.0 * np.eye(B.shape[1]) - 1.0)
    return (relu(z + g) - relu(g)).sum()


def product_by_reverse_sweep(A: Any, B: Any) -> Any:
    """Multiply matrices by one reverse sweep over the sum of n one-sided derivatives of a scalar relu network.

        A B = (dS/dC (0))',   S(C) = sum_j F'(0; b_j, e_j) = tr(C A B)

    Status: `computed`.

    Args:
        A, B: the factors, shapes (m, k) and (k, n).

    Returns:
        The product, shape (m, n).

    Raises:
        UsageError: no two matrices of one framework, or their shapes do not fit.

    >>> import torch
    >>> A, B = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [-1.0, 1.0]])
    >>> product_by_reverse_sweep(A, B).tolist()
    [[-2.0, 3.0], [-4.0, 7.0]]

    Source: BaurStrassen1983, derived, docs/theory/matrix_product.md.
    """
    framework, (A, B) = _matrices("product_by_reverse_sweep", A, B)
    start = framework.array_like(A, np.zeros((B.shape[1], A.shape[0])))
    return backprop(sum_of_derivatives, start, A, B).T


def _pair(x: Any) -> tuple[Any, Any]:
    """Read a point of the scalar network."""
    if isinstance(x, tuple) and len(x) == 2:
        return x
    raise UsageError(f"trace_network: the point is a TracePoint(y, s); found a {type(x).__name__}.")


def _matrices(asked: str, A: Any, B: Any) -> tuple[Framework, tuple[Any, Any]]:
    """Check that two arrays are matrices of one framework and type that can be multiplied."""
    framework = find_framework(A)
    if not (framework.holds(A) and framework.holds(B)):
        raise UsageError(
            f"{asked}: the matrices are of the types {type(A).__module__}.{type(A).__name__} and "
            f"{type(B).__module__}.{type(B).__name__}; pass two arrays of one framework."
        )
    A, B = framework.detached(A), framework.detached(B)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[0] or 0 in (*A.shape, *B.shape):
        raise UsageError(
            f"{asked}: matrices of the shapes {tuple(A.shape)} and {tuple(B.shape)} cannot be multiplied; the first needs as "
            "many columns as the second has rows, and neither may be empty."
        )
    if A.dtype != B.dtype or not framework.xp.isdtype(A.dtype, "real floating"):
        raise UsageError(
            f"{asked}: the matrices are of the types {A.dtype} and {B.dtype}; pass two of the same floating type."
        )
    if not framework.finite([A, B]):
        raise UsageError(f"{asked}: a matrix holds nan or infinity.")
    return framework, (A, B)
