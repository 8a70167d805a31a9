"""Projections: values against other solvers, derivatives at and off kinks, and the sets of them against their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import UsageError
from nonsmooth.implicit import projections
from nonsmooth.implicit.projections import ball, box, jacobian, l1_ball, second_order_cone, semidefinite_cone, simplex
from nonsmooth.optim import Box, EuclideanBall, L1Ball, Simplex
from tests.shortened import shortened

Z = [0.0] * 3
SPHERE = [0.6, 0.0, -0.8]

KINKS: list[tuple[str, Callable[..., Any], Any, int, int | None]] = [
    # name, projection, point, dimension of the set, number of extreme elements
    ("box, two bounds", box, [0.0, 1.0, 0.5, 3.0], 2, 4),
    ("simplex, a vertex", simplex, [1.0, 0.0, 0.0], 3, 4),
    ("simplex, an edge", simplex, [0.75, 0.75, 0.25], 1, 2),
    ("simplex, the middle", simplex, Z, 0, 1),
    ("l1 ball, a vertex", l1_ball, [1.0, 0.0, 0.0], 6, 10),
    ("l1 ball, an edge", l1_ball, [0.5, -0.5, 0.0], 3, 4),
    ("l1 ball, outside", l1_ball, [2.0, -1.0, 0.0], 1, 2),
    ("l1 ball, the middle", l1_ball, Z, 0, 1),
    ("ball, the sphere", ball, SPHERE, 1, 2),
    ("ball, the middle", ball, Z, 0, 1),
    ("second-order cone, boundary", second_order_cone, [1.0, 0.6, 0.8], 1, 2),
    ("second-order cone, polar boundary", second_order_cone, [-1.0, 0.6, 0.8], 1, 2),
    ("second-order cone, axis", second_order_cone, [1.0, 0.0, 0.0], 0, 1),
    ("second-order cone, polar axis", second_order_cone, [-1.0, 0.0, 0.0], 0, 1),
    ("second-order cone, apex", second_order_cone, Z, 6, None),
    ("second-order cone, apex in 5", second_order_cone, [0.0] * 5, 15, None),
    ("second-order cone, apex in the plane", second_order_cone, [0.0, 0.0], 2, 4),
    ("second-order cone, half-line", second_order_cone, [0.0], 1, 2),
    ("semidefinite, one zero", semidefinite_cone, np.diag([2.0, 0.0, -1.0]), 1, 2),
    ("semidefinite, repeated", semidefinite_cone, np.diag([2.0, 2.0, -1.0]), 0, 1),
    ("semidefinite, two zeros", semidefinite_cone, np.diag([2.0, 0.0, 0.0]), 6, None),
    ("semidefinite, zero", semidefinite_cone, np.zeros((3, 3)), 21, None),
]

EXACT = [case for case in KINKS if case[0] != "semidefinite, zero"]

IN_TURN = [*KINKS[::2], *KINKS[1::2]]

FUNCTIONS = [box, simplex, l1_ball, ball, second_order_cone, semidefinite_cone]


def derivative(xp: Any, f: Callable[..., Any], z: Any, mode: str = "reverse") -> np.ndarray:
    """Give the framework's own Jacobian, laid out as a matrix."""
    if xp.name == "torch":
        import torch

        own = {"reverse": torch.func.jacrev, "forward": torch.func.jacfwd}[mode](f)
    else:
        import jax

        own = {"reverse": jax.jacrev, "forward": jax.jacfwd}[mode](f)
    size = np.size(z)
    return np.asarray(own(xp.array(np.asarray(z).tolist()))).reshape(size, size)


def near(f: Callable[..., Any], z: Any, rng: np.random.Generator, size: float) -> np.ndarray:
    """Give a random point at a distance."""
    step = rng.standard_normal(np.shape(z))
    step = (step + step.T) / 2 if f is semidefinite_cone else step
    return np.asarray(z) + size * step / np.linalg.norm(step)


