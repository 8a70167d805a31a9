"""Linear algebra as scalar programs: elimination with pivots, substitution, Cholesky's and Householder's algorithms.

Each is a loop over columns, of operations on what is left of the array; leading axes count matrices.

One family of algorithms that share their loops, hence a long file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.definitions.products import matrix_product
from nonsmooth.cost.numbers import Numbers, Shape

__all__ = ["reflected", "solved_upper", "triangle"]


def _part(a: Numbers, rows: slice, columns: slice) -> Numbers:
    """Show a part of every matrix."""
    shape = (len(range(*rows.indices(a.shape[-2]))), len(range(*columns.indices(a.shape[-1]))))
    return a.alias((*a.shape[:-2], *shape), lambda u: u[..., rows, columns])


def _row(a: Numbers, i: int) -> Numbers:
    """Show one row of every matrix as a matrix."""
    return _part(a, slice(i, i + 1), slice(None))


def _column(a: Numbers, j: int) -> Numbers:
    """Show one column of every matrix as a matrix."""
    return _part(a, slice(None), slice(j, j + 1))


def _joined(parts: list[Numbers], axis: int) -> Numbers:
    """Show matrices under (-2) or beside (-1) each other."""
    parts = [p for p in parts if p.shape[axis]] or parts[:1]
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    return parts[0].joined(parts[1:], tuple(shape), lambda *a: np.concatenate(a, axis)) if len(parts) > 1 else parts[0]


def _turned(a: Numbers) -> Numbers:
    """Show every matrix transposed."""
    return a.alias((*a.shape[:-2], a.shape[-1], a.shape[-2]), lambda u: u.swapaxes(-1, -2))


def _flipped(a: Numbers, rows: bool = True, columns: bool = True) -> Numbers:
    """Show every matrix with its rows and columns in the other order."""
    axes = tuple(x for x, taken in ((-2, rows), (-1, columns)) if taken)
    return a.alias(a.shape, lambda u: np.flip(u, axes))


def _matrix(call: Called, shape: Shape, how: Any) -> Numbers:
    """Write down a matrix that is known."""
    return call.x.known(shape, how)


# --- elimination ------------------------------------------------------------------------------------------------------


def _pivoted(a: Numbers, column: int, *others: Numbers) -> list[Numbers]:
    """Swap the largest entry of a column to the first row: sizes, and n - 1 comparisons among n."""
    size = _column(a, column).detached().apply("abs")
    a.tally.add("compare", "", size.size - size.size // max(size.shape[-2], 1))

    def swap(ids: Any, values: Any) -> Any:
        best = np.argmax(values[..., 0], -1)[..., None]
        order = np.broadcast_to(np.arange(values.shape[-2]), values.shape[:-1]).copy()
        np.put_along_axis(order, best, 0, -1)
        order[..., 0] = best[..., 0]
        return np.take_along_axis(ids, np.broadcast_to(order[..., None], ids.shape), -2)

    return [m.alias(m.shape, swap, size) for m in (a, *others)]


def _eliminated(a: Numbers, width: int, order: Numbers | None = None) -> tuple[Numbers, Numbers | None]:
    """Eliminate the first columns: rows of U and, below, the factors; in place, with pivots (the order of the rows)."""
    done: list[Numbers] = []
    orders: list[Numbers] = []
    for k in range(min(a.shape[-2], width)):
        if order is None:
            (a,) = _pivoted(a, k)
        else:
            a, order = _pivoted(a, k, order)
            orders.append(_row(order, 0))
            order = _part(order, slice(1, None), slice(None))
        first, rest = _row(a, 0), _part(a, slice(1, None), slice(None))
        done.append(first)
        if rest.shape[-2] == 0:
            a = rest
            break
        factors = _column(rest, k) / _part(first, slice(None), slice(k, k + 1))
        after = slice(k + 1, None)
        trailing = _part(rest, slice(None), after) - factors * _part(first, slice(None), after)
        a = _joined([_part(rest, slice(None), slice(0, k)), factors, trailing], -1)
    whole = _joined([*done, a], -2) if done else a
    return whole, _joined([*orders, order], -2) if orders and order is not None else order


def solved_upper(u: Numbers, b: Numbers, unit: bool = False) -> Numbers:
    """U X = B, from the last row: one quotient, then a product and a difference for every row above."""
    found: list[Numbers] = []
    for i in reversed(range(u.shape[-1])):
        x = _row(b, i)
        x = x if unit else x / _part(u, slice(i, i + 1), slice(i, i + 1))
        found.insert(0, x)
        if i:
            above = slice(0, i)
            b = _part(b, above, slice(None)) - _part(u, above, slice(i, i + 1)) * x
    return _joined(found, -2) if found else b


def _solved_lower(lower: Numbers, b: Numbers, unit: bool = False) -> Numbers:
    """L X = B: the same from the first row."""
    return _flipped(solved_upper(_flipped(lower), _flipped(b, columns=False), unit), columns=False)


def _solved(a: Numbers, b: Numbers) -> Numbers:
    """A X = B: elimination beside B, then substitution."""
    n = a.shape[-1]
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = a.alias((*stack, *a.shape[-2:]), lambda u: np.broadcast_to(u, (*stack, *u.shape[-2:])))
    b = b.alias((*stack, *b.shape[-2:]), lambda u: np.broadcast_to(u, (*stack, *u.shape[-2:])))
    both, _ = _eliminated(_joined([a, b], -1) if n else b, n)
    return solved_upper(_part(both, slice(None), slice(0, n)), _part(both, slice(None), slice(n, None)))


@define("lu_factor")
def lu(call: Called) -> Numbers:
    """P A = L U, packed: 2 n^3 / 3 operations."""
    return _eliminated(call.x, call.x.shape[-1])[0]


@define("linalg_lu")
def unpacked_lu(call: Called) -> None:
    """P A = L U, each an array of its own; a kernel that the dictionary opens, counted in the framework's own passes alone."""
    _eliminated(call.x, call.x.shape[-1])


