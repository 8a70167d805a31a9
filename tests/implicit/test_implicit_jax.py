"""Solutions in JAX: closed forms, both modes, compositions, and the errors that take the place of wrong numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.test_util import check_grads

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, ResultError, UsageError

implicit = ns.implicit


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def contraction(seed: int, n: int, norm: float = 0.9) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    W = generator.normal(size=(n, n))
    return norm * W / np.linalg.norm(W, 2), generator.normal(size=n)


def soft(v: Any, step: Any, threshold: Any) -> Any:
    return jnp.sign(v) * jax.nn.relu(jnp.abs(v) - step * threshold)


# --- closed forms -----------------------------------------------------------------------------------------------------

A = np.array([[3.0, 1.0], [1.0, 2.0]])

CLOSED: dict[str, tuple[Callable[..., Any], Any, Any, Any]] = {
    "linear fixed point": (
        lambda b: implicit.fixed_point(lambda y, b: 0.5 * y[::-1] + b)(b, start=jnp.zeros(2)),
        [1.0, 3.0],
        np.linalg.solve([[1, -0.5], [-0.5, 1]], [1.0, 3.0]),
        np.linalg.inv([[1, -0.5], [-0.5, 1]]),
    ),
    "a map that does not contract": (
        lambda b: implicit.fixed_point(lambda y, b: 3 * y + b, solver=lambda b: -b / 2)(b),
        4.0,
        -2.0,
        -0.5,
    ),
    "root of a square": (
        lambda t: implicit.root(lambda y, t: y**2 - t)(t, start=1.0),
        2.0,
        2**0.5,
        0.5 / 2**0.5,
    ),
    "root of softplus": (
        lambda t: implicit.root(lambda y, t: jax.nn.softplus(y) - t)(t, start=jnp.zeros(2)),
        [1.0, 0.1],
        np.log(np.expm1([1.0, 0.1])),
        np.diag(1 / -np.expm1([-1.0, -0.1])),
    ),
    "minimum of a quadratic": (
        lambda b: implicit.argmin(lambda y, b: y @ A @ y / 2 - b @ y)(b, start=jnp.zeros(2)),
        [1.0, 1.0],
        np.linalg.solve(A, [1.0, 1.0]),
        np.linalg.inv(A),
    ),
    "soft threshold": (
        lambda l: implicit.argmin(lambda y, l: ((y - V) ** 2).sum() / 2, lambda v, s, l: soft(v, s, l))(
            l, start=jnp.zeros(3)
        ),
        1.0,
        [2.0, 0.0, -1.0],
        [-1.0, 0.0, 1.0],
    ),
    "projection on a box": (
        lambda b: implicit.argmin(lambda y, b: y @ A @ y / 2 - b @ y, lambda v, s, b: jnp.clip(v, 0.0, 1.0))(
            b, start=jnp.zeros(2)
        ),
        [6.0, 2.0],
        [1.0, 0.5],
        [[0, 0], [0, 0.5]],
    ),
    "relu": (
        lambda b: implicit.fixed_point(lambda y, b: 0.5 * jax.nn.relu(y) + b)(b, start=jnp.zeros(2)),
        [1.0, -1.0],
        [2.0, -1.0],
        [[2, 0], [0, 1]],
    ),
}
V = np.array([3.0, 0.5, -2.0])


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str, precision: str) -> None:
    f, at, value, slope = CLOSED[name]
    theta = jnp.asarray(at, dtype=precision)
    y = f(theta)
    assert y.dtype == precision
    exact = {"rtol": 1e-7, "atol": 1e-7} if precision == "float64" else {"rtol": 2e-3, "atol": 2e-3}
    np.testing.assert_allclose(y, value, **exact)
    np.testing.assert_allclose(jax.jacrev(f)(theta), slope, **exact)
    np.testing.assert_allclose(jax.jacfwd(f)(theta), slope, **exact)
    np.testing.assert_allclose(jax.jit(jax.jacrev(f))(theta), slope, **exact)


def test_single_precision() -> None:
    f, at, value, slope = CLOSED["relu"]
    theta = jnp.asarray(at, dtype="float32")
    assert f(theta).dtype == "float32"
    np.testing.assert_allclose(f(theta), value, rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(f)(theta), slope, rtol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_half_precision_is_solved_in_single(kind: str, compiled: bool) -> None:
    W, t = (jnp.asarray(a, kind) for a in contraction(0, 20, 0.8))
    given: list[Any] = []

    def own(W: Any, t: Any) -> Any:
        given.append(W.dtype)
        return jnp.linalg.solve(jnp.eye(20) - W.astype("float32"), t.astype("float32"))

    for solver in (None, own):
        solve = implicit.fixed_point(lambda y, W, t: W @ y + t, solver)
        start = None if solver else jnp.zeros(20, kind)

        def loss(W: Any, t: Any, solve: Any = solve, start: Any = start) -> Any:
            y = solve(W, t, start=start)
            assert y.dtype == kind
            return (y.astype("float32") ** 2).sum()

        slope = jax.jit(jax.grad(loss, (0, 1))) if compiled else jax.grad(loss, (0, 1))
        y = np.linalg.solve(np.eye(20) - np.asarray(W, "float64"), np.asarray(t, "float64"))
        back = np.linalg.solve(np.eye(20) - np.asarray(W, "float64").T, 2 * y)
        eps = float(jnp.finfo(kind).eps)
        for found, expected in zip(slope(W, t), (np.outer(back, y), back), strict=True):
            assert found.dtype == kind
            error = np.linalg.norm(np.asarray(found, "float64") - expected)
            assert error <= 2 * eps * np.linalg.norm(expected)
    assert {str(g) for g in given} == {kind}


def test_numbers_of_python_are_differentiated() -> None:
    f = implicit.root(lambda y, t: y**2 - t)
    assert jax.grad(lambda t: f(t, start=1.0))(4.0) == pytest.approx(0.25)
    assert jax.jvp(lambda t: f(t, start=1.0), (4.0,), (1.0,))[1] == pytest.approx(0.25)
    assert jax.grad(jax.grad(lambda t: f(t, start=1.0)))(4.0) == pytest.approx(-1 / 32)


def test_trees_of_parameters_and_solutions() -> None:
    def T(y: Any, theta: Any, what: str) -> Any:
        assert what == "sum"
        a, b = y["a"], y["b"][0]
        return {"a": 0.5 * b.sum() + theta["t"] * theta["n"], "b": [0.25 * a * jnp.ones(2) + theta["t"]]}

    f = implicit.fixed_point(T)
    start = {"a": 0.0, "b": [jnp.zeros(2)]}

    def of(t: Any) -> Any:
        return f({"t": t, "n": 3, "none": None, "index": np.arange(2)}, "sum", start=start)

    y = of(jnp.asarray(1.0))  # a = b + 3t, b = a/4 + t
    assert y["a"].shape == () and y["b"][0].shape == (2,)
    np.testing.assert_allclose(y["a"], 16 / 3)
    slope = jax.jacrev(of)(jnp.asarray(1.0))
    np.testing.assert_allclose(slope["a"], 16 / 3)
    np.testing.assert_allclose(slope["b"][0], [7 / 3, 7 / 3])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
@pytest.mark.parametrize("linear", ["dense", "gmres"])
def test_random_relu_contractions(seed: int, linear: str) -> None:
    n = 7
    W, b = map(jnp.asarray, contraction(seed, n))
    f = implicit.fixed_point(lambda y, W, b: jax.nn.relu(W @ y + b), linear=linear)
    y = f(W, b, start=jnp.zeros(n))
    np.testing.assert_allclose(y, jax.nn.relu(W @ y + b), atol=1e-12)
    D = np.diag(np.asarray(W @ y + b) > 0).astype(float)
    expected = np.linalg.solve(np.eye(n) - D @ W, D)
    np.testing.assert_allclose(jax.jacrev(f, argnums=1)(W, b, start=jnp.zeros(n)), expected, atol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(f, argnums=1)(W, b, start=jnp.zeros(n)), expected, atol=1e-8)
    slope = jax.grad(lambda W: f(W, b, start=jnp.zeros(n)).sum())(W)
    np.testing.assert_allclose(slope, np.outer(expected.T @ np.ones(n), y), atol=1e-8)


def test_lasso() -> None:
    generator = np.random.default_rng(0)
    X, l = jnp.asarray(generator.normal(size=(20, 8))), 0.3
    target = jnp.asarray(generator.normal(size=20))
    f = implicit.argmin(
        lambda y, X, target, l: ((X @ y - target) ** 2).sum() / 40, lambda v, s, X, target, l: soft(v, s, l)
    )
    y = f(X, target, l, start=jnp.zeros(8))
    S = np.asarray(y) != 0
    assert 0 < S.sum() < 8
    expected = np.zeros(8)
    XS = np.asarray(X)[:, S]
    expected[S] = -np.linalg.solve(XS.T @ XS / 20, np.sign(y[S]))
    np.testing.assert_allclose(jax.jacrev(lambda l: f(X, target, l, start=jnp.zeros(8)))(l), expected, atol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(lambda l: f(X, target, l, start=jnp.zeros(8)))(l), expected, atol=1e-7)


def ill_conditioned(n: int, condition: float) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return jnp.asarray(Q * np.geomspace(1, condition, n) @ Q.T), jnp.asarray(rng.normal(size=n))


@pytest.mark.parametrize(("n", "condition"), [(20, 1e8), pytest.param(520, 1e4, marks=pytest.mark.slow)])
def test_badly_conditioned_minima(n: int, condition: float) -> None:
    A, b = ill_conditioned(n, condition)
    quadratic = implicit.argmin(lambda y, b: y @ A @ y / 2 - b @ y, linear_tolerance=1e-4)

    def total(b: Any) -> Any:
        return quadratic(b, start=jnp.zeros(n)).sum()

    exact = np.linalg.solve(A, b)
    np.testing.assert_allclose(quadratic(b, start=jnp.zeros(n)), exact, atol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.vmap(total))(jnp.stack([b, -b])), [exact.sum(), -exact.sum()], atol=1e-7)
    lasso = implicit.argmin(lambda y, l: y @ A @ y / 2 - b @ y, soft, linear="dense", check="solves")
    level = 0.1 * float(jnp.abs(b).max())
    y, slope = jax.jvp(jax.jit(lambda l: lasso(l, start=jnp.zeros(n))), (level,), (1.0,))
    S = np.asarray(jnp.abs(y) > 1e-9)  # beside zeros that are exact, or up to the rounding of Newton's method
    inverse = np.linalg.inv(np.asarray(A)[S][:, S])
    np.testing.assert_allclose(y[S], inverse @ (b[S] - level * np.sign(y[S])), atol=1e-7)
    np.testing.assert_allclose(slope[S], -inverse @ np.sign(y[S]), atol=1e-5)
    assert np.all(np.abs(b - A @ y)[~S] <= level * (1 + 1e-9))


def test_newtons_method_ends_a_descent_early() -> None:
    """Descent finds the support of a Lasso, and a step of Newton's method its coefficients, far below the tolerance."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(60, 30)), rng.normal(size=60)
    lasso = implicit.argmin(lambda b, l: ((X @ b - y) ** 2).sum() / 2, soft, iterations=400, tolerance=1e-6)
    b = np.asarray(jax.jit(lambda l: lasso(l, start=jnp.zeros(30)))(8.0))
    S = b != 0
    assert 0 < S.sum() < 30
    exact = np.linalg.solve(X[:, S].T @ X[:, S], X[:, S].T @ y - 8.0 * np.sign(b[S]))
    np.testing.assert_allclose(b[S], exact, atol=1e-10)


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e4])
def test_no_step_of_newtons_method_leads_uphill(unit: float) -> None:
    """(y^2 - 1)^2 / 4 from beside its maximum at 0."""
    well = implicit.argmin(lambda y, t: unit * jnp.sum((y * y - t) ** 2) / 4, tolerance=1e-10)
    bounded = implicit.argmin(
        lambda y, t: -unit * jnp.sum((y - t) ** 2) / 2, lambda v, step, t: jnp.clip(v, -1, 1), tolerance=1e-10
    )
    for begin in (0.1, -1e-2, 1e-5):
        np.testing.assert_allclose(well(1.0, start=jnp.array([begin])), np.sign(begin), atol=1e-6)
        np.testing.assert_allclose(bounded(0.0, start=jnp.array([begin])), np.sign(begin), atol=1e-9)


