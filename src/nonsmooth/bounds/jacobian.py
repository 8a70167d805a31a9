"""What the steps of a program do to tangents of an input: tight Lipschitz constants with respect to inputs.

The walk multiplies constants of steps. Here the derivative itself is carried: center Jacobians through affine and
entrywise steps, with what is unknown of them as further tangents, held by an `Ellipsoid`. The file is long because the
rules for steps that are linear (products, convolutions, moves) stand beside those for entrywise ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.bounds.ellipsoid import Ellipsoid
from nonsmooth.bounds.reach import Floats, Local, Reach, Shape, times
from nonsmooth.dictionary import OPERATIONS, Kind
from nonsmooth.program import Ref
from nonsmooth.program.affine import FACTORS

__all__ = ["InputTangents", "Tangent"]

ENTRIES = 2e7
"""The entries that the tangents of a value may have."""

WORK = 3e9
"""The multiplications that an ellipsoid may cost when a layer is added."""

TIGHTENED = 4e9
"""The multiplications that are spent at a value on better multipliers."""

COLUMNS = 3000
"""The tangents that are pushed one by one."""

STARTED = 2048
"""The size of a state that starts at an operand, at most."""

ROUNDS = 36
"""The steps of the iteration for better multipliers, at most."""

COMPRESSED = 320
"""The size of a state from which on it is compressed where the live values have fewer entries."""

LAST_AXIS = frozenset("linear addmm matmul mm".split())
"""Products that, for a fixed matrix, act on the last axis."""

BY_SAMPLE = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d".split()
)
"""Linear operations that do the same to every sample, which stand along the first axis."""

IN_ORDER = frozenset("view reshape flatten unflatten squeeze unsqueeze clone contiguous".split())
"""Operations that leave all entries in their order."""

NOT_LINEAR = frozenset(
    "compare equal logic integer create random nonzero item is_nonzero allclose nan_to_num nextafter lu_unpack constant "
    "fill zero complex real imag conj view_as_complex view_as_real".split()
)
"""Operations of the kinds affine and index that are not linear in their operands, have none, or complex ones."""

Evaluate: TypeAlias = Callable[..., "Floats | None"]


@dataclass(frozen=True, eq=False)
class Tangent:
    """The entries of a value, in their order, as groups that do not see each other: dz_g = F_g s_g.

    `rows` is F, of shape (R, n, k): R is the number of groups, or 1 where F is the same for all.
    """

    groups: int
    rows: Floats


@dataclass(frozen=True, eq=False)
class Taken:
    """A step as the rules see it: which operands depend on any block, what they reach, and how to run it."""

    operation: str
    items: Sequence[Any]
    operands: Sequence[Reach]
    moving: Sequence[int]
    attributes: Any
    shape: Shape
    evaluate: Evaluate

    def at(self, place: int, value: Floats) -> Floats | None:
        """Run the step at an operand, the others that move at 0."""
        taken: list[Floats | None] = [None] * len(self.operands)
        for p in self.moving:
            taken[p] = np.zeros(self.operands[p].shape)
        taken[place] = value
        found = self.evaluate(*taken)
        return None if found is None or not np.all(np.isfinite(found)) else found

    def linear(self, place: int, value: Floats) -> Floats | None:
        """Apply the linear part of the step in one operand."""
        there, zero = self.at(place, value), self.at(place, np.zeros_like(value))
        return None if there is None or zero is None else there - zero

    def probed(self, place: int) -> bool:
        """Tell that a step that should be linear in an operand multiplies with it at a probe."""
        probe = 7 * np.cos(1.0 + np.arange(self.operands[place].size)).reshape(self.operands[place].shape)
        one, other = self.linear(place, probe), self.linear(place, -2.5 * probe)
        return one is not None and other is not None and bool(np.allclose(-2.5 * one, other, 1e-9, 1e-9))

    @property
    def affine(self) -> bool:
        """Tell a step that is affine in all that moves."""
        if any(u.center is None for p, u in enumerate(self.operands) if p not in self.moving):
            return False
        if _kind(self.operation) in (Kind.AFFINE, Kind.INDEX):
            return self.operation not in NOT_LINEAR and not self.operation.startswith("fft_")
        if self.operation == "div":
            return list(self.moving) == [0]
        if self.operation == "einsum":
            return len(self.moving) == 1
        places = FACTORS.get(self.operation)
        return places is not None and sum(p in places for p in self.moving) <= 1


class InputTangents:
    """The tangents of all input blocks along a walk.

        l[a] <= ||F S^(1/2)||,    |z_i - center_i| <= sum_a (F S F')_ii^(1/2) radius_a

    Guarantee: both hold for every step that is affine in what moves, or entrywise with the slopes of its `Local`; after any
    other step a value starts anew from the constant of the walk, S = l^2 I. Where tangents would be too many (`ENTRIES`,
    `WORK`), the walk's constants stand alone.

    Source: XuSivaranjani2024, FazlyabEtAl2019; derived, docs/theory/bounds.md.
    """

    def __init__(self, inputs: Iterable[int], touched: Iterable[int], radii: Floats) -> None:
        self.blocks = [_OfBlock(place) for place in inputs]
        self.touched, self.radii = set(touched), radii

    def refine(
        self, call: Any, operands: Sequence[Reach], local: Local, value: int, found: Reach, evaluate: Evaluate
    ) -> Reach:
        """Give the reach of a step's result with what its tangents add to it."""
        items = [o.item for o in call.operands]
        moving = [p for p, item in enumerate(items) if isinstance(item, Ref) and item.value in self.touched]
        if not moving or not self.blocks or any(_is_complex(u) for u in (found, *operands)):
            return found
        taken = Taken(call.operation, items, operands, moving, call.attributes, found.shape, evaluate)
        lipschitz, entries = found.lipschitz.copy(), {}
        for block in self.blocks:
            bound = block.followed(taken, local, value, found)
            if bound is not None:
                lipschitz[block.place] = min(lipschitz[block.place], bound[0])
                entries[block.place] = bound[1]
        return _tightened(found, lipschitz, entries, self.radii) if entries else found

    def follow(self, read: Iterable[int], written: Sequence[int]) -> None:
        """Take note that values are written from others: what comes from a block depends on it."""
        if not self.touched.isdisjoint(read):
            self.touched.update(written)
        for block in self.blocks:
            block.changed = set(written)

    def release(self, values: Iterable[int]) -> None:
        """Let go of values that no later step reads."""
        for block in self.blocks:
            block.release(values)


def _tightened(found: Reach, lipschitz: Floats, entries: dict[int, Floats], radii: Floats) -> Reach:
    """Give a reach its better constants, and the intervals of its entries about its center."""
    if found.center is None or not np.isfinite(found.distance):
        return replace(found, lipschitz=lipschitz)
    distance = min(found.distance, float(np.sum(times(lipschitz, radii))) + found.error)
    away = np.full(found.shape, found.error)
    for place, radius in enumerate(radii):
        away = away + times(entries.get(place, lipschitz[place]), radius)
    if not np.all(np.isfinite(away)):
        return replace(found, lipschitz=lipschitz, distance=distance)
    center = np.asarray(found.center, float)
    away = away * (1 + 1e-12)
    low, high = np.maximum(found.low, center - away), np.minimum(found.high, center + away)
    norm = min(found.norm, float(np.linalg.norm(center)) * (1 + 1e-12) + distance)
    return replace(found, lipschitz=lipschitz, distance=distance, low=low, high=high, norm=norm)


class _OfBlock:
    """The tangents of one input block: those of the live values, all linear in one state."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.known: dict[int, Tangent] = {}
        self.state: Ellipsoid | None = None
        self.ready = False
        self.changed: set[int] = set()

    def followed(self, taken: Taken, local: Local, value: int, found: Reach) -> tuple[float, Floats] | None:
        """Push tangents through a step; where numbers become too large, start anew after it."""
        with np.errstate(all="ignore"):
            try:
                return self.advance(taken, local, value, found)
            except np.linalg.LinAlgError:
                self.state, self.known = None, {}
                return None

    def advance(self, taken: Taken, local: Local, value: int, found: Reach) -> tuple[float, Floats] | None:
        """Push tangents through a step; give bounds of its result's norm and entries for ||dx|| <= 1."""
        tangent, rounds = None, 0
        if not found.lipschitz[self.place] > 0:
            pass
        elif local.slopes is not None:
            tangent = self._entrywise(taken, local.slopes)
        elif taken.affine:
            tangent = self._affine(taken)
            rounds = 0 if tangent is None or self.state is None else self._rounds(tangent)
        for written in self.changed:
            self.known.pop(written, None)
        if tangent is None or self.state is None or not np.all(np.isfinite(tangent.rows)):
            return None
        self.known[value] = tangent
        self.ready = local.slopes is None
        bound = float(np.max(self.state.norm(tangent.rows, rounds)))
        entries = self.state.entries(tangent.rows)
        if not np.isfinite(bound) or not np.all(np.isfinite(entries)):
            del self.known[value]
            return None
        return bound, np.broadcast_to(entries, (tangent.groups, entries.shape[1])).reshape(found.shape)

    def _rounds(self, tangent: Tangent) -> int:
        """Give the number of steps of the iteration that the budget allows."""
        assert self.state is not None
        k, n = self.state.size, tangent.rows.shape[1]
        cost = self.state.rows * (3.0 * k**3 + k * k * n + 20.0 * min(k, n) ** 3)
        return min(ROUNDS, int(TIGHTENED / cost))

    def release(self, values: Iterable[int]) -> None:
        """Let go of values; compress the state where the live values are fewer numbers than it."""
        for value in values:
            self.known.pop(value, None)
        if self.state is None or not self.ready or self.state.size <= COMPRESSED or not self.known:
            return
        live = list(self.known.items())
        sizes = [t.rows.shape[1] for _, t in live]
        if sum(sizes) >= self.state.size or len({t.groups for _, t in live}) > 1:
            return
        rows = [_wide(t.rows, self.state.size) for _, t in live]
        many = max(len(r) for r in rows)
        self.state = self.state.moved(np.concatenate([np.broadcast_to(r, (many, *r.shape[1:])) for r in rows], axis=1))
        identity, ends = np.eye(sum(sizes))[None], np.cumsum(sizes)
        self.known = {
            v: Tangent(t.groups, identity[:, end - n : end]) for (v, t), n, end in zip(live, sizes, ends, strict=True)
        }
        self.ready = False

    def _started(self, taken: Taken, place: int) -> Tangent | None:
        """Start anew at an operand: its change is in a ball, for as many groups as the step leaves apart."""
        u, item = taken.operands[place], taken.items[place]
        constant = float(u.lipschitz[self.place])
        if not (0 < constant < 1e150) or not u.size or u.shape[-1:] > (STARTED,):
            return None
        if taken.operation in LAST_AXIS and place == taken.moving[-1] and _matrix(taken, place) is not None:
            groups = u.size // u.shape[-1]
        else:
            groups = u.shape[0] if len(u.shape) > 1 else 1
        n = u.size // groups
        if n * n > ENTRIES / 4 or n > STARTED:
            return None
        self.state = Ellipsoid(constant**2 * np.eye(n)[None])
        self.known = {item.value: Tangent(groups, np.eye(n)[None])}
        return self.known[item.value]

    # --- steps --------------------------------------------------------------------------------------------------------

    def _entrywise(self, taken: Taken, slopes: tuple[Floats, Floats]) -> Tangent | None:
        """Push through z = phi(y) entry by entry: dz = m dy + w, |w| <= rho |dy|."""
        place = taken.moving[0]
        if len(taken.moving) > 1 or taken.operands[place].shape != taken.shape:
            return None
        tangent = self.known.get(taken.items[place].value)
        if tangent is None or self.state is None:
            return None
        least, most = (_grouped(s, taken.shape, tangent.groups) for s in slopes)
        if not (np.all(np.isfinite(least)) and np.all(np.isfinite(most))):
            return None
        middle = (least + most) / 2
        radius = np.maximum(most - middle, middle - least) * (1 + 4e-16)
        unknown = np.flatnonzero(np.any(radius > 0, axis=0))
        k, u = self.state.size, len(unknown)
        count = max(len(radius), len(tangent.rows), self.state.rows)
        if count * u * (k + u) ** 2 > WORK or count * tangent.rows.shape[1] * (k + u) > ENTRIES:
            return None
        rows = middle[..., None] * tangent.rows
        if not u:
            return Tangent(tangent.groups, rows)
        seen = radius[:, unknown, None] * _wide(tangent.rows[:, unknown], k)
        self.state.add(seen, np.broadcast_to(radius[:, unknown], (len(seen), u)))
        own = np.broadcast_to(np.eye(tangent.rows.shape[1])[None][:, :, unknown], (len(rows), rows.shape[1], u))
        return Tangent(tangent.groups, np.concatenate([_wide(rows, k), own], axis=2))

    def _affine(self, taken: Taken) -> Tangent | None:
        """Push through a step that is affine in what moves: the sum of what its operands add."""
        own = [p for p in taken.moving if taken.operands[p].lipschitz[self.place] > 0]
        tangents = [self.known.get(taken.items[p].value) for p in own]
        if len(own) == 1 and tangents[0] is None:
            tangents = [self._started(taken, own[0])]
        parts = [None if t is None else _pushed(taken, p, t) for p, t in zip(own, tangents, strict=True)]
        if not parts or any(t is None for t in parts):
            return None
        found = [t for t in parts if t is not None]
        if len({t.groups for t in found}) > 1:
            return None
        width = max(t.rows.shape[2] for t in found)
        rows = sum((_wide(t.rows, width) for t in found[1:]), _wide(found[0].rows, width))
        return Tangent(found[0].groups, rows)


def _kind(operation: str) -> Kind | None:
    """Give the kind of an operation of the dictionary."""
    return OPERATIONS[operation].kind if operation in OPERATIONS else None


def _is_complex(u: Reach) -> bool:
    """Tell a value of complex numbers, as far as it is known."""
    return u.center is not None and np.iscomplexobj(u.center)


def _wide(rows: Floats, size: int) -> Floats:
    """Add columns of zeros for what a value does not depend on."""
    return np.pad(rows, ((0, 0), (0, 0), (0, size - rows.shape[2]))) if rows.shape[2] < size else rows


def _grouped(array: Floats, shape: Shape, groups: int) -> Floats:
    """Give an array in the groups of a value; one row where it is the same in all."""
    if np.ndim(array) == 0:
        return np.full((1, prod(shape) // groups), float(array))
    whole = np.broadcast_to(array, shape).reshape(groups, -1)
    return whole[:1] if np.all(whole == whole[:1]) else whole


# --- linear steps -----------------------------------------------------------------------------------------------------


def _pushed(taken: Taken, place: int, tangent: Tangent) -> Tangent | None:
    """Push tangents through the linear part of a step in one operand."""
    size = prod(taken.shape)
    if len(tangent.rows) * (size / tangent.groups) * tangent.rows.shape[2] > ENTRIES or not size:
        return None
    u = taken.operands[place]
    if taken.operation in IN_ORDER and size == u.size:
        return tangent
    if taken.operation in ("add", "sub") and u.shape == taken.shape:
        return _scaled(taken, place, tangent)
    matrix = _matrix(taken, place) if taken.operation in LAST_AXIS else None
    if matrix is not None:
        return _product(tangent, matrix, u.shape[-1])
    if taken.operation in BY_SAMPLE and place == 0:
        return _by_sample(taken, tangent)
    return _picked(taken, place, tangent) or _one_by_one(taken, place, tangent)


def _scaled(taken: Taken, place: int, tangent: Tangent) -> Tangent | None:
    """Push through a sum: times 1, -1 or alpha."""
    alpha = taken.attributes.get("alpha", 1)
    if not isinstance(alpha, int | float):
        return None
    factor = 1.0 if place == 0 else float(alpha) * (-1.0 if taken.operation == "sub" else 1.0)
    return Tangent(tangent.groups, factor * tangent.rows)


def _matrix(taken: Taken, place: int) -> Floats | None:
    """Give W of a product Y = X W' that acts on the last axis of an operand; None for any other."""
    x, first = taken.operands[place], 1 if taken.operation == "addmm" else 0
    if place != first or len(taken.operands) <= first + 1 or not x.shape:
        return None
    other = taken.operands[first + 1].center
    if other is None or np.ndim(other) != 2 or np.iscomplexobj(other):
        return None
    matrix = np.asarray(other, float) if taken.operation == "linear" else np.asarray(other, float).T
    contracted = taken.attributes.get("contracted")
    if contracted is not None:
        (left, right), beside = contracted, taken.attributes.get("beside", ((), ()))
        if list(left) != [len(x.shape) - 1] or len(right) != 1 or any(len(b) for b in beside):
            return None
        matrix = np.asarray(other, float) if right[0] == 1 else np.asarray(other, float).T
    if taken.operation == "addmm":
        alpha = taken.attributes.get("alpha", 1)
        matrix = matrix * float(alpha if alpha is not None else 1)
    fits = matrix.shape[1] == x.shape[-1] and taken.shape == (*x.shape[:-1], matrix.shape[0])
    return matrix if fits else None


def _product(tangent: Tangent, matrix: Floats, width: int) -> Tangent | None:
    """Push through Y = X W': W times every row of a group."""
    many, n, k = tangent.rows.shape
    if n % width:
        return None
    rows = matrix @ tangent.rows.reshape(many, n // width, width, k)
    return Tangent(tangent.groups, rows.reshape(many, -1, k))


def _by_sample(taken: Taken, tangent: Tangent) -> Tangent | None:
    """Push through an operation that does the same to every sample: all tangents as one batch."""
    shape, (many, n, k) = taken.operands[0].shape, tangent.rows.shape
    if len(shape) < 2 or tangent.groups != shape[0] or n != prod(shape[1:]) or taken.shape[:1] != shape[:1]:
        return _one_by_one(taken, 0, tangent)
    batch = np.ascontiguousarray(np.moveaxis(tangent.rows, 2, 1)).reshape(many * k, *shape[1:])
    found, zero = taken.at(0, batch), taken.at(0, np.zeros((1, *shape[1:])))
    if found is None or zero is None or found.shape != (many * k, *taken.shape[1:]):
        return None
    return Tangent(tangent.groups, np.moveaxis((found - zero).reshape(many, k, -1), 1, 2))


def _picked(taken: Taken, place: int, tangent: Tangent) -> Tangent | None:
    """Push through an operation that only picks entries, within groups: it is asked where they come from."""
    u, size = taken.operands[place], prod(taken.shape)
    if _kind(taken.operation) is not Kind.INDEX or u.size > 1e6 or size > 1e6:
        return None
    numbers = np.arange(1.0, u.size + 1).reshape(u.shape)
    found, other = taken.linear(place, numbers), taken.linear(place, np.cos(numbers))
    if found is None or other is None or found.shape != taken.shape:
        return None
    at = np.rint(found).astype(np.int64).reshape(-1)
    expected = np.concatenate([[0.0], np.cos(numbers).reshape(-1)])
    if np.any(at < 0) or np.any(at > u.size) or not np.allclose(expected[at], other.reshape(-1), 0, 1e-9):
        return None
    groups = tangent.groups
    if size % groups:
        return None
    n, local = u.size // groups, at.reshape(groups, -1) - 1
    inside = np.where(local >= 0, local - n * np.arange(groups)[:, None], -1)
    if np.any((local >= 0) & ((inside < 0) | (inside >= n))):
        return None
    if len(tangent.rows) == 1 and np.any(inside != inside[:1]):
        return None
    inside = inside[: len(tangent.rows)] if len(tangent.rows) == 1 else inside
    padded = np.concatenate([tangent.rows, np.zeros((len(tangent.rows), 1, tangent.rows.shape[2]))], axis=1)
    return Tangent(groups, np.take_along_axis(padded, np.where(inside < 0, n, inside)[:, :, None], axis=1))


def _one_by_one(taken: Taken, place: int, tangent: Tangent) -> Tangent | None:
    """Push one tangent after the other, where the value is one group."""
    k = tangent.rows.shape[2]
    if tangent.groups != 1 or k > COLUMNS or not taken.probed(place):
        return None
    shape = taken.operands[place].shape
    zero = taken.at(place, np.zeros(shape))
    columns = []
    for column in np.moveaxis(tangent.rows[0], 1, 0):
        found = taken.at(place, np.ascontiguousarray(column).reshape(shape))
        if found is None or zero is None or found.shape != taken.shape:
            return None
        columns.append((found - zero).reshape(-1))
    return Tangent(1, np.stack(columns, axis=1)[None])