@define("lu_unpack")
def unpacked(call: Called) -> list[Numbers]:
    """P, L and U out of one array: moves alone."""
    packed, pivots = call.operands
    m, n = packed.shape[-2:]
    stack, k = packed.shape[:-2], min(m, n)

    def order(pivots: Any) -> Any:
        found = np.zeros((*stack, m, m))
        for at in np.ndindex(stack):
            rows = list(range(m))
            for i, p in enumerate(pivots[at].astype(int) - 1):
                rows[i], rows[p] = rows[p], rows[i]
            found[(*at, rows, range(m))] = 1.0
        return found

    ones, zeros = (packed.known((), lambda *_, v=v: np.array(v)) for v in (1.0, 0.0))

    def lower(one: Any, zero: Any, a: Any) -> Any:
        a = np.where(np.tri(m, k, -1, dtype=bool), a[..., :k], zero)
        return np.where(np.eye(m, k, dtype=bool), one, a)

    def upper(one: Any, zero: Any, a: Any) -> Any:
        return np.where(np.tri(k, n, -1, dtype=bool), zero, a[..., :k, :])

    parts = [ones.joined([zeros, packed], (*stack, *s), v) for s, v in (((m, k), lower), ((k, n), upper))]
    return [pivots.known(call.results[0], order, pivots), *parts]


@define("linalg_inv", "linalg_inv_ex")
def inverse(call: Called) -> Numbers:
    """A^-1 = U^-1 L^-1 P: 2 n^3 operations, a third each for L^-1, for elimination twice that, the rest for U^-1."""
    a, n = call.x, call.x.shape[-1]
    if not n:
        return a
    packed, order = _eliminated(a, n, _places(a))
    found = solved_upper(packed, _inverse_of_unit(packed))

    def back(ids: Any, order: Any) -> Any:
        columns = np.broadcast_to(order.astype(int).swapaxes(-1, -2), ids.shape)
        found = np.empty_like(ids)
        np.put_along_axis(found, columns, ids, -1)
        return found

    assert order is not None
    return found.alias(found.shape, back, order)


