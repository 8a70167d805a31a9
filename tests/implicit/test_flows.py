"""Flows with kinks: closed forms, matrix exponentials, what autograd gives there, and what is refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.errors import ImplicitWarning, NoDerivative, NoField, NotConverged, PointError, ResultError, UsageError
from tests.adapters import served
from tests.references.piecewise_linear_flow import contact, flow, random_equation, stick_slip

INTEGRATORS = {"torch": "torchdiffeq", "jax": "diffrax"}


@pytest.fixture(autouse=True)
def integrator(request):
    """Skip where the integrator of the framework is not here."""
    name = request.getfixturevalue("xp").name if "xp" in request.fixturenames else "torch"
    pytest.importorskip(INTEGRATORS[name])


def value_and_gradients(xp, solver, y0, T, *theta, c=None):
    """Give y(T) and the derivatives of <c, y(T)> in y0, T and theta."""
    given = [xp.array(np.asarray(a, dtype=float), "double") for a in (y0, T, *theta)]
    weights = xp.array(np.ones(np.shape(y0)) if c is None else np.asarray(c, dtype=float), "double")
    if xp.name == "torch":
        import torch

        leaves = [g.requires_grad_() for g in given]
        y = solver(*leaves)
        found = torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True, materialize_grads=True)
        return y.detach().numpy(), [g.numpy() for g in found]
    import jax

    def weighed(*a):
        y = solver(*a)
        return (y * weights).sum(), y

    found, y = jax.grad(weighed, argnums=tuple(range(len(given))), has_aux=True)(*given)
    return np.asarray(y), [np.asarray(g) for g in found]


E = math.e
CLOSED = {
    "relu of a line": (
        lambda xp: lambda t, y, a: xp.relu(a * y + 1),
        (-3.0, 2.0, 1.0),
        (-3.0, 1.0, 0.0, 0.0),
    ),
    "minus the absolute value, below": (lambda xp: lambda t, y: -xp.abs(y), (-1.0, 1.0), (-E, E, -E)),
    "minus the absolute value, above": (lambda xp: lambda t, y: -xp.abs(y), (2.0, 1.0), (2 / E, 1 / E, -2 / E)),
    "maximum of y and -y": (lambda xp: lambda t, y: xp.maximum(y, -y), (-1.0, 1.0), (-1 / E, 1 / E, 1 / E)),
    "one plus relu, a crossing": (lambda xp: lambda t, y: 1 + xp.relu(y), (-1.0, 2.0), (E - 1, E, E)),
    "a parameter at the crossing": (
        lambda xp: lambda t, y, a: 1 + a * xp.relu(y),
        (-1.0, 2.0, 1.0),
        (E - 1, E, E, 1.0),  # y = (exp(a s) - 1) / a at s = T + y0
    ),
    "a kink in time": (lambda xp: lambda t, y: y * xp.abs(t - 1), (1.0, 2.0), (E, E, E)),
    "a difference of relus, from 0": (lambda xp: lambda t, y: xp.relu(y) - xp.relu(-y), (0.0, 1.0), (0.0, E, 0.0)),
    "a where that joins": (lambda xp: lambda t, y: 1 + xp.where(y > 0, y, 0 * y), (-1.0, 2.0), (E - 1, E, E)),
}


LATER = (
    "a where that joins",
    "minus the absolute value, above",
    "maximum of y and -y",
    "one plus relu, a crossing",
    "a kink in time",
    "relu of a line",
)
"""The closed forms of the slow run."""

IN_JAX = ("a parameter at the crossing",)
"""The closed forms of the short run in JAX, where the derivative of every equation is compiled anew."""

LATER_IN_JAX = pytest.mark.parametrize(
    "xp",
    [pytest.param(name, marks=pytest.mark.slow) if name == "jax" else name for name in served()],
    indirect=True,
)
"""What JAX compiles long for, and what is the same in both frameworks."""


@pytest.mark.parametrize(
    ("xp", "name"),
    [
        pytest.param(f, n, marks=pytest.mark.slow) if n in LATER or (f == "jax" and n not in IN_JAX) else (f, n)
        for f in served()
        for n in CLOSED
    ],
    indirect=["xp"],
)
def test_closed_forms(xp, name):
    make, given, expected = CLOSED[name]
    solver = ns.implicit.flow(make(xp))
    y, gradients = value_and_gradients(xp, solver, *given)
    np.testing.assert_allclose(y, expected[0], rtol=1e-6, atol=1e-8)
    for found, known in zip(gradients, expected[1:], strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-6, atol=1e-8)
    assert solver.report.status == "computed"
    assert solver.report.error < 1e-7


ORDERS = {
    "the largest entry, all axes": (lambda xp: xp.max, (0.5, 0.0), [(1, 0), (0, 1)]),
    "the largest entry, an axis": (lambda xp: lambda y: xp.max_along(y, 0), (0.5, 0.0), [(1, 0), (0, 1)]),
    "the smallest entry, an axis": (lambda xp: lambda y: xp.min_along(y, 0), (0.5, 0.0), [(0, 1), (1, 0)]),
    "the largest so far": (lambda xp: lambda y: xp.sum(xp.cummax(y)), (0.5, 0.0), [(2, 0), (1, 1)]),
    "a sort": (lambda xp: lambda y: xp.array([1.0, 3.0], "double") @ xp.sort(y), (0.5, 0.0), [(3, 1), (1, 3)]),
    "a rank": (lambda xp: lambda y: xp.kth(y, 1), (0.5, 0.0), [(0, 1), (1, 0)]),
    "the largest of some": (lambda xp: lambda y: xp.sum(xp.top(y, 1)), (0.5, 0.0), [(1, 0), (0, 1)]),
    "the smallest of some": (lambda xp: lambda y: xp.sum(xp.bottom(y, 1)), (0.5, 0.0), [(0, 1), (1, 0)]),
    "the entry at an argmax": (lambda xp: lambda y: y[xp.argmax(y)], (0.5, 0.0), [(1, 0), (0, 1)]),
    "a 1-norm": (lambda xp: lambda y: xp.norm(y, 1), (0.5, -1.0), [(1, -1), (1, 1)]),
    "a maximum norm": (lambda xp: lambda y: xp.norm(y, math.inf), (0.5, -1.0), [(0, -1), (1, 0), (0, 1)]),
    "a sort in which three meet": (
        lambda xp: lambda y: xp.array([0.0, 1.0, 2.0], "double") @ xp.sort(y),
        (1.0, 0.0, 2.0),
        [(1, 0, 2), (1, 2, 0)],
    ),
}
"""m(y) linear on some pieces, with their gradients in the order in which y0 + s (1, 2, 0) passes them."""


def along_a_line(y0, slopes, c, T):
    """Give y(T) and d<c, y(T)>/dy0 of y' = (1 + m(y)) w: y = y0 + s w with s' = 1 + m, so that dT = ds / (1 + m)."""
    w = np.array([1.0, 2.0, 0.0])[: len(y0)]
    s, t, total = 0.0, 0.0, np.zeros(len(y0))
    for g, after in zip(slopes, [*slopes[1:], None], strict=True):
        a, b = 1 + g @ y0, g @ w
        end = np.inf if after is None else (after - g) @ y0 / ((g - after) @ w)
        reached = min(end, s + (a / b + s) * math.expm1(b * (T - t)) if b else s + a * (T - t))
        total = total + g * ((1 / (a + b * s) - 1 / (a + b * reached)) / b if b else (reached - s) / a**2)
        t += math.log((a + b * reached) / (a + b * s)) / b if b else (reached - s) / a
        s = reached
    return y0 + s * w, c + (c @ w) * (a + b * s) * total


@pytest.mark.parametrize(
    ("xp", "name"),
    [
        pytest.param(f, n, marks=pytest.mark.slow) if f == "jax" and n != "a sort in which three meet" else (f, n)
        for f in served()
        for n in ORDERS
    ],
    indirect=["xp"],
)
def test_orders_and_norms_are_located(xp, name):
    make, start, slopes = ORDERS[name]
    y0, c, m = np.array(start), np.arange(1.0, len(start) + 1), make(xp)
    w = xp.array([1.0, 2.0, 0.0][: len(start)], "double")
    value, derivative = along_a_line(y0, np.array(slopes, dtype=float), c, 1.0)
    solver = ns.implicit.flow(lambda t, y: (1 + m(y)) * w)
    y, gradients = value_and_gradients(xp, solver, y0, 1.0, c=c)
    np.testing.assert_allclose(y, value, rtol=1e-6)
    np.testing.assert_allclose(gradients[0], derivative, rtol=1e-6)
    assert solver.report.status == ("sampled" if "argmax" in name else "computed")
    assert len(solver.report.crossings) == len(slopes) - 1


@LATER_IN_JAX
def test_a_tie_that_the_solution_stays_on(xp):
    solver = ns.implicit.flow(lambda t, y: xp.max_along(y, 0) + 0 * y)
    with pytest.warns(ImplicitWarning, match=r"stays on a kink of `(max_dim|amax)`"):
        solver(xp.array([1.0, 1.0], "double"), 1.0)
    solver = ns.implicit.flow(lambda t, y: xp.sum(xp.sort(y)) + 0 * y)
    solver(xp.array([1.0, 1.0], "double"), 1.0)
    assert solver.report.contacts
    assert solver.report.status == "computed"


@LATER_IN_JAX
def test_indices_of_a_sort_are_held_or_watched(xp):
    lift = xp.array([0.0, 1.0], "double")
    solver = ns.implicit.flow(lambda t, y: y[xp.argsort(y)][-1] + lift, on_contact="ignore")
    solver(xp.array([1.0, 0.5], "double"), 1.0)
    if xp.name == "torch":
        assert [c.time for c in solver.report.crossings] == pytest.approx([0.5])
        assert solver.report.status == "sampled"
    else:  # there they are a second result of the sort itself
        assert solver.report.status == "undecided"


def field_of(xp, equation):
    parts = [xp.array(part, "double") for part in equation]
    A, b, G, C, d = parts
    return lambda t, y: A @ y + b + G @ xp.relu(C @ y + d)


def compare_with_exponentials(xp, equation, y0, T, rtol=1e-5):
    value, derivative, crossings = flow(equation, y0, T)
    solver = ns.implicit.flow(field_of(xp, equation))
    c = np.arange(1.0, len(y0) + 1)
    y, gradients = value_and_gradients(xp, solver, y0, T, c=c)
    np.testing.assert_allclose(y, value, rtol=rtol, atol=rtol * np.abs(value).max())
    np.testing.assert_allclose(gradients[0], c @ derivative, rtol=rtol, atol=rtol * np.abs(derivative).max())
    np.testing.assert_allclose(gradients[1], c @ equation.field(value), rtol=rtol, atol=rtol * np.abs(value).max() * 10)
    np.testing.assert_allclose([k.time for k in solver.report.crossings], crossings, rtol=1e-6, atol=1e-7)
    return solver.report


@LATER_IN_JAX
@pytest.mark.parametrize("seed", [3, *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 40))])
def test_random_piecewise_linear_flows(xp, seed):
    equation, y0 = random_equation(seed)
    compare_with_exponentials(xp, equation, y0, 2.0)


@LATER_IN_JAX
def test_a_mass_on_a_spring(xp):
    report = compare_with_exponentials(xp, contact(100.0), np.array([1.0, 0.0]), 2.5)
    assert [c.direction for c in report.crossings] == [1, -1]
    assert "test_flows.py" in report.crossings[0].line


@pytest.mark.slow
def test_stick_slip(xp):
    report = compare_with_exponentials(xp, stick_slip(0.05), np.array([0.0, 0.0]), 2.0)
    assert report.crossings


def test_autograd_is_wrong_where_the_flow_is_right():
    torch, odeint = pytest.importorskip("torch"), pytest.importorskip("torchdiffeq").odeint
    y0 = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def field(t, y):
        return torch.relu(y) - torch.relu(-y)  # y

    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    plain = torch.autograd.grad(odeint(field, y0, times)[1], y0)[0]
    located = torch.autograd.grad(ns.implicit.flow(field)(y0, 1.0), y0)[0]
    assert float(plain) == 1.0
    assert float(located) == pytest.approx(E, rel=1e-7)


def test_a_contact_that_matters_is_said(xp):
    solver = ns.implicit.flow(lambda t, y: xp.relu(y))
    with pytest.warns(ImplicitWarning, match=r"stays on a kink of `relu`.*test_flows\.py"):
        assert float(xp_free(solver(xp.array(0.0, "double"), 1.0))) == 0.0
    (met,) = solver.report.contacts
    assert solver.report.status == "undecided"
    assert met.matters
    assert (met.start, met.end) == (0.0, 1.0)
    with pytest.raises(NoDerivative, match="several"):
        ns.implicit.flow(lambda t, y: xp.relu(y), on_contact="raise")(xp.array(0.0, "double"), 1.0)


def test_a_contact_that_does_not_matter_is_not(xp):
    solver = ns.implicit.flow(lambda t, y: y + 0 * xp.abs(y))
    solver(xp.array(0.0, "double"), 1.0)
    assert solver.report.contacts
    assert solver.report.status == "computed"


def norm(xp, y):
    """Give the Euclidean norm as the framework's own operation."""
    if xp.name == "torch":
        import torch

        return torch.linalg.vector_norm(y)
    from jax import numpy as jnp

    return jnp.linalg.norm(y)


