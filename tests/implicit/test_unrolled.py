"""Unrolled algorithms: derivatives of the steps, what the monitor sees of them, and what is refused."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, UsageError
from nonsmooth.implicit.derivative_convergence import linear_rate
from nonsmooth.implicit.momentum import extreme_jacobians
from tests.adapters import Adapter
from tests.shortened import shortened

RNG = np.random.default_rng


def contraction(n: int, rho: float, seed: int) -> Any:
    """Draw a matrix of spectral norm rho."""
    M = RNG(seed).standard_normal((n, n))
    return rho * M / np.linalg.norm(M, 2)


def pulled(xp: Adapter, f: Any, x: Any) -> Any:
    """Give the gradient of a scalar function by the framework, in numpy."""
    return xp.numpy(xp.gradient(f, x))


@pytest.mark.parametrize("mode", shortened(["reverse", "forward"], 1))
@pytest.mark.parametrize("rho", shortened([0.3, 0.8], 1))
def test_a_linear_map_misses_its_limit_by_the_power_of_its_matrix(xp: Adapter, mode: Any, rho: float) -> None:
    """y = B y + A t: the derivative after k steps is (I - B^k)(I - B)^-1 A."""
    B, A, c = contraction(4, rho, 0), RNG(1).standard_normal((4, 3)), RNG(2).standard_normal(4)
    Bx, Ax, cx, start = map(xp.array, (B, A, c, np.ones(4)))
    limit = np.linalg.solve(np.eye(4) - B, A)
    for steps in (1, 7):
        run = ns.implicit.unroll(lambda y, t: Bx @ y + Ax @ t, steps, mode=mode, unconverged="ignore")
        found = pulled(xp, lambda t, run=run: cx @ run(t, start=start), xp.array(RNG(3).standard_normal(3)))
        exact = c @ (np.eye(4) - np.linalg.matrix_power(B, steps)) @ limit
        assert found == pytest.approx(exact, abs=1e-13)
    run = ns.implicit.unroll(lambda y, t: Bx @ y + Ax @ t, 120, mode=mode)
    assert pulled(xp, lambda t: cx @ run(t, start=start), xp.array(np.ones(3))) == pytest.approx(c @ limit, abs=1e-10)
    radius = float(np.abs(np.linalg.eigvals(B)).max())
    run.report(xp.array(np.ones(3)), start=start)
    assert run.monitor is not None and run.monitor.converged and run.monitor.iterates_converged
    assert run.monitor.rate == pytest.approx(radius, abs=0.08)


@pytest.mark.parametrize("seed", shortened(range(2), 1))
def test_forward_and_reverse_agree_on_trees(xp: Adapter, seed: int) -> None:
    """A state and parameters that are trees, through kinks met on the way."""
    B, A = xp.array(contraction(3, 0.7, seed)), xp.array(RNG(seed).standard_normal((3, 3)))

    def T(y: Any, theta: Any, scale: float) -> Any:
        return {
            "a": xp.relu(B @ y["a"] + A @ theta[0]) * scale,
            "b": (y["b"][0] / 3 + theta[1].sum() * xp.tanh(y["a"][0]),),
        }

    start = {"a": xp.array(np.ones(3)), "b": (xp.array(0.5),)}
    v = xp.array(RNG(seed + 9).standard_normal(5))
    found = []
    for mode in ("reverse", "forward"):
        run = ns.implicit.unroll(T, 40, mode=mode, unconverged="ignore")

        def loss(v: Any, run: Any = run) -> Any:
            y = run((v[:3], v[3:]), 0.9, start=start)
            return (y["a"] * xp.array([1.0, 2.0, 3.0])).sum() + y["b"][0]

        found.append(pulled(xp, loss, v))
    assert np.abs(found[0]).max() > 0 and found[0] == pytest.approx(found[1], abs=1e-12)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_the_start_can_depend_on_the_parameters(xp: Adapter, mode: Any) -> None:
    run = ns.implicit.unroll(lambda y, t: y * 0.5 + t, 3, mode=mode, unconverged="ignore")
    found = pulled(xp, lambda t: run(t, start=lambda t: 8 * t), xp.array(2.0))
    assert float(found) == pytest.approx(8 / 8 + 1.75)


def test_the_monitor_fires_and_does_not(xp: Adapter) -> None:
    """Too few steps: a warning; enough: none; asked to raise or to be silent: so it does."""
    x, start = xp.array(3.0), xp.array(0.0)

    def T(y: Any, x: Any) -> Any:
        return 0.5 * y + x

    with pytest.warns(ImplicitWarning, match="iterates have not converged"):
        xp.gradient(lambda x: ns.implicit.unroll(T, 5)(x, start=start), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for silent in ({"steps": 60}, {"steps": 5, "unconverged": "ignore"}, {"steps": 5, "tangents": 0}):
            run = ns.implicit.unroll(T, **silent)
            xp.gradient(lambda x, run=run: run(x, start=start), x)
    with pytest.warns(ImplicitWarning, match="have not converged though the iterates have.*more steps would do"):
        xp.gradient(
            lambda x: ns.implicit.unroll(lambda y, x: 0.5 * y + x, 9)(x, start=2 * x), x
        )  # begins at the solution
    if xp.name == "torch":
        with pytest.raises(NotConverged, match=r"unroll\(T, 5\)"):
            ns.implicit.unroll(T, 5, unconverged="raise")(x.requires_grad_(), start=start)


def test_a_repelling_fixed_point_is_not_taken_for_one_that_attracts(xp: Adapter) -> None:
    """y = 2 y + t from its fixed point: the iterates rest, and the derivative grows by 2 a step."""
    run = ns.implicit.unroll(lambda y, t: 2 * y + t, 40)
    with pytest.warns(ImplicitWarning, match="derivatives diverge"):
        found = pulled(xp, lambda t: run(t, start=xp.array([1.0])).sum(), xp.array([-1.0]))
    assert found[0] == 2.0**40 - 1


@pytest.mark.parametrize("xp", ["torch"], indirect=True)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_step_in_place_is_refused_and_the_start_stays(xp: Adapter, mode: Any) -> None:
    start, t = xp.array([1.0]), xp.array([0.5])
    step = lambda y, t: y.mul_(0.5).add_(t)  # noqa: E731
    for call in (ns.implicit.unroll(step, 3, mode=mode), ns.implicit.one_step(step)):
        with pytest.raises(UsageError, match="in place"):
            call(t, start=start)
        assert start.item() == 1.0
    with pytest.raises(UsageError, match="in place"):
        ns.implicit.unroll(step, 3).report(t, start=start)
    assert start.item() == 1.0


def test_what_needs_no_derivative_is_not_warned_of(xp: Adapter) -> None:
    if xp.name == "torch":
        y = ns.implicit.unroll(lambda y, x: 0.5 * y + x, 3)(xp.array(1.0), start=xp.array(0.0))
        assert float(y) == 1.75 and not y.requires_grad


def kinked_gradient(xp: Adapter, drift: Any = None) -> Any:
    """The gradient of x^2/2 for x >= 0 and x^2/8 below, its kink at 0 or at a drift."""
    if drift is None:
        return lambda x: xp.relu(x) - xp.relu(-x) / 4
    return lambda x: (xp.relu(x + drift) - xp.relu(drift)) - (xp.relu(-x - drift) - xp.relu(-drift)) / 4


def test_the_elements_of_the_heavy_ball_at_its_kink(xp: Adapter) -> None:
    """Both curvatures are found, at the kink and near it; away from it the one that holds there."""
    T = ns.implicit.heavy_ball(gradient=lambda x: kinked_gradient(xp)(x), step=1.0, momentum=0.75)
    exact = {h: np.array([[1.75 - h, -0.75], [1.0, 0.0]]) for h in (1.0, 0.25)}
    for x, near, wanted in (
        (0.0, 0.0, (1.0, 0.25)),
        (1e-9, 1e-6, (1.0, 0.25)),
        (1e-9, 0.0, (1.0,)),
        (-1.0, 0.0, (0.25,)),
    ):
        found = extreme_jacobians(T, (xp.array(x), xp.array(x)), (), near)
        assert found is not None
        for h in wanted:
            assert any(np.allclose(exact[h], B, atol=1e-12) for B in found)
        for B in found:  # relu and relu of the opposite have weights of their own: slopes from 0 to 5/4
            assert 1.75 - 1.25 - 1e-12 <= B[0, 0] <= 1.75 + 1e-12


def test_heavy_ball_is_warned_of_at_its_kink_and_not_without_one(xp: Adapter) -> None:
    start = (xp.array(1.0), xp.array(1.0))
    ball = ns.implicit.heavy_ball(gradient=lambda x, t: kinked_gradient(xp)(x - t), step=1.0, momentum=0.75)
    run = ns.implicit.unroll(ball, 160)
    with pytest.warns(ImplicitWarning, match="products that grow"):
        run(xp.array(0.25).requires_grad_() if xp.name == "torch" else xp.array(0.25), start=start)
    assert run.monitor is not None and run.monitor.products is not None
    assert run.monitor.products.lower >= (9 / 8) ** 0.25 - 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smooth = ns.implicit.heavy_ball(lambda x, t: (x - t) ** 2 / 2, step=1.0, momentum=0.75)
        found = ns.implicit.unroll(smooth, 160)
        assert float(pulled(xp, lambda t: found(t, start=start)[0], xp.array(0.25))) == pytest.approx(1.0, abs=1e-9)
        plain = ns.implicit.heavy_ball(gradient=lambda x, t: kinked_gradient(xp)(x - t), step=1.0, momentum=0.0)
        ns.implicit.unroll(plain, 160)(xp.array(0.25), start=start)


def test_derivatives_diverge_while_iterates_converge(xp: Adapter) -> None:
    """One dimension, the kink of the gradient drifting to the solution, two steps on each side: (9/8)^(k/4)."""

    def T(state: Any) -> Any:
        x, previous, e, f = state
        return x - kinked_gradient(xp, e)(x) + 0.75 * (x - previous), x, 0.9 * f, -0.9 * e

    def run(t: Any, steps: int) -> Any:
        unrolled = ns.implicit.unroll(lambda state, t: T(state), steps)
        return unrolled(t, start=(t, t, xp.array(1.0), xp.array(1.0)))[0]

    with pytest.warns(ImplicitWarning, match="derivatives diverge.*while the iterates converge"):
        found = [float(pulled(xp, lambda t, k=k: run(t, k), xp.array(0.0))) for k in (100, 140)]
    assert abs(found[1] / found[0]) == pytest.approx((9 / 8) ** 10, rel=1e-6)


@pytest.mark.parametrize("steps", shortened([5, 12], 1))
def test_at_a_kink_of_a_contraction_all_limits_lie_in_the_fixed_set(xp: Adapter, steps: int) -> None:
    """y = relu(y) / 2 + x at x = 0: every selection's derivative tends into [1, 2], the fixed set of J -> w J / 2 + 1."""
    unrolled = ns.implicit.unroll(lambda y, x: xp.relu(y) * 0.5 + x, steps, tangents=0)
    for a in (0.0, 0.3, 1.0):
        found = ns.backprop(lambda x: _plain(xp, x, steps), xp.array(0.0), at_kinks=a)
        assert float(found) == pytest.approx(1 / (1 - a / 2), abs=2.0 ** (1 - steps)) and 1 <= float(found) <= 2
    own = float(pulled(xp, lambda x: unrolled(x, start=xp.array(0.0)), xp.array(0.0)))
    assert 1 - 1e-9 <= own <= 2 + 1e-9


