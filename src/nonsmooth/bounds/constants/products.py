"""Products of arrays: every entry of the result is a sum of products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from math import prod, sqrt

import numpy as np

from nonsmooth.bounds.constants.known import extremes
from nonsmooth.bounds.constants.multilinear import SumOfProducts
from nonsmooth.bounds.constants.record import Called, bound_operation
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times
from nonsmooth.bounds.sizes import UNIT

__all__ = ["plus", "times_number"]

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def times_number(local: Local, factor: float) -> Local:
    """Give the constants of factor phi.

    >>> times_number(Local([2.0], norm=1.0, low=0.0, high=1.0), -3.0).lipschitz
    [6.0]
    """
    if factor == 1:
        return local
    ends = times(factor, local.low), times(factor, local.high)
    size = abs(factor)
    return replace(
        local,
        lipschitz=[float(times(size, c)) for c in local.lipschitz],
        smoothness={k: float(times(size, c)) for k, c in local.smoothness.items()},
        norm=float(times(size, local.norm)),
        low=np.minimum(*ends),
        high=np.maximum(*ends),
        slopes=None,
    )


def plus(local: Local, shape: Shape, added: Reach, factor: float = 1.0, *, first: bool = False) -> Local:
    """Give the constants of phi + factor b: b spreads over the result, each entry sqrt(copies) times.

    Its place among the operands is the last one, or the first.
    """
    copies = sqrt(prod(shape) / added.size) if added.size else 0.0
    slope = abs(factor) * copies
    ends = _spreadable(added, shape, np.asarray(local.low).shape)
    ends = (factor * ends[0], factor * ends[1]) if factor >= 0 else (factor * ends[1], factor * ends[0])
    if factor == 0:
        ends = np.zeros(()), np.zeros(())
    low, high = _add(local.low, ends[0]), _add(local.high, ends[1])
    slack = 2 * UNIT * (np.abs(low) + np.abs(high) + np.abs(ends[0]) + np.abs(ends[1]))
    slack = np.where(np.isfinite(slack), slack, 0.0)
    move = 1 if first else 0
    bends = {(i + move, j + move): c for (i, j), c in local.smoothness.items()}
    lipschitz = [slope, *local.lipschitz] if first else [*local.lipschitz, slope]
    return Local(lipschitz, bends, local.norm + float(times(slope, added.norm)), low - slack, high + slack)


def _spreadable(added: Reach, shape: Shape, other: Shape) -> tuple[Floats, Floats]:
    """Give the interval of what is added: one for each entry where what it is added to has one, else one for all."""
    if other == shape != () and _lines_up(added.shape, shape):
        return added.interval
    low, high = extremes(added)
    return np.asarray(low), np.asarray(high)


def _lines_up(one: Shape, other: Shape) -> bool:
    """Tell whether an array spreads over a shape."""
    try:
        return np.broadcast_shapes(one, other) == other
    except ValueError:
        return False


def _add(a: Floats | float, b: Floats | float) -> Floats:
    """Add ends of intervals, of which infinite ones have one sign."""
    return np.asarray(np.add(a, b), float)


def _letters(call: Called, operands: Sequence[Reach], names: Sequence[str], result: str, shape: Shape) -> Local:
    """Give the constants of a sum of products."""
    return SumOfProducts(tuple(operands), tuple(names), result, shape, call.budget).local()


def _matrices(a: Shape, b: Shape) -> tuple[str, str, str]:
    """Spell the product of two stacks of matrices, or of vectors."""
    wide = max(len(a), len(b), 2) - 2
    stack = _LETTERS[3 : 3 + wide]
    left = "k" if len(a) == 1 else stack[wide - len(a) + 2 :] + "ik".replace("i", "a")
    right = "k" if len(b) == 1 else stack[wide - len(b) + 2 :] + "kc"
    return left, right, stack * (max(len(a), len(b)) > 2) + "a" * (len(a) > 1) + "c" * (len(b) > 1)


def _contraction(call: Called) -> tuple[str, str, str] | None:
    """Spell a product whose axes the attributes name: those beside each other, those left of both."""
    (left, right), (one, two) = call.attributes["contracted"], call.attributes["beside"]
    free = iter(_LETTERS)
    names = [[""] * len(u.shape) for u in call.operands[:2]]
    for i, j in chain(zip(one, two, strict=True), zip(left, right, strict=True)):
        names[0][i] = names[1][j] = next(free)
    beside = [names[0][i] for i in one]
    rest: list[str] = []
    for u in names:
        for axis, c in enumerate(u):
            if not c:
                u[axis] = next(free)
                rest.append(u[axis])
    return "".join(names[0]), "".join(names[1]), "".join(beside + rest)


@bound_operation("matmul", "mm", "bmm", "mv", "dot", "vdot")
def product(call: Called) -> Local:
    """C = A B: ||D_A|| = the largest operator norm of the matrices B, ||D_B|| that of A, ||D_A D_B|| = 1.

    The derivative to A is U -> U B, whose norm is ||B||_op: at most ||B||, and ||center||_op + distance. Tight.

    Source: RouletHarchaoui2019.
    """
    a, b = call.operands[:2]
    if len(call.operands) > 2 or ("terms" in call.attributes and "contracted" not in call.attributes and _turned(call)):
        return _unspelled(call)
    spelled = _contraction(call) if "contracted" in call.attributes else _matrices(a.shape, b.shape)
    return _unspelled(call) if spelled is None else _letters(call, (a, b), spelled[:2], spelled[2], call.shape)


def _turned(call: Called) -> bool:
    """Tell a product that does not contract the last axis of one with the last but one of the other."""
    a, b = call.operands[:2]
    if not a.shape or not b.shape or a.shape[-1] != b.shape[max(len(b.shape) - 2, 0)]:
        return True
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if _fits(a.shape[:-2], b.shape[:-2]) else None
    return stack is None or (*stack, *a.shape[-2:-1], *(b.shape[-1:] if len(b.shape) > 1 else ())) != call.shape


def _fits(one: Shape, other: Shape) -> bool:
    """Tell shapes that spread over each other."""
    try:
        np.broadcast_shapes(one, other)
    except ValueError:
        return False
    return True


def _unspelled(call: Called) -> Local:
    """Bound a product of which only the norms can be used: each entry of one array meets one row of the other."""
    a, b = call.operands[:2]
    norm = float(times(a.norm, b.norm))
    rest = [0.0] * (len(call.operands) - 2)
    return Local([b.norm, a.norm, *rest], {(0, 1): 1.0}, norm, -norm, norm)


@bound_operation("inner")
def inner(call: Called) -> Local:
    """C_ij = sum_k A_ik B_jk: the constants of A B'; a number multiplies. Tight."""
    a, b = call.operands
    left, right = _LETTERS[1 : max(len(a.shape), 1)], _LETTERS[25 : 24 + max(len(b.shape), 1)]
    if not a.shape or not b.shape:
        whole = _LETTERS[: max(len(a.shape), len(b.shape))]
        return _letters(call, (a, b), (whole if a.shape else "", whole if b.shape else ""), whole, call.shape)
    return _letters(call, (a, b), (left + "a", right + "a"), left + right, call.shape)