def test_a_norm_far_from_its_kink_is_watched_and_not_warned_of(xp):
    solver = ns.implicit.flow(lambda t, y: -y / norm(xp, y))  # y0 (1 - T / |y0|)
    y = solver(xp.array([3.0, 4.0], "double"), 2.0)
    np.testing.assert_allclose(xp.numpy(y), [1.8, 2.4], rtol=1e-7)
    assert solver.report.status == "sampled"
    assert solver.report.decided
    assert min(w.distance for w in solver.report.watched) == pytest.approx(2.4, rel=1e-6)
    assert "kinks not located; the nearest at t = 2" in str(solver.report)


WATCHED = {
    "a norm at its kink at the start": (lambda xp: lambda t, y: 1 + norm(xp, y) + 0 * y, [0.0, 0.0], "norm"),
    "a norm passed at 1e-6": (lambda xp: lambda t, y: y * 0 + norm(xp, y * 0 + t - 0.5) + 1e-6, [1.0, 0.0], "norm"),
}


@LATER_IN_JAX
@pytest.mark.parametrize("name", list(WATCHED))
def test_a_kink_that_cannot_be_located_is_said_where_it_is_met(xp, name):
    make, start, what = WATCHED[name]
    solver = ns.implicit.flow(make(xp))
    with pytest.warns(ImplicitWarning, match=rf"kinks of `\w*{what}.*\.py:.*not located"):
        solver(xp.array(start, "double"), 1.0)
    assert solver.report.status == "undecided"
    assert any(w.met for w in solver.report.watched)