def test_solvers_of_numpy_outside_of_jit() -> None:
    from scipy.optimize import brentq

    f = implicit.root(
        lambda y, t: y**3 + y - t, solver=lambda t: brentq(lambda y: y**3 + y - float(t), -5, 5, xtol=1e-14)
    )
    y = f(jnp.asarray(2.0))
    assert y.shape == () and y == pytest.approx(1.0)
    assert jax.grad(f)(2.0) == pytest.approx(0.25)
    assert jax.grad(jax.grad(f))(2.0) == pytest.approx(-6 / 64)
    with pytest.raises(UsageError, match=r"needs values of its parameters.*start="):
        jax.jit(f)(2.0)
    with pytest.raises(UsageError, match="needs values"):
        jax.vmap(f)(jnp.ones(2))
    assert jax.jit(jax.grad(lambda t: f(t, start=0.0)))(2.0) == pytest.approx(0.25)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda t: f(t, start=0.0)))(jnp.array([2.0, 10.0])), [1.0, 2.0])


def test_a_solver_is_decorated() -> None:
    @implicit.fixed_point(lambda y, t: jnp.cos(y) * t)
    def solution(t: Any) -> Any:
        return lax.fori_loop(0, 200, lambda _, y: jnp.cos(y) * t, jnp.zeros_like(t))

    y = solution(jnp.asarray(0.9))
    expected = np.cos(y) / (1 + 0.9 * np.sin(y))
    for f in (solution, jax.jit(solution)):
        np.testing.assert_allclose(jax.grad(f)(0.9), expected)