@pytest.mark.parametrize(
    ("f", "constraint"),
    [(box, Box(0.0, 1.0)), (simplex, Simplex()), (l1_ball, L1Ball(1.0)), (ball, EuclideanBall(1.0))],
)
def test_values_are_those_of_the_constraints(xp: Any, f: Any, constraint: Any) -> None:
    rng = np.random.default_rng(0)
    for scale in (0.1, 1.0, 10.0):
        z = scale * rng.standard_normal(6)
        assert xp.numpy(f(xp.array(z.tolist()))) == pytest.approx(constraint.project(z), abs=1e-9)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_projections_satisfy_moreau_and_are_idempotent(xp: Any, f: Any) -> None:
    rng = np.random.default_rng(1)
    z = rng.standard_normal((3, 4, 4))
    z = z + z.mT
    p = xp.numpy(f(xp.array(z.tolist())))
    assert p.shape == z.shape
    assert xp.numpy(f(xp.array(p.tolist()))) == pytest.approx(p, abs=1e-12)
    other = xp.numpy(f(xp.array(rng.standard_normal((3, 4, 4)).tolist())))
    axes = (-1, -2) if f is semidefinite_cone else (-1,)
    assert (((z - p) * (other - p)).sum(axis=axes) <= 1e-10).all()


@pytest.mark.parametrize(
    ("f", "mode"),
    shortened(
        [
            *((f, "reverse") for f in FUNCTIONS[2:]),
            *((f, "reverse") for f in FUNCTIONS[:2]),
            *((f, "forward") for f in FUNCTIONS),
        ],
        4,
    ),
)
def test_derivatives_off_kinks_are_difference_quotients(xp: Any, f: Any, mode: str) -> None:
    rng = np.random.default_rng(2)
    for scale in (0.3, 3.0):
        z = scale * rng.standard_normal((3, 3) if f is semidefinite_cone else 5)
        own, step = derivative(xp, f, z, mode), 1e-6
        columns = []
        for unit in np.eye(z.size).reshape(z.size, *z.shape):
            ends = [xp.numpy(f(xp.array((z + s * step * unit).tolist()))).ravel() for s in (1, -1)]
            columns.append((ends[0] - ends[1]) / (2 * step))
        assert own == pytest.approx(np.array(columns).T, abs=1e-7)


@pytest.mark.parametrize("mode", shortened(["reverse", "forward"], 1))
@pytest.mark.parametrize(
    ("name", "f", "z", "dimension", "extreme"), shortened(IN_TURN, 11), ids=[case[0] for case in IN_TURN]
)
def test_derivatives_at_kinks_are_elements(
    xp: Any, name: str, f: Any, z: Any, dimension: int, extreme: Any, mode: str
) -> None:
    own = derivative(xp, f, z, mode)
    assert np.isfinite(own).all()
    assert jacobian(f, z).contains(own, 1e-9), own


@pytest.mark.parametrize(("name", "f", "z", "dimension", "extreme"), KINKS, ids=[case[0] for case in KINKS])
def test_closed_forms(name: str, f: Any, z: Any, dimension: int, extreme: Any) -> None:
    found = jacobian(f, z)
    assert found.dimension == dimension
    assert (found.extreme is None) == (extreme is None)
    if extreme is not None:
        assert len(found.extreme) == extreme == len(np.unique(found.extreme.round(9), axis=0))
    assert found.is_singleton == (dimension == 0)
    assert found.status == "computed"
    assert found.exact == (name != "semidefinite, zero")
    rows = found.directions
    assert rows @ rows.T == pytest.approx(np.eye(len(rows)))
    assert found.smallest + rows.T @ rows == pytest.approx(found.largest)
    assert found.contains(found.smallest) and found.contains(found.largest)


