"""Projected gradient with the certified step: the objective never increases, the gradient mapping obeys its bound."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from sklearn.datasets import load_digits

import nonsmooth as ns
from nonsmooth.bounds.region import Ball
from nonsmooth.bounds.steps import _projection

STEPS = 40


def digits(count: int = 100) -> tuple[Any, Any]:
    """Give some digits, their entries in [0, 1], and the classes."""
    x, y = load_digits(return_X_y=True)
    return x[:count] / 16, y[:count]


def torch_net(activation: torch.nn.Module) -> torch.nn.Module:
    """Make a network with one hidden layer."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 12), activation, torch.nn.Linear(12, 10)).double()


def obeys(run: ns.Descent) -> bool:
    """Tell whether no iteration increased the objective, and the smallest gradient mapping is as small as promised."""
    count = len(run.mapping)
    promised = np.sqrt(2 * run.certified.smoothness * run.objective[0] / count)  # the objective is >= 0
    decrease = sum(m * m for m in run.mapping) * run.step / 2
    fell = run.objective[0] - run.objective[-1]
    return (
        not run.increases
        and min(run.mapping) <= promised
        and decrease <= fell + run.rounding * run.objective[0] * count
    )


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.Softplus(), torch.nn.Sigmoid()], ids=str)
@pytest.mark.parametrize("radius", [1.0, 4.0])
def test_smooth_networks_on_the_digits(activation: torch.nn.Module, radius: float) -> None:
    """In torch, cross entropy and weight decay."""
    x, y = map(torch.from_numpy, digits())
    net = torch_net(activation)
    problem: dict[str, Any] = {"weights": radius, "loss": torch.nn.functional.cross_entropy, "target": y}
    problem["regularisation"] = lambda w: 0.01 * sum(v.square().sum() for v in w.values())
    run = ns.projected_gradient(net, x, **problem, steps=STEPS)
    assert obeys(run)
    assert run.objective[-1] < run.objective[0]
    assert all(float(v.norm()) <= radius * (1 + 1e-12) for v in run.weights.values())
    parts = run.certified.parts
    assert parts["L_r"] == pytest.approx(0.02, rel=1e-6)
    assert parts["composed"] == pytest.approx(
        parts["L_psi"] * parts["l_f"] + parts["l_psi"] ** 2 * parts["L_f"] + parts["L_r"], rel=1e-12
    )
    assert run.certified.smoothness == min(parts["objective"], parts["composed"])


def test_smooth_networks_on_the_digits_in_jax() -> None:
    """In jax, in single precision."""
    x, y = map(jnp.asarray, digits())
    keys = jax.random.split(jax.random.key(0), 2)
    w = {"a": jax.random.normal(keys[0], (64, 12)) / 8, "b": jax.random.normal(keys[1], (12, 10)) / 3}

    def loss(z: Any, y: Any) -> Any:
        return jnp.sum((z - jax.nn.one_hot(y, 10)) ** 2) / len(y)

    run = ns.projected_gradient(
        lambda w, x: jnp.tanh(x @ w["a"]) @ w["b"], w, x, weights=2.0, loss=loss, target=y, steps=STEPS
    )
    assert obeys(run)
    assert run.objective[-1] < run.objective[0]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_smoothed_relu_on_the_digits(framework: str) -> None:
    """A network with relu has no smoothness constant; smoothed it has, and the objective never increases."""
    x, y = digits(60)
    if framework == "torch":
        net, x, y = torch_net(torch.nn.ReLU()), torch.from_numpy(x), torch.from_numpy(y)
        loss: Any = torch.nn.functional.cross_entropy
        arguments: tuple[Any, ...] = (net, x)
    else:
        x, y = jnp.asarray(x), jax.nn.one_hot(y, 10)
        w = {"a": jnp.ones((64, 12)) / 28, "b": jnp.linspace(-1, 1, 120).reshape(12, 10) / 7}
        arguments = (lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], w, x)

        def loss(z: Any, y: Any) -> Any:
            return jnp.mean((z - y) ** 2)

    with pytest.raises(ns.errors.UsageError, match="not smooth"):
        ns.certified_step(*arguments, weights=1.0, loss=loss, target=y)
    smoothed = ns.smooth(*arguments, accuracy=1.0, weights=1.0)
    run = ns.projected_gradient(smoothed, smoothed.point, x, weights=1.0, loss=loss, target=y, steps=STEPS)
    assert obeys(run)
    assert run.objective[-1] < run.objective[0]


