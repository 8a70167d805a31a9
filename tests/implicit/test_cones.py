"""Cone and quadratic programs: closed forms, difference quotients, the condition at degenerate solutions, bad input."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, UsageError
from nonsmooth.implicit import ConeProgram, Cones, QuadraticProgram
from nonsmooth.implicit.cones.condition import diagnose_program
from nonsmooth.implicit.cones.program import ConeData, Solved
from tests.shortened import shortened

MIXED = Cones(zero=1, nonnegative=2, second_order=(3,), semidefinite=(2,))


def named_solver(name: str) -> str:
    if name != "interior point":
        pytest.importorskip("diffcp")
    return name


def quadratic(seed: int, n: int = 5, m: int = 4, p: int = 2) -> list[np.ndarray]:
    """Draw a strictly convex program with a feasible point."""
    rng = np.random.default_rng(seed)
    L, G, A, x = (rng.standard_normal(s) for s in ((n, n), (m, n), (p, n), n))
    return [L @ L.T + 0.1 * np.eye(n), rng.standard_normal(n), G, G @ x + 0.1, A, A @ x]


def conic(seed: int, n: int = 4, extra: float = 0.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw c, A, b of a cone program over MIXED and its strictly complementary solution x, y, s."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(2)
    w /= np.linalg.norm(w)
    q, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    outer = [np.array([v[0] ** 2, 2**0.5 * v[0] * v[1], v[1] ** 2]) for v in q.T]
    s = np.concatenate([[0.0, 0.5, extra], [1.0, *w], outer[0]])
    y = np.concatenate([[0.3, 0.0, 0.7], [1.0, *(-w)], outer[1]])
    A, x = rng.standard_normal((9, n)), rng.standard_normal(n)
    return [-A.T @ y, A, A @ x + s], [x, y, s]


def arrays(xp: Any, values: list[np.ndarray], precision: str = "double") -> list[Any]:
    return [xp.array(v.tolist(), precision) if v.size else xp.array(np.zeros(v.shape).tolist()) for v in values]


def slopes(xp: Any, f: Any, values: list[np.ndarray], k: int) -> np.ndarray:
    """Give the framework's gradient of f in its k-th argument."""
    given = arrays(xp, values)
    return xp.numpy(xp.gradient(lambda a: f(*given[:k], a, *given[k + 1 :]), given[k]))


def check_slopes(xp: Any, f: Any, values: list[np.ndarray], seed: int, tight: float = 1e-5) -> None:
    """Compare with difference quotients along random directions."""
    rng, step = np.random.default_rng(seed), 1e-6
    for k, value in enumerate(values):
        d = rng.standard_normal(value.shape)
        d = d + d.T if value.ndim == 2 and np.array_equal(value, value.T) else d
        ends = []
        for sign in (1, -1):
            moved = [v + (sign * step * d if i == k else 0) for i, v in enumerate(values)]
            ends.append(float(f(*arrays(xp, moved))))
        expected = (ends[0] - ends[1]) / (2 * step)
        assert (slopes(xp, f, values, k) * d).sum() == pytest.approx(expected, rel=tight, abs=tight)


@pytest.mark.parametrize("seed", shortened(range(2), 1))
def test_quadratic_programs_against_difference_quotients(xp: Any, seed: int) -> None:
    program = QuadraticProgram()

    def value(*numbers: Any) -> Any:
        x, z, y = program(*numbers)
        return (x * xp.array(list(range(1, 6)))).sum() + z.sum() - 0.5 * y.sum()

    check_slopes(xp, value, quadratic(seed), seed)


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("seed", shortened(range(2), 1))
def test_cone_programs_against_difference_quotients(xp: Any, solver: str, seed: int) -> None:
    program = ConeProgram(MIXED, named_solver(solver))
    values, (x, y, s) = conic(seed)
    found = program(*arrays(xp, values))
    for one, other in zip(found, (x, y, s), strict=True):
        assert xp.numpy(one) == pytest.approx(other, abs=1e-9)
    weights = xp.array(list(range(1, 10)))
    check_slopes(xp, lambda *v: (lambda f: f.x.sum() + (weights * (f.y - f.s)).sum())(program(*v)), values, seed)


