"""What could make a derivative of a solution wrong without a word: closures, hooks, modes, tensors cut off, steep kinks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NotConverged, UsageError

W = 0.2 * torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ZERO = torch.zeros(3, dtype=torch.float64)


def implicit(T: Callable[[Any], Any]) -> Any:
    """Solve y = T(y) for what T closes over."""
    return ns.implicit.fixed_point(T)(start=ZERO)


def unrolled(T: Callable[[Any], Any]) -> Any:
    """Iterate, and let autograd follow."""
    y = ZERO
    for _ in range(100):
        y = T(y)
    return y


def inputs(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Give a leaf."""
    return torch.randn(3, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()


def computed_before(solve: Any) -> Any:
    """The gradient with respect to a tensor that is no leaf, used beside the solution as well."""
    a = inputs()
    h = torch.tanh(a)
    y = solve(lambda y: torch.tanh(W @ y + h))
    (first,) = torch.autograd.grad((y * h).sum(), h, create_graph=True)
    return first, *torch.autograd.grad((first**2).sum(), [h, a])


def retained(solve: Any) -> Any:
    """The same by `retain_grad`."""
    a = inputs()
    h = torch.tanh(a)
    h.retain_grad()
    (solve(lambda y: torch.tanh(W @ y + h)) * h).sum().backward()
    return h.grad, a.grad


def hook_of_a_leaf(solve: Any) -> Any:
    """A hook of a weight is called once for each backward pass."""
    w, calls = inputs(), []
    w.register_hook(lambda g: (calls.append(1), 0.5 * g)[1])
    y = solve(lambda y: torch.tanh(W @ y + w))
    (first,) = torch.autograd.grad(y.sum(), w, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), w, retain_graph=True)
    y.sum().backward()
    return first, second, w.grad, torch.tensor(float(len(calls)))


def hook_of_a_result(solve: Any) -> Any:
    """A hook of a tensor that is no leaf sees the whole gradient, once."""
    a, calls = inputs(), []
    h = torch.tanh(a)
    h.register_hook(lambda g: (calls.append(1), g.clamp(-0.1, 0.1))[1])
    (solve(lambda y: torch.tanh(W @ y + h)) * h).sum().backward()
    return a.grad, torch.tensor(float(len(calls)))


def complex_parameters(solve: Any) -> Any:
    """Complex tensors that were computed before."""
    c = inputs(torch.complex128)
    d = c * 1j
    y = solve(lambda y: torch.tanh(W @ y + (d * d).real + d.abs()))
    return torch.autograd.grad((y * d.real).sum(), [d, c])


def a_network_that_gives_weights(solve: Any) -> Any:
    """Weights that another network gives."""
    z = inputs()
    V = (torch.outer(z, z) + W) * 0.2
    y = solve(lambda y: torch.tanh(V @ y + z.sum()))
    return torch.autograd.grad((y * V[0]).sum(), [V, z])


def one_solution_in_another(solve: Any) -> Any:
    """A fixed point of a function that solves for a fixed point, both of which close over one tensor."""
    a = inputs()
    h = torch.tanh(a)
    y = solve(lambda y: 0.5 * solve(lambda z: torch.tanh(0.3 * W @ z + y + h)) + h)
    return torch.autograd.grad((y * h).sum(), [h, a])


def a_gradient_inside(solve: Any) -> Any:
    """A function that differentiates itself."""
    a = inputs()
    h = torch.tanh(a)

    def T(y: Any) -> Any:
        with torch.enable_grad():
            z = y if y.requires_grad else y.detach().requires_grad_()
            (g,) = torch.autograd.grad((torch.cos(z) * h).sum(), z, create_graph=True)
        return 0.3 * g + h

    return torch.autograd.grad((solve(T) * h).sum(), [h, a])


def a_shift_that_cancels(solve: Any) -> Any:
    """What is cut off does not matter, and nothing is said."""
    a = inputs()

    def T(y: Any) -> Any:
        z = W @ y + a
        e = (z - z.max().detach()).exp()
        return e / e.sum()

    return torch.autograd.grad((solve(T) ** 2).sum(), [a])