# --- compositions -----------------------------------------------------------------------------------------------------

W5, B5 = contraction(3, 5)


def equilibrium(W: Any, b: Any, **options: Any) -> Any:
    return implicit.fixed_point(lambda y, W, b: jnp.tanh(W @ y + b), **options)(W, b, start=jnp.zeros(len(b)))


@pytest.mark.parametrize("linear", ["dense", pytest.param("gmres", marks=pytest.mark.slow)])
def test_both_modes_to_the_second_order(linear: str) -> None:
    W, b = jnp.asarray(W5, jnp.float64), jnp.asarray(B5, jnp.float64)

    def f(W: Any, b: Any) -> Any:
        return equilibrium(W, b, linear=linear, check="solves")

    check_grads(f, (W[:3, :3], b[:3]), order=2, modes=("fwd", "rev"), rtol=1e-4, atol=1e-4)


def test_hessians_agree() -> None:
    b = jnp.asarray(B5, jnp.float64)

    def f(b: Any) -> Any:
        return (equilibrium(0.5 * jnp.eye(5), b) ** 2).sum()

    found = [second(first(f))(b) for second in (jax.jacfwd, jax.jacrev) for first in (jax.jacfwd, jax.jacrev)]
    y = equilibrium(0.5 * jnp.eye(5), b)  # by entries: y = tanh(y/2 + b), y' = 1/(1/t - 1/2), t = 1 - y^2
    t = 1 - y**2
    one = 1 / (1 / t - 0.5)
    expected = 2 * one**2 + 2 * y * (-(one**2) / t**2 * 2 * y * one)
    for H in found:
        np.testing.assert_allclose(H, np.diag(expected), atol=1e-10)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "twice", [jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacfwd(jax.jacfwd(f))]
)
def test_second_derivatives_inside_of_loops(twice: Any, compiled: bool) -> None:
    solve = implicit.root(lambda y, x: y * y - x)

    def scanned(x: Any) -> Any:  # x^(1/8)
        return lax.scan(lambda y, _: (solve(y, start=jnp.ones(())), None), x, None, length=3)[0]

    def mapped(x: Any) -> Any:  # x^(1/2)
        return lax.map(lambda x: solve(x, start=jnp.ones(())), x[None])[0]

    for f, power in ((scanned, 1 / 8), (mapped, 1 / 2)):
        found = (jax.jit(twice(f)) if compiled else twice(f))(2.0)
        assert found == pytest.approx(power * (power - 1) * 2 ** (power - 2))