def _plain(xp: Adapter, x: Any, steps: int) -> Any:
    y = 0 * x
    for _ in range(steps):
        y = xp.relu(y) * 0.5 + x
    return y


# --- the joint spectral radius ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", shortened(range(6), 3))
def test_the_joint_spectral_radius_encloses_all_products(seed: int) -> None:
    """Against the naive enumeration of all words: its spectral radii are below the upper bound, the word attains the lower."""
    rng = RNG(seed)
    stack = [rng.standard_normal((3, 3)) for _ in range(2 + seed % 2)]
    found = ns.implicit.joint_spectral_radius(stack, tolerance=1e-2)
    product = np.eye(3)
    for i in found.word:
        product = stack[i] @ product
    assert np.abs(np.linalg.eigvals(product)).max() ** (1 / len(found.word)) == pytest.approx(found.lower)
    naive = 0.0
    for n in range(1, 7):
        for word in itertools.product(range(len(stack)), repeat=n):
            product = np.linalg.multi_dot([stack[i] for i in word]) if n > 1 else stack[word[0]]
            naive = max(naive, float(np.abs(np.linalg.eigvals(product)).max()) ** (1 / n))
    assert naive <= found.upper * (1 + 1e-9) and found.lower <= found.upper


def test_the_joint_spectral_radius_of_known_sets() -> None:
    golden = ns.implicit.joint_spectral_radius([[[1, 1], [0, 1]], [[1, 0], [1, 1]]], tolerance=1e-3)
    assert golden.lower == pytest.approx((1 + 5**0.5) / 2) and golden.upper <= golden.lower * 1.01
    one = ns.implicit.joint_spectral_radius([[[0.5, 100.0], [0.0, 0.5]]])
    assert one.lower == pytest.approx(0.5) and one.upper < 0.6 and "[0.5" in str(one)
    assert ns.implicit.joint_spectral_radius([np.zeros((2, 2))]).upper == 0
    for momentum in (
        0.3,
        0.4,
        0.5,
        0.6,
    ):  # the cyclic shifts of the word are as large, and rounding chooses none of them
        ball = [np.array([[1 + momentum - h, -momentum], [1.0, 0.0]]) for h in (1.0, 0.25)]
        assert ns.implicit.joint_spectral_radius(ball).word == (1, 1, 1, 0)
    for wrong in ([], [np.ones((2, 3))], [np.eye(2), np.eye(3)], [[[np.nan]]], ["a"]):
        with pytest.raises(UsageError, match="joint_spectral_radius"):
            ns.implicit.joint_spectral_radius(wrong)