CLOSURES = (
    computed_before,
    retained,
    hook_of_a_leaf,
    hook_of_a_result,
    complex_parameters,
    a_network_that_gives_weights,
    one_solution_in_another,
    a_gradient_inside,
    a_shift_that_cancels,
)


@pytest.mark.parametrize("case", CLOSURES, ids=lambda c: c.__name__)
def test_closures_differentiate_as_unrolled(case: Callable[[Any], Any]) -> None:
    """Gradients of what a function closes over are those of the unrolled iteration, without a warning."""
    for found, expected in zip(case(implicit), case(unrolled), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


class Twice(torch.autograd.Function):
    """Give 2 x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Give it."""
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> torch.Tensor:
        """Pull."""
        return 2 * cotangents[0]


def test_what_cannot_be_replaced_is_named() -> None:
    """Inside of a custom function a tensor is not seen; leaves get their gradient, and a warning tells the rest."""
    a = inputs()
    h = torch.tanh(a)
    with pytest.warns(ImplicitWarning, match="Pass them as parameters"):
        y = implicit(lambda y: torch.tanh(W @ y + Twice.apply(h)))
    b = inputs()
    expected = unrolled(lambda y: torch.tanh(W @ y + 2 * torch.tanh(b)))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), a), torch.autograd.grad(expected.sum(), b))


def without_gradient(y: Any, x: Any) -> Any:
    """A part under no_grad."""
    with torch.no_grad():
        z = W @ y
    return z + x


@pytest.mark.parametrize(
    "T",
    [
        without_gradient,
        lambda y, x: torch.tanh(W @ y.detach() + x),
        lambda y, x: torch.from_numpy(np.tanh((W @ y).detach().numpy())) + x,
        lambda y, x: 0.1 * float(y.detach().sum()) + x,
    ],
    ids=["no_grad", "detach", "numpy", "float"],
)
def test_a_dependence_that_autograd_does_not_see_is_reported(T: Any) -> None:
    """B is then not the derivative of the equation: a warning at the derivative, and an undecided diagnosis with no bound."""
    x, function = inputs(), ns.implicit.fixed_point(T)
    y = function(x, start=ZERO)
    with pytest.warns(ImplicitWarning, match=r"may not be that of the equation, since .*test_implicit_adversary\.py"):
        y.sum().backward()
    found = function.diagnose(x, y=y.detach())
    assert found.invertible is None and found.smallest_singular_value == 0 and not found.attained
    quiet = ns.implicit.fixed_point(T, check="solves")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet(x, start=ZERO).sum().backward()


def test_inference_mode() -> None:
    """No gradients exist there, and the solution is the same: that of an objective needs one."""
    x = inputs()
    least = ns.implicit.argmin(lambda y, x: ((y - x) ** 2).sum() + y.abs().pow(3).sum())
    point = ns.implicit.root(lambda y, x: y**3 + y - x)
    for function in (least, point):
        with torch.inference_mode():
            found, again = function(x, start=ZERO), function(x * 1, start=ZERO * 1)
        expected = function(x, start=ZERO)
        assert expected.requires_grad and not found.requires_grad
        torch.testing.assert_close(found, expected.detach())
        torch.testing.assert_close(again, expected.detach())