@pytest.mark.parametrize("draws", shortened([3, 25], 1))
@pytest.mark.parametrize(("name", "f", "z", "dimension", "extreme"), KINKS, ids=[case[0] for case in KINKS])
def test_derivatives_nearby_converge_to_the_set(
    name: str, f: Any, z: Any, dimension: int, extreme: Any, draws: int
) -> None:
    found, rng = jacobian(f, z), np.random.default_rng(3)
    size = 1e-7
    for _ in range(draws if extreme is not None else min(draws, 3)):
        at = near(f, z, rng, size)
        there = jacobian(f, at, tolerance=1e-13)
        if not there.is_singleton:
            continue
        assert found.nearest(there.smallest).norm.lower <= 10 * size
        if found.exact:
            assert found.contains(there.smallest, 10 * size)
        for low, high in ((found.smallest, there.smallest), (there.smallest, found.largest)):
            assert np.linalg.eigvalsh(high - low)[0] >= -10 * size


@pytest.mark.parametrize("draws", shortened([300, 1500], 1))
@pytest.mark.parametrize(("name", "f", "z", "dimension", "extreme"), EXACT, ids=[case[0] for case in EXACT])
def test_support_points_are_limits(name: str, f: Any, z: Any, dimension: int, extreme: Any, draws: int) -> None:
    """Every support value is nearly attained by derivatives at nearby points, of which many are drawn."""
    found, rng, size = jacobian(f, z), np.random.default_rng(4), 1e-6
    nearby = []
    for k in range(draws):
        step = np.asarray(near(f, z, rng, size)) - np.asarray(z)
        if f is second_order_cone and k % 2:  # to the two boundaries as well, where r is near 1 and -1
            step[0] = (-1) ** (k // 2) * np.linalg.norm(step[1:]) * (1 - 1e-3)
        if f is semidefinite_cone and k % 2:
            values, vectors = np.linalg.eigh(step)
            step = (vectors * (values * 10.0 ** rng.uniform(-3, 0, len(values)))) @ vectors.T
        there = jacobian(f, np.asarray(z) + step, tolerance=1e-16)
        nearby.append(there.smallest.ravel())
    cloud = np.array(nearby)
    for _ in range(10):
        d = rng.standard_normal(cloud.shape[1])
        value = found.elements.support(d)
        assert (cloud @ d).max() <= value + 1e-4 * np.linalg.norm(d)
        short = 0.12 if draws > 1000 else 0.3
        assert (cloud @ d).max() >= value - short * np.linalg.norm(d) * (found.dimension > 1) - 1e-4 * np.linalg.norm(d)


def test_the_checks_of_sets_can_fail() -> None:
    found = jacobian(second_order_cone, Z)
    assert found.contains(np.diag([1.0, 0.0, 0.0])) is False  # between 0 and I, and no element
    assert jacobian(simplex, [1.0, 0.0, 0.0]).contains(np.eye(3)) is False
    assert jacobian(semidefinite_cone, np.zeros((2, 2))).contains(-np.eye(4)) is False


def test_three_zero_eigenvalues_are_a_bracket() -> None:
    found = jacobian(semidefinite_cone, np.zeros((3, 3)))
    value = found.elements.support(np.random.default_rng(0).standard_normal(81))
    assert value.lower <= value.upper
    assert found.contains(0.5 * found.largest)


@pytest.mark.parametrize("f", shortened(FUNCTIONS[::-1], 4))
@pytest.mark.parametrize("precision", shortened(["double", "single"], 1))
def test_maps_and_batches_agree(xp: Any, f: Any, precision: str) -> None:
    rng = np.random.default_rng(5)
    z = rng.standard_normal((4, 3, 3))
    z[0] = 0.0
    given = xp.array(z.tolist(), precision)
    if xp.name == "torch":
        import torch

        mapped = torch.func.vmap(torch.func.grad(lambda a: (f(a) ** 2).sum()))(given)
    else:
        import jax

        mapped = jax.jit(jax.vmap(jax.grad(lambda a: (f(a) ** 2).sum())))(given)
    whole = xp.gradient(lambda a: (f(a) ** 2).sum(), given)
    assert mapped.dtype == given.dtype == whole.dtype
    tight = 1e-10 if precision == "double" else 1e-4
    assert xp.numpy(mapped) == pytest.approx(xp.numpy(whole), abs=tight)
    assert np.isfinite(xp.numpy(whole)).all()
    if f is semidefinite_cone:
        symmetric = (z + z.mT) / 2
        expected = 2 * xp.numpy(f(xp.array(symmetric.tolist())))
        assert xp.numpy(whole) == pytest.approx(expected, abs=tight)


PARAMETERS = [(box, (-0.5, 0.25)), (simplex, (2.0,)), (l1_ball, (0.75,)), (ball, (0.75,))]


@pytest.mark.parametrize(("f", "parameters"), PARAMETERS)
def test_parameters_differentiate(xp: Any, f: Any, parameters: tuple[float, ...]) -> None:
    z = np.random.default_rng(6).standard_normal(5)
    weights = xp.array(list(range(1, 6)))

    def value(p: Any) -> Any:
        return (weights * f(xp.array(z.tolist()), *(p[i] for i in range(len(parameters))))).sum()

    given = np.array(parameters)
    own = xp.numpy(xp.gradient(value, xp.array(list(parameters))))
    step = 1e-6
    for i, unit in enumerate(np.eye(len(given))):
        ends = [float(value(xp.array((given + s * step * unit).tolist()))) for s in (1, -1)]
        assert own[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


def test_parameters_of_batches(xp: Any) -> None:
    z = np.random.default_rng(7).standard_normal((3, 4))
    sizes = [0.5, 1.0, 2.0]
    for f in (simplex, l1_ball, ball):
        whole = xp.numpy(f(xp.array(z.tolist()), xp.array(sizes)))
        for row, value, s in zip(z, whole, sizes, strict=True):
            assert value == pytest.approx(xp.numpy(f(xp.array(row.tolist()), s)))


@pytest.mark.parametrize(
    ("f", "z", "operation"),
    shortened(
        [
            (box, [0.0, 0.5], "maximum"),
            (simplex, [1.0, 0.0], "relu"),
            (l1_ball, [1.0, 0.0], "where"),
            (ball, [0.6, 0.8], "maximum"),
            (second_order_cone, [5.0, 3.0, 4.0], "where"),
            (second_order_cone, [-5.0, 3.0, 4.0], "relu"),
        ],
        2,
    ),
)
def test_kinks_are_seen(xp: Any, f: Any, z: Any, operation: str) -> None:
    kinks = ns.kinks(lambda a: (f(a) * a).sum(), xp.array(z))
    active = [kink for kink in kinks if kink.count]
    assert operation in {kink.operation for kink in active}
    assert all(str(kink.kind) != "jump" for kink in active)
    away = ns.kinks(lambda a: (f(a) * a).sum(), xp.array([0.11 * (i + 1) + 3 * v for i, v in enumerate(z)]))
    assert operation not in {kink.operation for kink in away if kink.count and kink.can_matter}


def test_large_offsets_do_not_cancel(xp: Any) -> None:
    found = xp.numpy(simplex(xp.array([1e8 + 0.5, 1e8, -1e8], "single")))
    assert found.sum() == pytest.approx(1.0)
    assert xp.numpy(simplex(xp.array([1e12 + 0.5, 1e12, -1e12]))) == pytest.approx([0.75, 0.25, 0.0])


@pytest.mark.parametrize(("f", "z", "expected"), [
    (l1_ball, [3.0, -1.0, 0.5], [1.0, 0.0, 0.0]),
    (simplex, [3.0, -1.0, 0.5], [1.0, 0.0, 0.0]),
    (ball, [3.0, 0.0, -4.0], [0.6, 0.0, -0.8]),
    (box, [3.0, -1.0, 0.5], [1.0, 0.0, 1.0]),
    (second_order_cone, [0.0, 3.0, 4.0], [2.5, 1.5, 2.0]),
])  # fmt: skip
@pytest.mark.parametrize("precision", ["double", "single"])
def test_huge_numbers_do_not_overflow(xp: Any, f: Any, z: Any, expected: Any, precision: str) -> None:
    size = 1e200 if precision == "double" else 1e30
    weights = xp.array([1.0, 2.0, 3.0], precision)
    at = xp.array((size * np.array(z)).tolist(), precision)
    found, near_one = xp.numpy(f(at)), 1.0 if f is not second_order_cone else size
    assert found / near_one == pytest.approx(np.array(expected), rel=1e-6, abs=1e-6)
    slope = xp.numpy(xp.gradient(lambda a: (f(a) * weights).sum(), at))
    if f is second_order_cone:  # of degree 1, with the derivative of the point of ordinary size
        plain = xp.numpy(xp.gradient(lambda a: (f(a) * weights).sum(), xp.array(z, precision)))
        assert slope == pytest.approx(plain, rel=1e-5)
    else:
        assert np.abs(slope).max() <= 10 / size


def test_the_set_at_a_huge_point_is_that_of_a_vertex() -> None:
    assert jacobian(simplex, [1e20, 0.0, 0.0]).dimension == 0
    assert not jacobian(l1_ball, [0.0, -1e20, 0.0]).largest.any()


def test_sizes_that_are_not_positive_give_nan(xp: Any) -> None:
    """Arrays may be traced, so that their numbers cannot be refused."""
    z = xp.array([[1.0, 2.0], [3.0, 4.0]])
    for f in (simplex, l1_ball, ball):
        found = xp.numpy(f(z, xp.array([-1.0, 1.0])))
        assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


def test_second_derivatives_of_the_semidefinite_projection(xp: Any) -> None:
    z = np.diag([2.0, 1.0, -1.0]) + 0.1
    d = np.arange(9.0).reshape(3, 3)

    def slope(a: Any) -> Any:
        inner = lambda b: (semidefinite_cone(b) * xp.array((d @ d.T).tolist())).sum()  # noqa: E731
        if xp.name == "torch":
            import torch

            return torch.func.grad(inner)(a)
        import jax

        return jax.grad(inner)(a)

    own = xp.numpy(xp.gradient(lambda a: (slope(a) * xp.array(d.tolist())).sum(), xp.array(z.tolist())))
    step = 1e-5
    for i, j in ((0, 0), (0, 1), (2, 1)):
        unit = np.zeros((3, 3))
        unit[i, j] = step
        ends = [float((slope(xp.array((z + s * unit).tolist())) * xp.array(d.tolist())).sum()) for s in (1, -1)]
        assert own[i, j] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-5)


BAD = [
    (lambda xp: box(xp.array([0.0]), 2.0, 1.0), "cross"),
    (lambda xp: box(xp.array([0.0]), float("nan")), "nan"),
    (lambda xp: simplex(xp.array([0.0]), 0.0), "positive"),
    (lambda xp: simplex(xp.array(1.0)), r"\(\.\.\., n\)"),
    (lambda xp: l1_ball(xp.array([0.0]), -1.0), "positive"),
    (lambda xp: ball(xp.array([0.0]), float("inf")), "positive"),
    (lambda xp: ball(xp.array([0.0]), "one"), "str"),
    (lambda xp: semidefinite_cone(xp.array([[0.0, 1.0]])), "square"),
    (lambda xp: second_order_cone([0.0, 1.0]), "tensor"),
    (lambda xp: simplex(xp.array([[1.0]]), xp.array([[1.0]])), "leading axes"),
    (lambda xp: jacobian(simplex, [[0.0]]), r"\(n,\)"),
    (lambda xp: jacobian(simplex, [float("nan")]), "nan"),
    (lambda xp: jacobian(sum, [0.0]), "projection"),
    (lambda xp: jacobian(simplex, [1.0] + [0.0] * 13), "14|13"),
    (lambda xp: jacobian(simplex, [1.0, 0.0]).contains(np.eye(3)), "shape"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input_is_refused(xp: Any, call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(xp)


def test_whole_numbers_are_refused() -> None:
    import torch

    for f in (simplex, box):
        with pytest.raises(UsageError, match="floating"):
            f(torch.tensor([1, 2]))


def test_what_is_public() -> None:
    assert ns.implicit.projections is projections
    assert {f.__name__ for f in FUNCTIONS} <= set(projections.__all__)