def test_linear_rate() -> None:
    assert linear_rate([2.0 * 1.5**k for k in range(10)]) == pytest.approx(1.5)
    assert linear_rate([1.0, 0.0, 0.0, 0.0]) == 0 and np.isnan(linear_rate([1.0, 0.5])) and np.isnan(linear_rate([]))


# --- jit, vmap, modules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xp", ["jax"], indirect=True)
@pytest.mark.parametrize("mode", shortened(["reverse", "forward"], 1))
def test_compiled_and_mapped(xp: Adapter, mode: Any) -> None:
    import jax
    from jax import numpy as jnp

    run = ns.implicit.unroll(lambda y, x: jnp.tanh(y) / 2 + x, 60, mode=mode)

    def loss(x: Any) -> Any:
        return run(x, start=jnp.zeros(())) ** 2

    xs = jnp.linspace(-1, 1, 5)
    mapped = jax.jit(jax.vmap(jax.grad(loss)))(xs)
    assert np.asarray(mapped) == pytest.approx([float(jax.grad(loss)(x)) for x in xs], abs=1e-12)
    seconds = float(jax.grad(jax.grad(loss))(xs[3])), float(jax.jit(jax.grad(jax.grad(loss)))(xs[3]))
    h = 1e-5
    differences = float((jax.grad(loss)(xs[3] + h) - jax.grad(loss)(xs[3] - h)) / (2 * h))
    assert seconds[0] == pytest.approx(seconds[1]) and seconds[0] == pytest.approx(differences, rel=1e-6)
    short = jax.jit(
        jax.grad(
            lambda x: ns.implicit.unroll(lambda y, x: y / 2 + x, 3, mode=mode)(
                x, start=0 * x if mode == "reverse" else jnp.zeros(())
            )
        )
    )
    with pytest.warns(ImplicitWarning, match="have not converged"):
        short(1.0)
        jax.effects_barrier()
    if mode == "reverse":
        _, tangent = jax.jvp(loss, (xs[1],), (1.0,))
        assert float(tangent) == pytest.approx(float(jax.grad(loss)(xs[1])))
    else:
        with pytest.raises(UsageError, match="start is differentiated"):
            jax.grad(lambda s: run(xs[0], start=s))(0.5)