@pytest.mark.parametrize("solver", ["interior point", "clarabel"])
def test_solvers_agree_with_scipy_on_linear_programs(xp: Any, solver: str) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(3)
    G, q = np.vstack([rng.standard_normal((3, 4)), -np.eye(4), np.eye(4)]), rng.standard_normal(4)
    h = np.concatenate([rng.random(3), np.zeros(4), np.ones(4)])
    found = QuadraticProgram(named_solver(solver))(*arrays(xp, [np.zeros((4, 4)), q, G, h]))
    assert xp.numpy(found.x) == pytest.approx(linprog(q, G, h, bounds=(None, None)).x, abs=1e-9)


CLOSED: list[tuple[str, list[float], list[float], list[list[float]]]] = [
    # the projection of a on { x >= 0, x_1 + x_2 <= 1 }: a, the solution, its Jacobian in a (kinks count as inactive)
    ("inside", [0.25, 0.5], [0.25, 0.5], [[1, 0], [0, 1]]),
    ("an edge", [1.0, 1.0], [0.5, 0.5], [[0.5, -0.5], [-0.5, 0.5]]),
    ("a vertex", [3.0, 0.0], [1.0, 0.0], [[0, 0], [0, 0]]),
    ("an axis", [-1.0, 0.5], [0.0, 0.5], [[0, 0], [0, 1]]),
    ("a kink of an axis", [0.0, 0.5], [0.0, 0.5], [[1, 0], [0, 1]]),
    ("the origin, two kinks", [0.0, 0.0], [0.0, 0.0], [[1, 0], [0, 1]]),
    ("a kink of the edge", [0.5, 0.5], [0.5, 0.5], [[1, 0], [0, 1]]),
    ("a vertex, two kinks", [1.0, 0.0], [1.0, 0.0], [[1, 0], [0, 1]]),
    ("a vertex, a kink beside", [2.0, 1.0], [1.0, 0.0], [[0.5, -0.5], [-0.5, 0.5]]),
]


@pytest.mark.parametrize(("name", "a", "x", "jacobian"), CLOSED, ids=[case[0] for case in CLOSED])
def test_projection_on_a_triangle(xp: Any, name: str, a: Any, x: Any, jacobian: Any) -> None:
    program, fixed = (
        QuadraticProgram(),
        arrays(xp, [np.eye(2), np.vstack([-np.eye(2), [[1, 1]]]), np.array([0.0, 0, 1])]),
    )
    solve = lambda t: program(fixed[0], -t, *fixed[1:]).x  # noqa: E731
    assert xp.numpy(solve(xp.array(a))) == pytest.approx(x, abs=1e-12)
    found = [xp.numpy(xp.gradient(lambda t, i=i: solve(t)[i], xp.array(a))) for i in range(2)]
    assert np.array(found) == pytest.approx(np.array(jacobian), abs=1e-9)
    report = program.diagnose(fixed[0], -xp.array(a), *fixed[1:])
    assert report.invertible and report.status == "computed"
    assert report.kinks == name.count("kink") + ("two" in name)
    assert report.smallest_singular_value > 0.1
    assert ("row" in str(report)) == bool(report.kinks)


def test_the_jacobians_at_a_kink_are_a_set(xp: Any) -> None:
    report = QuadraticProgram().diagnose(*arrays(xp, [np.eye(1), np.zeros(1), -np.eye(1), np.zeros(1)]))  # max(0, -q)
    found = report.jacobian()
    assert found.exact and found.shape == (3, 2)
    low, high = found.gradients([1.0, 0.0, 0.0]).box()
    assert (low[0], high[0]) == (-1.0, 0.0)


DEGENERATE: list[tuple[str, list[Any], str]] = [
    ("the same constraint twice", [np.eye(1), [-1.0], [[1.0], [1.0]], [0.0, 0.0]], "LICQ"),
    ("|a| at 0", [np.eye(1), [1.0], [[-1.0], [-1.0]], [0.0, 0.0]], "LICQ"),
    ("three constraints at a vertex", [np.eye(2), [-1.0, -1.0], [[1, 0], [0, 1], [1, 1]], [0.0, 0, 0]], "LICQ"),
    ("a kink beside two constraints", [np.eye(2), [-1.0, -1.0], [[1, 0], [0, 1], [1, -1]], [0.0, 0, 0]], "LICQ"),
    ("a face of solutions", [np.zeros((2, 2)), [1.0, 0.0], [[-1, 0], [0, -1], [0, 1]], [0.0, 0, 1]], "second-order"),
    ("a flat direction at a kink", [np.diag([1.0, 0.0]), [0.0, 0.0], [[0, -1], [0, 1]], [0.0, 1]], "second-order"),
    ("both", [np.zeros((2, 2)), [-1.0, 0.0], [[1, 0], [1, 0], [0, 1], [0, -1]], [0.0, 0, 1, 1]], "LICQ"),
]


