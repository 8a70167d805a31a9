"""Implicit functions in PyTorch: closed forms, derivatives of every order, the transforms of torch.func, and bad input."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils import _pytree as pytree

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, UsageError

D = torch.float64
Tensor = torch.Tensor


def t(values: Any, *, leaf: bool = False) -> Tensor:
    """Make a tensor in double precision."""
    return torch.tensor(values, dtype=D, requires_grad=leaf)


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Draw a tensor."""
    return scale * torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Give the Jacobian by backward passes."""
    return torch.autograd.functional.jacobian(f, x)


def soft(v: Tensor, step: float, level: Tensor) -> Tensor:
    """The proximal operator of step * level * |.|_1."""
    return v.sign() * torch.relu(v.abs() - step * level)


# --- closed forms -----------------------------------------------------------------------------------------------------

M, B = drawn(3, 3, scale=0.2), drawn(5, 3, seed=1)
H = B.T @ B

CLOSED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = {
    "linear fixed point": (
        lambda x: ns.implicit.fixed_point(lambda y, x: M @ y + x)(x, start=torch.zeros(3, dtype=D)),
        t([1.0, -2.0, 0.5]),
        torch.linalg.inv(torch.eye(3, dtype=D) - M),
    ),
    "non-contractive fixed point": (
        lambda x: ns.implicit.fixed_point(lambda y, x: 3 * y + x)(x, start=torch.zeros(3, dtype=D)),
        t([1.0, -2.0, 0.5]),
        -0.5 * torch.eye(3, dtype=D),
    ),
    "square root": (lambda x: ns.implicit.root(lambda y, x: y * y - x)(x, start=t(1.0)), t(2.0), t(0.5 / 2**0.5)),
    "quadratic minimiser": (
        lambda x: ns.implicit.argmin(lambda y, x: 0.5 * y @ H @ y - x @ y)(x, start=torch.zeros(3, dtype=D)),
        t([1.0, -2.0, 0.5]),
        torch.linalg.inv(H),
    ),
    "softplus root": (
        lambda x: ns.implicit.root(lambda y, x: nn.functional.softplus(y) - x)(x, start=t([0.0, 0.0])),
        t([0.3, 2.0]),
        torch.diag(1 / (1 - torch.exp(-t([0.3, 2.0])))),
    ),
    "soft threshold": (
        lambda x: ns.implicit.argmin(
            lambda y, x, _: 0.5 * ((y - x) ** 2).sum(), lambda v, s, _, level: soft(v, s, level)
        )(x, t(1.0), start=torch.zeros(3, dtype=D)),
        t([3.0, 0.4, -2.0]),
        torch.diag(t([1.0, 0.0, 1.0])),
    ),
    "projection on a box": (
        lambda x: ns.implicit.argmin(
            lambda y, x: 0.5 * ((y - x) ** 2).sum(), lambda v, s, x: v.clamp(0.0, 1.0), step=0.3
        )(x, start=torch.zeros(3, dtype=D)),
        t([0.5, 1.7, -2.0]),
        torch.diag(t([1.0, 0.0, 0.0])),
    ),
    "rectified fixed point": (
        lambda x: ns.implicit.fixed_point(lambda y, x: torch.relu(0.5 * y + x))(x, start=torch.zeros(2, dtype=D)),
        t([1.0, -1.0]),
        torch.diag(t([2.0, 0.0])),
    ),
    "a scalar fixed point": (
        lambda x: ns.implicit.fixed_point(lambda y, x: 0.5 * torch.cos(y) + x)(x, start=t(0.0)),
        t(0.2),
        1 / (1 + 0.5 * torch.sin(ns.implicit.fixed_point(lambda y, x: 0.5 * torch.cos(y) + x)(t(0.2), start=t(0.0)))),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str) -> None:
    f, x, expected = CLOSED[name]
    torch.testing.assert_close(jacobian(f, x), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(torch.autograd.functional.jacobian(f, x, vectorize=True), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(jacrev(f)(x), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(jacfwd(f)(x), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_the_lasso(seed: int) -> None:
    A, b = drawn(20, 8, seed=seed), drawn(20, seed=seed + 100)
    step = float(1 / torch.linalg.matrix_norm(A, 2) ** 2)
    lasso = ns.implicit.argmin(lambda y, level: 0.5 * ((A @ y - b) ** 2).sum(), soft, step=step, iterations=5000)
    level = t(3.0, leaf=True)
    y = lasso(level, start=torch.zeros(8, dtype=D))
    support = y.detach().abs() > 1e-9
    assert 0 < int(support.sum()) < 8
    S = A[:, support]
    expected = torch.zeros(8, dtype=D)
    expected[support] = -torch.linalg.solve(S.T @ S, y.detach()[support].sign())
    found = jacobian(lambda level: lasso(level, start=y.detach()), level.detach())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_the_zeros_of_a_lasso_are_exact() -> None:
    """Also where Newton's method has finished it, by linear systems that are solved to a residual."""
    A, b = drawn(1200, 600), drawn(1200, seed=1, scale=2.0)
    lasso = ns.implicit.argmin(
        lambda y, b: 0.5 * ((A @ y - b) ** 2).sum(), lambda v, s, b: soft(v, s, t(50.0)), step=5e-4, iterations=15
    )
    y = lasso(b, start=torch.ones(600, dtype=D))
    inactive = (A.T @ (A @ y - b)).abs() < 49.999
    assert 0 < int(inactive.sum()) < 600
    assert bool(((y == 0) == inactive).all())