@pytest.mark.parametrize("xp", ["jax"], indirect=True)
def test_where_no_tangent_can_be_pushed_the_reason_is_said(xp: Adapter) -> None:
    import jax

    @jax.custom_vjp
    def half(y: Any) -> Any:
        return y / 2

    half.defvjp(lambda y: (y / 2, None), lambda _, g: (g / 2,))
    x, start = xp.array([1.0, 2.0]), xp.array([0.0, 0.0])
    run = ns.implicit.unroll(lambda y, x: half(y) + x, 40)
    slope = jax.grad(lambda x: run(x, start=start).sum())
    for differentiate in (slope, jax.jit(slope)):
        with pytest.warns(ImplicitWarning, match="not monitored: JAX cannot push a tangent through <lambda>"):
            found = differentiate(x)
            jax.effects_barrier()
        assert xp.numpy(found) == pytest.approx(np.full(2, 2.0))
    assert "custom_vjp" in run.report(x, start=start).reason
    for T, begin in ((lambda y, x: half(y) + x, start), (lambda y, x: y / 2 + x, half)):
        with pytest.raises(UsageError, match=r"mode='forward': JAX cannot push.*custom_vjp.*mode='reverse'"):
            ns.implicit.unroll(T, 40, mode="forward")(x, start=begin)