@pytest.mark.parametrize("linear", ["dense", pytest.param("gmres", marks=pytest.mark.slow)])
def test_compiled_and_mapped_as_plain(linear: str) -> None:
    W, bs = jnp.asarray(W5), jnp.stack([B5, -B5, 2 * B5])

    def loss(W: Any, b: Any) -> Any:
        return (equilibrium(W, b, linear=linear) ** 2).sum()

    plain = [jax.grad(loss, argnums=(0, 1))(W, b) for b in bs]
    exact = {"rtol": 1e-7, "atol": 1e-9}
    slopes, others = (jnp.stack(t) for t in zip(*plain, strict=True))
    for mapped in (jax.vmap, lambda f, in_axes: jax.jit(jax.vmap(f, in_axes))):
        one, two = mapped(jax.grad(loss, argnums=(0, 1)), (None, 0))(W, bs)
        np.testing.assert_allclose(one, slopes, **exact)
        np.testing.assert_allclose(two, others, **exact)
    for total in (lambda W: jax.vmap(loss, (None, 0))(W, bs).sum(), lambda W: lax.map(lambda b: loss(W, b), bs).sum()):
        np.testing.assert_allclose(jax.grad(total)(W), slopes.sum(0), **exact)
        np.testing.assert_allclose(jax.jit(jax.grad(total))(W), slopes.sum(0), **exact)

    def total(W: Any) -> Any:
        return lax.scan(lambda c, b: (c + loss(W, b), None), 0.0, bs)[0]

    np.testing.assert_allclose(jax.grad(total)(W), slopes.sum(0), **exact)
    # forward under two maps
    pushed = jax.vmap(jax.vmap(lambda b, v: jax.jvp(lambda b: loss(W, b), (b,), (v,))[1], (None, 0)), (0, None))
    np.testing.assert_allclose(pushed(bs, jnp.eye(5)), others, **exact)


def test_what_functions_close_over_is_differentiated() -> None:
    W, b = jnp.asarray(W5), jnp.asarray(B5)
    expected = jax.grad(lambda W: equilibrium(W, b).sum())(W)

    def closed(W: Any) -> Any:
        return implicit.fixed_point(lambda y, b: jnp.tanh(W @ y + b))(b, start=jnp.zeros(5)).sum()

    for f in (jax.grad(closed), jax.jit(jax.grad(closed)), jax.jacfwd(closed)):
        np.testing.assert_allclose(f(W), expected, atol=1e-12)
    hidden = jax.vmap(lambda s: jax.grad(lambda s: closed(s * W))(s))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(hidden[1], (expected * W).sum(), atol=1e-12)
    second = jax.grad(lambda s: jax.grad(lambda s: closed(s * W))(s))(0.7)
    step = 1e-5
    slopes = [jax.grad(lambda s: closed(s * W))(0.7 + e) for e in (step, -step)]
    np.testing.assert_allclose(second, (slopes[0] - slopes[1]) / (2 * step), rtol=1e-6)