def _places(a: Numbers) -> Numbers:
    """Number the rows of every matrix."""
    shape = (*a.shape[:-1], 1)
    return a.known(shape, lambda *_: np.broadcast_to(np.arange(shape[-2])[:, None], shape))


def _inverse_of_unit(lower: Numbers) -> Numbers:
    """Invert a lower triangle with ones on its diagonal, only below which there is work."""
    n, stack, done = lower.shape[-1], lower.shape[:-2], []
    left = _part(lower, slice(None), slice(0, 0))
    for i in range(n):
        row, rest = _row(left, 0), _part(left, slice(1, None), slice(None))
        shape = (*stack, 1, n - i)
        done.append(_joined([row, lower.known(shape, lambda *_, s=shape: np.eye(1, s[-1]) + np.zeros(s))], -1))
        factors = _part(lower, slice(i + 1, None), slice(i, i + 1))
        if factors.shape[-2]:
            left = _joined([rest - factors * row, -factors], -1)
    return _joined(done, -2)


@define("linalg_solve", "custom_linear_solve")
def solution(call: Called) -> Numbers:
    """A X = B, or X A = B: elimination beside B, then substitution."""
    if len(call.operands) == 4:
        return _tridiagonal(call)
    a, b = call.operands[:2]
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    if vector:
        b = b.alias((*b.shape, 1), lambda u: u[..., None])
    found = _solved(a, b) if call.attributes.get("left", True) else _turned(_solved(_turned(a), _turned(b)))
    return found.alias(call.shape, lambda u: u.reshape(call.shape))


def _tridiagonal(call: Called) -> Numbers:
    """Three diagonals and B: one sweep down and one up."""
    low, middle, up, b = call.operands
    rows, columns = max(b.shape[-2] - 1, 0), b.shape[-1]
    each = middle.like((*middle.shape[:-1], rows), any(o.moving for o in (low, middle, up)))
    pivots = middle.alias(each.shape) - low.alias(each.shape) * (up.alias(each.shape) / each)
    wide = b.like((*b.shape[:-2], rows, columns), b.moving or pivots.moving)
    column = pivots.alias((*each.shape, 1))
    down = wide - low.alias(column.shape) * wide
    _ = down - (up.alias(column.shape) * wide)
    return b.like(b.shape, b.moving or pivots.moving) / middle.alias((*middle.shape, 1))


@define("linalg_lu_solve")
def solved_by_factors(call: Called) -> Numbers:
    """L U X = P B, packed, or its transpose from either side."""
    lu, pivots, b = call.operands
    left, adjoint = call.attributes.get("left", True), bool(call.attributes.get("adjoint"))
    if not left:
        b, adjoint = _turned(b), not adjoint
    n = lu.shape[-1]

    def permuted(ids: Any, order: Any) -> Any:
        found, order = ids.copy(), order.astype(int) - 1
        steps = range(n)
        for at in np.ndindex(order.shape[:-1]):
            for k in reversed(steps) if adjoint else steps:
                found[(*at, [k, order[(*at, k)]])] = found[(*at, [order[(*at, k)], k])]
        return found

    if adjoint:
        found = _solved_lower(_turned(lu), b)
        found = solved_upper(_turned(lu), found, unit=True)
        found = found.alias(found.shape, permuted, pivots)
    else:
        found = _solved_lower(lu, b.alias(b.shape, permuted, pivots), unit=True)
        found = solved_upper(lu, found)
    return found if left else _turned(found)


@define("linalg_ldl_solve")
def solved_by_ldl(call: Called) -> Numbers:
    """L D L' X = B: two triangles and a division by each pivot."""
    ldl, b = call.operands[0], call.operands[-1]
    found = _solved_lower(ldl, b, unit=True) / ldl.alias((*ldl.shape[:-1], 1))
    return solved_upper(_turned(ldl), found, unit=True)


@define("linalg_det")
def determinant(call: Called) -> Numbers:
    """The product of the pivots, with the sign of their order."""
    return _determinant(call)[0]