def test_the_lasso_with_a_zero_coefficient_on_the_equicorrelation_set() -> None:
    """X = I: y = soft(b, level), and b_1 = level: every element is invertible; the derivative is one of them, 0 or 1 in b_1."""
    lasso = ns.implicit.argmin(
        lambda y, b, level: 0.5 * ((y - b) ** 2).sum(), lambda v, s, b, level: soft(v, s, level), step=1.0
    )
    b, level = t([2.0, 0.5, 0.1]), t(0.5)
    found = jacobian(lambda b: lasso(b, level, start=torch.zeros(3, dtype=D)), b)
    assert found[1, 1] in (0.0, 1.0)
    torch.testing.assert_close(found - torch.diag(found.diagonal()), torch.zeros(3, 3, dtype=D))
    torch.testing.assert_close(found.diagonal()[[0, 2]], t([1.0, 0.0]))


def test_a_quadratic_program_in_a_box() -> None:
    q = t([-3.0, 0.3, 0.4])
    program = ns.implicit.argmin(
        lambda y, q: 0.5 * y @ (H + torch.eye(3, dtype=D)) @ y + q @ y, lambda v, s, q: v.clamp(-0.3, 0.3), step=0.05
    )
    solve = lambda q: program(q, start=torch.zeros(3, dtype=D))  # noqa: E731
    y = solve(q)
    free = (y.abs() < 0.3 - 1e-9).nonzero().ravel()
    assert 0 < len(free) < 3
    expected = torch.zeros(3, 3, dtype=D)
    P = H + torch.eye(3, dtype=D)
    expected[free[:, None], free] = -torch.linalg.inv(P[free[:, None], free])
    torch.testing.assert_close(jacobian(solve, q), expected, rtol=1e-7, atol=1e-8)


# --- against a transcription ------------------------------------------------------------------------------------------


def reference(T: Callable[..., Tensor], y: Tensor, theta: Tensor) -> Tensor:
    """Give (I - B)^-1 A by the framework's own Jacobians, as the theorem is written."""
    A = torch.autograd.functional.jacobian(lambda x: T(y, x), theta).reshape(y.numel(), -1)
    own = torch.autograd.functional.jacobian(lambda z: T(z, theta), y).reshape(y.numel(), -1)
    return torch.linalg.solve(torch.eye(y.numel(), dtype=D) - own, A).reshape(*y.shape, *theta.shape)


STEPS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.relu, torch.abs, torch.tanh, lambda v: v.clamp(-0.7, 0.4), lambda v: torch.maximum(v, v.flip(-1)),
    lambda v: nn.functional.leaky_relu(v, 0.3), torch.sin, lambda v: v.sort().values,
)  # fmt: skip


