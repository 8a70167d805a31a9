"""Sets of weights: their support against their extreme points, and the enclosures of brackets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nonsmooth.dictionary.eigenspaces import Bases, SingularBases
from nonsmooth.dictionary.weights import (
    DualBall,
    Permutations,
    Vertices,
    WeightSet,
    chain,
    cross_polytope,
    segment,
    simplex,
)

rng = np.random.default_rng(0)


def orthogonal(n: int, complex_: bool = False, count: int = 1) -> np.ndarray:
    drawn = rng.standard_normal((count, n, n)) + (1j * rng.standard_normal((count, n, n)) if complex_ else 0)
    return np.linalg.qr(drawn)[0]


def split(left: int, right: int, complex_: bool = False) -> SingularBases:
    """Make the set of a null space whose coordinates are turned against those of rows and columns."""
    size, r = left + right, min(left, right)
    return SingularBases(size, tuple(range(size - r, size)), complex_, orthogonal(size, complex_)[0], left)


FINITE: dict[str, WeightSet] = {
    "segment": segment(),
    "simplex": simplex(3),
    "simplex of two": simplex(1),
    "chain": chain(3),
    "cross polytope": cross_polytope(3),
    "cross polytope of one": cross_polytope(1),
    "vertices": Vertices(np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5], [0.25, 0.5]])),
    "sort of two": Permutations(2, (0, 1)),
    "sort of four": Permutations(4, (0, 1, 2, 3)),
    "ranks of four": Permutations(4, (1, 3)),
    "rank of three": Permutations(3, (1,)),
}
BALLS: dict[str, WeightSet] = {f"ball {p}": DualBall(3, p) for p in (1.2, 1.5, 2.0, 3.0, 10.0)}
SPECTRAL: dict[str, WeightSet] = {
    "bases": Bases(3, (0, 1, 2)),
    "some of the bases": Bases(3, (1,)),
    "last of the bases": Bases(4, (1, 3)),
    "complex bases": Bases(2, (0, 1), True),
    "square null space": split(2, 2),
    "wide null space": split(1, 3),
    "tall null space": split(3, 2),
    "complex null space": split(2, 2, True),
}
ALL = {**FINITE, **BALLS, **SPECTRAL}


def arguments(weights: WeightSet, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Draw y and z, z as tangents give it, some entries of both zero or equal."""
    y, z = rng.standard_normal((n, weights.outputs)), rng.standard_normal((n, weights.compared))
    y[::5], z[::7] = np.round(y[::5]), np.round(z[::7])
    if isinstance(weights, SingularBases):
        drawn = rng.standard_normal((2, n, weights.size, weights.size))
        inner = drawn[0] + 1j * drawn[1] * weights.imaginary
        inner[:, : weights.left, : weights.left] = inner[:, weights.left :, weights.left :] = 0
        z = flat(weights, np.conj(weights.split.T) @ (inner + adjoint(inner)) @ weights.split)
    elif isinstance(weights, Bases):
        drawn = rng.standard_normal((2, n, weights.size, weights.size))
        inner = drawn[0] + 1j * drawn[1] * weights.imaginary
        z = flat(weights, inner + adjoint(inner))
    return y, z


def adjoint(a: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(a, -1, -2))


def flat(weights: Bases, matrices: np.ndarray) -> np.ndarray:
    """Lay compressions out as z."""
    parts = [matrices.real, matrices.imag] if weights.imaginary else [matrices.real]
    return np.stack(parts, axis=1).reshape(len(matrices), -1)