def test_steps_in_place_are_held():
    torch = pytest.importorskip("torch")
    start = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    for f in (
        lambda t, y: 1 + torch.nn.functional.relu(1.0 * y, inplace=True),
        lambda t, y: 1 + (1.0 * y).clamp_(min=0),
    ):
        solver = ns.implicit.flow(f)
        assert float(torch.autograd.grad(solver(start, 2.0), start)[0]) == pytest.approx(E, rel=1e-7)
        assert [c.time for c in solver.report.crossings] == pytest.approx([1.0])
        assert solver.report.status == "computed"


def test_coarse_tolerances_do_not_look_like_a_change_of_f(xp):
    solver = ns.implicit.flow(lambda t, y: 1 + 10 * xp.relu(y), rtol=1e-3)
    y = solver(xp.array(-1.0, "double"), 1 + 1e-6)  # past the kink, by less than the tolerance
    assert float(xp_free(y)) == pytest.approx(1e-6, abs=1e-6)


def neural_loss(xp, points, **options):
    """Give the mean square of y_1(1) - |x|^2 as a function of the weights of y' = W2 relu(W1 y + b1), and its flow."""
    solver = ns.implicit.flow(lambda t, y, w, b, v: xp.relu(y @ w + b) @ v, **options)
    y0, aim = xp.array(points, "double"), xp.array((points**2).sum(1), "double")
    return lambda *p: ((solver(y0, 1.0, *p)[:, 0] - aim) ** 2).mean(), solver


