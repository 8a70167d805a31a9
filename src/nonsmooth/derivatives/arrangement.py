"""Arrangements of many kinks: Clarke's set as a sum over parts of the point's space that have nothing to do with each other.

Thousands of kinks often compare a few linear forms: at the initialisation of a network every relu of a channel that meets
a blank patch compares the same bias. Kinks that interact, and kinks whose arguments' gradients are linearly dependent, are
put together; then the spaces of the parts are in direct sum, every combination of their cells is realised, and

    dF(x) = J + sum over the parts of conv { Z'l : l the cotangents of the cells of the part },

provided that what the kinks compare is piecewise affine in the point. A forward sweep along each of a few more random
directions than there are independent forms tells them all; cells of a part are found block by block.

One algorithm with its tolerances, hence a long file.

Source: Clarke1983, Griewank2013, derived, docs/theory/sets.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import qr
from scipy.sparse import csgraph

from nonsmooth.derivatives.cells import Cells, Cone
from nonsmooth.derivatives.groups import Groups
from nonsmooth.derivatives.linearisation import Integers, Linearisation
from nonsmooth.derivatives.sampling import decided
from nonsmooth.dictionary.weights import Block, Floats, Permutations, Vertices

__all__ = ["arranged_parts"]

FORMS = (8, 24, 72, 160)
"""How many directions are swept, until there are more than independent forms."""

SAME = 2.0**5
"""Forms this many units of rounding apart are one."""

DOUBT = 2.0**15
"""Forms fewer units of rounding apart than this, and not one, leave everything open."""

CANDIDATES = 8
"""Ties of more candidates are left to other ways: their comparisons are too many."""


class _Doubt(Exception):
    """Rounding does not let the arrangement be told."""


@dataclass(frozen=True)
class _Members:
    """The kinks of one block in a part: places of their z, shape (n, m), and of their u, shape (n, r), in the part."""

    block: Block
    rows: Integers
    columns: Integers


@dataclass(frozen=True, eq=False)
class _Part:
    """Kinks that have to do with each other: by block, with places of z and u, forms and interactions."""

    members: list[_Members]
    z: Integers
    u: Integers
    forms: Floats
    L: Any
    Y: Floats


@dataclass(frozen=True)
class _State:
    """A place in the walk over the blocks of a part: the cone, the rows of the u so far, and the weights chosen."""

    place: int
    cone: Cone
    u: Floats
    chosen: tuple[Floats, ...]


def arranged_parts(groups: Groups, limit: int) -> tuple[list[Floats], int] | None:
    """Give, for each part, the gradients (less J) of its cells, shape (cells, p), and how many cells there are.

    None where it cannot be done: a `where`, an `if`, a norm or a spectrum is active, the forms are too many or rounding
    does not tell them apart, or a part has more cells than the limit.
    """
    system = groups.system
    plain = all(b.own is None and _is_listed(b) for b in system.blocks)
    if system.sweeps.evaluation.ties or not plain:
        return None
    try:
        forms = _forms(system)
        parts = _parts(groups, forms)
        found = [_cotangents(part, _eps(system), limit) for part in parts]
    except _Doubt:
        return None
    gradients, count = [], 0
    for part, cotangents in zip(parts, found, strict=True):
        rows = []
        for cotangent in np.unique(cotangents, axis=0):
            seed = np.zeros(int(system.first_z[-1]))
            seed[part.z] = cotangent
            rows.append(system.pull(seed))
        gradients.append(np.array(rows))
        count += len(cotangents)
    return gradients, count


def _is_listed(block: Block) -> bool:
    """Tell a block whose comparisons can be listed."""
    if isinstance(block.weights, Permutations):
        return block.weights.size <= CANDIDATES
    if block.orientation is not None and block.weights.compared > 1:
        return False  # a clamp whose bounds tie is no matter of signs alone
    return isinstance(block.weights, Vertices) and len(block.weights.rows) <= CANDIDATES


def _forms(system: Linearisation) -> Floats:
    """Give Z D for random directions D, more of them than independent rows of Z."""
    rng, eps = np.random.default_rng(0), _eps(system)
    columns: list[Floats] = []
    for wanted in FORMS:
        columns += [system.push(rng.standard_normal(system.J.size)) for _ in range(wanted - len(columns))]
        forms = np.stack(columns, axis=1)
        if _rank(_distinct(forms, eps), eps) < wanted or wanted > system.J.size:
            return forms
    raise _Doubt


def _eps(system: Linearisation) -> float:
    """Give the unit of rounding of the sweeps."""
    return system.framework.eps(system.sweeps.evaluation.result)


def _rank(rows: Floats, eps: float) -> int:
    """Give the rank of unit rows; doubt if a singular value is neither clearly zero nor clearly not."""
    if not len(rows):
        return 0
    sizes = np.linalg.svd(rows, compute_uv=False) / np.sqrt(len(rows))
    if np.any((sizes > SAME * eps) & (sizes <= DOUBT * eps)):
        raise _Doubt
    return int(np.sum(sizes > DOUBT * eps))


def _distinct(rows: Floats, eps: float) -> Floats:
    """Give one unit row of each class of parallel ones that are not zero."""
    units = _units(rows)
    units = units[np.any(units != 0, axis=1)]
    if not len(units):
        return units
    _, first = np.unique(np.round(units / (SAME * eps)), axis=0, return_index=True)
    chosen: list[Floats] = []
    for row in units[np.sort(first)]:
        apart = [float(np.abs(row - other).max()) for other in chosen]
        nearest = min(apart, default=np.inf)
        if nearest <= SAME * eps:
            continue
        if nearest <= DOUBT * eps or len(chosen) > 4 * FORMS[-1]:
            raise _Doubt
        chosen.append(row)
    return np.array(chosen)


def _units(rows: Floats) -> Floats:
    """Scale rows to length 1, their largest entry positive; zero rows stay."""
    if not rows.shape[1]:
        return rows
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.where(length > 0, length, 1.0)
    leading = np.take_along_axis(units, np.abs(units).argmax(axis=1)[:, None], axis=1)
    return np.asarray(units * np.where(leading < 0, -1.0, 1.0))


def _parts(groups: Groups, forms: Floats) -> list[_Part]:
    """Put kinks together that interact, or whose forms depend on each other."""
    system, eps = groups.system, _eps(groups.system)
    acted = np.diff(system.L.indptr) > 0
    moving = np.unique(system.kink_of_z[np.any(forms != 0, axis=1) | acted])
    relevant = np.intersect1d(groups.relevant, moving)  # the others compare nothing that moves
    if not len(relevant):
        return []
    own = np.full(system.count, -1)
    own[relevant] = np.arange(len(relevant))
    kept = np.flatnonzero((own[system.kink_of_z] >= 0) & np.any(forms != 0, axis=1))
    classes, index = _classes(forms[kept], eps)
    circuits = _circuits(classes, eps)
    n, c = len(relevant), len(classes)
    entries = system.L.tocoo()
    later, earlier = own[system.kink_of_z[entries.row]], own[system.kink_of_u[entries.col]]
    both = (later >= 0) & (earlier >= 0)
    ends = [
        (later[both], earlier[both]),
        (own[system.kink_of_z[kept]], n + index),
        (n + circuits[:, 0], n + circuits[:, 1]),
    ]
    rows, columns = (np.concatenate([e[k] for e in ends]) for k in (0, 1))
    graph = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n + c, n + c))
    count, label = csgraph.connected_components(graph, directed=False)
    order = np.argsort(label[:n], kind="stable")
    ends_of = np.cumsum(np.bincount(label[:n], minlength=count))
    starts = [0, *ends_of[:-1]]
    return [_part(system, np.sort(relevant[order[a:b]]), forms) for a, b in zip(starts, ends_of, strict=True) if b > a]


def _classes(rows: Floats, eps: float) -> tuple[Floats, Integers]:
    """Give the distinct unit forms, and the class of each row."""
    classes = _distinct(rows, eps)
    if not len(rows):
        return classes, np.zeros(0, dtype=np.int64)
    units, index = _units(rows), np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), 4096):
        part = units[start : start + 4096]
        near = np.abs(part @ classes.T)
        index[start : start + 4096] = near.argmax(axis=1)
    return classes, index


def _circuits(classes: Floats, eps: float) -> Integers:
    """Join forms that depend on each other: each with the elements of a basis that it is made of."""
    if not len(classes):
        return np.zeros((0, 2), dtype=np.int64)
    rank = _rank(classes, eps)
    _, r, pivots = qr(classes.T, mode="economic", pivoting=True)
    coefficients = np.linalg.solve(r[:rank, :rank], r[:rank, rank:])
    if np.any((np.abs(coefficients) > SAME * eps) & (np.abs(coefficients) <= DOUBT * eps)):
        raise _Doubt
    made_of, of = np.nonzero(np.abs(coefficients) > DOUBT * eps)
    return np.stack([pivots[made_of], pivots[rank + of]], axis=1).astype(np.int64)


def _part(system: Linearisation, kinks: Integers, forms: Floats) -> _Part:
    """Gather what the walk over a part needs, its forms in coordinates of their span."""
    number = system.block_of_kink[kinks]
    found = [(int(b), kinks[number == b]) for b in np.unique(number)]
    z, u = [system.z_of(k, b) for b, k in found], [system.u_of(k, b) for b, k in found]
    all_z, all_u = (np.concatenate([a.ravel() for a in places]) for places in (z, u))
    members = [
        _Members(
            _some(system.blocks[b], k - system.first_kink[b]),
            np.searchsorted(all_z, rows),
            np.searchsorted(all_u, columns),
        )
        for (b, k), rows, columns in zip(found, z, u, strict=True)
    ]
    rows, eps = forms[all_z], _eps(system)
    classes = _distinct(rows, eps)
    _, sizes, basis = np.linalg.svd(classes if len(classes) else np.zeros((1, rows.shape[1])), full_matrices=False)
    basis = basis[sizes > DOUBT * eps * max(sizes[0], 1e-300)]
    return _Part(members, all_z, all_u, rows @ basis.T, sparse.csr_array(system.L[all_z][:, all_u]), system.Y[all_u])


def _some(block: Block, members: Integers) -> Block:
    """Give a block of some of its kinks, as far as deciding them goes."""
    if block.orientation is None:
        return block
    return replace(block, orientation=block.orientation[members])


def _cotangents(part: _Part, eps: float, limit: int) -> Floats:
    """Walk over the blocks of a part; give the cotangents of its z in every cell, shape (cells, number of z)."""
    dimension = part.forms.shape[1]
    waiting, found = [_State(0, Cone((), np.zeros(dimension), eps), np.zeros((len(part.u), dimension)), ())], []
    while waiting:
        state = waiting.pop()
        if state.place < len(part.members):
            waiting += _next(part, state, eps, limit)
            continue
        found.append(_leaf(part, state.chosen))
        if len(found) > limit:
            raise _Doubt
    return np.array(found)


def _next(part: _Part, state: _State, eps: float, limit: int) -> Iterator[_State]:
    """Split a cone by what one block compares; in each piece a direction inside decides the whole block."""
    members = part.members[state.place]
    flat = members.rows.ravel()
    through = part.L[flat]
    z = part.forms[flat] + through @ state.u
    scale = np.linalg.norm(part.forms[flat], axis=1) + abs(through) @ np.linalg.norm(state.u, axis=1)
    size = np.linalg.norm(z, axis=1)
    if np.any((size > SAME * eps * scale) & (size <= DOUBT * eps * scale)):
        raise _Doubt
    z[size <= SAME * eps * scale] = 0.0
    z = z.reshape(*members.rows.shape, -1)
    cells, cones = Cells(), [state.cone]
    for normal in _distinct(_normals(members.block, z), eps):
        cones = [c for cone in cones for side in (1.0, -1.0) if (c := cone.cut([side * normal], cells)) is not None]
        if len(cones) > limit or not cells.complete:
            raise _Doubt
    for cone in cones:
        along = z @ cone.inside
        W, _ = decided(members.block, along, along, np.zeros(len(z)))
        u = state.u.copy()
        u[members.columns.ravel()] = np.einsum("nrm,nmk->nrk", W, z).reshape(members.columns.size, -1)
        yield _State(state.place + 1, cone, u, (*state.chosen, W))


def _normals(block: Block, z: Floats) -> Floats:
    """Give the forms whose signs decide the kinks of a block: z for switches, differences of candidates for ties."""
    if block.orientation is not None:
        return z.reshape(z.shape[0] * z.shape[1], z.shape[2])
    if isinstance(block.weights, Permutations):
        candidates = np.concatenate([np.zeros((len(z), 1, z.shape[2])), z], axis=1)
    else:
        assert isinstance(block.weights, Vertices)
        candidates = np.einsum("vm,nmk->nvk", block.weights.rows, z)
    first, second = np.triu_indices(candidates.shape[1], 1)
    differences = candidates[:, first] - candidates[:, second]
    small = (
        np.linalg.norm(differences, axis=2)
        <= 1e-12 * np.linalg.norm(candidates, axis=2).max(axis=1, initial=0.0)[:, None]
    )
    differences[small] = 0.0
    return np.asarray(differences.reshape(differences.shape[0] * differences.shape[1], z.shape[2]))


def _leaf(part: _Part, chosen: tuple[Floats, ...]) -> Floats:
    """Give the cotangents of the z of a part under the weights of a cell."""
    y, found = part.Y.copy(), np.zeros(len(part.z))
    for members, W in zip(reversed(part.members), reversed(chosen), strict=True):
        found[members.rows] = np.einsum("nr,nrm->nm", y[members.columns], W)
        flat = members.rows.ravel()
        y += part.L[flat].T @ found[flat]
    return found
