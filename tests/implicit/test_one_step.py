"""One-step differentiation: what it misses, and the bound of it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, UsageError
from tests.adapters import Adapter
from tests.shortened import shortened

RNG = np.random.default_rng


def linear(xp: Adapter, rho: float, seed: int) -> tuple[Any, Any, Any]:
    """Draw y = B y + A t with |B| = rho: the map, B and A."""
    B, A = RNG(seed).standard_normal((4, 4)), RNG(seed + 100).standard_normal((4, 3))
    B *= rho / np.linalg.norm(B, 2)
    Bx, Ax = xp.array(B), xp.array(A)
    return (lambda y, t: Bx @ y + Ax @ t), B, A


def jacobian(xp: Adapter, f: Any, t: Any, n: int) -> Any:
    """Give the Jacobian of a vector function by the framework."""
    return np.stack([xp.numpy(xp.gradient(lambda t, i=i: f(t)[i], t)) for i in range(n)])


@pytest.mark.parametrize("rho", shortened([0.2, 0.0, 0.9], 1))
def test_a_linear_map(xp: Adapter, rho: float) -> None:
    """J_os = A, and the bound holds: |A - (I - B)^-1 A| <= rho |A| / (1 - rho)."""
    T, B, A = linear(xp, rho, 3)
    f, t, start = ns.implicit.one_step(T), xp.array(np.ones(3)), xp.array(np.zeros(4))
    assert jacobian(xp, lambda t: f(t, start=start), t, 4) == pytest.approx(A, abs=1e-12)
    error = float(np.linalg.norm(A - np.linalg.solve(np.eye(4) - B, A), 2))
    for found in (f.report(t, start=start), f.report(t, start=start, rho=rho, L_J=0.0)):
        assert error <= found.bound * (1 + 1e-6) + 1e-12
        assert found.rho == pytest.approx(rho, abs=1e-6) and found.derivative == pytest.approx(np.linalg.norm(A, 2))
        assert abs(found.L_J) <= 1e-8
    assert found.origins == ("given", "computed", "given") and found.status == "computed"
    sampled = f.report(t, start=start)
    assert sampled.status == "sampled" and "sampled" in str(sampled)


@pytest.mark.parametrize("seed", shortened(range(3), 1))
def test_a_smooth_map_and_constants_of_bounds(xp: Adapter, seed: int) -> None:
    """y = tanh(B y + A t) from a point that is not solved: sound constants bound the error, sampled ones come near."""
    linear_map, B, A = linear(xp, 0.3, seed)

    def T(y: Any, t: Any) -> Any:
        return xp.tanh(linear_map(y, t)) * 0.9

    t, start = xp.array(RNG(seed).standard_normal(3)), xp.array(np.zeros(4))
    f = ns.implicit.one_step(T, iterations=3, unconverged="ignore")
    y = np.zeros(4)
    for _ in range(500):
        y = 0.9 * np.tanh(B @ y + A @ xp.numpy(t))
    slope = np.diag(0.9 * (1 - (y / 0.9) ** 2))
    exact = np.linalg.solve(np.eye(4) - slope @ B, slope @ A)
    error = float(np.linalg.norm(jacobian(xp, lambda t: f(t, start=start), t, 4) - exact, 2))
    sound = f.report(t, start=start, constants="bounds")
    assert sound.status == "computed" and sound.rho <= 0.3 + 1e-6 and 0 < sound.L_J < math.inf
    x = _iterated(B, A, xp.numpy(t), 3)
    assert float(np.linalg.norm(x - y)) <= sound.distance * (1 + 1e-9)
    assert error <= sound.bound
    assert f.report(t, start=start).bound <= sound.bound * (1 + 1e-6)


def _iterated(B: Any, A: Any, t: Any, steps: int) -> Any:
    """Make the steps of T from 0."""
    y = np.zeros(4)
    for _ in range(steps):
        y = 0.9 * np.tanh(B @ y + A @ t)
    return y


def test_newton_is_exact(xp: Adapter) -> None:
    f = ns.implicit.one_step(lambda y, x: (y + x / y) / 2)
    x = xp.array([4.0, 2.0, 9.0])
    found = xp.numpy(xp.gradient(lambda x: f(x, start=xp.array(np.ones(3))).sum(), x))
    assert found == pytest.approx(0.5 / np.sqrt([4, 2, 9]), abs=1e-9)


def test_it_decorates_a_solver_on_trees(xp: Adapter) -> None:
    """The solver is any code: it sees parameters without a graph, and its result is detached."""
    seen = []

    def T(y: Any, a: Any, b: Any) -> Any:
        return {"u": 0.1 * y["u"] + a, "v": 0.2 * y["v"] * y["u"] + b}

    @ns.implicit.one_step(T)
    def solve(a: Any, b: Any) -> Any:
        seen.append(getattr(a, "requires_grad", False))
        u = a / 0.9
        return {"u": u, "v": b / (1 - 0.2 * u)}

    a, b = xp.array(0.5), xp.array(2.0)
    found = xp.gradient(lambda z: solve(z[0], z[1])["v"], xp.stack([a, b]))
    assert xp.numpy(found) == pytest.approx([0.0, 1.0]) and seen == [False]
    assert solve.report(a, b).rho < 1


@pytest.mark.parametrize("xp", ["torch"], indirect=True)
def test_closed_over_modules_are_differentiated(xp: Adapter) -> None:
    import torch

    layer = torch.nn.Linear(3, 3).double()
    with torch.no_grad():
        layer.weight *= 0.2
    x = xp.array(np.ones(3))
    y = ns.implicit.one_step(lambda y, x: torch.relu(layer(y)) + x)(x, start=torch.zeros_like(x))
    y.sum().backward()
    fixed = y.detach()
    again = (torch.relu(layer(fixed)) + x).sum()
    exact = torch.autograd.grad(again, list(layer.parameters()))
    assert all(torch.allclose(p.grad, e, atol=1e-7) for p, e in zip(layer.parameters(), exact, strict=True))


@pytest.mark.parametrize("xp", ["jax"], indirect=True)
def test_compiled_and_mapped(xp: Adapter) -> None:
    import jax
    from jax import lax
    from jax import numpy as jnp

    def T(y: Any, x: Any) -> Any:
        return jnp.tanh(y) / 4 + x

    def solver(x: Any) -> Any:
        return lax.while_loop(lambda y: jnp.max(jnp.abs(T(y, x) - y)) > 1e-12, lambda y: T(y, x), jnp.zeros_like(x))

    for f in (ns.implicit.one_step(T, solver), ns.implicit.one_step(T, tolerance=1e-10)):
        options = {} if f.solver else {"start": jnp.zeros(())}
        slopes = jax.jit(jax.vmap(jax.grad(lambda x, f=f, options=options: f(x, **options))))(jnp.linspace(-1, 1, 4))
        assert np.asarray(slopes) == pytest.approx(1.0)
        assert float(jax.grad(lambda x, f=f, options=options: f(x, **options))(0.3)) == pytest.approx(1.0)


def test_kinks_and_constants_that_are_infinite(xp: Adapter) -> None:
    """A relu bends sharply: sound constants say inf, unless L_J is given; near a kink the pieces are those of the solution."""
    f = ns.implicit.one_step(lambda y, x: 0.5 * xp.relu(y) + x)
    x, start = xp.array([0.0]), xp.array([0.0])
    sharp = (
        f.report(x, start=start + 1e-3, constants="bounds") if False else f.report(x, start=start, constants="bounds")
    )
    assert sharp.rho == pytest.approx(0.5)
    given = f.report(x, start=start, constants="bounds", L_J=0.0)
    for limit in (1.0, 2.0):  # the fixed set of J -> w J / 2 + 1
        assert abs(limit - 1.0) <= given.bound * (1 + 1e-9)
    assert given.bound == pytest.approx(1.0) and given.status == "computed"
    assert f.report(x, start=start, rho=1.5).bound == math.inf
    assert "no contraction" in str(f.report(x, start=start, rho=1.0))


def test_bad_input(xp: Adapter) -> None:
    x, start = xp.array(1.0), xp.array(0.0)
    f = ns.implicit.one_step(lambda y, x: 0.5 * y + x)
    with pytest.raises(UsageError, match="pass start="):
        f(x)
    for options in ({"rho": -1.0}, {"L_J": math.inf}, {"L_F": True}, {"constants": "guessed"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            f.report(x, start=start, **options)
    for options in ({"iterations": 0}, {"tolerance": -1.0}, {"unconverged": "shout"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            ns.implicit.one_step(lambda y, x: y, **options)
    with pytest.raises(UsageError, match="T is a function"):
        ns.implicit.one_step(3)  # type: ignore[arg-type]
    wrong = ns.implicit.one_step(lambda y, x: xp.stack([y, y]), lambda x: 2 * x)
    with pytest.raises(UsageError, match="shape"):
        wrong(x)
    with pytest.warns(ImplicitWarning, match="no fixed point"):
        ns.implicit.one_step(lambda y, x: 0.5 * y + x, lambda x: 0 * x)(x)
    with pytest.raises(NotConverged, match="no fixed point"):
        ns.implicit.one_step(lambda y, x: 0.5 * y + x, lambda x: 0 * x, unconverged="raise")(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ns.implicit.one_step(lambda y, x: 0.5 * y + x, lambda x: 0 * x, unconverged="ignore")(x)
    with pytest.raises(NotConverged, match="not finite"):
        ns.implicit.one_step(lambda y, x: 0.5 * y + x, lambda x: x * float("nan"))(x)
    with pytest.raises(NotConverged, match="not finite"):
        ns.implicit.one_step(lambda y, x: y * y + x)(x, start=xp.array(9.0))


ROTATION = np.array([[0.0, -1.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("B", "grows"),
    [
        (0.9 * ROTATION, None),
        (np.array([[0.5, 40.0], [0.0, 0.5]]), None),
        (ROTATION, 1.0),
        (np.diag([0.1, 1.2]), 1.2),
        (np.zeros((2, 2)), None),
    ],
    ids=["a contraction", "one after a transient", "a rotation", "one direction expands", "no dependence"],
)
def test_a_map_that_does_not_contract_is_said(xp: Adapter, B: Any, grows: float | None) -> None:
    """The last step of such a map is a number like any other; its error has no bound."""
    Bx, x = xp.array(B), xp.array([1.0, 2.0])

    def differentiate(**options: Any) -> list[str]:
        f = ns.implicit.one_step(
            lambda y, x: Bx @ y + x, lambda x: xp.array(np.linalg.solve(np.eye(2) - B, [1.0, 2.0])), **options
        )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ImplicitWarning)
            for _ in range(3):
                xp.gradient(lambda x: f(x).sum(), x)
        return [str(w.message) for w in said if w.category is ImplicitWarning]

    said = differentiate()
    assert len(said) == (0 if grows is None else 3)
    assert all(f"grow by {grows:.4g} a step" in text for text in said)
    assert not differentiate(expanding="ignore")
    if grows is not None:
        with pytest.raises(NotConverged, match="does not contract"):
            differentiate(expanding="raise")


@pytest.mark.parametrize("xp", ["torch"], indirect=True)
def test_maps_without_forward_mode_are_looked_at(xp: Adapter) -> None:
    """Buffers that T updates, and functions with a backward of their own, have backward passes alone."""
    import torch

    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: torch.Tensor, factor: float) -> torch.Tensor:
            ctx.factor = factor
            return factor * y

        @staticmethod
        def backward(ctx: Any, *g: torch.Tensor) -> Any:
            return ctx.factor * g[0], None

    x, norm = xp.array(RNG(0).standard_normal((5, 3))), torch.nn.BatchNorm1d(3).double()
    buffered = ns.implicit.one_step(lambda y, x: norm(y) / 4 + x, expanding="raise")
    assert torch.isfinite(buffered(x, start=torch.zeros_like(x))).all()
    for factor, grows in ((0.5, False), (1.5, True)):
        f = ns.implicit.one_step(lambda y, x, c=factor: Times.apply(y, c) + x, lambda x, c=factor: x / (1 - c))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ImplicitWarning)
            f(x)
            with torch.inference_mode():
                f(x.clone())
        assert [f"grow by {factor} a step" in str(w.message) for w in said] == [True, True] * grows


@pytest.mark.parametrize("xp", ["jax"], indirect=True)
def test_maps_with_one_mode_alone_are_looked_at(xp: Adapter) -> None:
    """A custom_vjp has no forward mode, a while_loop no reverse mode."""
    import jax

    @jax.custom_vjp
    def times(y: Any, factor: Any) -> Any:
        return factor * y

    times.defvjp(lambda y, factor: (factor * y, factor), lambda factor, g: (factor * g, None))

    def looped(y: Any, factor: Any) -> Any:
        return jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, factor * s[1]), (0, y))[1]

    for product in (times, looped):
        for factor, grows in ((0.5, False), (1.5, True)):
            f = ns.implicit.one_step(lambda y, x, p=product, c=factor: p(y, c) + x, lambda x, c=factor: x / (1 - c))
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", ImplicitWarning)
                f(xp.array([1.0, 2.0]))
            assert [f"grow by {factor} a step" in str(w.message) for w in said] == [True] * grows
    found = ns.implicit.one_step(lambda y, x: times(y, 0.5) + 3 * x).report(xp.array([1.0]), start=xp.array([0.0]))
    assert (found.rho, found.L_F, found.derivative) == pytest.approx((0.5, 3.0, 3.0))


def test_a_map_that_begins_to_expand_is_said(xp: Adapter) -> None:
    """The tangent that is kept from call to call sees it, and a state of another shape begins anew."""
    f = ns.implicit.one_step(lambda y, a: a * y, lambda a: 0 * a, expanding="raise")
    xp.gradient(lambda a: f(a).sum(), xp.array([0.5, 0.2]))
    xp.gradient(lambda a: f(a).sum(), xp.array([0.5, 0.2, 0.1]))
    with pytest.raises(NotConverged, match=r"grow by 1\.5"):
        for _ in range(4):
            xp.gradient(lambda a: f(a).sum(), xp.array([0.5, 1.5, 0.1]))