@pytest.mark.parametrize(("name", "values", "words"), DEGENERATE, ids=[case[0] for case in DEGENERATE])
def test_degenerate_programs_are_refused(xp: Any, name: str, values: Any, words: str) -> None:
    given = [np.asarray(v, dtype=float) for v in values]
    report = QuadraticProgram().diagnose(*arrays(xp, given))
    assert report.invertible is False and report.smallest_singular_value == 0.0
    assert words in report.reasons[0]
    assert np.linalg.svd(report.element, compute_uv=False)[-1] < 1e-9

    def value(program: Any, q: Any) -> Any:
        return program(*(arrays(xp, given)[:1]), q, *arrays(xp, given)[2:]).x[0]

    q = arrays(xp, given)[1]
    with pytest.raises(NotInvertible, match=words):
        xp.gradient(lambda t: value(QuadraticProgram(), t), q)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(float(value(QuadraticProgram(), q)))


def test_a_warning_by_choice(xp: Any) -> None:
    given = arrays(xp, [np.eye(1), np.array([-1.0]), np.ones((2, 1)), np.zeros(2)])
    soft = QuadraticProgram(violated="warn")
    with pytest.warns(ImplicitWarning, match="LICQ"):
        slope = xp.gradient(lambda h: soft(*given[:3], h).x.sum(), given[3])
    assert np.isfinite(xp.numpy(slope)).all()


def test_cvxpylayers_answers_in_silence_where_ours_refuses(xp: Any) -> None:
    cvxpy, layers = pytest.importorskip("cvxpy"), pytest.importorskip(f"cvxpylayers.{xp.name}")
    x, a = cvxpy.Variable(), cvxpy.Parameter()
    problem = cvxpy.Problem(cvxpy.Minimize((x + 1) ** 2), [x >= a, x >= -a])  # |a|, whose derivative at 0 is none
    layer = layers.CvxpyLayer(problem, [a], [x])
    given = ns.implicit.checked(layer)
    assert float(xp.gradient(lambda t: layer(t)[0], xp.array(0.0))) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(NotInvertible, match="LICQ"):
        xp.gradient(lambda t: given(t)[0], xp.array(0.0))
    assert float(xp.gradient(lambda t: given(t)[0], xp.array(-2.0))) == pytest.approx(-1.0)


def test_checked_layers_agree_with_cvxpylayers(xp: Any) -> None:
    cvxpy, layers = pytest.importorskip("cvxpy"), pytest.importorskip(f"cvxpylayers.{xp.name}")
    x, A, b = cvxpy.Variable(3), cvxpy.Parameter((4, 3)), cvxpy.Parameter(4)
    bounds = [x >= -0.2, cvxpy.norm(x) <= 2]  # the second is inactive: what cvxpy introduces for it is not determined
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(A @ x - b) + 0.1 * cvxpy.norm1(x)), bounds)
    layer = layers.CvxpyLayer(problem, [A, b], [x], solver_args={"eps": 1e-10})
    rng = np.random.default_rng(0)
    left, right = xp.array(rng.standard_normal((2, 4, 3)).tolist()), xp.array(rng.standard_normal(4).tolist())
    given = ns.implicit.checked(layer)
    for at in (left[0], left):
        assert xp.numpy(given(at, right)[0]) == pytest.approx(xp.numpy(layer(at, right)[0]), abs=1e-6)
        own, other = (xp.gradient(lambda t, f=f: (f(at, t)[0] ** 2).sum(), right) for f in (given, layer))  # noqa: B023
        assert xp.numpy(own) == pytest.approx(xp.numpy(other), abs=1e-5)
    assert given.diagnose(left[0], right).invertible