def value_and_slopes(xp, f, p):
    """Give a function of some arrays of numpy and its gradients."""
    given = [xp.array(a, "double") for a in p]
    if xp.name == "torch":
        import torch

        leaves = [g.requires_grad_() for g in given]
        value = f(*leaves)
        return float(value.detach()), [g.numpy() for g in torch.autograd.grad(value, leaves)]
    import jax

    value, found = jax.value_and_grad(f, argnums=tuple(range(len(p))))(*given)
    return float(value), [np.asarray(g) for g in found]


def small_network(seed, count, width):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, 2)), [rng.normal(size=s) * 0.5 for s in ((2, width), (width,), (width, 2))]


def test_a_neural_ode_is_trained_by_plain_steps(xp):
    points, p = small_network(0, 32, 8)
    loss, _ = neural_loss(xp, points, locate=False, rtol=1e-3, atol=1e-5)
    if xp.name == "jax":
        import jax

        loss = jax.jit(loss)
    losses, speed = [], [np.zeros_like(a) for a in p]
    for _ in range(60):
        value, slopes = value_and_slopes(xp, loss, p)
        losses.append(value)
        speed = [0.8 * v - 0.1 * g for v, g in zip(speed, slopes, strict=True)]
        p = [a + v for a, v in zip(p, speed, strict=True)]
    assert losses[-1] < 0.1 * losses[0]


