"""Singular operations: at their bad points they are not Lipschitz, and outside the theory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nonsmooth.dictionary.operation import Array, Call, Kind, Singularity, device_of

__all__ = ["SINGULARS"]


def _singular(name: str, kink: str, distance: Callable[[Call], Array], summary: str) -> Singularity:
    """Record a singular operation."""
    return Singularity(name=name, kind=Kind.SINGULAR, kink=kink, distance=distance, summary=summary)


def _from_zero(call: Call) -> Array:
    """Give u, of which only the positive part of the line is good; of complex u the distance to the rest of that line."""
    u, xp = call.operands[0], call.xp
    if not xp.isdtype(u.dtype, "complex floating"):
        return u
    return xp.where(xp.real(u) < 0, xp.abs(xp.imag(u)), xp.abs(u))


def _power_distance(call: Call) -> Array:
    """Give |u| where the exponent makes u^p not Lipschitz at 0, infinity elsewhere.

    A constant exponent 0 gives the constant 1; an exponent that moves makes a jump of it.
    """
    xp, u = call.xp, call.operands[0]
    p = xp.asarray(call.operands[1] if len(call.operands) > 1 else call.attributes["exponent"], device=device_of(u))
    u, p = xp.broadcast_arrays(u, p)
    bad = p < 1 if call.attributes.get("moving", False) else (p < 1) & (p != 0)
    return xp.where(bad, xp.abs(u), xp.full_like(u, float("inf")))


def _denominator(call: Call) -> Array:
    """Give |b|; a denominator that does not depend on the point is bad where it is 0, and cannot come nearer."""
    xp = call.xp
    b = xp.abs(xp.astype(call.operands[-1], call.result.dtype))
    return b if call.attributes.get("moving", True) else xp.where(b == 0, b, xp.full_like(b, float("inf")))


def _to_pole(call: Call) -> Array:
    """Give the distance to the nearest of the poles 0, -1, -2, ..."""
    u, xp = call.operands[-1], call.xp
    nearest = xp.round(xp.where(u > 0, xp.zeros_like(u), u))
    return xp.abs(u - nearest)


def _direction(call: Call) -> Array:
    """Give the norm of v over all axes but one, which `weight_norm` divides by."""
    v, xp, axis = call.operands[0], call.xp, call.attributes["dim"] % max(call.operands[0].ndim, 1)
    axes = tuple(a for a in range(v.ndim) if a != axis)
    return xp.max(xp.abs(v), axis=axes, keepdims=True) if axes else xp.abs(v)


def _to_half_line(xp: Any, real: Array, imaginary: Array) -> Array:
    """Give the distance of points of the plane to the half line of the negative numbers and 0."""
    return xp.where(real < 0, xp.abs(imaginary), xp.maximum(xp.abs(real), xp.abs(imaginary)))


def _to_cut(call: Call) -> Array:
    """Give the distance to 0, of complex numbers to the negative ones, where the angle jumps by 2 pi."""
    u, xp = call.operands[0], call.xp
    if not xp.isdtype(u.dtype, "complex floating"):
        return xp.abs(u)
    return _to_half_line(xp, xp.real(u), xp.imag(u))


def _reflected(call: Call) -> Array:
    """Give the smallest length of what Householder's reflections remove, and the smallest entry that they leave or meet.

    Where a column is zero below the diagonal it is not reflected: the sign of its entry of R is another one nearby. A
    column is reflected away from its first entry (its real part), so that the sign of R turns where that passes zero.
    """
    xp, a = call.xp, call.operands[0]
    m, n = a.shape[-2:]
    found = xp.full((*a.shape[:-2], 1), float("inf"), dtype=xp.real(a).dtype if _is_complex(xp, a) else a.dtype)
    for k in range(min(m, n)):
        v = a[..., k:, k]
        length = xp.sqrt(xp.sum(xp.abs(v) ** 2, axis=-1, keepdims=True))
        tail = xp.sqrt(xp.sum(xp.abs(v[..., 1:]) ** 2, axis=-1, keepdims=True)) if m - k > 1 else length
        first = xp.abs(xp.real(v[..., :1]) if _is_complex(xp, v) else v[..., :1])
        found = xp.minimum(xp.minimum(found, tail), first)
        size = xp.abs(v[..., :1])
        sign = xp.where(size > 0, v[..., :1] / xp.where(size > 0, size, xp.ones_like(size)), xp.ones_like(v[..., :1]))
        u = xp.concat((v[..., :1] + sign * length, v[..., 1:]), axis=-1)
        weight = xp.sum(xp.abs(u) ** 2, axis=-1)[..., None, None]
        block = a[..., k:, :]
        inner = xp.matmul(xp.conj(u)[..., None, :], block) if _is_complex(xp, a) else xp.matmul(u[..., None, :], block)
        block = block - 2 * u[..., :, None] * inner / xp.where(weight > 0, weight, xp.ones_like(weight))
        a = xp.concat((a[..., :k, :], block), axis=-2)
    return found


def _is_complex(xp: Any, u: Array) -> bool:
    """Tell complex numbers."""
    return bool(xp.isdtype(u.dtype, "complex floating"))


def _gap(values: Array, xp: Any) -> Array:
    """Give the smallest gap of neighbours along the last axis."""
    if values.shape[-1] < 2:
        return xp.full_like(values[..., :1], float("inf"))
    return xp.min(xp.abs(values[..., 1:] - values[..., :-1]), axis=-1, keepdims=True)


def _eigen_gap(call: Call) -> Array:
    """Give the smallest gap of the eigenvalues of a symmetric matrix: where it is 0 eigenvectors turn at once."""
    return _gap(call.xp.linalg.eigh(call.operands[0])[0], call.xp)


def _singular_gap(call: Call) -> Array:
    """Give the smallest gap of the singular values, or the smallest of them."""
    values = call.xp.linalg.svdvals(call.operands[0])
    return call.xp.minimum(_gap(values, call.xp), values[..., -1:])


def _smallest_singular_value(call: Call) -> Array:
    """Give the distance to the nearest matrix of lower rank."""
    return call.xp.linalg.svdvals(call.operands[0])[..., -1:]


SINGULARS: tuple[Singularity, ...] = (
    _singular("sqrt", "0", _from_zero, "the square root"),
    _singular("rsqrt", "0", _from_zero, "1 / sqrt(u)"),
    _singular("log", "0", _from_zero, "the natural logarithm"),
    _singular("log2", "0", _from_zero, "the logarithm of base 2"),
    _singular("log10", "0", _from_zero, "the logarithm of base 10"),
    _singular("log1mexp", "0", _from_zero, "log(1 - exp(-u))"),
    _singular("log1p", "-1", lambda c: c.operands[0] + 1, "log(1 + u)"),
    _singular("reciprocal", "0", lambda c: c.xp.abs(c.operands[0]), "1 / u"),
    _singular("div", "zero denominator", _denominator, "a / b"),
    _singular("addcdiv", "zero denominator", _denominator, "a + c b / d"),
    _singular("weight_norm", "zero direction", _direction, "g v / |v|"),
    _singular("lgamma", "pole", _to_pole, "the logarithm of the gamma function"),
    _singular("digamma", "pole", _to_pole, "the derivative of lgamma"),
    _singular("polygamma", "pole", _to_pole, "the derivatives of digamma"),
    _singular("special_zeta", "pole", _to_pole, "the zeta function of Hurwitz"),
    _singular("entr", "0", lambda c: c.operands[0], "-u log u"),
    _singular("xlog1py", "-1", lambda c: c.operands[1] + 1, "a log(1 + b)"),
    _singular("angle", "0 or the cut", _to_cut, "the angle of a complex number; 0 or pi of a real one"),
    _singular("pow", "0", _power_distance, "u^p"),
    _singular("norm_singular", "zero entry", lambda c: c.xp.abs(c.operands[0]), "the p-norm with p < 1"),
    _singular("linalg_eigh", "repeated eigenvalue", _eigen_gap, "eigenvectors of a symmetric matrix"),
    _singular("linalg_svd", "repeated or zero singular value", _singular_gap, "singular vectors"),
    _singular("linalg_slogdet", "singular matrix", _smallest_singular_value, "log |det A|"),
    _singular("linalg_pinv", "lower rank", _smallest_singular_value, "the pseudoinverse"),
    _singular("linalg_lstsq", "lower rank", _smallest_singular_value, "the least squares solution"),
    _singular("acos", "end of the domain", lambda c: 1 - c.xp.abs(c.operands[0]), "the inverse cosine"),
    _singular("asin", "end of the domain", lambda c: 1 - c.xp.abs(c.operands[0]), "the inverse sine"),
    _singular("acosh", "end of the domain", lambda c: c.operands[0] - 1, "the inverse hyperbolic cosine"),
    _singular("atanh", "end of the domain", lambda c: 1 - c.xp.abs(c.operands[0]), "the inverse hyperbolic tangent"),
    _singular("erfinv", "end of the domain", lambda c: 1 - c.xp.abs(c.operands[0]), "the inverse error function"),
    _singular(
        "ndtri", "end of the domain", lambda c: c.xp.minimum(c.operands[0], 1 - c.operands[0]), "the normal quantile"
    ),
    _singular(
        "logit", "end of the domain", lambda c: c.xp.minimum(c.operands[0], 1 - c.operands[0]), "log(u / (1 - u))"
    ),
    _singular(
        "betainc",
        "end of the domain",
        lambda c: c.xp.minimum(c.operands[0], 1 - c.operands[0]),
        "the regularised incomplete beta function of u, with parameters a and b",
    ),
    _singular(
        "atan2",
        "origin or the cut",
        lambda c: _to_half_line(c.xp, c.operands[1], c.operands[0]),
        "the angle of (b, a), which jumps where a = 0 and b < 0",
    ),
    _singular(
        "linalg_qr",
        "column that needs no reflection, or begins with 0",
        _reflected,
        "the factors Q and R: a sign of R turns there",
    ),
    _singular("xlogy", "0", lambda c: c.operands[1], "a log b"),
    _singular(
        "binary_cross_entropy",
        "probability 0 or 1",
        lambda c: c.xp.minimum(c.operands[0], 1 - c.operands[0]),
        "-t log u - (1 - t) log(1 - u)",
    ),
)
"""The singular operations of the dictionary."""