@pytest.mark.parametrize("linear", ["auto", "gmres"])
@pytest.mark.parametrize("seed", range(12))
def test_random_contractions_against_a_dense_reference(seed: int, linear: Any) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    layers = [drawn(n, n, seed=10 * seed + k) for k in range(2)]
    layers = [0.6 * W / torch.linalg.matrix_norm(W, 2) for W in layers]
    first, second = (STEPS[int(k)] for k in rng.integers(len(STEPS), size=2))

    def T(y: Tensor, x: Tensor) -> Tensor:
        return second(layers[1] @ first(layers[0] @ y + x) + x.square())

    x = drawn(n, seed=seed + 1000, scale=0.5)
    G = ns.implicit.fixed_point(T, linear=linear)
    solve = lambda x: G(x, start=torch.zeros(n, dtype=D))  # noqa: E731
    y = solve(x)
    expected = reference(T, y, x)
    torch.testing.assert_close(jacobian(solve, x), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(jacrev(solve)(x), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(jacfwd(solve)(x), expected, rtol=1e-6, atol=1e-7)


def test_large_systems_are_solved_without_a_matrix() -> None:
    n = 700
    W = drawn(n, n, scale=0.4 / n**0.5)
    x = drawn(n, seed=1).requires_grad_()
    y = ns.implicit.fixed_point(lambda y, x: torch.relu(W @ y + x))(x, start=torch.zeros(n, dtype=D))
    (found,) = torch.autograd.grad(y.sum(), x)
    active = (y > 0).to(D)
    expected = active * torch.linalg.solve((torch.eye(n, dtype=D) - active[:, None] * W).T, torch.ones(n, dtype=D))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    f = ns.implicit.argmin(lambda y, x: (torch.cosh(y) - x * y).sum())
    (found,) = torch.autograd.grad(f(x, start=torch.zeros(n, dtype=D)).sum(), x)
    torch.testing.assert_close(found, 1 / (1 + x.detach() ** 2) ** 0.5, rtol=1e-5, atol=1e-6)


# --- orders and modes -------------------------------------------------------------------------------------------------

SMOOTH = ns.implicit.fixed_point(lambda y, W, b: torch.tanh(W @ y + b))
START = torch.zeros(4, dtype=D)


def smooth(W: Tensor, b: Tensor) -> Tensor:
    """A fixed point of a smooth contraction."""
    return SMOOTH(W, b, start=START)


def unrolled(W: Tensor, b: Tensor) -> Tensor:
    """The same by many steps."""
    y = START
    for _ in range(80):
        y = torch.tanh(W @ y + b)
    return y


WEIGHT, BIAS = drawn(4, 4, scale=0.2), drawn(4, seed=1)


def test_gradcheck_in_both_modes_and_twice() -> None:
    inputs = WEIGHT.clone().requires_grad_(), BIAS.clone().requires_grad_()
    assert gradcheck(smooth, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(smooth, inputs)


def test_third_derivatives() -> None:
    root = ns.implicit.root(lambda y, x: y * y - x)
    value = x = t(2.0, leaf=True)
    value = root(x, start=t(1.0))
    for expected in (0.5 * 2**-0.5, -0.25 * 2**-1.5, 0.375 * 2**-2.5):
        (value,) = torch.autograd.grad(value, x, create_graph=True)
        assert value.item() == pytest.approx(expected, rel=1e-9)


B5, W5 = drawn(5, 4, seed=3), drawn(5, 4, 4, seed=4, scale=0.2)

TRANSFORMS: dict[str, Callable[[Callable[..., Tensor]], Any]] = {
    "grad": lambda f: grad(lambda W: f(W, BIAS).sum())(WEIGHT),
    "vjp": lambda f: vjp(f, WEIGHT, BIAS)[1](BIAS),
    "jvp": lambda f: jvp(f, (WEIGHT, BIAS), (WEIGHT, BIAS)),
    "jacrev": lambda f: jacrev(f, argnums=(0, 1))(WEIGHT, BIAS),
    "jacfwd": lambda f: jacfwd(f, argnums=(0, 1))(WEIGHT, BIAS),
    "hessian": lambda f: hessian(lambda b: f(WEIGHT, b).sum())(BIAS),
    "jacrev of jacrev": lambda f: jacrev(jacrev(lambda b: f(WEIGHT, b)))(BIAS),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(lambda b: f(WEIGHT, b)))(BIAS),
    "vmap over one": lambda f: vmap(f, in_dims=(None, 0))(WEIGHT, B5),
    "vmap over both": lambda f: vmap(f)(W5, B5),
    "vmap of grad": lambda f: vmap(grad(lambda W, b: (f(W, b) ** 2).sum()), in_dims=(None, 0))(WEIGHT, B5),
    "grad of vmap": lambda f: grad(lambda W: (vmap(f, in_dims=(None, 0))(W, B5) ** 2).sum())(WEIGHT),
    "vmap of jacrev": lambda f: vmap(jacrev(f))(W5, B5),
    "vmap of vmap": lambda f: vmap(vmap(f, in_dims=(None, 0)), in_dims=(0, None))(W5, B5),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_torch_func(name: str) -> None:
    found, expected = (pytree.tree_leaves(TRANSFORMS[name](f)) for f in (smooth, unrolled))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("twice", [False, True])
def test_backward_through_vmap(twice: bool) -> None:
    def run(f: Callable[..., Tensor]) -> Tensor:
        W = WEIGHT.clone().requires_grad_()
        (g,) = torch.autograd.grad((vmap(f, in_dims=(None, 0))(W, B5) ** 2).sum(), W, create_graph=twice)
        return torch.autograd.grad((g**2).sum(), W)[0] if twice else g

    torch.testing.assert_close(run(smooth), run(unrolled), rtol=1e-7, atol=1e-9)


def test_a_transform_through_a_closure_is_refused() -> None:
    W = WEIGHT.clone().requires_grad_()
    closed = ns.implicit.fixed_point(lambda y, b: torch.tanh(W @ y + b))
    with pytest.raises(UsageError, match="closes over a tensor that requires a gradient or is transformed itself"):
        vmap(lambda b: closed(b, start=START))(B5)

    def inner(q: Tensor) -> Tensor:
        return ns.implicit.fixed_point(lambda y, b: torch.tanh(q @ y + b))(BIAS, start=START).sum()

    for transform in (grad(inner), jacfwd(inner), lambda q: vmap(inner)(q[None])):
        with pytest.raises(UsageError, match="closes over"):
            transform(WEIGHT)


def test_forward_over_forward_mode_of_torch_func_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Use reverse mode for one of the two"):
        jacfwd(jacfwd(lambda b: smooth(WEIGHT, b)))(BIAS)


def test_reverse_over_forward_mode_of_dual_numbers_is_refused() -> None:
    b = BIAS.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(smooth(WEIGHT, forward_ad.make_dual(b, torch.ones_like(b)))).tangent
        with pytest.raises(UsageError, match="reverse over forward mode"):
            tangent.sum().backward()


def test_a_closure_with_a_tangent_is_refused() -> None:
    with forward_ad.dual_level():
        W = forward_ad.make_dual(WEIGHT, WEIGHT)
        with pytest.raises(UsageError, match="forward mode through a tensor that"):
            ns.implicit.fixed_point(lambda y, b: torch.tanh(W @ y + b), lambda b: unrolled(WEIGHT, b))(BIAS)


# --- closures, trees, types -------------------------------------------------------------------------------------------


class Equilibrium(nn.Module):
    """y = relu(W y + U x), its weights closed over."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.U = nn.Linear(3, 3, bias=False, dtype=D), nn.Linear(2, 3, dtype=D)
        with torch.no_grad():
            self.W.weight.copy_(drawn(3, 3, scale=0.2))
            self.U.weight.copy_(drawn(3, 2, seed=1))
        self.solved = ns.implicit.fixed_point(self.step)

    def step(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.relu(self.W(y) + self.U(x))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.solved(x, start=torch.zeros(len(x), 3, dtype=D))
        return y

    def unrolled(self, x: Tensor) -> Tensor:
        y = torch.zeros(len(x), 3, dtype=D)
        for _ in range(100):
            y = self.step(y, x)
        return y


@pytest.mark.parametrize("twice", [False, True])
def test_weights_of_modules_get_their_gradients(twice: bool) -> None:
    model, x = Equilibrium(), drawn(5, 2, seed=2)
    weights = list(model.parameters())

    def run(f: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        found = torch.autograd.grad((f(x) ** 2).sum(), weights, create_graph=twice)
        return torch.autograd.grad(sum((g**2).sum() for g in found), weights) if twice else found  # type: ignore[arg-type]

    for a, b in zip(run(model), run(model.unrolled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_frozen_weights_need_no_gradient() -> None:
    model, x = Equilibrium(), drawn(5, 2)
    assert model(x).requires_grad
    model.requires_grad_(False)
    assert not model(x).requires_grad
    assert model(x.clone().requires_grad_()).requires_grad
    with torch.no_grad():
        assert not model(x.clone().requires_grad_()).requires_grad
    with torch.inference_mode():
        assert model(x).isfinite().all()


def test_what_is_closed_over_may_depend_on_what_is_passed() -> None:
    def f(W: Tensor) -> Tensor:
        passed, closed = W.sin(), W.cos().sum(0)
        G = ns.implicit.fixed_point(lambda y, s: torch.tanh(0.1 * W @ y + s.sum(0) + 0.1 * closed))
        found: Tensor = G(passed, start=torch.zeros(3, dtype=D))
        return found

    W = drawn(3, 3, seed=5).requires_grad_()
    assert gradcheck(f, W) and gradgradcheck(f, W)


def test_trees_of_unknowns_and_of_parameters() -> None:
    def T(y: Any, p: Any, k: int, name: str | None) -> Any:
        assert k == 2 and name is None
        return {"a": torch.cos(y["b"][0].sum()) * p["w"] * k * 0.2, "b": [torch.tanh(y["a"] * p["v"][0])]}

    G = ns.implicit.fixed_point(T)

    def f(w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y = G({"w": w, "v": (v,)}, 2, None, start={"a": t(0.1), "b": [torch.zeros(3, dtype=D)]})
        return y["a"], y["b"][0]

    w, v = t(0.5, leaf=True), drawn(3).requires_grad_()
    assert gradcheck(f, (w, v)) and gradgradcheck(f, (w, v))
    assert gradcheck(lambda v: f(w.detach(), v)[1], v)


def test_one_part_of_a_solution_may_be_used() -> None:
    G = ns.implicit.root(lambda y, x: (y[0] - x * y[1], y[1] - x))
    x = t(3.0, leaf=True)
    first, _ = G(x, start=(t(0.0), t(0.0)))
    assert torch.autograd.grad(first, x)[0].item() == pytest.approx(6.0)


def test_a_parameter_that_does_not_matter() -> None:
    G = ns.implicit.fixed_point(lambda y, a, b: 0.5 * y + a)
    a, b = t(1.0, leaf=True), t(1.0, leaf=True)
    found = torch.autograd.grad(G(a, b, start=t(0.0)), (a, b), allow_unused=True)
    assert found[0].item() == pytest.approx(2.0) and (found[1] is None or found[1].item() == 0)


SOLVERS: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: 2 * x.numpy(),
    "in single precision": lambda x: np.float64(2) * x.numpy().astype(np.float32).astype(np.float64),
    "attached": lambda x: 2 * x.requires_grad_(),
    "aliasing": lambda x: x.mul(2),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_any_solver(name: str) -> None:
    x = t([1.0, 2.0], leaf=True)
    G = ns.implicit.fixed_point(lambda y, x: 0.5 * y + x, SOLVERS[name])
    y = G(x)
    assert y.dtype == D
    y.sum().backward()
    torch.testing.assert_close(x.grad, t([2.0, 2.0]))


def test_a_solver_that_returns_floats_and_a_decorator() -> None:
    @ns.implicit.root(lambda y, x: y * y - x)
    def square_root(x: Tensor) -> float:
        return float(x) ** 0.5

    x = torch.tensor(4.0, requires_grad=True)
    y = square_root(x)
    assert y.dtype == torch.float32 and y.shape == ()
    y.backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(0.25)


def test_single_precision() -> None:
    x = torch.tensor([1.0, -1.0], requires_grad=True)
    y = ns.implicit.fixed_point(lambda y, x: torch.relu(0.5 * y + x))(x, start=torch.zeros(2))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([2.0, 0.0]))


@pytest.mark.parametrize("twice", [False, True])
def test_the_backward_pass_runs_under_the_autocast_of_the_forward_pass(twice: bool) -> None:
    W, x = drawn(8, 8, scale=0.2).float(), drawn(2, 8, seed=1).float().requires_grad_()
    y = ns.implicit.fixed_point(lambda y, x: torch.tanh(y @ W) + x)(x, start=torch.zeros(2, 8))
    (expected,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = torch.autograd.grad(y.sum(), x, create_graph=twice)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_repeated_backward_passes() -> None:
    x = t([1.0, -1.0], leaf=True)
    y = ns.implicit.fixed_point(lambda y, x: torch.tanh(0.5 * y + x))(x, start=torch.zeros(2, dtype=D))
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    torch.testing.assert_close(first, second)


# --- the condition ----------------------------------------------------------------------------------------------------


def test_vertices_that_are_invertible_do_not_make_the_condition_hold() -> None:
    """y = 2 relu(y) + x at 0: B is 1 or -1 at the vertices, and 0 between them."""
    G = ns.implicit.fixed_point(lambda y, x: 2 * torch.relu(y) + x, lambda x: 0 * x)
    x = t(0.0, leaf=True)
    with pytest.raises(NotInvertible, match="the condition of the implicit function theorem does not hold"):
        G(x).backward()
    assert x.grad is None
    kinked = ns.implicit.fixed_point(lambda y, x: 2 * torch.relu(y) + x, lambda x: 0 * x, violated="warn")
    with pytest.warns(ImplicitWarning, match="does not hold"):
        kinked(x).backward()
    silent = ns.implicit.fixed_point(lambda y, x: 2 * torch.relu(y) + x, lambda x: 0 * x, violated="ignore")
    silent(x).backward()
    with pytest.raises(NotInvertible):
        grad(G)(t(0.0))


def test_a_kink_at_which_the_condition_holds_is_no_trouble() -> None:
    G = ns.implicit.fixed_point(lambda y, x: 0.5 * torch.relu(y) + x)
    assert jacobian(lambda x: G(x, start=t(0.0)), t(0.0)).item() in (1.0, 2.0)


def test_what_cannot_be_captured_is_not_checked_and_says_so() -> None:
    G = ns.implicit.fixed_point(lambda y, x: 0.5 * vmap(torch.relu)(y) + x)
    x = t([1.0], leaf=True)
    with pytest.warns(ImplicitWarning, match=r"was not checked: .*Pass check='solves'"):
        G(x, start=t([1.0])).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once
        G(x, start=t([1.0])).sum().backward()
    torch.testing.assert_close(x.grad, t([4.0]))


def test_a_solution_beyond_a_kink_is_not_accurate_enough() -> None:
    G = ns.implicit.fixed_point(lambda y, x: 0.5 * torch.relu(y) + x, lambda x: -x, tolerance=1e-5)
    with pytest.warns(ImplicitWarning, match=r"lies on the other side of 1 kink\(s\)"):
        G(t([1e-6], leaf=True)).sum().backward()


SMALL = {
    "fixed point": lambda **o: ns.implicit.fixed_point(lambda y, x: y - 1e-9 * (y**3 + y - x), lambda x: 0 * x, **o),
    "root": lambda **o: ns.implicit.root(lambda y, x: 1e-9 * (y**3 + y - x), lambda x: 0 * x, **o),
    "argmin": lambda **o: ns.implicit.argmin(
        lambda y, x: 1e-9 * (y**4 / 4 + y**2 / 2 - x * y), solver=lambda x: 0 * x, **o
    ),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_residual_far_from_the_solution_is_said(kind: str) -> None:
    """In other units |H| is small everywhere; Newton's step is as long as the solution is far, in any units."""
    x = t(2.0, leaf=True)
    with pytest.warns(ImplicitWarning, match=r"Newton's step from there is 2 long, where 1 \+ \|y\| is 1\."):
        SMALL[kind]()(x).backward()
    with pytest.raises(NotConverged):
        SMALL[kind](tolerance=1e-12)(x)


def test_a_loose_tolerance_is_no_small_residual() -> None:
    """What was asked for is not warned of."""
    x = t(1.0, leaf=True)
    ns.implicit.root(lambda y, x: y - x, lambda x: 0.9 * x, tolerance=0.1)(x).backward()
    assert x.grad == 1.0


def test_a_stationary_point_that_is_no_minimiser_is_said() -> None:
    well = ns.implicit.argmin(lambda y, x: ((y**2 - x) ** 2).sum())
    x = t([2.0, 2.0], leaf=True)
    with pytest.warns(ImplicitWarning, match="no minimiser.*the eigenvalue -8"):
        well(x, start=t([0.0, 1.0])).sum().backward()
    well(x, start=t([1.0, -1.0])).sum().backward()
    saddle = ns.implicit.root(lambda y, x: 4 * y * (y**2 - x))
    saddle(x, start=t([0.0, 1.0])).sum().backward()


def test_a_hessian_that_is_exactly_zero_has_values() -> None:
    """Torch gives such a matrix as a tensor without memory."""
    with pytest.raises(NotConverged):
        ns.implicit.argmin(lambda y, x: (y - x).abs())(t(2.0, leaf=True), start=t(0.0))


def test_a_changed_mode_of_a_module_is_seen() -> None:
    layer = nn.Sequential(nn.Linear(2, 2, dtype=D), nn.Hardtanh(-0.1, 0.1))
    G = ns.implicit.fixed_point(lambda y, x: 0.1 * layer(y) + x)
    x = drawn(2).requires_grad_()
    G(x, start=torch.zeros(2, dtype=D)).sum().backward()
    layer[1] = nn.Tanh()
    x.grad = None
    G(x, start=torch.zeros(2, dtype=D)).sum().backward()
    expected = reference(lambda y, x: 0.1 * layer(y) + x, G(x, start=torch.zeros(2, dtype=D)).detach(), x.detach()).sum(
        0
    )
    torch.testing.assert_close(x.grad, expected)


def test_a_singular_system_is_refused_and_never_answered_by_least_squares() -> None:
    G = ns.implicit.root(lambda y, x: y.sum() - x.sum() + 0 * y, lambda x: x)
    x = t([1.0, 2.0], leaf=True)
    with pytest.raises(NotInvertible, match="its smallest singular value is"):
        G(x).sum().backward()
    assert x.grad is None


def test_a_scalar_singular_system_is_no_silent_zero() -> None:
    x = t(1.0, leaf=True)
    with pytest.raises(NotInvertible):
        ns.implicit.root(lambda y, x: y * y * x, lambda x: 0.0)(x).backward()


def test_a_large_singular_system_is_refused_where_the_cotangent_does_not_see_it() -> None:
    n = 600
    keep = torch.ones(n, dtype=D)
    keep[-1] = 0
    G = ns.implicit.root(lambda y, x: keep * (y - x), lambda x: x)
    x = torch.ones(n, dtype=D, requires_grad=True)
    with pytest.raises(NotInvertible, match="of a random right-hand side"):
        G(x)[:-1].sum().backward()


# --- bad input --------------------------------------------------------------------------------------------------------

half = lambda y, x: 0.5 * y + x  # noqa: E731
X = t([1.0, 2.0])

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a solver that lies": (
        lambda: ns.implicit.fixed_point(half, lambda x: 2.1 * x)(X), NotConverged, r"is no solution .* its residual \|H\| is"),
    "nan": (lambda: ns.implicit.fixed_point(half, lambda x: x * float("nan"))(X), NotConverged, r"y holds nan at index \(0,\)"),
    "infinity": (lambda: ns.implicit.fixed_point(half, lambda x: x / 0)(X), NotConverged, "y holds inf"),
    "no solution": (lambda: ns.implicit.fixed_point(lambda y, x: y * y + x * x + 1)(X, start=X), NotConverged, "is no solution"),
    "too few steps": (
        lambda: ns.implicit.argmin(lambda y, x: (y - x).pow(4).sum(), iterations=1)(X, start=0 * X), NotConverged, "more steps"),
    "another shape": (
        lambda: ns.implicit.fixed_point(lambda y, x: half(y, x)[:1], lambda x: 2 * x)(X), UsageError, r"of shape \(1,\)"),
    "another structure": (
        lambda: ns.implicit.root(lambda y, x: (y, y), lambda x: x)(X), UsageError, "as many equations as there are unknowns"),
    "nothing": (lambda: ns.implicit.fixed_point(half, lambda x: None)(X), UsageError, "returned a NoneType"),
    "an empty tree": (lambda: ns.implicit.fixed_point(half, lambda x: ())(X), UsageError, r"returned \(\)"),
    "integers": (lambda: ns.implicit.fixed_point(half, lambda x: x.long())(X), UsageError, "type int64 as y"),
    "text": (lambda: ns.implicit.fixed_point(half, lambda x: "y")(X), UsageError, "returned a str"),
    "sparse": (lambda: ns.implicit.fixed_point(half, lambda x: x.to_sparse())(X), UsageError, "dense floating tensors"),
    "no start": (lambda: ns.implicit.fixed_point(half)(X), UsageError, "has no solver and no start"),
    "another start": (
        lambda: ns.implicit.fixed_point(half, lambda x: 2 * x)(X, start=t(0.0)), UsageError, "and its start is"),
    "a start of nan": (lambda: ns.implicit.fixed_point(half)(X, start=X * float("nan")), NotConverged, "holds nan"),
    "no function": (lambda: ns.implicit.root(3.0), UsageError, "the function of root is to be called; found a float"),
    "no prox": (lambda: ns.implicit.argmin(half, 3), UsageError, "the prox of argmin is to be called"),
    "no solver": (lambda: ns.implicit.root(half, X), UsageError, "the solver of root is to be called; found a Tensor"),
    "a step back": (lambda: ns.implicit.argmin(half, step=-1.0), UsageError, "step=-1.0"),
    "a tolerance in words": (lambda: ns.implicit.root(half, tolerance="low"), UsageError, "tolerance='low'"),
    "half a step": (lambda: ns.implicit.root(half, iterations=0.5), UsageError, "iterations=0.5"),
    "diagnosed": (lambda: ns.implicit.diagnose(half, X, y=X), UsageError, "diagnose takes what"),
    "a solution in numpy": (
        lambda: ns.implicit.diagnose(ns.implicit.root(half), X, y=0.0), UsageError, "found a float"),
    "no scalar": (lambda: ns.implicit.argmin(lambda y, x: (y - x) ** 2)(X, start=X), UsageError, "minimised is a scalar"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def test_a_linear_solve_that_does_not_converge() -> None:
    n = 60
    W = torch.roll(torch.eye(n, dtype=D), 1, 0)  # GMRES stagnates on a cyclic shift until its last step
    G = ns.implicit.root(
        lambda y, x: W @ y - x, lambda x: W.T @ x, linear="gmres", check="solves", linear_tolerance=1e-8
    )
    x = torch.zeros(n, dtype=D, requires_grad=True)
    with pytest.raises(NotConverged, match="was not solved by gmres"):
        G(x)[0].backward()


def test_changes_in_place_are_errors_or_do_not_matter() -> None:
    x = drawn(3).requires_grad_()
    y = ns.implicit.fixed_point(lambda y, x: torch.tanh(0.5 * y * x) + x)(x, start=torch.zeros(3, dtype=D))
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitWarning)
        y.sum().backward()
    model, data = Equilibrium(), drawn(4, 2)
    y = model(data)
    with torch.no_grad():
        model.W.weight.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitWarning)
        y.sum().backward()
    x = drawn(3).requires_grad_()
    y = ns.implicit.fixed_point(half, check="solves")(x, start=torch.zeros(3, dtype=D))
    y.add_(1)  # the solution is the user's
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), 2.0, dtype=D))


def test_a_function_that_has_changed_is_not_differentiated_twice() -> None:
    shift = [0.0]
    x = t(0.3, leaf=True)
    y = ns.implicit.fixed_point(lambda y, x: torch.cos(0.5 * y + x) + shift[0], check="solves")(x, start=t(0.0))
    shift[0] = 0.1
    with pytest.raises(UsageError, match="gives another residual at its backward pass"):
        torch.autograd.grad(y, x, create_graph=True)


def test_nothing_of_the_users_is_changed() -> None:
    model, x = Equilibrium(), drawn(5, 2).requires_grad_()
    before, values = copy.deepcopy(model.state_dict()), x.detach().clone()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr,index]
    (g,) = torch.autograd.grad(model(x).sum(), x)
    for call, error, _ in BAD.values():
        with pytest.raises(error):
            call()
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[arg-type,index]
    assert torch.is_grad_enabled() and g is not None
    assert x.grad is None and all(p.grad is None for p in model.parameters())
    assert torch.equal(values, x) and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