@LATER_IN_JAX
def test_a_batch_of_a_neural_ode_is_located(xp):
    points, p = small_network(4, 16, 4)
    p = [2 * a for a in p]
    loss, solver = neural_loss(xp, points)
    _, slopes = value_and_slopes(xp, loss, p)
    assert len(solver.report.crossings) > 2
    assert solver.report.status == "computed"
    size, step = math.sqrt(sum((g**2).sum() for g in slopes)), 1e-4
    ends = [
        float(xp_free(loss(*(xp.array(a + h * g / size, "double") for a, g in zip(p, slopes, strict=True)))))
        for h in (step, -step)
    ]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(size, rel=1e-5)
    plain, _ = neural_loss(xp, points, locate=False, rtol=1e-3, atol=1e-5)
    _, coarse = value_and_slopes(xp, plain, p)
    apart = math.sqrt(sum(((g - h) ** 2).sum() for g, h in zip(coarse, slopes, strict=True))) / size
    assert apart > 1e-3  # at the same tolerance the located gradient is nearer
    near, _ = neural_loss(xp, points, rtol=1e-3, atol=1e-5)
    _, same = value_and_slopes(xp, near, p)
    assert math.sqrt(sum(((g - h) ** 2).sum() for g, h in zip(same, slopes, strict=True))) < 0.3 * apart * size


def test_several_times(xp):
    solver = ns.implicit.flow(lambda t, y: 1 + xp.relu(y))
    found = xp.numpy(solver(xp.array(-1.0, "double"), xp.array([0.0, 0.5, 1.0, 2.0], "double")))
    np.testing.assert_allclose(found, [-1.0, -0.5, 0.0, E - 1], atol=1e-7)


def test_an_if_on_data_that_joins():
    torch = pytest.importorskip("torch")

    def field(t, y):
        if y > 0:
            return 1 + y
        return 1 + 2 * y

    y0 = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
    solver = ns.implicit.flow(field)
    y = solver(y0, 2.0)
    cross = -math.log(0.4) / 2
    assert float(y.detach()) == pytest.approx(math.exp(2 - cross) - 1, rel=1e-7)
    assert float(torch.autograd.grad(y, y0)[0]) == pytest.approx(math.exp(2 - cross) / 0.4, rel=1e-6)


def xp_free(array):
    """Give an array without its graph."""
    return array.detach() if hasattr(array, "detach") else array


def test_gradients_reach_what_a_module_closes_over():
    torch = pytest.importorskip("torch")

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, t, y):
            return 1 + self.a * torch.relu(y)

    module, start = Field(), torch.tensor(-1.0, dtype=torch.float64)
    solver = ns.implicit.flow(module)
    solver(start, 2.0).backward()
    assert float(module.a.grad) == pytest.approx(1.0, rel=1e-6)
    with torch.no_grad():
        module.a.fill_(2.0)
    assert float(xp_free(solver(start, 2.0))) == pytest.approx((math.exp(2.0) - 1) / 2, rel=1e-7)
    module.a = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    assert float(xp_free(solver(start, 2.0))) == pytest.approx((math.exp(3.0) - 1) / 3, rel=1e-7)