def test_autocast() -> None:
    """Weights that autocast has cast for the solver, which has no graph, get their gradients."""
    torch.manual_seed(0)
    layer, found = torch.nn.Linear(3, 3), []
    torch.nn.init.normal_(layer.weight, std=0.1)
    for half in (True, False):
        x = inputs(torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            layer(x)
            T = ns.implicit.fixed_point(lambda y, x: torch.tanh(layer(y) + x), tolerance=1e-2, check="solves")
            y = T(x, start=torch.zeros(3))
        assert torch.is_autocast_cache_enabled()
        found.append(torch.autograd.grad(y.float().sum(), [x, *layer.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.01)


def test_a_start_that_is_none_is_called_a_start() -> None:
    """The message speaks of what the user passed."""
    half = ns.implicit.fixed_point(lambda y, x: 0.5 * y + x)
    for start, error, words in (
        (torch.tensor(0), UsageError, "the start of the fixed point of <lambda> is a tensor of shape .* int64"),
        (torch.tensor(float("nan")), NotConverged, "the start of the fixed point of <lambda> is not finite"),
    ):
        with pytest.raises(error, match=words):
            half(torch.tensor(1.0), start=start)


def steep(y: Any, x: Any) -> Any:
    """2 relu(y) + x, written with an argument of slope 1e6."""
    return 2e-6 * torch.relu(1e6 * y) + x


@pytest.mark.parametrize("y", [0.0, -2e-9, 2e-9, -1e-13])
def test_the_error_of_a_solution_counts_in_the_units_of_each_kink(y: float) -> None:
    """At 1e6 y an error of 1e-9 moves the argument by 1e-3."""
    found = ns.implicit.fixed_point(steep).diagnose(torch.tensor(0.0), y=torch.tensor(y, dtype=torch.float64))
    assert found.invertible is False and found.kinks == 1
    x = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    solution = ns.implicit.fixed_point(steep, lambda x: torch.tensor(y, dtype=torch.float64))(x)
    with pytest.raises(ns.errors.NotInvertible):
        solution.backward()


def test_rounding_of_a_steep_argument() -> None:
    """0.1 + 0.2 is the 0.3 of the kink."""
    function = ns.implicit.fixed_point(lambda y, x: 2e-6 * torch.relu(1e6 * (y - 0.3)) + 0.3 + x)
    x = torch.tensor(0.0, dtype=torch.float64)
    assert function.diagnose(x, y=torch.tensor(0.1 + 0.2, dtype=torch.float64)).invertible is False


def test_kinks_that_become_steep_are_not_overlooked() -> None:
    """In training an argument may become steep at any derivative: it is 1e-3 at last, the error of the solution 1e-9."""

    def F(y: Any, x: Any, steepness: float, distance: float) -> Any:  # B = 1 - 2 w
        return y - x - 2 * torch.relu(steepness * (y - x - distance)) / steepness

    solve = ns.implicit.root(F, lambda x, steepness, distance: x + 1e-9)
    scalar = lambda number: torch.tensor(number, dtype=torch.float64, requires_grad=True)  # noqa: E731
    for _ in range(2):
        solve(scalar(1.0), scalar(1.0), scalar(1.0)).backward()
    with pytest.raises(ns.errors.NotInvertible):
        solve(scalar(1.0), scalar(1e6), scalar(0.0)).backward()


def test_the_third_derivative_of_a_large_equation_knows_its_error() -> None:
    """|B^-1| is estimated at every solution, by a random right-hand side where there are no factors."""

    def F(y: Any, x: Any, distance: Any) -> Any:
        return y - x - 2 * torch.relu(y - x - distance)

    solve = ns.implicit.root(F, lambda x, _: x + 1e-9, linear="gmres")
    x, far = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for _ in range(2):
        solve(x, far).sum().backward()
    with pytest.raises(ns.errors.NotInvertible):
        solve(x, 0 * far).sum().backward()


@pytest.mark.parametrize("steepness", [1.0, 1e6])
@pytest.mark.parametrize("error", [0.0, 1e-9, -1e-9])
@pytest.mark.parametrize("slope", [3.0, 2.0])
def test_an_if_that_ties_within_the_error_is_said(slope: float, steepness: float, error: float) -> None:
    """What an `if` compares counts in its own units, too; a solution nearby that is far from the tie is no trouble.

    With the slope 2 the derivatives of the two branches of the equation are 1 and -1, whose mean is singular.
    """

    def T(y: Any, x: Any) -> Any:
        if steepness * (y - 1) > 0:
            return slope * (y - 1) + x
        return 0 * y + x

    solve = ns.implicit.fixed_point(T, lambda x: x.clone() + error)
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    with pytest.warns(ImplicitWarning, match="2 programs of an `if` on data meet here"):
        solve(x).backward()
    ns.implicit.fixed_point(T, lambda x: x.clone())(x - 1e-8).backward()


def test_a_kink_of_an_equation_inside_is_said_to_be_undecided() -> None:
    """The equation of the solver inside is named, once; where nothing is at a kink nothing is said."""
    inner = ns.implicit.root(lambda z, y: z + 0.5 * torch.relu(z) - y)
    solve = ns.implicit.fixed_point(lambda y, x: 0.3 * inner(y, start=torch.zeros_like(y)) + x)
    start = torch.zeros(2, dtype=torch.float64)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.warns(ImplicitWarning) as said:
        solve(x, start=start).sum().backward()
    assert len(said) == 1
    assert "solves another equation inside, the root of <lambda>" in str(said[0].message)
    solve((x - 0.5).detach().requires_grad_(), start=start).sum().backward()


def test_a_flat_argument_is_not_near_its_kink_because_it_is_small() -> None:
    """An argument of 1e-9 may be 1e-3 away from its kink: the condition that fails there does not matter."""
    y = torch.tensor(-1e-9, dtype=torch.float64)
    found = ns.implicit.fixed_point(lambda y, x: 2e6 * torch.relu(1e-6 * (y - 1e-3)) + x).diagnose(0 * y, y=y)
    assert found.invertible and found.kinks == 0
    both = lambda y, x: 0.5e-6 * torch.relu(1e6 * y) + 2e6 * torch.relu(1e-6 * (y - 1e-3)) + x  # noqa: E731
    found = ns.implicit.fixed_point(both).diagnose(0 * y, y=y)
    assert found.invertible is None and "flatter" in found.rule  # a larger set than that of the solution


def test_the_error_counts_in_large_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance of a solution to its kinks is that of its error there, too."""
    monkeypatch.setattr("nonsmooth.implicit.diagnosis.DENSE", 2)
    y = torch.full((5,), 3.0, dtype=torch.float64)
    y[0] = -1e-8
    x = torch.cat([torch.zeros(1, dtype=torch.float64), -y[1:]])
    found = ns.implicit.fixed_point(lambda y, x: 2 * torch.relu(y) + x).diagnose(x, y=y)
    assert found.invertible is False and found.kinks == 1


def in_jax(T: Any, solver: Any, *, jit: bool = False) -> Any:
    """Give the derivative of a scalar fixed point at 0 in JAX."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: ns.implicit.fixed_point(T, solver)(x))
        found = (jax.jit(slope) if jit else slope)(0.0)
        jax.effects_barrier()
        return float(found)


@pytest.mark.parametrize("jit", [False, True])
def test_stop_gradient_in_jax_is_reported(jit: bool) -> None:
    """What is cut off, compiled or not; a shift that cancels is not."""
    jax = pytest.importorskip("jax")
    with pytest.warns(ImplicitWarning, match=r"may not be that of the equation, since .*test_implicit_adversary\.py"):
        in_jax(lambda y, x: 0.5 * jax.lax.stop_gradient(y) + x, lambda x: 2 * x, jit=jit)

    def shifted(y: Any, x: Any) -> Any:
        z = jax.numpy.stack([y, 2 * y])
        return 0.1 * jax.nn.logsumexp(z) + x

    with jax.enable_x64(True):
        y = float(ns.implicit.fixed_point(shifted)(0.0, start=jax.numpy.array(0.0)))
    assert np.isfinite(in_jax(shifted, lambda x: y + x, jit=jit))


def test_steep_kinks_in_jax() -> None:
    """The error counts in the units of the argument: decided where values are known, counted where they are not."""
    jax = pytest.importorskip("jax")
    T = lambda y, x: 2e-6 * jax.nn.relu(1e6 * y) + x  # noqa: E731
    with pytest.raises(ns.errors.NotInvertible):
        in_jax(T, lambda x: x - 2e-9)
    again = lambda y, x: x + 2e-6 * jax.numpy.maximum(1e6 * y, 0.0)  # noqa: E731
    with pytest.warns(ImplicitWarning, match="the solution lies on 1 kink"):
        in_jax(again, lambda x: x - 2e-9, jit=True)


def test_an_operation_of_the_users_own_in_jax_is_named() -> None:
    """Its kinks are not known, compiled or not."""
    jax = pytest.importorskip("jax")

    @jax.custom_jvp
    def ramp(y: Any) -> Any:
        return jax.numpy.where(y > 0, y, 0.0)

    ramp.defjvp(lambda primals, tangents: (ramp(*primals), (primals[0] > 0) * tangents[0]))
    for jit in (False, True):
        with pytest.warns(ImplicitWarning, match="was not checked in full, since the user's own"):
            in_jax(lambda y, x: 2 * ramp(y) + x, lambda x: 0 * x, jit=jit)