def test_modules_of_equinox_and_flax() -> None:
    eqx = pytest.importorskip("equinox")
    nnx = pytest.importorskip("flax.nnx")
    layer = eqx.nn.Linear(4, 4, key=jax.random.key(0), dtype=jnp.float64)
    layer = eqx.tree_at(lambda m: m.weight, layer, 0.3 * layer.weight)
    x = jnp.arange(4.0)

    def inside(layer: Any) -> Any:
        return implicit.fixed_point(lambda y, x: jnp.tanh(layer(y) + x))(x, start=jnp.zeros(4)).sum()

    def given(layer: Any) -> Any:
        return implicit.fixed_point(lambda y, layer, x: jnp.tanh(layer(y) + x))(layer, x, start=jnp.zeros(4)).sum()

    W = layer.weight
    y = implicit.fixed_point(lambda y, x: jnp.tanh(layer(y) + x))(x, start=jnp.zeros(4))
    D = np.diag(1 - np.asarray(y) ** 2)
    expected = np.outer(D @ np.linalg.solve((np.eye(4) - D @ W).T, np.ones(4)), y)
    for f in (inside, given):
        for grad in (eqx.filter_grad(f), eqx.filter_jit(eqx.filter_grad(f))):
            np.testing.assert_allclose(grad(layer).weight, expected, atol=1e-10)

    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64)
    model.kernel.set_value(jnp.asarray(W.T))
    model.bias.set_value(layer.bias)
    definition, state = nnx.split(model)

    def flax_loss(state: Any) -> Any:
        model = nnx.merge(definition, state)
        return implicit.fixed_point(lambda y, x: jnp.tanh(model(y) + x))(x, start=jnp.zeros(4)).sum()

    found = jax.grad(flax_loss)(state)
    np.testing.assert_allclose(found["kernel"].get_value(), expected.T, atol=1e-10)


def test_what_is_closed_over_may_change() -> None:
    box = {"a": 0.5}
    f = implicit.fixed_point(lambda y, b: box["a"] * y + b)
    assert f(jnp.asarray(1.0), start=0.0) == pytest.approx(2.0)
    box["a"] = 0.75
    assert f(jnp.asarray(1.0), start=0.0) == pytest.approx(4.0)
    box["a"] = jnp.asarray(-1.0)
    assert jax.grad(lambda b: f(b, start=0.0))(1.0) == pytest.approx(0.5)


# --- large systems ----------------------------------------------------------------------------------------------------


def test_large_systems_by_products_alone() -> None:
    n = 700
    d = jnp.linspace(-0.9, 0.9, n)

    def f(b: Any) -> Any:
        return implicit.fixed_point(lambda y, b: jax.nn.relu(d * y[::-1] + b))(b, start=jnp.zeros(n))

    b = jnp.asarray(np.random.default_rng(0).normal(size=n))
    y = f(b)
    D = np.asarray(y > 0).astype(float)
    B = np.eye(n) - (D * d)[:, None] * np.eye(n)[::-1]
    np.testing.assert_allclose(jax.grad(lambda b: f(b).sum())(b), D * np.linalg.solve(B.T, np.ones(n)), atol=1e-8)
    np.testing.assert_allclose(jax.jvp(f, (b,), (b,))[1], np.linalg.solve(B, D * b), atol=1e-8)

    def g(b: Any) -> Any:
        return implicit.argmin(lambda y, b: ((2 + d) * y * y).sum() / 2 - b @ y)(b, start=jnp.zeros(n))

    np.testing.assert_allclose(jax.jit(jax.grad(lambda b: g(b).sum()))(b), 1 / (2 + d), atol=1e-8)


@pytest.mark.parametrize("compiled", [False, True])
def test_large_singular_operators_are_refused(compiled: bool) -> None:
    n = 600
    d = jnp.where(jnp.arange(n) == 5, 0.0, jnp.linspace(1, 2, n))

    def loss(b: Any) -> Any:
        return implicit.root(lambda y, b: d * y - d * b, solver=lambda b: b)(b).sum()

    slope = jax.jit(jax.grad(loss)) if compiled else jax.grad(loss)
    with pytest.raises(jax.errors.JaxRuntimeError if compiled else NotInvertible, match="gives a null vector"):
        jax.block_until_ready(slope(jnp.ones(n)))


# --- errors -----------------------------------------------------------------------------------------------------------


def nilpotent(theta: Any, **options: Any) -> Any:
    return implicit.fixed_point(lambda y, t: y + 0 * t, solver=lambda t: 3 * t, **options)(theta).sum()


def lying(theta: Any) -> Any:
    return implicit.fixed_point(lambda y, t: 0.5 * y + t, solver=lambda t: t)(theta).sum()


def nothing(theta: Any) -> Any:
    return implicit.fixed_point(lambda y, t: 0.5 * y + t, solver=lambda t: t * jnp.nan)(theta).sum()


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        (nilpotent, NotInvertible, "derivative of the equation in y is singular"),
        (lying, NotConverged, r"fixed point of <lambda>: y does not solve the equation: \|H\(y\)\|"),
        (nothing, NotConverged, "returned nan or inf"),
    ],
)
def test_failures_are_loud(loss: Any, error: Any, words: str) -> None:
    t = jnp.ones(3)
    rows = jnp.stack([t, t])
    for plain in (jax.grad(loss), lambda t: jax.jvp(loss, (t,), (t,)), lambda t: jax.vmap(jax.grad(loss))(rows)):
        with pytest.raises(error, match=words):
            plain(t)
    for compiled in (jax.vmap(jax.grad(loss)), lambda t: lax.map(jax.grad(loss), t), lambda t: jax.grad(loss)(t[0])):
        with pytest.raises(jax.errors.JaxRuntimeError, match=words):
            jax.block_until_ready(jax.jit(compiled)(rows))