def test_variables_that_are_not_unique_are_refused() -> None:
    cvxpy, layers = pytest.importorskip("cvxpy"), pytest.importorskip("cvxpylayers.torch")
    import torch

    x, a = cvxpy.Variable(2), cvxpy.Parameter()
    problem = cvxpy.Problem(cvxpy.Minimize((x[0] - a) ** 2), [x[1] >= 0, x[1] <= 1])
    given = ns.implicit.checked(layers.CvxpyLayer(problem, [a], [x]))
    t = torch.tensor(1.0, dtype=torch.double, requires_grad=True)
    given(t)[0][0].backward()
    assert float(t.grad) == pytest.approx(1.0)
    with pytest.raises(NotInvertible, match="not unique"):
        given(t)[0][1].backward()


KINKS: list[tuple[str, Cones, list[float], int]] = [
    # projections as programs, at their kinks: min |x - a|^2/2, x in K
    ("orthant", Cones(nonnegative=3), [0.0, 1.0, 0.0], 2),
    ("second-order boundary", Cones(second_order=(3,)), [1.0, 0.6, 0.8], 1),
    ("second-order polar boundary", Cones(second_order=(3,)), [-1.0, 0.6, 0.8], 1),
    ("second-order apex", Cones(second_order=(3,)), [0.0, 0.0, 0.0], 3),
    ("semidefinite, one zero", Cones(semidefinite=(2,)), [1.0, 0.0, 0.0], 1),
    ("semidefinite, zero", Cones(semidefinite=(2,)), [0.0, 0.0, 0.0], 3),
    ("exponential boundary", Cones(exponential=1), [0.0, 1.0, 1.0], 1),
    ("exponential polar boundary", Cones(exponential=1), [1.0, 1.0, -1.0], 1),
    ("exponential edge", Cones(exponential=1), [-1.0, 0.0, 1.0], 1),
    ("exponential ray", Cones(exponential=1), [0.0, 0.0, 1.0], 2),
    ("exponential apex", Cones(exponential=1), [0.0, 0.0, 0.0], 3),
]


@pytest.mark.parametrize(("name", "cones", "a", "kinks"), KINKS, ids=[case[0] for case in KINKS])
def test_projections_as_programs(xp: Any, name: str, cones: Cones, a: Any, kinks: int) -> None:
    n = len(a)
    data = ConeData(np.eye(n), -np.array(a), -np.eye(n), np.zeros(n), cones)
    x = np.array(a) + cones.project_dual(-np.array(a))
    report = diagnose_program(Solved(data, x, -np.array(a), 0.0, 1e-9), "a projection")
    assert report.invertible and report.kinks == kinks and report.smallest_singular_value > 0.1
    solver = lambda P, c, A, b, K: (K.project_dual(c) - c, K.project_dual(c), K.project_dual(c) - c)  # noqa: E731
    program = ConeProgram(cones, solver)
    value = lambda c: (program(c, *arrays(xp, [-np.eye(n), np.zeros(n), np.eye(n)])).x ** 2).sum()  # noqa: E731
    slope = xp.numpy(xp.gradient(value, xp.array([-t for t in a])))
    assert slope == pytest.approx(-2 * x, abs=1e-9)


@pytest.mark.parametrize("seed", shortened(range(12), 6))
def test_two_elements_decide_for_all(seed: int) -> None:
    """Random monotone programs at random kinks, degenerate ones among them, against many weights."""
    rng = np.random.default_rng(seed)
    n, m = 3, 4
    A = rng.integers(-1, 2, (m, n)).astype(float)
    L = rng.integers(-1, 2, (n, int(rng.integers(0, 3)))).astype(float)
    v = rng.choice([-1.0, 0.0, 0.0, 1.0], m)
    data = ConeData(L @ L.T, np.zeros(n), A, np.zeros(m), Cones(nonnegative=m))
    report = diagnose_program(Solved(data, np.zeros(n), v, 0.0, 1e-9), "random")
    kinks = np.flatnonzero(v == 0)
    singular, signs = False, set()
    least = np.inf
    for weights in itertools.product((0.0, 0.25, 0.5, 1.0), repeat=len(kinks)):
        V = np.diag((v > 0).astype(float))
        V[kinks, kinks] = weights
        M = data.reduced(V)
        least = min(least, np.linalg.svd(M, compute_uv=False)[-1])
        singular |= np.linalg.svd(M, compute_uv=False)[-1] < 1e-9
        signs.add(np.sign(np.linalg.det(M)))
    assert report.invertible is not singular
    if report.invertible:
        assert len(signs) == 1
        assert 0 < report.smallest_singular_value <= least + 1e-12