def test_the_check_can_fail() -> None:
    """With one linear layer and the square loss the constant is that of the data: 100 times the step increases."""
    x, y = digits()
    x, y = torch.from_numpy(x), torch.nn.functional.one_hot(torch.from_numpy(y)).double()
    net = torch_net(torch.nn.Tanh())[0]
    y = y[:, :1].expand(-1, 12)
    problem: dict[str, Any] = {"weights": 50.0, "loss": lambda z, y: ((z - y) ** 2).mean(), "target": y}
    run = ns.projected_gradient(net, x, **problem, steps=STEPS)
    assert obeys(run)
    longer = ns.projected_gradient(net, x, **problem, steps=STEPS, step=100 * run.step)
    assert longer.increases
    assert not obeys(longer)


def test_a_deep_bound_is_loose() -> None:
    """For a network with tanh the certified step is far from the largest: 10 000 times as much is needed to increase."""
    x, y = map(torch.from_numpy, digits())
    problem: dict[str, Any] = {"weights": 4.0, "loss": torch.nn.functional.cross_entropy, "target": y, "steps": STEPS}
    net = torch_net(torch.nn.Tanh())
    step = ns.certified_step(net, x, **{k: v for k, v in problem.items() if k != "steps"}).step
    assert ns.projected_gradient(net, x, **problem, step=1e4 * step).increases


def test_exact_on_a_quadratic() -> None:
    """1/2 ||a w - b||^2 in one dimension: one step leads to the minimum."""
    a = torch.tensor([[3.0]], dtype=torch.double)
    f = lambda w, a: 0.5 * ((a @ w) ** 2).sum()  # noqa: E731
    found = ns.certified_step(f, torch.ones(1, dtype=torch.double), a, weights=1.0)
    assert found.step == pytest.approx(1 / 9, rel=1e-6)
    assert found.parts == {"objective": found.smoothness}
    run = ns.projected_gradient(f, torch.ones(1, dtype=torch.double), a, weights=1.0, steps=1)
    assert run.objective == pytest.approx((4.5, 0.0), abs=1e-12)


@pytest.mark.parametrize("norm", ["euclidean", "max", "spectral"])
@pytest.mark.parametrize("seed", range(3))
def test_projections(norm: str, seed: int) -> None:
    """The projection lies in the ball, leaves it alone, and no other point of it is nearer: <v - p, u - p> <= 0."""
    rng = np.random.default_rng(seed)
    center, v = rng.normal(size=(2, 3, 4))
    project = _projection(Ball(0.5, center, norm), center)
    p = project(v)
    size = {"euclidean": np.linalg.norm, "max": lambda a: np.abs(a).max(), "spectral": lambda a: np.linalg.norm(a, 2)}[
        norm
    ]
    assert size(p - center) <= 0.5 * (1 + 1e-12)
    assert np.allclose(project(p), p)
    for _ in range(50):
        u = project(rng.normal(size=(3, 4)) * 3)
        assert np.sum((v - p) * (u - p)) <= 1e-12