def test_one_failure_among_many_is_enough() -> None:
    t = jnp.array([1.0, 0.0, 2.0])
    f = implicit.root(lambda y, t: t * y - 1, solver=lambda t: jnp.where(t > 0, 1 / t, 7.0))
    with pytest.raises(NotConverged, match="does not solve"):
        jax.vmap(f)(t)
    with pytest.raises(jax.errors.JaxRuntimeError, match="does not solve"):
        jax.block_until_ready(jax.jit(jax.vmap(f))(t))
    np.testing.assert_allclose(jax.vmap(f)(t + 1), 1 / (t + 1))


@pytest.mark.slow
def test_large_arrays_under_jit_do_not_wait_for_each_other() -> None:
    n = 400_000
    f = implicit.fixed_point(lambda y, t: 0.5 * jax.nn.relu(y) + t)
    slope = jax.jit(jax.grad(lambda t: f(t, start=jnp.zeros(n)).sum()))
    t = jnp.where(jnp.arange(n) % 2 == 0, 1.0, -1.0)
    np.testing.assert_allclose(slope(t), np.where(np.arange(n) % 2 == 0, 2.0, 1.0), atol=1e-8)
    with pytest.warns(ImplicitWarning, match="lies on 1 kink"):
        jax.block_until_ready(slope(t.at[0].set(0.0)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda t: implicit.fixed_point(lambda y, t: y[:2])(t, start=t), UsageError, r"shape \(3,\); found \(2,\)"),
        (lambda t: implicit.root(lambda y, t: (y, t))(t, start=t), UsageError, "like the solution: a tree"),
        (lambda t: implicit.argmin(lambda y, t: y - t)(t, start=t), ResultError, r"scalar array.*shape \(3,\)"),
        (lambda t: implicit.fixed_point(lambda y, t: y / 2)(t), UsageError, "pass start="),
        (lambda t: implicit.fixed_point(lambda y, t: y / 2, lambda t: "no")(t), UsageError, "holds a str"),
        (lambda t: implicit.fixed_point(lambda y, t: y / 2, lambda t: None)(t), UsageError, "holds no array"),
        (lambda t: implicit.fixed_point(lambda y, t: y / 2, lambda t: t * 1j)(t), UsageError, "complex"),
        (lambda t: implicit.fixed_point(lambda y, t: y / 2)(t * 1j, start=t), UsageError, "complex"),
        (lambda t: implicit.fixed_point(lambda y, t: 2 * y + t, iterations=5)(t, start=t[:0]), UsageError, "no entry"),
        (lambda t: implicit.root(lambda y, t: y**2 + 1)(t, start=t), NotConverged, "does not solve"),
        (lambda t: implicit.fixed_point(lambda y, t: y / 2, lambda t: t[:1])(t, start=t), UsageError, "shape"),
    ],
)
def test_bad_input(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call(jnp.ones(3))
    with pytest.raises((error, jax.errors.JaxRuntimeError), match=words):
        jax.block_until_ready(jax.jit(call)(jnp.ones(3)))


def test_singular_systems_by_choice() -> None:
    with pytest.warns(ImplicitWarning, match="is singular"), pytest.raises(NotConverged, match="linear system"):
        jax.grad(lambda t: nilpotent(t, violated="warn"))(jnp.ones(3))
    with pytest.raises(NotConverged, match="linear system"):
        jax.grad(lambda t: nilpotent(t, violated="ignore"))(jnp.ones(3))


def test_indefinite_systems_are_no_task_of_cg() -> None:
    d = jnp.array([1.0, -1.0, 2.0])
    f = implicit.argmin(lambda y, t: (d * y * y).sum() / 2 - t @ y, solver=lambda t: t / d, linear="cg", check="solves")
    with pytest.raises(NotConverged, match="by cg; cg needs a symmetric positive definite derivative"):
        jax.grad(lambda t: f(t) @ jnp.array([1.0, 1.0, 0.0]))(jnp.ones(3))


@pytest.mark.parametrize(
    ("eigenvalues", "method", "error", "words"),
    [
        ([0.0, 1.0, 2.0], "cg", NotInvertible, "by cg; a null vector was found, .* it is singular"),
        ([0.0, 1.0, 2.0], "gmres", NotInvertible, "by gmres; a null vector was found, .* it is singular"),
        (
            -np.linspace(1, 1e3, 30),
            "cg",
            NotConverged,
            "by cg; the derivative is not positive definite, which cg needs",
        ),
    ],
)
def test_what_is_known_of_a_system_that_fails(eigenvalues: Any, method: str, error: Any, words: str) -> None:
    n = len(eigenvalues)
    Q, c = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0], np.arange(1.0, n + 1)
    A = jnp.asarray(Q * np.array(eigenvalues) @ Q.T)
    f = implicit.root(lambda y, t: A @ (y - t), solver=lambda t: t, linear=method, iterations=4, check="solves")
    for slope in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        with pytest.raises((error, jax.errors.JaxRuntimeError), match=words):
            jax.block_until_ready(slope(lambda t: f(t) @ c)(jnp.ones(n)))