@pytest.mark.parametrize("xp", ["torch"], indirect=True)
def test_modules_are_reached_in_reverse_and_refused_in_forward_mode(xp: Adapter) -> None:
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 3).double()
    with torch.no_grad():
        layer.weight *= 0.3
    x = xp.array(np.ones((2, 3)))
    state = torch.get_rng_state()
    y = ns.implicit.unroll(lambda y, x: torch.tanh(layer(y)) + x, 80)(x, start=torch.zeros_like(x))
    y.sum().backward()
    assert torch.equal(torch.get_rng_state(), state) and x.grad is None
    found = layer.weight.grad.clone()

    def solution(weight: Any, bias: Any) -> Any:
        z = torch.zeros_like(x)
        for _ in range(80):
            z = torch.tanh(z @ weight.T + bias) + x
        return z.sum()

    exact = torch.func.grad(solution, (0, 1))(layer.weight.detach(), layer.bias.detach())
    assert torch.allclose(found, exact[0], atol=1e-12) and torch.allclose(layer.bias.grad, exact[1], atol=1e-12)
    with pytest.raises(UsageError, match="closes over"):
        ns.implicit.unroll(lambda y, x: torch.tanh(layer(y)) + x, 8, mode="forward")(x, start=torch.zeros_like(x))
    moving = torch.zeros_like(x).requires_grad_()
    with pytest.raises(UsageError, match="start requires a gradient"):
        ns.implicit.unroll(lambda y, x: y / 2 + x, 8, mode="forward")(x, start=moving)
    t = torch.ones(2, dtype=torch.float64, requires_grad=True)
    y = ns.implicit.unroll(lambda y, t: (y * t).sum() / 9 + t, 60, mode="forward")(t, start=torch.zeros_like(t))
    (first,) = torch.autograd.grad(y.sum(), t, create_graph=True)
    with pytest.raises(UsageError, match="first derivatives alone"):
        torch.autograd.grad(first.sum() + t.sum(), t)