def test_what_is_refused() -> None:
    """Sets that are missing, steps that are none, objectives that are vectors."""
    f, w = lambda w: (w**2).sum(), torch.ones(2)
    with pytest.raises(ns.errors.UsageError, match="weights"):
        ns.certified_step(f, w, weights=None)
    with pytest.raises(ns.errors.UsageError, match="steps"):
        ns.projected_gradient(f, w, weights=1.0, steps=0)
    with pytest.raises(ns.errors.UsageError, match="step is a number"):
        ns.projected_gradient(f, w, weights=1.0, step=-1.0)
    with pytest.raises(ns.errors.UsageError, match="one number"):
        ns.projected_gradient(lambda w: w**2, w, weights=1.0)


def test_the_model_stays_as_it_was() -> None:
    """A run changes no parameter of the model and no gradient."""
    net = torch_net(torch.nn.Tanh())
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x, y = map(torch.from_numpy, digits(10))
    ns.projected_gradient(net, x, weights=1.0, loss=torch.nn.functional.cross_entropy, target=y, steps=2)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def unrecorded(w: Any) -> Any:
    """Compute a factor without gradients."""
    with torch.no_grad():
        factor = 2 * w
    return (factor * w - w).sum()


@pytest.mark.parametrize(
    ("f", "w"),
    [
        (lambda w: (w * w.detach() - w).sum(), torch.full((3,), 0.9)),
        (unrecorded, torch.full((3,), 0.9)),
        (lambda w: (w * jax.lax.stop_gradient(w) - w).sum(), jnp.full(3, 0.9)),
    ],
    ids=["detach", "no_grad", "stop_gradient"],
)
def test_values_that_are_cut_off_are_refused(f: Any, w: Any) -> None:
    """The framework's gradient is not that of the objective: with the line, by both functions."""
    for call in (ns.certified_step, ns.projected_gradient):
        with pytest.raises(ns.errors.UsageError, match=r"test_steps.py:\d+.*cuts a value off"):
            call(f, w, weights=2.0)


def test_harmless_cuts_are_none() -> None:
    """A shift that cancels, weights that stay, and what the result does not read."""
    assert not ns.projected_gradient(jax.nn.logsumexp, jnp.ones(3), weights=1.0, steps=3).increases
    both = {"a": torch.ones(2), "b": torch.ones(2)}
    product = lambda w: (w["a"] * w["b"].detach()).square().sum()  # noqa: E731
    assert not ns.projected_gradient(product, both, weights={"a": 1.0}, steps=3).increases
    with pytest.raises(ns.errors.UsageError, match="cuts a value off"):
        ns.certified_step(product, both, weights=1.0)


def test_draws_are_refused() -> None:
    """Dropout, by its line, and generators of others, which stay as they were."""
    with pytest.raises(ns.errors.RandomnessError, match=r"test_steps.py"):
        ns.projected_gradient(lambda w: torch.dropout(w, 0.5, True).square().sum(), torch.ones(3), weights=1.0)
    state = np.random.get_state()[2]
    with pytest.raises(ns.errors.RandomnessError, match="numpy"):
        ns.projected_gradient(lambda w: (w * np.random.rand()).square().sum(), torch.ones(3), weights=1.0)
    assert np.random.get_state()[2] == state


def test_an_objective_is_one_number() -> None:
    """Without a loss the result must be one."""
    with pytest.raises(ns.errors.ResultError, match=r"\(5, 3\)"):
        ns.certified_step(lambda w, x: x * w, torch.ones(3), torch.ones(5, 3), weights=1.0)


def test_prints_and_numbers() -> None:
    """Results print on a line; words are no steps."""
    f, w = lambda w: (w**2).sum(), torch.ones(2)
    run = ns.projected_gradient(f, w, weights=1.0, steps=200)
    assert len(repr(run)) < 250
    assert str(run.certified) == repr(run.certified) == "certified step 0.5 = 1 / 2 (computed): objective 2"
    wrong: Any
    for wrong in ({"steps": "a"}, {"step": "a"}):
        with pytest.raises(ns.errors.UsageError, match="'a'"):
            ns.projected_gradient(f, w, weights=1.0, **wrong)