def test_kinks_in_a_compiled_program_are_counted() -> None:
    def f(t: Any) -> Any:
        return implicit.fixed_point(lambda y, t: 0.5 * jax.nn.relu(y) + t)(t, start=jnp.zeros(3)).sum()

    at, off = jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 1.0, -1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.block_until_ready(jax.jit(jax.grad(f))(off))
        jax.block_until_ready(jax.grad(f)(off))
    with pytest.warns(ImplicitWarning, match=r"fixed point of <lambda>: the solution lies on 2 kink\(s\)"):
        jax.block_until_ready(jax.jit(jax.grad(f))(at))

    def quiet(t: Any) -> Any:
        return implicit.fixed_point(lambda y, t: 0.5 * jax.nn.relu(y) + t, check="solves")(t, start=jnp.zeros(3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.block_until_ready(jax.jit(jax.jacrev(quiet))(at))


def test_functions_of_jax_are_known_when_compiled_as_before() -> None:
    f = implicit.fixed_point(lambda y, t: 0.5 * jax.nn.relu(y) + t, lambda t: 2 * t)
    assert jax.grad(f)(1.0) == pytest.approx(2.0)  # here relu is compared with jax's own as it is traced outside
    assert jax.jit(jax.grad(f))(1.0) == pytest.approx(2.0)  # here in the midst of a compilation


def folded(x: Any, **options: Any) -> Any:  # B = 1 - 2 w: 1 and -1 at the two pieces, 0 between them
    return implicit.root(lambda y, x: y - 2 * jax.nn.relu(y) - x, solver=lambda x: -jnp.abs(x), **options)(x)


def test_the_condition_is_decided_where_values_are_known() -> None:
    with pytest.raises(
        NotInvertible, match=r"(?s)condition of the implicit function theorem is violated.*vertex determinants"
    ):
        jax.grad(folded)(0.0)
    with pytest.raises(NotInvertible, match="is violated"):
        jax.vmap(jax.grad(folded))(jnp.array([-1.0, 0.0]))
    with pytest.warns(ImplicitWarning, match="is violated"):
        assert jax.grad(lambda x: folded(x, violated="warn"))(0.0) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jax.grad(lambda x: folded(x, violated="ignore"))(0.0) == 1.0
        assert jax.grad(lambda x: folded(x, check="solves"))(0.0) == 1.0
        assert jax.grad(folded)(-1.0) == 1.0

    def shown(a: Any) -> Any:
        return implicit.root(lambda y, x: y - a * jax.nn.relu(y) - x, solver=lambda x: x)(0 * a)

    with pytest.raises(NotInvertible, match="is violated"):
        jax.grad(shown)(2.0)
    assert jax.grad(shown)(0.5) == 0.0


def nest(x: Any, factor: float, around: Any = lambda f: f) -> Any:
    """y = factor w + x / 2 with w = relu(w) / 2 + y + x, whose slope in y is 2 or 1: B = 1 - 2 factor or 1 - factor."""
    inner = implicit.fixed_point(lambda w, y, x: 0.5 * jax.nn.relu(w) + y + x, check="solves")
    solve = around(lambda y, x: inner(y, x, start=jnp.zeros(())))
    return implicit.fixed_point(lambda y, x: factor * solve(y, x) + 0.5 * x, solver=lambda x: 0 * x)(x)


def test_kinks_of_solutions_inside_of_equations_are_decided() -> None:
    assert jax.grad(lambda x: nest(x, 0.25))(0.0) in (pytest.approx(1.0), pytest.approx(2.0))
    with pytest.raises(NotInvertible, match="is violated"):
        jax.grad(lambda x: nest(x, 0.75))(0.0)
    with pytest.warns(ImplicitWarning, match=r"the solution lies on 1 kink\(s\)"):
        jax.block_until_ready(jax.jit(jax.grad(lambda x: nest(x, 0.75)))(0.0))
    looped = lambda solve: lambda y, x: lax.map(lambda y: solve(y, x), y[None])[0]  # noqa: E731
    with pytest.warns(ImplicitWarning, match="is undecided: the solution of another equation lies inside of `scan`"):
        jax.grad(lambda x: nest(x, 0.75, looped))(0.0)


def test_what_looks_into_a_solution_is_refused_with_advice() -> None:
    solve = implicit.root(lambda y, x: y * y - x)
    with pytest.raises(ns.errors.CaptureError, match="Differentiate the whole with jax"):
        ns.capture(lambda x: solve(x, start=jnp.ones(())), jnp.ones(()))


def test_a_lower_problem_inside_of_an_objective() -> None:
    """min (w(y) - x)^2 + (y - 2)^2 with w = soft(y, 1/2): at x = 1 it is y = 7/4, with slope 1/2."""
    lower = implicit.argmin(lambda w, y: (w - y) ** 2 / 2, lambda v, s, y: soft(v, s, 0.5))
    upper = implicit.argmin(lambda y, x: (lower(y, start=jnp.zeros(())) - x) ** 2 + (y - 2) ** 2)
    value, slope = jax.value_and_grad(lambda x: upper(x, start=jnp.ones(())))(1.0)
    assert value == pytest.approx(1.75)
    assert slope == pytest.approx(0.5)


def test_kinks_that_become_steep_are_not_overlooked() -> None:
    def F(y: Any, x: Any, steepness: Any, distance: Any) -> Any:  # B = 1 - 2 w, as above
        return y - x - 2 * jax.nn.relu(steepness * (y - x - distance)) / steepness

    solve = implicit.root(F, solver=lambda x, *_: x + 1e-9)
    one = jnp.ones(())
    assert jax.grad(solve)(one, one, one) == 1.0
    with pytest.raises(NotInvertible, match="is violated"):  # the argument of the kink is 1e-3, the error 1e-9
        jax.grad(solve)(one, 1e6 * one, 0 * one)


SMALL: dict[str, Callable[..., Any]] = {
    "fixed point": lambda **o: implicit.fixed_point(lambda y, x: y - 1e-9 * (y**3 + y - x), lambda x: 0 * x, **o),
    "root": lambda **o: implicit.root(lambda y, x: 1e-9 * (y**3 + y - x), lambda x: 0 * x, **o),
    "argmin": lambda **o: implicit.argmin(
        lambda y, x: 1e-9 * (y**4 / 4 + y**2 / 2 - x * y), solver=lambda x: 0 * x, **o
    ),
}


@pytest.mark.parametrize(
    ("kind", "double"), [("fixed point", True), ("root", True), ("root", False), ("argmin", True), ("argmin", False)]
)
def test_a_small_residual_far_from_the_solution_is_said(kind: str, double: bool) -> None:
    """In other units |H| is small everywhere; Newton's step is as long as the solution is far, in any units."""
    with jax.enable_x64(double):
        slope = jax.grad(SMALL[kind]())
        for differentiate in (slope, jax.jit(slope)):
            with pytest.warns(ImplicitWarning, match=r"Newton's step from there is 2 long, where 1 \+ \|y\| is 1\."):
                jax.block_until_ready(differentiate(2.0))
        with pytest.raises(NotConverged):
            SMALL[kind](tolerance=1e-12)(jnp.asarray(2.0))
        for option in ({"check": "solves"}, {"violated": "ignore"}):
            jax.block_until_ready(jax.jit(jax.grad(SMALL[kind](**option)))(2.0))


def test_a_loose_tolerance_is_no_small_residual() -> None:
    """What was asked for is not warned of."""
    assert jax.grad(implicit.root(lambda y, x: y - x, lambda x: 0.9 * x, tolerance=0.1))(1.0) == 1.0


def test_a_stationary_point_that_is_no_minimiser_is_said() -> None:
    well = implicit.argmin(lambda y, x: ((y**2 - x) ** 2).sum())
    x, saddle, bottom = jnp.array([2.0, 2.0]), jnp.array([0.0, 2.0**0.5]), jnp.array([2.0**0.5, -(2.0**0.5)])
    slope = jax.grad(lambda x, start: well(x, start=start).sum())
    for differentiate in (slope, jax.jit(slope)):
        with pytest.warns(ImplicitWarning, match="no minimiser, though the gradient is 0 there"):
            jax.block_until_ready(differentiate(x, saddle))
        jax.block_until_ready(differentiate(x, bottom))
    with pytest.warns(ImplicitWarning, match="no minimiser"):  # one row of a batch
        jax.vmap(slope)(jnp.stack([x, x]), jnp.stack([bottom, saddle]))
    stationary = implicit.root(lambda y, x: 4 * y * (y**2 - x))
    jax.grad(lambda x: stationary(x, start=saddle).sum())(x)


def test_a_selection_that_is_curved_downwards_on_a_kink_is_no_maximum() -> None:
    """2 relu(y)^2 + 2 relu(-y)^2 - y^2 is y^2; of its Hessians 4 w + 4 v - 2 at 0 one is -2, and what is said is of all."""
    f = implicit.argmin(
        lambda y, x: 2 * jax.nn.relu(y - x) ** 2 + 2 * jax.nn.relu(x - y) ** 2 - (y - x) ** 2,
        solver=lambda x: x,
        violated="warn",
    )
    slope = jax.grad(f)
    for differentiate in (slope, jax.jit(slope)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ImplicitWarning)
            jax.block_until_ready(differentiate(1.0))
        assert len(said) == 1
        assert "kink" in str(said[0].message) or "is violated" in str(said[0].message)


def test_random_and_whole_numbers_are_passed_on() -> None:
    def T(y: Any, t: Any, index: Any, key: Any) -> Any:
        return 0.1 * y[index] + t + jax.random.normal(key, y.shape)

    def f(t: Any, index: Any, key: Any) -> Any:
        return implicit.fixed_point(T)(t, index, key, start=jnp.zeros(3))

    index, key = jnp.array([1, 2, 0]), jax.random.key(3)
    P = np.eye(3)[np.asarray(index)]
    expected = np.linalg.inv(np.eye(3) - 0.1 * P)
    for slope in (jax.jacrev(f), jax.jit(jax.jacfwd(f))):
        np.testing.assert_allclose(slope(jnp.ones(3), index, key), expected, atol=1e-10)