@bound_operation("outer")
def outer(call: Called) -> Local:
    """C_ij = a_i b_j: ||D_a|| = ||b||, ||D_b|| = ||a||, ||D_a D_b|| = 1. Tight."""
    return _letters(call, call.operands, ("a", "b"), "ab", call.shape)


@bound_operation("linear")
def linear(call: Called) -> Local:
    """Y = X W' + b: ||D_X|| = ||W||_op, ||D_W|| = ||X||_op, ||D_X D_W|| = 1, ||D_b|| = sqrt(rows). Tight.

    W is a matrix of outputs by inputs, X of rows by inputs; their operator norms are at most their norms.

    Source: RouletHarchaoui2019.
    """
    x, weight = call.operands[:2]
    stack = _LETTERS[2 : 1 + len(x.shape)]
    names = (stack + "a", "ba" if len(weight.shape) == 2 else "a")
    local = _letters(call, (x, weight), names, stack + ("b" if len(weight.shape) == 2 else ""), call.shape)
    return plus(local, call.shape, call.operands[2]) if len(call.operands) > 2 else local


@bound_operation("addmm", "addmv", "addbmm", "baddbmm", "addr")
def sum_and_product(call: Called) -> Local:
    """Give beta C + alpha A B: alpha times the constants of A B; ||D_C|| = |beta| sqrt(copies of C). Tight."""
    c, a, b = call.operands[:3]
    beta, alpha = call.number("beta", 1), call.number("alpha", 1)
    if call.operation == "addr":
        names = ("a", "b", "ab")
    elif call.operation == "addbmm":
        names = ("zak", "zkc", "ac")
    else:
        names = _matrices(a.shape, b.shape)
    local = times_number(_letters(call, (a, b), names[:2], names[2], call.shape), alpha)
    return plus(local, call.shape, c, beta, first=True)


