"""Cones: norms of a linear map, kinked where the map is zero.

F = ||A x||_p with A linear. For 1 < p < inf the only kink is A x = 0, where the set is A' (the unit ball of the dual
norm); p = 1 also switches at every zero entry of A x, and p = inf is an order operation of its absolute entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.dictionary.operation import (
    Along,
    Array,
    Call,
    Kind,
    Nonsmooth,
    Rule,
    counted,
    device_of,
    entries,
    lexicographic_sign,
    on_host,
    reduced_axes_last,
)
from nonsmooth.dictionary.order import behind_the_first, check_tie_rule, largest_along, tie_blocks, tie_shares
from nonsmooth.dictionary.switch import far_unless
from nonsmooth.dictionary.weights import Block, DualBall, cross_polytope, segment
from nonsmooth.errors import ConventionError

__all__ = ["CONES", "Cone"]


@dataclass(frozen=True, kw_only=True)
class Cone(Nonsmooth):
    """The p-norm of a linear map of the operands.

    `image(call, operands)` applies the map and lays the entries that belong to one norm along a last axis;
    `exponent(call)` is p. The rule at the zero vector is "zero" or 0 (the centre of the dual ball), "nan", or an array
    of the image's shape in the dual ball.

    Source: Clarke1983.
    """

    kind: Kind = Kind.CONE
    kinks: tuple[str, ...] = ("zero vector", "zero entry", "tie")
    image: Callable[[Call, tuple[Array, ...]], Array] = field(repr=False)
    exponent: Callable[[Call], float] = field(repr=False, default=lambda call: 2.0)

    def margins(self, call: Call) -> dict[str, Array]:
        """Give the distances to the kinks of each norm.

        The largest |entry|, which is the distance to the zero vector in the maximum norm; for p = 1 every |entry|; for
        p = inf also the gap to the second largest |entry|. Laid out as the norms (p = 1: as the entries).
        """
        xp, p = call.xp, self.exponent(call)
        size = xp.abs(self.image(call, call.operands))
        if p == 1:
            return {"zero entry": size}
        largest = xp.max(size, axis=-1)
        margins = {"zero vector": xp.reshape(largest, call.result.shape)}
        if p == float("inf"):
            at_best = size == largest[..., None]
            alone = xp.sum(counted(xp, at_best), axis=-1) <= 1
            rest = xp.max(xp.where(at_best, xp.full_like(size, -float("inf")), size), axis=-1)
            gap = xp.where(alone, largest - rest, xp.zeros_like(largest))
            margins["tie"] = xp.reshape(gap, call.result.shape)
        return margins

    def active(self, call: Call, tol: float = 0.0) -> dict[str, Array]:
        """Give the masks; a tie at the zero vector is no kink of its own."""
        masks = {name: margin <= tol for name, margin in self.margins(call).items()}
        if "tie" in masks:
            masks["tie"] = masks["tie"] & ~masks["zero vector"]
        return masks

    def slope(self, call: Call, rules: Mapping[str, Rule], tol: float = 0.0) -> Array:
        """Give the derivative of each norm with respect to its entries, under the weights."""
        along = next((r for r in rules.values() if isinstance(r, Along)), None)
        if along is None or tol:
            return self._slope(call, rules, tol)
        return along.once("slope", lambda: self._slope(call, rules, tol))

    def _slope(self, call: Call, rules: Mapping[str, Rule], tol: float) -> Array:
        """Compute the derivative of each norm with respect to its entries."""
        xp, p = call.xp, self.exponent(call)
        d = self.image(call, call.operands)
        size = xp.abs(d)
        if p == 1:
            return xp.where(size <= tol, self._sign_at_zero(call, rules["zero entry"], d), xp.sign(d))
        largest = xp.max(size, axis=-1, keepdims=True)
        at_zero = largest <= tol
        if p == float("inf"):
            tied = xp.astype(largest - size <= tol, d.dtype)
            slope = xp.sign(d) * self._shares(call, rules["tie"], tied, xp.sign(d))
        else:
            slope = _dual_vector(xp, d, p, at_zero)
        return xp.where(at_zero, self._dual(call, rules["zero vector"], d), slope)

    def _sign_at_zero(self, call: Call, weight: Rule, d: Array) -> Array:
        """Give the slope of |entry| at a zero entry."""
        if isinstance(weight, Along):
            sign = lexicographic_sign(call.xp, weight.map(lambda tangents: self.image(call, tangents)))
            return call.xp.astype(sign, d.dtype)
        if isinstance(weight, str):
            raise ConventionError(f"at_kinks gives {weight!r} for {self.name!r} at a zero entry: it takes a number.")
        return (2 * weight - 1) * call.xp.ones_like(d)

    def _shares(self, call: Call, rule: Rule, tied: Array, sign: Array) -> Array:
        """Give the weights of the entries that tie for the largest absolute value."""
        xp = call.xp
        check_tie_rule(rule, self.name)
        if isinstance(rule, Along):
            moved = rule.map(lambda tangents: sign * self.image(call, tangents))
            rule, tied = "even", largest_along(xp, tied, moved)
        return tie_shares(xp, tied, rule, lambda weights: xp.broadcast_to(weights, sign.shape))

    def _dual(self, call: Call, rule: Rule, like: Array) -> Array:
        """Read the element of the dual ball at the zero vector: along v, the gradient of the norm at the image of v."""
        xp, p = call.xp, self.exponent(call)
        if isinstance(rule, Along):
            moved = rule.map(lambda tangents: self.image(call, tangents))
            first = moved[0]
            for other in moved[1:]:
                first = xp.where(xp.max(xp.abs(first), axis=-1, keepdims=True) == 0, other, first)
            at_zero = xp.max(xp.abs(first), axis=-1, keepdims=True) == 0
            if p == float("inf"):
                sign = lexicographic_sign(xp, moved)
                dual = sign * self._shares(call, rule, xp.ones_like(sign), sign)
            else:
                dual = _dual_vector(xp, first, p, at_zero)
            return xp.astype(xp.where(at_zero, xp.zeros_like(dual), dual), like.dtype)
        if isinstance(rule, str):
            if rule not in ("zero", "nan"):
                raise ConventionError(
                    f"at_kinks gives {rule!r} for {self.name!r} at the zero vector: use 'zero' or an array."
                )
            return xp.full_like(like, 0.0 if rule == "zero" else float("nan"))
        return xp.full_like(like, float(rule)) if isinstance(rule, int | float) else rule

    def push(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...], tol: float = 0.0) -> Array:
        """Give <slope, A (tangents)>."""
        xp = call.xp
        moved = self.image(call, tangents)
        return xp.reshape(xp.sum(self.slope(call, rules, tol) * moved, axis=-1), call.result.shape)

    def arguments_along(self, call: Call, rules: Mapping[str, Rule], tangents: tuple[Array, ...]) -> dict[str, Array]:
        """Give the largest |entry of the image of the tangents| at zero vectors, |entry| at zero entries, gaps at ties."""
        xp, p, masks = call.xp, self.exponent(call), self.active_under(call, rules)
        d, moved = self.image(call, call.operands), self.image(call, tangents)
        if p == 1:
            return {"zero entry": far_unless(xp, masks["zero entry"], moved)}
        shape = (*moved.shape[:-1], 1)
        at_zero = xp.reshape(masks["zero vector"], shape)
        found = {"zero vector": far_unless(xp, at_zero, xp.max(xp.abs(moved), axis=-1, keepdims=True))}
        if p == float("inf"):
            slope = self.slope(call, rules)
            size = xp.abs(d)
            tied = at_zero | (size == xp.max(size, axis=-1, keepdims=True))
            sign = self._signs(call, rules, d, at_zero)
            behind = behind_the_first(xp, tied, xp.abs(slope), sign * moved)
            decided = xp.reshape(masks["tie"], shape) | at_zero
            found["tie"] = xp.where(decided, behind, xp.full_like(behind, float("inf")))
        return found

    def cut(self, call: Call, tol: float = 0.0) -> tuple[Mapping[str, Rule], list[Block]]:
        """Start at the centre of the dual ball, on the left of zero entries, at the first of tied entries."""
        xp, p, masks = call.xp, self.exponent(call), self.active(call, tol)
        image = self.image(call, call.operands)
        width = image.shape[-1]
        if p == 1:
            zeros = np.flatnonzero(on_host(masks["zero entry"]))

            def moved(tangents: Sequence[Array]) -> Array:
                return 2.0 * entries(xp, self.image(call, tuple(tangents)), zeros)[:, None]

            block = Block("zero entry", segment(), (zeros // max(width, 1))[:, None], moved)
            return {"zero entry": 0.0}, [block] if len(zeros) else []
        rules: dict[str, Rule] = {"zero vector": "zero"}
        if p == float("inf"):
            rules["tie"] = "first"
        blocks, rows = [], np.flatnonzero(on_host(masks["zero vector"]))
        if len(rows) and width:
            chosen = rows[:, None] * width + np.arange(width)
            ball = cross_polytope(width) if p == float("inf") else DualBall(width, p)
            blocks.append(
                Block("zero vector", ball, rows[:, None], lambda t: entries(xp, self.image(call, tuple(t)), chosen))
            )
        if "tie" in masks:
            size, sign = xp.abs(image), xp.sign(image)
            tied = on_host(xp.max(size, axis=-1, keepdims=True) - size <= tol).reshape(-1, width)
            tied = tied & on_host(masks["tie"]).reshape(-1, 1)
            blocks += tie_blocks(xp, tied, np.arange(len(tied)), lambda t: sign * self.image(call, tuple(t)))
        return rules, blocks

    def _signs(self, call: Call, rules: Mapping[str, Rule], d: Array, at_zero: Array) -> Array:
        """Give the signs of the entries, at a zero vector those that the rule gives them."""
        rule = rules["zero vector"]
        if not isinstance(rule, Along):
            return call.xp.sign(d)
        moved = rule.map(lambda tangents: self.image(call, tangents))
        return call.xp.where(at_zero, lexicographic_sign(call.xp, moved), call.xp.sign(d))


def _dual_vector(xp: Any, d: Array, p: float, at_zero: Array) -> Array:
    """Give the gradient of the p-norm, 1 < p < inf, at vectors that are not zero."""
    size = xp.abs(d)
    largest = xp.max(size, axis=-1, keepdims=True)
    ratio = size / xp.where(at_zero, xp.ones_like(largest), largest)
    norm = xp.sum(ratio**p, axis=-1, keepdims=True) ** ((p - 1) / p)
    return xp.sign(d) * ratio ** (p - 1) / xp.where(at_zero, xp.ones_like(norm), norm)


def _reduced(call: Call, operands: tuple[Array, ...]) -> Array:
    """Lay the entries of each norm along a last axis."""
    return reduced_axes_last(call, operands[0])


def _deviations(call: Call, operands: tuple[Array, ...]) -> Array:
    """Give (u - mean u) / sqrt(n - correction), whose 2-norm is the standard deviation; exactly 0 where u is constant."""
    flat = _reduced(call, operands)
    n = max(flat.shape[-1] - float(call.attributes.get("correction", 1)), 0.0)
    flat = flat - flat[..., :1]
    return (flat - call.xp.mean(flat, axis=-1, keepdims=True)) / n**0.5 if n else flat * float("nan")


def _pairs(call: Call, operands: tuple[Array, ...]) -> Array:
    """Give the differences of all rows of a and all rows of b."""
    a, b = operands
    return a[..., :, None, :] - b[..., None, :, :]


def _own_pairs(call: Call, operands: tuple[Array, ...]) -> Array:
    """Give the differences of the rows i < j."""
    (a,), xp = operands, call.xp
    n = a.shape[0]
    first = [i for i in range(n) for _ in range(i + 1, n)]
    second = [j for i in range(n) for j in range(i + 1, n)]
    index = [xp.asarray(np.asarray(k, dtype=np.int64), device=device_of(a)) for k in (first, second)]
    return xp.take(a, index[0], axis=0) - xp.take(a, index[1], axis=0)


def _parts(call: Call, operands: tuple[Array, ...]) -> Array:
    """Lay real and imaginary part along a last axis."""
    (u,), xp = operands, call.xp
    return xp.stack((xp.real(u), xp.imag(u)), axis=-1)


def _p(name: str) -> Callable[[Call], float]:
    """Read the exponent from an attribute."""
    return lambda call: 2.0 if call.attributes.get(name) is None else float(call.attributes[name])


CONES: tuple[Cone, ...] = (
    Cone(name="vector_norm", image=_reduced, exponent=_p("ord"), summary="the p-norm along axes, p >= 1"),
    Cone(name="norm", image=_reduced, exponent=_p("p"), summary="the p-norm along axes, p >= 1"),
    Cone(name="std", image=_deviations, kinks=("zero vector",), summary="the standard deviation along axes"),
    Cone(
        name="hypot",
        image=lambda call, ab: call.xp.stack(call.xp.broadcast_arrays(*ab), axis=-1),
        kinks=("zero vector",),
        summary="sqrt(a^2 + b^2)",
    ),
    Cone(name="complex_abs", image=_parts, kinks=("zero vector",), summary="|u| of a complex number"),
    Cone(
        name="dist", image=lambda call, ab: (ab[0] - ab[1]).reshape(-1), exponent=_p("p"), summary="the p-norm of a - b"
    ),
    Cone(name="cdist", image=_pairs, exponent=_p("p"), summary="the p-norms of the differences of rows of a and b"),
    Cone(name="pdist", image=_own_pairs, exponent=_p("p"), summary="the p-norms of the differences of rows"),
)
"""The cones of the dictionary."""