def test_numbers_and_whole_number_arrays_are_constants_of_f():
    torch = pytest.importorskip("torch")
    solver = ns.implicit.flow(lambda t, y, a, given: a * torch.relu(y) + given["n"] * given["b"])
    start, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (-1.0, 1.0))
    for a, n in ((1.0, 1), (1.0, torch.tensor(1)), (2.0, 1), (0.0, torch.tensor(3))):
        y = solver(start, 2.0, a, {"n": n, "b": b})
        s = 2.0 - 1.0 / float(n)  # on the other side for this long
        known = (math.exp(a * s) - 1) * n / a if a else s * n
        assert float(y.detach()) == pytest.approx(float(known), rel=1e-7)
        assert float(torch.autograd.grad(y, start)[0]) == pytest.approx(math.exp(a * s), rel=1e-6)


@LATER_IN_JAX
def test_a_closure_that_changes_is_captured_again(xp):
    state = {"a": 1.0}
    solver = ns.implicit.flow(lambda t, y: 1 + state["a"] * xp.relu(y))
    start = xp.array(-1.0, "double")
    assert float(xp_free(solver(start, 2.0))) == pytest.approx(E - 1, rel=1e-6)
    state["a"] = 2.0
    assert float(xp_free(solver(start, 2.0))) == pytest.approx((math.exp(2.0) - 1) / 2, rel=1e-6)


def test_diagnosis(xp):
    report = ns.implicit.flow(lambda t, y: 1 + xp.relu(y)).diagnose(xp.array(-1.0, "double"), 2.0)
    assert report.derivative_error is not None
    assert report.derivative_error < 1e-6
    (met,) = report.crossings
    assert (met.operation, met.direction, met.grazing) == ("relu", 1, False)
    assert met.time == pytest.approx(1.0, abs=1e-9)
    assert met.rate == pytest.approx(1.0, abs=1e-6)
    assert "t = 1: relu at 0" in str(report)


JUMPS = {
    "sign, sliding": (lambda xp: lambda t, y: 1 - 2 * xp.sign(y), (-0.3, 2.0), "0 of `sign`.*straight through"),
    "a start on a jump": (lambda xp: lambda t, y: 2 + xp.sign(y), (0.0, 1.0), "starts at the 0 of `sign`"),
    "a time on a jump": (lambda xp: lambda t, y: 2 + xp.sign(y), (-0.5, 0.5), "asked for.*0 of `sign`"),
    "an index on a jump": (
        lambda xp: lambda t, y: xp.where(xp.argmax(y) == 0, y**0, 2 * y**0) * xp.array([1.0, 3.0], "double"),
        ([2.0, 1.0], 2.0),
        "tie of `argmax`",
    ),
    "two jumps at once": (
        lambda xp: lambda t, y: 2 + xp.sign(xp.flip(y)),
        ([-0.3, -0.3], 1.0),
        "several jumps at once",
    ),
    "a touch": (
        lambda xp: lambda t, y: xp.where(y[0] > 0, xp.stack([2 * t - 1, y[0] ** 0]), xp.stack([2 * t - 1, y[0] * 0])),
        ([0.25, 0.0], 1.0),
        "touches the tie of `compare`",
    ),
}


def coulomb(x, v, mu, T):
    """Give x(T) and its derivatives in x, v, mu of x'' = -x - mu sign(v), v > 0: circles about -mu, then about mu."""
    r, turn = math.hypot(x + mu, v), math.atan2(v, x + mu)
    dr, dturn = np.array([x + mu, v, x + mu]) / r, np.array([-v, x + mu, -v]) / r**2
    R, dR = r - 2 * mu, dr - [0, 0, 2]
    return mu + R * math.cos(T - turn), dR * math.cos(T - turn) + R * math.sin(T - turn) * dturn + [0, 0, 1]