@bound_operation("bilinear")
def bilinear(call: Called) -> Local:
    """y_o = x' W_o z + b_o: each derivative is at most the product of the other norms; ||D_b|| = sqrt(rows).

    Second derivatives have the norm of the third array. Attained by arrays of rank 1.
    """
    x, z, weight = call.operands[:3]
    stack = _LETTERS[3 : 2 + len(x.shape)]
    local = _letters(call, (x, z, weight), (stack + "a", stack + "b", "cab"), stack + "c", call.shape)
    return plus(local, call.shape, call.operands[3]) if len(call.operands) > 3 else local


@bound_operation("kron")
def kronecker(call: Called) -> Local:
    """Every entry of A times every entry of B: ||D_A|| = ||B||, ||D_B|| = ||A||, ||D_A D_B|| = 1. Tight."""
    a, b = call.operands
    d = max(len(a.shape), len(b.shape))
    left, right = _LETTERS[:d], _LETTERS[d : 2 * d]
    result = "".join(chain.from_iterable(zip(left, right, strict=True)))
    return _letters(call, (a, b), (left[d - len(a.shape) :], right[d - len(b.shape) :]), result, call.shape)


@bound_operation("einsum")
def einsum(call: Called) -> Local:
    """Sums of products by an equation: the constants of `SumOfProducts`. Tight for two arrays without lonely letters."""
    left, arrow, result = call.attributes["equation"].replace(" ", "").partition("->")
    parts = left.split(",")
    spare = [c for c in _LETTERS if c not in left]
    wide = max((len(u.shape) - len(p) + 3 for p, u in zip(parts, call.operands, strict=True) if "..." in p), default=0)
    dots = "".join(spare[:wide])
    held = [len(u.shape) - len(p) + 3 for p, u in zip(parts, call.operands, strict=True)]
    names = [p.replace("...", dots[len(dots) - h :] if h > 0 else "") for p, h in zip(parts, held, strict=True)]
    if not arrow:
        once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    return _letters(call, call.operands, names, result.replace("...", dots), call.shape)


@bound_operation("cross", "linalg_cross")
def cross(call: Called) -> Local:
    """Give w = u x v for vectors along an axis: ||D_u|| = the largest ||v_p||, ||D_v|| that of u, ||D_u D_v|| = 1. Tight.

    |u x v| <= |u| |v|, with equality for orthogonal vectors; of an array that spreads the copies add as squares.
    """
    u, v = call.operands
    lipschitz = []
    for moving, other in ((u, v), (v, u)):
        copies = sqrt(prod(call.shape) / moving.size) if moving.size else 0.0
        longest = sqrt(3) * other.peak
        if other.center is not None and not np.iscomplexobj(other.center):
            axis = call.attributes["axes"][0] - len(call.shape)
            lengths = np.linalg.norm(np.asarray(other.center, float), axis=axis)
            longest = min(longest, float(np.max(lengths, initial=0.0)) + other.distance)
        lipschitz.append(min(other.norm, float(times(copies, longest))))
    bound = min(float(times(u.norm, v.norm)), float(times(2 * u.peak, v.peak)))
    norm = min(float(times(u.norm, v.norm)), *(float(times(c, w.norm)) for c, w in zip(lipschitz, (u, v), strict=True)))
    return Local(lipschitz, {(0, 1): 1.0}, norm, -bound, bound)