@pytest.mark.parametrize("seed", shortened(range(6), 2))
def test_bounds_of_singular_values_at_an_apex(seed: int) -> None:
    from nonsmooth.implicit.projections import jacobian, second_order_cone

    rng = np.random.default_rng(seed)
    data = ConeData(np.eye(4), np.zeros(4), rng.standard_normal((3, 4)), np.zeros(3), Cones(second_order=(3,)))
    report = diagnose_program(Solved(data, np.zeros(4), np.zeros(3), 0.0, 1e-9), "an apex")
    assert report.invertible and not report.attained and report.smallest_singular_value > 0
    elements = jacobian(second_order_cone, np.zeros(3)).elements
    for _ in range(100):
        V = np.mean([elements.support_point(rng.standard_normal(9)) for _ in range(int(rng.integers(1, 4)))], axis=0)
        least = np.linalg.svd(data.reduced(V.reshape(3, 3)), compute_uv=False)[-1]
        assert least >= report.smallest_singular_value - 1e-12


def test_batches_and_maps(xp: Any) -> None:
    program, given = QuadraticProgram(), quadratic(9)
    rng = np.random.default_rng(0)
    qs = rng.standard_normal((3, 5))
    fixed = arrays(xp, given)
    value = lambda q: (program(fixed[0], q, *fixed[2:]).x ** 2).sum()  # noqa: E731
    single = np.array([xp.numpy(xp.gradient(value, xp.array(q.tolist()))) for q in qs])
    whole = xp.numpy(xp.gradient(value, xp.array(qs.tolist())))
    assert whole == pytest.approx(single, abs=1e-9)
    if xp.name == "torch":
        import torch

        mapped = torch.func.vmap(torch.func.grad(value))(xp.array(qs.tolist()))
    else:
        import jax

        mapped = jax.jit(jax.vmap(jax.grad(value)))(xp.array(qs.tolist()))
    assert xp.numpy(mapped) == pytest.approx(single, abs=1e-9)
    common = xp.numpy(
        xp.gradient(lambda h: (program(fixed[0], xp.array(qs.tolist()), fixed[2], h, *fixed[4:]).x).sum(), fixed[3])
    )
    assert common.shape == given[3].shape