JUMPED = {
    "sign": (lambda xp: lambda t, y: 2 + xp.sign(y), (-0.3, 2.0), (5.1, 3.0, 3.0)),
    "a surface and a value": (
        lambda xp: lambda t, y, a, b: xp.where(y > a, b + 0 * y, 1 + 0 * y),
        (-0.3, 2.0, 0.2, 3.0),
        (4.7, 3.0, 3.0, -2.0, 1.5),  # a + b (T - a + y0)
    ),
    "a time": (
        lambda xp: lambda t, y, a: xp.where(t > a, 3 + 0 * y, 1 + 0 * y),
        (-0.3, 2.0, 0.2),
        (5.3, 1.0, 3.0, -2.0),
    ),
    "a kink at the same time": (
        lambda xp: lambda t, y: 2 + xp.sign(y) + xp.abs(y),
        (-0.3, 2.0),
        (3 * math.exp(2) / 1.3 - 3, 3 * math.exp(2) / 1.3**2, 3 * math.exp(2) / 1.3),
    ),
    "one jump, written twice": (
        lambda xp: lambda t, y: 2 + xp.sign(y) + xp.where(y > 0, 1 + 0 * y, 0 * y),
        (-0.3, 2.0),
        (6.8, 4.0, 4.0),
    ),
    "three jumps": (lambda xp: lambda t, y: 1 + xp.floor(y), (0.5, 1.5), (11 / 3, 4.0, 4.0)),
    "a curved surface": (
        lambda xp: lambda t, y: 1 + xp.floor(y * y),
        (0.5, 0.8),
        (2.4 - 0.5 * math.sqrt(2), 3.0, 3.0),  # sqrt 2 + 3 (0.8 - t), t = 0.5 + (sqrt 2 - 1) / 2
    ),
}


@pytest.mark.parametrize(
    ("xp", "name"),
    [
        pytest.param(f, n, marks=pytest.mark.slow) if f == "jax" and n != "a surface and a value" else (f, n)
        for f in served()
        for n in JUMPED
    ],
    indirect=["xp"],
)
def test_jumps_that_are_crossed(xp, name):
    make, given, expected = JUMPED[name]
    solver = ns.implicit.flow(make(xp))
    y, gradients = value_and_gradients(xp, solver, *given)
    for found, known in zip([y, *gradients], expected, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-7)
    assert solver.report.status == "computed"
    assert all(c.jump > 0 and c.direction == 1 for c in solver.report.crossings)
    assert "f jumps by" in str(solver.report)


def test_an_if_on_data_that_jumps():
    torch = pytest.importorskip("torch")
    y0 = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
    solver = ns.implicit.flow(lambda t, y: 1 + 0 * y if y > 0 else 2 + 0 * y)
    assert float(torch.autograd.grad(solver(y0, 2.0), y0)[0]) == pytest.approx(0.5)


@LATER_IN_JAX
def test_jumps_in_time_where_it_starts_and_is_asked_for(xp):
    solver = ns.implicit.flow(lambda t, y: y * xp.floor(1 + 2 * t))  # 1, then 2, then 3
    y0 = xp.array(0.5, "double")
    found = xp.numpy(solver(y0, xp.array([0.5, 1.0], "double")))
    np.testing.assert_allclose(found, [0.5 * math.exp(0.5), 0.5 * math.exp(1.5)], rtol=1e-7)
    _, (slope, _) = value_and_gradients(xp, solver, 0.5, 1.25)
    assert float(slope) == pytest.approx(math.exp(0.5 + 1 + 0.75), rel=1e-7)
    with pytest.raises(NoField, match="asked for"):  # the derivative in the time is one of two
        value_and_gradients(xp, solver, 0.5, 1.0)


@LATER_IN_JAX
def test_dry_friction(xp):
    def oscillator(t, z, mu):
        return xp.stack([z[1], -z[0] - mu * xp.sign(z[1])])

    solver = ns.implicit.flow(oscillator)
    value, known = coulomb(1.0, 0.8, 0.3, 2.0)
    z, (start, T, mu) = value_and_gradients(xp, solver, [1.0, 0.8], 2.0, 0.3, c=[1.0, 0.0])
    assert z[0] == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose([*start, mu], known, rtol=1e-6)
    np.testing.assert_allclose(T, z[1], rtol=1e-6)
    report = solver.diagnose(*(xp.array(v, "double") for v in ([1.0, 0.8], 2.0, 0.3)))
    assert report.derivative_error < 1e-6