@pytest.mark.parametrize("xp", ["torch"], indirect=True)
def test_under_the_transforms_of_torch(xp: Adapter) -> None:
    import torch

    run = ns.implicit.unroll(lambda y, x: torch.tanh(y) / 2 + x, 60)
    xs = xp.array([0.3, -0.7])
    each = torch.stack([torch.func.grad(lambda x: run(x, start=torch.zeros_like(x)))(x) for x in xs])
    assert run.monitor is not None and run.monitor.converged
    mapped = torch.func.vmap(torch.func.grad(lambda x: run(x, start=torch.zeros_like(x))))(xs)
    assert torch.allclose(each, mapped)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input(xp: Adapter) -> None:
    x = xp.array(np.ones(2))
    for wrong in (0, -3, 2.5, True, "many"):
        with pytest.raises(UsageError, match="steps="):
            ns.implicit.unroll(lambda y: y, wrong)
    for options in ({"mode": "both"}, {"unconverged": "shout"}, {"tangents": -1}, {"tolerance": 0.0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            ns.implicit.unroll(lambda y: y, 3, **options)
    with pytest.raises(UsageError, match="T is a function"):
        ns.implicit.unroll(3, 3)  # type: ignore[arg-type]
    for T, words in (
        (lambda y: xp.stack([y, y]), r"shape \(2,\).*\(2, 2\)"),
        (lambda y: (y, y), "structure"),
        (lambda y: y.sum(), r"\(2,\)"),
    ):
        for mode in ("reverse", "forward"):
            with pytest.raises(UsageError, match=words):
                ns.implicit.unroll(T, 3, mode=mode)(start=x)
    with pytest.raises(NotConverged, match="not finite from step 2 on"):
        ns.implicit.unroll(lambda y: xp.log(y - 1), 5)(start=xp.array(2.5))
    with pytest.raises(NotConverged, match="contraction"):
        ns.implicit.unroll(lambda y: y * y, 60)(start=xp.array(3.0))
    with pytest.raises(UsageError, match="start"):
        ns.implicit.unroll(lambda y, x: y, 3)(x, start=())
    with pytest.raises(UsageError, match="pair"):
        ns.implicit.unroll(ns.implicit.heavy_ball(lambda x: x, step=1.0, momentum=0.5), 3)(start=x)
    with pytest.raises(UsageError, match="one number"):
        ns.implicit.unroll(ns.implicit.heavy_ball(lambda x: x, step=1.0, momentum=0.5), 3)(start=(x, x))
    with pytest.raises(UsageError, match="not both"):
        ns.implicit.heavy_ball(step=1.0, momentum=0.5)
    with pytest.raises(UsageError, match="momentum"):
        ns.implicit.heavy_ball(lambda x: x, step=1.0, momentum="much")


def test_the_report(xp: Adapter) -> None:
    run = ns.implicit.unroll(lambda y, x: 0.5 * y + x, 60)
    found = run.report(xp.array(1.0), start=xp.array(0.0))
    assert found.converged and found.tangents == 3 and found.status == "sampled" and run.monitor is None
    assert found.products is not None and found.products.upper == pytest.approx(0.5)
    assert "have converged along the tangents" in str(found) and "rate" in str(found)
    expanding = ns.implicit.unroll(lambda y, x: 1.1 * y + x, 40).report(xp.array(1.0), start=xp.array(0.0))
    assert expanding.diverging and not expanding.iterates_converged and "diverge" in str(expanding)