@define("linalg_slogdet")
def logarithm_of_determinant(call: Called) -> list[Numbers]:
    """The sign, and the sum of the logarithms of the sizes of the pivots."""
    _, sign, pivots = _determinant(call, product=False)
    return [sign, pivots.apply("abs").apply("log").sum(-1)]


def _determinant(call: Called, product: bool = True) -> tuple[Numbers, Numbers, Numbers]:
    """Give the determinant, its sign, and the pivots."""
    a, n = call.x, call.x.shape[-1]
    start = _places(a)
    packed, order = _eliminated(a, n, start)
    pivots = packed.alias((*a.shape[:-2], n), lambda u: np.diagonal(u, axis1=-2, axis2=-1))

    def parity(order: Any) -> Any:
        found = np.ones(order.shape[:-2])
        for at in np.ndindex(found.shape):
            row = order[at][:, 0]
            found[at] = (-1.0) ** sum(int(row[i] > row[j]) for i in range(n) for j in range(i + 1, n))
        return found

    sign = pivots.known(a.shape[:-2], parity, start if order is None else order)
    if product:
        return pivots.product(-1) * sign, sign, pivots
    return pivots, pivots.detached().apply("sign").product(-1) * sign, pivots


# --- triangles --------------------------------------------------------------------------------------------------------


def triangle(parts: list[Numbers], like: Numbers, lower: bool = True) -> Numbers:
    """Show columns of a lower triangle (rows of an upper one), each from the diagonal on, as a matrix."""
    n = like.shape[-1]
    zeros = parts[0].known((*like.shape[:-2], n, n), lambda *_: np.zeros((*like.shape[:-2], n, n)))

    def view(zeros: Any, *columns: Any) -> Any:
        found = zeros.copy()
        for j, column in enumerate(columns):
            found[..., j:, j] = column[..., 0]
        return found if lower else found.swapaxes(-1, -2)

    return zeros.joined(parts, zeros.shape, view)