@LATER_IN_JAX
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(s, marks=pytest.mark.slow) for s in range(3, 20))])
def test_random_jumps_against_differences(xp, seed):
    rng = np.random.default_rng(seed)
    A, C, G = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), rng.normal(size=(3, 2))
    start, b = rng.normal(size=3), xp.array(rng.normal(size=3) * 2, "double")
    A, C, G = (xp.array(a, "double") for a in (A / 2, C, G / 2))
    solver = ns.implicit.flow(lambda t, y: A @ y + b + G @ xp.sign(C @ y), rtol=1e-9, atol=1e-11)
    c, h = np.array([1.0, -2.0, 0.5]), 1e-5
    try:
        _, (gradient, _) = value_and_gradients(xp, solver, start, 1.5, c=c)
    except NoField:
        return  # it slides
    crossings = solver.report.crossings
    ends = [[xp.numpy(solver(xp.array(start + s * h * e, "double"), 1.5)) for s in (1, -1)] for e in np.eye(3)]
    assert len(solver.report.crossings) == len(crossings)
    np.testing.assert_allclose(gradient, [c @ (up - down) / (2 * h) for up, down in ends], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("xp", "name"),
    [
        pytest.param(f, n, marks=pytest.mark.slow) if f == "jax" and n != "sign, sliding" else (f, n)
        for f in served()
        for n in JUMPS
    ],
    indirect=["xp"],
)
def test_jumps_are_refused_by_line(xp, name):
    make, (start, T), what = JUMPS[name]
    with pytest.raises(NoField, match=what) as error:
        ns.implicit.flow(make(xp))(xp.array(start, "double"), T)
    assert "test_flows.py" in str(error.value) or "adapters.py" in str(error.value)


def test_bad_input(xp):
    solver, start = ns.implicit.flow(lambda t, y: -xp.abs(y)), xp.array([1.0, 2.0], "double")
    for times in (-1.0, [1.0, 0.5], [1.0, 1.0], float("nan"), [[1.0]]):
        with pytest.raises(UsageError, match="time"):
            solver(start, times)
    with pytest.raises(PointError, match="int"):
        solver(_integers(xp), 1.0)
    with pytest.raises(PointError, match="not finite"):
        solver(xp.array([float("nan")], "double"), 1.0)
    with pytest.raises(ResultError, match="shape"):
        ns.implicit.flow(lambda t, y: y[:1])(start, 1.0)
    with pytest.raises(UsageError, match="on_contact"):
        ns.implicit.flow(lambda t, y: y, on_contact="perhaps")
    with pytest.raises(UsageError, match="options are"):
        ns.implicit.flow(lambda t, y: y, tolerance=1.0)
    with pytest.raises(UsageError, match="a function"):
        ns.implicit.flow(start)


def _integers(xp):
    if xp.name == "torch":
        import torch

        return torch.tensor([1, 2])
    from jax import numpy as jnp

    return jnp.array([1, 2])


def test_what_does_not_end_is_said(xp):
    with pytest.raises(NotConverged, match="t ="):
        ns.implicit.flow(lambda t, y: y * y)(xp.array(1.0, "double"), 2.0)
    with pytest.raises(NotConverged, match="more than 2 crossings"):
        ns.implicit.flow(lambda t, y: 1 + xp.abs(xp.sin(9 * t)) + 0 * y, max_crossings=2)(xp.array(0.0, "double"), 2.0)
    with pytest.raises(NotConverged, match="not finite"):
        ns.implicit.flow(lambda t, y: -xp.sqrt(y))(xp.array(0.5, "double"), 3.0)


@pytest.mark.parametrize("xp", ["jax"] * ("jax" in served()), indirect=True)
def test_plain_numbers_under_grad(xp):
    import jax

    solver = ns.implicit.flow(lambda t, y, a: 1 + a * jax.nn.relu(y), rtol=1e-6)
    found = jax.grad(solver, argnums=(0, 1, 2))(-1.0, 2.0, 1.0)
    np.testing.assert_allclose([float(d) for d in found], [E, E, 1.0], rtol=1e-5)


@pytest.mark.parametrize("xp", ["jax"] * ("jax" in served()), indirect=True)
def test_jit_says_that_nothing_is_located(xp):
    import jax

    solver = ns.implicit.flow(lambda t, y: 1 + jax.nn.relu(y), rtol=1e-5)
    with pytest.warns(ImplicitWarning, match="under jit"):
        found = jax.jit(lambda y: solver(y, 2.0))(jax.numpy.array(-1.0))
    assert float(found) == pytest.approx(E - 1, rel=1e-2)
    silent = ns.implicit.flow(lambda t, y: 1 + jax.nn.relu(y), rtol=1e-5, locate=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(jax.jit(lambda y: silent(y, 2.0))(jax.numpy.array(-1.0))) == pytest.approx(E - 1, rel=1e-2)