def products(y: np.ndarray, w: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.einsum("nr,nrm,nm->n", y, np.broadcast_to(w, (len(y), *w.shape[-2:])), z)


@pytest.mark.parametrize("name", FINITE)
def test_support_is_the_best_extreme_weight(name: str) -> None:
    weights = FINITE[name]
    y, z = arguments(weights)
    extreme = weights.extreme()
    assert extreme.shape == (weights.count, weights.outputs, weights.compared)
    assert len(np.unique(extreme, axis=0)) == len(extreme)
    best = np.max([products(y, w, z) for w in extreme], axis=0)
    np.testing.assert_allclose(weights.support(y, z), best, atol=1e-12)
    assert all(np.any(np.all(np.isclose(w, extreme), axis=(1, 2))) for w in weights.choose(y, z))


@pytest.mark.parametrize("name", ALL)
def test_what_attains_the_support(name: str) -> None:
    weights = ALL[name]
    y, z = arguments(weights)
    chosen = weights.choose(y, z)
    assert chosen.shape == (len(y), weights.outputs, weights.compared)
    attained = weights.attain(y, z)
    np.testing.assert_allclose(np.sum(attained * z, axis=1), products(y, chosen, z), atol=1e-12)
    np.testing.assert_allclose(weights.support(y, z), products(y, chosen, z), atol=1e-12)
    others = weights.choose(*arguments(weights))
    assert np.all(products(y, others, z) <= weights.support(y, z) + 1e-10)


@pytest.mark.parametrize("p", [1.2, 1.5, 2.0, 3.0, 10.0])
def test_balls(p: float) -> None:
    """The support is |y| times the p-norm of z, and what is chosen has dual norm 1."""
    weights = DualBall(3, p)
    y, z = arguments(weights)
    norms = np.linalg.norm(z, ord=p, axis=1)
    np.testing.assert_allclose(weights.support(y, z), np.abs(y[:, 0]) * norms, atol=1e-12)
    dual = np.linalg.norm(weights.choose(y, z)[:, 0], ord=p / (p - 1), axis=1)
    moving = (y[:, 0] != 0) & (norms > 0)
    np.testing.assert_allclose(dual[moving], 1, atol=1e-12)
    assert weights.count == math.inf
    with pytest.raises(ValueError, match="no finite list"):
        weights.extreme()
    assert np.all(weights.support(np.ones((1, 1)), np.array([[1e200, 1e200, 0.0]])) < 2e200)


@pytest.mark.parametrize("name", [n for n in SPECTRAL if "null" not in n])
def test_bases_against_random_ones(name: str) -> None:
    """sum_k y_k (q_k' Z q_k - e_k' Z e_k) over random bases: never above the support, and some come near it."""
    weights = SPECTRAL[name]
    assert isinstance(weights, Bases)
    y, z = arguments(weights, 20)
    q = orthogonal(weights.size, weights.imaginary, 20_000 if weights.size < 4 else 60_000)[:, :, weights.returned]
    matrices, own = weights.matrix(z), np.eye(weights.size)[:, weights.returned]
    for one, matrix, h in zip(y, matrices, weights.support(y, z), strict=True):
        rates = np.einsum("bik,ij,bjk->bk", np.conj(q), matrix, q).real
        values = rates @ one - np.einsum("ik,ij,jk->k", own, matrix, own).real @ one
        assert values.max() <= h + 1e-10
        assert values.max() >= h - 0.25 * (1 + np.abs(matrix).sum() * np.abs(one).sum() / 8)
    with pytest.raises(ValueError, match="no finite list"):
        weights.extreme()


@pytest.mark.parametrize("name", [n for n in SPECTRAL if "null" in n])
def test_null_spaces_by_von_neumann(name: str) -> None:
    """The support is sum |y| sigma, both sorted, less the rates of the basis at the start."""
    weights = SPECTRAL[name]
    assert isinstance(weights, SingularBases)
    y, z = arguments(weights, 40)
    turned = weights.split @ weights.matrix(z) @ adjoint(weights.split)
    sigma = np.linalg.svd(turned[:, : weights.left, weights.left :], compute_uv=False)
    own = np.einsum("nii->ni", weights.matrix(z)).real[:, list(weights.returned)]
    expected = np.sum(np.sort(np.abs(y)) * np.sort(sigma), axis=1) - np.sum(y * own, axis=1)
    np.testing.assert_allclose(weights.support(y, z), expected, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_bounds_enclose(name: str) -> None:
    weights = ALL[name]
    _, z = arguments(weights)
    width = np.abs(rng.standard_normal(z.shape))
    if isinstance(weights, Bases):
        width = np.repeat(width.max(axis=1, keepdims=True), z.shape[1], axis=1)
    low, high = weights.bound(z - width, z + width)
    assert low.shape == high.shape == (len(z), weights.outputs)
    candidates = itertools.chain(
        weights.extreme()[:, None] if weights.count < math.inf else [],
        (weights.choose(*arguments(weights)) for _ in range(5)),
    )
    for w in candidates:
        for end in (z - width, z, z + width, z + width * rng.uniform(-1, 1, (len(z), 1))):
            u = np.einsum("nrm,nm->nr", np.broadcast_to(w, (len(z), *w.shape[-2:])), end)
            assert np.all(u <= high + 1e-10) and np.all(u >= low - 1e-10)


@pytest.mark.parametrize("name", ["segment", "simplex", "chain", "cross polytope", "rank of three", "ball 2.0"])
def test_bounds_of_a_point_are_tight_enough(name: str) -> None:
    """At a single z the enclosure is the range of the values, entry by entry."""
    weights = ALL[name]
    _, z = arguments(weights)
    low, high = weights.bound(z, z)
    most = weights.support(np.ones((len(z), 1)), z)
    least = -weights.support(-np.ones((len(z), 1)), z)
    np.testing.assert_allclose(high[:, 0], most, atol=1e-10)
    np.testing.assert_allclose(low[:, 0], least, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_middles(name: str) -> None:
    """|(W - C) z| <= E |z|, entry by entry."""
    weights = ALL[name]
    _, z = arguments(weights)
    middle, spread = weights.centre()
    assert middle.shape == spread.shape == (weights.outputs, weights.compared)
    extreme = weights.extreme()[:, None] if weights.count < math.inf else []
    for w in itertools.chain(extreme, (weights.choose(*arguments(weights)) for _ in range(5))):
        u = np.einsum("nrm,nm->nr", np.broadcast_to(w - middle, (len(z), *w.shape[-2:])), z)
        assert np.all(np.abs(u) <= np.abs(z) @ spread.T + 1e-10)


def test_keys_tell_sets_apart() -> None:
    keys = [w.key for w in ALL.values()]
    assert len(set(keys)) == len(keys) - 1  # a segment is the simplex of two
    assert segment().key == simplex(1).key != cross_polytope(1).key
    assert segment().is_segment and not cross_polytope(1).is_segment
    assert Permutations(3, (0, 1)).key != Permutations(3, (0, 2)).key and DualBall(3).key != DualBall(3, 3.0).key


@pytest.mark.parametrize("name", ALL)
def test_rank_is_the_dimension_of_z(name: str) -> None:
    weights = ALL[name]
    _, z = arguments(weights, 60)
    assert np.linalg.matrix_rank(z, tol=1e-9) == weights.rank


def test_nothing_moves_at_rest() -> None:
    """Where y and z are zero the chosen weights are those of some basis or order: the value is 0."""
    for weights in ALL.values():
        y, z = np.zeros((2, weights.outputs)), np.zeros((2, weights.compared))
        assert np.all(np.isfinite(weights.choose(y, z))) and np.all(weights.support(y, z) == 0)