@define("linalg_cholesky", "linalg_cholesky_ex")
def cholesky(call: Called) -> Numbers:
    """A = L L': n roots, n^3 / 3 operations; only one half of A is read, and what is left of it is kept flat."""
    a, n, columns = call.x, call.x.shape[-1], []
    if not n:
        return a
    stack = a.shape[:-2]

    def half(u: Any) -> Any:
        first, second = np.tril_indices(n)
        return u[..., first, second]

    rest = a.alias((*stack, n * (n + 1) // 2), half)
    for size in range(n, 0, -1):
        column = rest.alias((*stack, size), lambda u, n=size: u[..., np.tril_indices(n)[1] == 0])
        pivot = column.alias((*stack, 1), lambda u: u[..., :1]).apply("sqrt")
        below = column.alias((*stack, size - 1), lambda u: u[..., 1:]) / pivot
        shape = (*stack, size, 1)
        columns.append(pivot.joined([below], shape, lambda p, u: np.concatenate([p, u], -1)[..., None]))
        shape = (*stack, size * (size - 1) // 2)
        left = below.alias(shape, lambda u, n=size - 1: u[..., np.tril_indices(n)[0]])
        right = below.alias(shape, lambda u, n=size - 1: u[..., np.tril_indices(n)[1]])
        rest = rest.alias(shape, lambda u, n=size: u[..., np.tril_indices(n)[1] > 0]) - left * right
    return triangle(columns, a, not call.attributes.get("upper"))


@define("linalg_solve_triangular", "triangular_solve")
def solved_triangle(call: Called) -> Numbers:
    """T X = B, or X T = B."""
    (b, a) = call.operands if _first_is_right(call) else call.operands[::-1]
    upper = bool(call.attributes.get("upper", not call.attributes.get("lower", False)))
    left = bool(call.attributes.get("left", call.attributes.get("left_side", True)))
    turned = bool(call.attributes.get("transpose", call.attributes.get("transpose_a", False)))
    unit = bool(call.attributes.get("unitriangular", call.attributes.get("unit_diagonal", False)))
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    b = b.alias((*stack, *b.shape[-2:]), lambda u: np.broadcast_to(u, (*stack, *u.shape[-2:])))
    if not left:
        b, turned = _turned(b), not turned
    if turned:
        a, upper = _turned(a), not upper
    found = (solved_upper if upper else _solved_lower)(a, b, unit)
    return found if left else _turned(found)


def _first_is_right(call: Called) -> bool:
    """Tell whether the right-hand side is the first operand: in the oldest of the operators."""
    return call.attributes.get("given") == ("self", "A")


@define("cholesky_solve")
def solved_by_cholesky(call: Called) -> Numbers:
    """L L' X = B."""
    b, factor = call.operands
    return _by_cholesky(call, factor, b)


def _by_cholesky(call: Called, factor: Numbers, b: Numbers) -> Numbers:
    """Solve by both triangles."""
    upper = _turned(factor) if not call.attributes.get("upper") else factor
    return solved_upper(upper, _solved_lower(_turned(upper), b))


@define("cholesky_inverse")
def inverse_by_cholesky(call: Called) -> Numbers:
    """(L L')^-1, by both triangles."""
    n = call.x.shape[-1]
    return _by_cholesky(call, call.x, _matrix(call, call.x.shape, lambda *_: np.broadcast_to(np.eye(n), call.x.shape)))


# --- reflections ------------------------------------------------------------------------------------------------------


def reflected(b: Numbers, v: Numbers, tau: Numbers) -> Numbers:
    """(I - tau v v') B, where v starts with 1: for every column two sums of products and a difference."""
    rest = _part(b, slice(1, None), slice(None))
    first = _row(b, 0)
    inner = (first + matrix_product(_turned(v), rest) if v.shape[-2] else first) * tau
    top = first - inner
    return _joined([top, rest - v * inner], -2) if v.shape[-2] else top


def _reflections(a: Numbers) -> tuple[Numbers, list[Numbers], list[Numbers]]:
    """Give R of Householder's algorithm, and the vectors (below their 1) and factors of the reflections."""
    m, n = a.shape[-2:]
    rows, vectors, factors = [], [], []
    for _ in range(min(m, n)):
        alpha, below = _part(a, slice(0, 1), slice(0, 1)), _part(a, slice(1, None), slice(0, 1))
        if below.shape[-2]:
            squares = matrix_product(_turned(below), below)
            length = (alpha.apply("square") + squares).apply("sqrt")
            beta = -(alpha.detached().apply("sign") * length)
            tau = (beta - alpha) / beta
            v = below / (alpha - beta)
            vectors.append(v)
            factors.append(tau)
            rest = _part(a, slice(None), slice(1, None))
            rest = reflected(rest, v, tau) if rest.shape[-1] else rest
            rows.append(_joined([beta, _row(rest, 0)], -1))
            a = _part(rest, slice(1, None), slice(None))
        else:
            rows.append(a)
    return _upper(rows, m, n), vectors, factors


def _upper(rows: list[Numbers], m: int, n: int) -> Numbers:
    """Show rows of an upper triangle, each from the diagonal on."""
    k, stack = min(m, n), rows[0].shape[:-2]
    zeros = rows[0].known((*stack, k, n), lambda *_: np.zeros((*stack, k, n)))

    def view(zeros: Any, *parts: Any) -> Any:
        found = zeros.copy()
        for i, part in enumerate(parts):
            found[..., i, i:] = part[..., 0, :]
        return found

    return zeros.joined(rows, zeros.shape, view)


def _orthogonal(like: Numbers, vectors: list[Numbers], factors: list[Numbers], m: int, columns: int) -> Numbers:
    """Multiply reflections out, from the last one, where they meet what is no longer the identity."""
    stack = like.shape[:-2]
    q = like.known((*stack, m, columns), lambda *_: np.broadcast_to(np.eye(m, columns), (*stack, m, columns)))
    for i in reversed(range(len(vectors))):
        corner = reflected(_part(q, slice(i, None), slice(i, None)), vectors[i], factors[i])
        left = _part(q, slice(i, None), slice(0, i))
        lower = _joined([left, corner], -1) if i else corner
        q = _joined([_part(q, slice(0, i), slice(None)), lower], -2) if i else lower
    return q


@define("linalg_qr")
def qr(call: Called) -> list[Numbers]:
    """A = Q R by reflections: 2 n^2 (m - n / 3) operations for R, as many for Q."""
    a, (m, n) = call.x, call.x.shape[-2:]
    upper, vectors, factors = _reflections(a)
    if call.attributes.get("mode") == "r":
        return [a.known(call.results[0], lambda *_: np.zeros(call.results[0])), upper]
    columns = call.results[0][-1]
    q = _orthogonal(a, vectors, factors, m, columns)
    if columns > min(m, n):
        stack, more = a.shape[:-2], columns - min(m, n)
        zeros = upper.known((*stack, more, n), lambda *_: np.zeros((*stack, more, n)))
        upper = _joined([upper, zeros], -2)
    return [q, upper]


def _given_reflections(v: Numbers, tau: Numbers) -> tuple[list[Numbers], list[Numbers]]:
    """Read vectors and factors of reflections from arrays."""
    count = tau.shape[-1]
    vectors = [_part(v, slice(i + 1, None), slice(i, i + 1)) for i in range(count)]
    factors = [tau.alias((*tau.shape[:-1], 1, 1), lambda u, i=i: u[..., i, None, None]) for i in range(count)]
    return vectors, factors


@define("linalg_householder_product")
def householder_product(call: Called) -> Numbers:
    """The first columns of a product of reflections."""
    v, tau = call.operands
    vectors, factors = _given_reflections(v, tau)
    return _orthogonal(v, vectors, factors, *v.shape[-2:])


@define("ormqr")
def by_reflections(call: Called) -> Numbers:
    """Q C, Q' C, C Q or C Q', Q a product of reflections."""
    v, tau, c = call.operands
    left, adjoint = bool(call.attributes.get("left", True)), bool(call.attributes.get("transpose"))
    c, adjoint = (c, adjoint) if left else (_turned(c), not adjoint)
    vectors, factors = _given_reflections(v, tau)
    order = range(len(vectors)) if adjoint else reversed(range(len(vectors)))
    for i in order:
        lower = reflected(_part(c, slice(i, None), slice(None)), vectors[i], factors[i])
        c = _joined([_part(c, slice(0, i), slice(None)), lower], -2) if i else lower
    return c if left else _turned(c)


@define("linalg_lstsq")
def least_squares(call: Called) -> Numbers:
    """Minimise |A X - B| by reflections: R X = Q' B; of the shortest X where A is wide: X = Q R'^-1 B."""
    a, b = call.operands[:2]
    vector = b.ndim < a.ndim
    b = b.alias((*b.shape, 1), lambda u: u[..., None]) if vector else b
    m, n = a.shape[-2:]
    upper, vectors, factors = _reflections(a if m >= n else _turned(a))
    if m >= n:
        for i, (v, tau) in enumerate(zip(vectors, factors, strict=True)):
            lower = reflected(_part(b, slice(i, None), slice(None)), v, tau)
            b = _joined([_part(b, slice(0, i), slice(None)), lower], -2) if i else lower
        found = solved_upper(upper, _part(b, slice(0, n), slice(None)))
    else:
        inner = _solved_lower(_turned(upper), b)
        columns = b.shape[-1]
        zeros = inner.known(
            (*inner.shape[:-2], n - m, columns), lambda *_: np.zeros((*inner.shape[:-2], n - m, columns))
        )
        found = _joined([inner, zeros], -2)
        for i in reversed(range(len(vectors))):
            lower = reflected(_part(found, slice(i, None), slice(None)), vectors[i], factors[i])
            found = _joined([_part(found, slice(0, i), slice(None)), lower], -2) if i else lower
    return found.alias(call.shape, lambda u: u.reshape(call.shape))