@pytest.mark.parametrize("seed", shortened(range(6), 2))
def test_the_units_of_a_program_do_not_matter(xp: Any, seed: int) -> None:
    """A tiny problem is no kink: unknowns, rows and objective in units between 1e-9 and 1e9."""
    P, q, G, h, A, b = quadratic(seed)
    rng = np.random.default_rng(seed)
    a, f = 10 ** rng.uniform(-9, 9, 2)
    D, E = 10 ** rng.uniform(-6, 6, (4, 1)), 10 ** rng.uniform(-6, 6, (2, 1))
    units = [np.array(f * a * a), np.array(f * a), a * D, D[:, 0], a * E, E[:, 0]]
    weights = xp.array(list(range(1, 6)))
    program = QuadraticProgram()
    plain, other = [P, q, G, h, A, b], [u * v for u, v in zip(units, (P, q, G, h, A, b), strict=True)]
    f_plain = lambda *v: (program(*v).x * weights).sum()  # noqa: E731
    f_other = lambda *v: (program(*v).x * weights).sum() * a  # noqa: E731
    assert float(f_other(*arrays(xp, other))) == pytest.approx(float(f_plain(*arrays(xp, plain))), rel=1e-9)
    for k in (1, 3) if seed else range(6):
        expected = slopes(xp, f_plain, plain, k)
        np.testing.assert_allclose(slopes(xp, f_other, other, k) * units[k], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", ["interior point", "clarabel", "scs"])
def test_an_objective_of_zeros_has_solutions_and_no_derivative(xp: Any, solver: str) -> None:
    """Every point of a box solves it: the multipliers are rounding of 0, and nothing is relative to that."""
    program = QuadraticProgram(named_solver(solver))
    given = arrays(xp, [np.zeros((2, 2)), np.zeros(2), np.vstack([np.eye(2), -np.eye(2)]), np.array([3.0, 5.0, 0, 0])])
    x = xp.numpy(program(*given).x)
    assert (x >= -1e-7).all() and (x <= np.array([3, 5]) + 1e-7).all()
    with pytest.raises(NotInvertible, match="second-order"):
        xp.gradient(lambda q: program(given[0], q, *given[2:]).x.sum(), given[1])


@pytest.mark.parametrize(("size", "x"), [(1e-10, 1.5e-10), (1e8, 1.5e8)])
def test_tiny_and_huge_numbers(xp: Any, size: float, x: float) -> None:
    given = [np.eye(2), size * np.array([-3.0, -1.0]), np.ones((1, 2)), size * np.ones(1)]
    report = QuadraticProgram().diagnose(*arrays(xp, given))
    assert report.invertible and report.kinks == 0
    low, high = report.jacobian().gradients([1.0, 0.0, 0.0, 0.0]).box()
    np.testing.assert_allclose([low, high], [[-0.5, 0.5, 0.5]] * 2, atol=1e-9)
    assert xp.numpy(QuadraticProgram()(*arrays(xp, given)).x)[0] == pytest.approx(x)
    np.testing.assert_allclose(slopes(xp, lambda *v: QuadraticProgram()(*v).x[0], given, 1), [-0.5, 0.5], atol=1e-9)


def test_an_answer_that_is_wrong_in_small_units_is_not_believed(xp: Any) -> None:
    zeros = lambda P, c, A, b, K: (0 * c, 0 * b, b)  # noqa: E731
    tiny = [1e-10 * np.array([-3.0, -1.0]), np.ones((1, 2)), 1e-10 * np.ones(1), np.eye(2)]
    with pytest.raises(NotConverged, match="residual"):
        ConeProgram(Cones(nonnegative=1), zeros)(*arrays(xp, tiny))
    with pytest.raises(UsageError, match="floating numbers"):
        QuadraticProgram()(xp.array([[1.0]]), _whole(xp))


def _whole(xp: Any) -> Any:
    """Make an array of whole numbers."""
    if xp.name == "torch":
        import torch

        return torch.tensor([1])
    import jax.numpy as jnp

    return jnp.asarray([1])


def test_single_precision(xp: Any) -> None:
    given = quadratic(4)
    wide = xp.numpy(QuadraticProgram()(*arrays(xp, given)).x)
    narrow = QuadraticProgram()(*arrays(xp, given, "single")).x
    assert str(narrow.dtype).endswith("float32")
    assert xp.numpy(narrow) == pytest.approx(wide, abs=1e-3)
    kink = [np.eye(2), np.array([0.0, -0.5]), -np.eye(2), np.zeros(2)]
    report = QuadraticProgram().diagnose(*arrays(xp, kink, "single"))
    assert report.invertible and report.kinks == 1


def test_programs_without_inequalities_or_constraints(xp: Any) -> None:
    P, q, _, _, A, b = quadratic(5)
    found = QuadraticProgram()(*arrays(xp, [P, q]), None, None, *arrays(xp, [A, b]))
    system = np.block([[P, A.T], [A, np.zeros((2, 2))]])
    assert xp.numpy(found.x) == pytest.approx(np.linalg.solve(system, np.concatenate([-q, b]))[:5])
    assert xp.numpy(QuadraticProgram()(*arrays(xp, [P, q])).x) == pytest.approx(np.linalg.solve(P, -q))


def test_arguments_stay_as_they_are(xp: Any) -> None:
    given = quadratic(6)
    values = arrays(xp, given)
    QuadraticProgram()(*values)
    for value, old in zip(values, given, strict=True):
        assert np.array_equal(xp.numpy(value), old)


def test_no_second_derivative_in_silence() -> None:
    import torch

    given = [torch.tensor(v) for v in quadratic(7)]
    q = given[1].requires_grad_()
    (slope,) = torch.autograd.grad((QuadraticProgram()(*given).x ** 2).sum(), q, create_graph=True)
    with pytest.raises(UsageError, match="second derivative"):
        slope.sum().backward()


EYE, ZERO = np.eye(2), np.zeros(2)

BAD: list[tuple[str, list[Any], type[Exception], str]] = [
    ("infeasible", [EYE, ZERO, [[1.0, 0], [-1, 0]], [-1.0, -1.0]], NotConverged, "infeasible"),
    ("unbounded", [0 * EYE, [1.0, 0.0], [[0.0, 1.0]], [1.0]], NotConverged, "unbounded"),
    ("no constraints, unbounded", [0 * EYE, [1.0, 0.0]], NotConverged, "unbounded"),
    ("nan", [EYE, [np.nan, 0.0]], UsageError, "nan"),
    ("infinity", [EYE, ZERO, EYE, [np.inf, 1.0]], UsageError, "infinity"),
    ("not symmetric", [[[1.0, 1.0], [0.0, 1.0]], ZERO], UsageError, "symmetric"),
    ("indefinite", [np.diag([1.0, -1.0]), ZERO], UsageError, "negative eigenvalue"),
    ("shape of P", [np.eye(3), ZERO], UsageError, "P"),
    ("shape of G", [EYE, ZERO, np.ones((1, 3)), [1.0]], UsageError, "G"),
    ("shape of h", [EYE, ZERO, np.ones((1, 2)), [1.0, 2.0]], UsageError, "h"),
    ("batches", [np.ones((2, 1, 1)), np.zeros((3, 1))], UsageError, "broadcast"),
    ("a number", [EYE, 1.0], UsageError, "axis"),
]


@pytest.mark.parametrize(("name", "values", "error", "words"), BAD, ids=[case[0] for case in BAD])
def test_bad_programs_are_refused(xp: Any, name: str, values: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        QuadraticProgram()(*(v if isinstance(v, float) else xp.array(np.asarray(v).tolist()) for v in values))


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
def test_conic_solvers_say_why(xp: Any, solver: str) -> None:
    program = ConeProgram(Cones(nonnegative=2), named_solver(solver))
    with pytest.raises(NotConverged, match=r"(?i)infeasible"):
        program(*arrays(xp, [np.zeros(1), np.array([[1.0], [-1.0]]), np.array([-1.0, -1.0])]))
    with pytest.raises(NotConverged, match=r"(?i)unbounded"):
        program(*arrays(xp, [np.array([-1.0]), np.array([[-1.0], [-1.0]]), np.array([0.0, 0.0])]))


def test_other_bad_calls(xp: Any) -> None:
    c, A, b = arrays(xp, [np.zeros(1), np.eye(1), np.zeros(1)])
    with pytest.raises(NotConverged, match="residual"):
        ConeProgram(Cones(nonnegative=1), lambda *_: (np.ones(1), np.ones(1), np.ones(1)))(c + 1, 0 * A, b - 1)
    with pytest.raises(UsageError, match="shapes"):
        ConeProgram(Cones(nonnegative=1), lambda *_: (np.ones(2), np.ones(1), np.ones(1)))(c, A, b)
    for call, words in [
        (lambda: QuadraticProgram("simplex"), "solver"),
        (lambda: ConeProgram({"l": 1}), "Cones"),
        (lambda: ConeProgram(Cones(second_order=(3,)), "interior point"), "quadratic"),
        (lambda: Cones(nonnegative=-1), "whole numbers"),
        (lambda: Cones(second_order=(0,)), "whole numbers"),
        (lambda: QuadraticProgram(violated="perhaps"), "violated"),
        (lambda: QuadraticProgram()(A, c, A), "together"),
        (lambda: ns.implicit.checked(len), "CvxpyLayer"),
        (lambda: ConeProgram(Cones(nonnegative=2))(c, A, b), "2 rows"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()


def test_arrays_of_numpy_are_called_by_their_names() -> None:
    torch = pytest.importorskip("torch")
    P, q = torch.eye(2, dtype=torch.float64), torch.tensor([-3.0, -1.0], dtype=torch.float64)
    for arrays in ((P.numpy(), q.numpy()), (P.numpy(), q), (P, q.numpy())):
        with pytest.raises(UsageError, match=r"QuadraticProgram takes tensors of torch .* found P: .*, q: .*as_tensor"):
            QuadraticProgram()(*arrays)
    with pytest.raises(UsageError, match=r"ConeProgram takes tensors of torch .* found c: .*Tensor, A: numpy\.ndarray"):
        ConeProgram(Cones(nonnegative=2))(q, P.numpy(), q)


def test_types_are_promoted() -> None:
    """As by torch's own functions; each gradient has the type of its argument."""
    torch = pytest.importorskip("torch")
    P, q = torch.eye(2, dtype=torch.float64), torch.tensor([-3.0, -1.0])
    P.requires_grad_()
    q.requires_grad_()
    x = QuadraticProgram()(P, q).x
    x.sum().backward()
    assert x.dtype == torch.float64
    assert P.grad.dtype == torch.float64
    torch.testing.assert_close(q.grad, -torch.ones(2))
