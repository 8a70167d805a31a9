"""Certified subgradients against closed forms, what is never certified, and what a certificate says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nonsmooth as ns
from nonsmooth.errors import PointError, ResultError, UsageError
from tests.adapters import Adapter
from tests.cases.derivatives import CLOSED, CONES, REFUSED, Limits, here
from tests.cases.spelling import on_each, said_in, spelled
from tests.programs.oracle import gradient_at, is_limit


def constant(*numbers: float) -> torch.Tensor:
    """Give a vector of double precision."""
    return torch.tensor(numbers, dtype=torch.float64)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)


# --- closed forms -----------------------------------------------------------------------------------------------------


def is_in(limits: Limits, gradient: np.ndarray, tolerance: float) -> bool:
    """Tell whether a gradient is one of the limits."""
    if callable(limits):
        return bool(limits(gradient))
    return any(np.abs(gradient - g).max() <= tolerance for g in limits)


@on_each(CLOSED)
def test_closed_forms(xp: Adapter, name: str) -> None:
    """Every certified gradient is a limit of gradients and has the slope F'(x; v); together they are all limits."""
    case = CLOSED[name]
    f, x = spelled(case.f, xp), xp.array(case.x)
    program = ns.capture(f, x)
    wanted = None if callable(case.limits) else {tuple(round(g, 9) for g in limit) for limit in case.limits}
    reached: set[tuple[float, ...]] = set()
    for seed in range(20):
        if seed > (7 if xp.name == "torch" else 2) and reached == (wanted or reached):
            break  # all limits are met; JAX compiles each step of each program anew
        value, gradient, certificate = ns.subgradient(program, x, seed=seed)
        assert certificate.certified, str(certificate)
        assert float(value) == pytest.approx(float(f(x)), abs=1e-15)
        assert is_in(case.limits, xp.numpy(gradient), 1e-12), f"{gradient} along {certificate.direction}"
        reached.add(tuple(round(g, 9) + 0.0 for g in gradient.tolist()))
        if certificate.direction is not None:
            slope = float(gradient @ certificate.direction)
            assert slope == pytest.approx(float(case.along(xp.numpy(certificate.direction))), abs=1e-12)
            assert slope == pytest.approx(float(ns.directional(program, x, certificate.direction)), abs=1e-12)
    assert wanted is None or reached == wanted


@on_each(CLOSED)
def test_closed_forms_in_single_precision(xp: Adapter, name: str) -> None:
    """The same with a third of the digits."""
    case = CLOSED[name]
    with xp.default("single"):
        x = xp.array(case.x, "single")
        program = ns.capture(spelled(case.f, xp), x)
        for seed in range(3 if xp.name == "torch" else 1):
            _, gradient, certificate = ns.subgradient(program, x, seed=seed)
            assert certificate.certified and gradient.dtype == x.dtype, str(certificate)
            assert callable(case.limits) or is_in(case.limits, xp.numpy(gradient), 1e-6)
            if certificate.direction is not None:
                v = xp.numpy(certificate.direction).astype(float)
                assert float(gradient @ certificate.direction) == pytest.approx(float(case.along(v)), abs=1e-5)


@pytest.mark.parametrize("precision", ["double", "single"])
@on_each(CONES)
def test_cones(xp: Adapter, name: str, precision: str) -> None:
    """Of F(x + t v) = F(x) + t G(v) the certified gradient is that of G at the direction, by the framework's own rules."""
    case = CONES[name]
    cone = spelled(case.cone or case.f, xp)
    with xp.default(precision):
        x = xp.array(case.x, precision)
        program = ns.capture(spelled(case.f, xp), x)
        found = [ns.subgradient(program, x, seed=seed) for seed in range(3 if xp.name == "torch" else 1)]
    for _, gradient, certificate in found:
        assert certificate.certified and certificate.kinks, str(certificate)
        expected = xp.gradient(cone, xp.array(xp.numpy(certificate.direction)))
        tolerance = 1e-9 if precision == "double" else 1e-4
        np.testing.assert_allclose(xp.numpy(gradient), xp.numpy(expected), rtol=tolerance, atol=tolerance)


def test_backprop_fails_the_same_checks(xp: Adapter) -> None:
    """The tables would catch the framework's own gradients: of many functions they are no limit."""
    own = {
        name: gradient_at(spelled(case.f, xp), xp.array(case.x))
        for name, case in CLOSED.items()
        if said_in(case.f, xp.name) and not callable(case.limits)
    }
    assert sum(not is_in(CLOSED[name].limits, xp.numpy(g), 1e-9) for name, g in own.items()) >= 12


# --- never certified --------------------------------------------------------------------------------------------------


@on_each(REFUSED)
def test_refused(xp: Adapter, name: str) -> None:
    """No certificate along any direction drawn, and the reason names the rule and the line."""
    case = REFUSED[name]
    x = xp.array(case.x)
    line = here(case.f, xp.name)
    program = ns.capture(spelled(case.f, xp), x)
    for seed in range(6 if xp.name == "torch" else 2):
        _, gradient, certificate = ns.subgradient(program, x, seed=seed)
        assert not certificate.certified and certificate.status == "undecided"
        assert gradient.shape == x.shape
        sources = [(r.source.file.rsplit("/", 1)[-1], r.source.line) for r in certificate.reasons if r.source]
        assert ("derivatives.py", line) in sources, certificate.reasons
        assert case.rule in {r.rule for r in certificate.reasons}
        assert str(certificate).startswith("undecided: ")
        assert f"derivatives.py:{line}" in str(certificate)


@on_each(REFUSED)
def test_a_harmless_part_is_certified(xp: Adapter, name: str) -> None:
    """What is refused where it ties is certified a little beside it, unless it is cut off whatever the point."""
    case = REFUSED[name]
    x = xp.array(np.add(case.x, (0.21, 0.13)))
    certificate = ns.subgradient(spelled(case.f, xp), x).certificate
    always = case.rule in ("detached", "escaped", "opaque")
    assert certificate.certified is not always, str(certificate)


# --- modules and losses -----------------------------------------------------------------------------------------------


def recurrent(kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A recurrent layer with zero biases, which reads the point with a step of zeros before it."""
    generator = torch.Generator().manual_seed(0)
    layer = {
        "rnn": lambda: torch.nn.RNN(3, 4, nonlinearity="relu"),
        "lstm": lambda: torch.nn.LSTM(3, 4),
        "gru": lambda: torch.nn.GRU(3, 4),
    }[kind]().double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "bias" in name:
                parameter.zero_()
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return lambda x: weigh_rows(layer(x.reshape(-1, 1, 3))[0]) + torch.relu(x).sum()


def weigh_rows(y: torch.Tensor) -> torch.Tensor:
    """Read all entries with different weights."""
    return (y * torch.linspace(1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum()


def attention(x: torch.Tensor) -> torch.Tensor:
    q = torch.relu(x.reshape(1, 1, 3, 4))
    return weigh_rows(F.scaled_dot_product_attention(q, q + 1, torch.sin(q + x.reshape(q.shape))))


def batch_norm(x: torch.Tensor) -> torch.Tensor:
    mean, var = torch.zeros(2, dtype=x.dtype), torch.ones(2, dtype=x.dtype)
    y = F.batch_norm(torch.relu(x.reshape(6, 2)), mean, var, training=True)
    return weigh_rows(torch.relu(y - 1)) + x.abs().sum()


def grid(x: torch.Tensor) -> torch.Tensor:
    where = torch.tensor([[[[0.1, 0.3], [-0.2, 0.4]]]], dtype=x.dtype)
    return weigh_rows(F.grid_sample(torch.relu(x.reshape(1, 1, 3, 4)), where, align_corners=False))


def ctc(x: torch.Tensor) -> torch.Tensor:
    log = F.log_softmax(torch.relu(x.reshape(3, 1, 4)), 2)
    return F.ctc_loss(log, torch.tensor([[1, 2]]), (3,), (2,))


def embedded(x: torch.Tensor) -> torch.Tensor:
    rows = F.embedding(torch.tensor([0, 2, 2]), x.reshape(3, 4))
    return weigh_rows(torch.relu(rows)) + F.embedding_bag(torch.tensor([[0, 2]]), x.reshape(3, 4), mode="mean").sum()


def quantiles(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(x.reshape(3, 4).quantile(0.4, dim=1)).sum()


def margins(x: torch.Tensor) -> torch.Tensor:
    labels = torch.tensor([0, 3, 1])
    y = x.reshape(3, 4)
    return F.multi_margin_loss(y, labels) + F.l1_loss(y, y.roll(1, 1)) + F.cross_entropy(torch.relu(y), labels)


MIXED = torch.tensor([0, 1, 0, -1, 1, 1, 0, 0, 2, -1, 0, 1], dtype=torch.float64)
"""Twelve entries with zeros and ties."""

MODULES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "batch norm in training": batch_norm,
    "quantile": quantiles,
    "ctc": ctc,
    "embedding": embedded,
    "lstm": recurrent("lstm"),
    "gru": recurrent("gru"),
    "relu rnn": recurrent("rnn"),
    "attention": attention,
    "grid sample": grid,
    "margin losses": margins,
    "layer norm": lambda x: weigh_rows(F.layer_norm(torch.relu(x).reshape(3, 4), (4,))),
    "interpolate": lambda x: weigh_rows(
        F.interpolate(x.abs().reshape(1, 1, 3, 4), scale_factor=2, mode="bilinear", align_corners=False)
    ),
    "fft": lambda x: weigh_rows(torch.fft.rfft(torch.relu(x)).abs()[1:3]),
    "triplet": lambda x: F.triplet_margin_loss(x[None, :4], x[None, 4:8], x[None, 8:], margin=1.0) + x.abs().max(),
    "softmax of sorted": lambda x: weigh_rows(F.softmax(x.sort().values, 0)),
    "convolution": lambda x: weigh_rows(
        F.max_pool1d(torch.relu(F.conv1d(x[None, None], torch.ones(2, 1, 3, dtype=x.dtype))), 2)
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_losses(name: str) -> None:
    """Certified, by limits of torch's own gradients beside the point."""
    f = MODULES[name]
    program = ns.capture(f, MIXED)
    for seed in range(3):
        _, gradient, certificate = ns.subgradient(program, MIXED, seed=seed)
        assert certificate.certified and certificate.kinks, str(certificate)
        assert is_limit(f, MIXED, certificate.direction, gradient)
        slope = ns.directional(program, MIXED, certificate.direction)
        torch.testing.assert_close(gradient @ certificate.direction, slope, rtol=1e-9, atol=1e-9)


def test_a_network_with_zero_biases() -> None:
    """All units at their kinks: the gradient of the parameters is that of torch a little along the direction."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)
    ).double()
    for layer in model[::2]:
        torch.nn.init.zeros_(layer.bias)
    f, x = ns.objective(model, F.cross_entropy)
    inputs, target = torch.cat([torch.zeros(3, 4), torch.randn(2, 4)]).double(), torch.tensor([0, 1, 1, 0, 1])
    _, gradient, certificate = ns.subgradient(f, x, inputs, target)
    assert certificate.certified and certificate.kinks == 36
    beside = {k: (v.detach() + 1e-7 * certificate.direction[k]).requires_grad_() for k, v in x.items()}
    expected = torch.autograd.grad(f(beside, inputs, target), list(beside.values()))
    for g, e in zip(gradient.values(), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-6)
    torch_own = torch.autograd.grad(f(x, inputs, target), list(x.values()))
    assert any(float((g - e).abs().max()) > 0.01 for g, e in zip(gradient.values(), torch_own, strict=True))


# --- the call ---------------------------------------------------------------------------------------------------------


def absolute(x: torch.Tensor) -> torch.Tensor:
    return x.abs().sum()


def test_trees_and_data() -> None:
    """The gradient and the direction have the structure of the point; data of any values are served."""

    def f(point: dict[str, Any], shift: torch.Tensor, *, factor: float = 2.0) -> torch.Tensor:
        return factor * torch.relu(point["a"] - shift).sum() + point["b"][0].abs().sum() + point["b"][1] ** 2

    point = {"a": constant(1, 2), "b": [constant(0, 0, 0), torch.tensor(3.0)]}
    program = ns.capture(f, point, constant(1, 1))
    for function in (f, program):
        value, gradient, certificate = ns.subgradient(function, point, constant(1, 1))
        assert float(value) == 11 and certificate.certified and certificate.kinks == 4
        assert gradient["a"].tolist() == [2.0 if certificate.direction["a"][0] > 0 else 0.0, 2.0]
        assert torch.equal(gradient["b"][0], certificate.direction["b"][0].sign())
        assert gradient["b"][1].dtype is torch.float32 and float(gradient["b"][1]) == 6
    assert ns.subgradient(program, point, constant(0, 0)).certificate.kinks == 3


def test_it_unpacks_and_has_names() -> None:
    """The result is a named tuple of three."""
    found = ns.subgradient(absolute, constant(0, 1))
    value, gradient, certificate = found
    assert isinstance(found, ns.Subgradient) and isinstance(certificate, ns.Certificate)
    assert (found.value, found.gradient, found.certificate) == (value, gradient, certificate)
    assert not value.requires_grad and not gradient.requires_grad


def test_without_kinks() -> None:
    """A function without an active kink is differentiable there: nothing is drawn, and the gradient is torch's."""
    for x in (constant(1, -2), constant(0.5, 3)):
        value, gradient, certificate = ns.subgradient(lambda u: torch.relu(u).sum() + torch.linalg.vector_norm(u), x)
        assert certificate.certified and (certificate.direction, certificate.draws, certificate.kinks) == (None, 0, 0)
        assert certificate.margin == math.inf and certificate.flat == 0 and certificate.reasons == ()
        assert str(certificate) == "certified (computed): no kink is active, the function is differentiable here"
        leaf = x.clone().requires_grad_()
        expected = torch.relu(leaf).sum() + torch.linalg.vector_norm(leaf)
        assert torch.equal(value, expected) and torch.equal(gradient, torch.autograd.grad(expected, leaf)[0])


def test_the_text_of_a_certificate() -> None:
    """It says how many kinks which draw decided, by which margin; or why nothing was."""
    certificate = ns.subgradient(absolute, constant(0, 0)).certificate
    assert certificate.margin > 0
    assert str(certificate).startswith(
        "certified (computed): 2 active kink(s) decided by draw 1, smallest relative margin"
    )
    flat = ns.subgradient(lambda x: torch.relu(x[0] ** 2) + x[1], constant(0, 0)).certificate
    assert flat.certified and (flat.kinks, flat.flat) == (1, 1) and flat.margin == math.inf


def test_seeds() -> None:
    """A seed repeats to the bit, an odd seed takes the opposite of the direction before, and others differ."""
    x = zeros(3)
    first, again, opposite, other = (ns.subgradient(absolute, x, seed=s) for s in (4, 4, 5, 6))
    assert torch.equal(first.certificate.direction, again.certificate.direction)
    assert torch.equal(first.gradient, again.gradient) and first.certificate.margin == again.certificate.margin
    assert torch.equal(first.certificate.direction, -opposite.certificate.direction)
    assert torch.equal(first.gradient, -opposite.gradient)
    assert not torch.equal(first.certificate.direction, other.certificate.direction)


def test_drawn_directions_are_exact() -> None:
    """Entries of the first draw are odd multiples of 1/256 in [-1, 1]."""
    direction = ns.subgradient(absolute, zeros(500)).certificate.direction * 256
    assert torch.equal(direction, direction.round()) and bool((direction % 2 == 1).all())
    assert float(direction.abs().max()) <= 256 and len(direction.unique()) > 100


def test_a_second_draw_decides_what_the_first_leaves_open() -> None:
    """Many ties of sums: the first draw leaves some open, a finer one decides them."""
    n = 1200
    pairs = torch.triu_indices(n, n, 1)[:, ::3]

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x[pairs[0]], x[pairs[1]]).sum()

    _, gradient, certificate = ns.subgradient(f, zeros(n))
    assert certificate.certified and certificate.draws > 1 and certificate.kinks == pairs.shape[1]
    assert f"draw {certificate.draws}" in str(certificate)
    assert float(gradient.sum()) == pairs.shape[1]
    once = ns.subgradient(f, zeros(n), draws=1)
    assert once.certificate.draws == 1 and not once.certificate.certified
    assert [r.rule for r in once.certificate.reasons] == ["tie"]


def test_a_given_direction() -> None:
    """`direction=` is followed; one that leaves several kinks open gives no certificate."""
    x = constant(0, 0, 0)
    found = ns.subgradient(absolute, x, direction=constant(2, -3, 1))
    assert found.gradient.tolist() == [1, -1, 1] and found.certificate.certified and found.certificate.draws == 1
    assert torch.equal(found.certificate.direction, constant(2, -3, 1))
    special = ns.subgradient(absolute, x, direction=constant(1, 0, 0)).certificate
    assert not special.certified and {r.rule for r in special.reasons} == {"tie"}


def test_a_direction_that_leaves_opposite_kinks_open() -> None:
    """relu(y) - relu(-y) is y; a direction that leaves y tied must not certify 0 or 2."""
    f = lambda x: torch.relu(x[1]) - torch.relu(-x[1]) + x[0]  # noqa: E731
    found = ns.subgradient(f, constant(0, 0), direction=constant(1, 0))
    assert not found.certificate.certified or found.gradient.tolist() == [1, 1]


def wrong_uses() -> Iterator[tuple[Callable[[], Any], type[Exception], str]]:
    """List calls that cannot be served, with their errors."""
    x = constant(0, 1)
    yield lambda: ns.subgradient(absolute, x, draws=0), UsageError, "draws"
    yield lambda: ns.subgradient(absolute, x, draws=True), UsageError, "draws"
    yield lambda: ns.subgradient(absolute, x, seed=-1), UsageError, "seed"
    yield lambda: ns.subgradient(torch.abs, x), ResultError, "scalar"
    yield lambda: ns.subgradient(lambda u: (u.sum(), u.sum()), x), ResultError, "scalar"
    yield lambda: ns.subgradient(lambda u: (u > 0).sum(), x), ResultError, "real"
    yield lambda: ns.subgradient(absolute, x, direction=constant(1, 2, 3)), UsageError, "shape"
    yield lambda: ns.subgradient(absolute, x, direction=[x]), UsageError, "structure"
    yield lambda: ns.subgradient(absolute, constant(math.nan, 1)), PointError, "finite"
    yield lambda: ns.subgradient(lambda u: u.sum(), torch.tensor([1, 2])), PointError, "no derivative"
    yield lambda: ns.directional(absolute, x, constant(1, 2, 3)), UsageError, "shape"
    yield lambda: ns.directional(absolute, x, 1.0), UsageError, "structure|shape"
    yield lambda: ns.directional(absolute, x, {"v": x}), UsageError, "structure"
    yield lambda: ns.directional(absolute, x, constant(1, math.inf)), UsageError, "finite"
    yield lambda: ns.directional(absolute, x, x.to(torch.complex128)), UsageError, "real"
    yield lambda: ns.coordinate_derivatives(absolute, constant(math.inf, 1)), PointError, "finite"


@pytest.mark.parametrize("place", range(len(list(wrong_uses()))))
def test_wrong_use(place: int) -> None:
    """Each is an error of its own kind that says what was wrong."""
    call, error, words = list(wrong_uses())[place]
    with pytest.raises(error, match=words):
        call()


class Counted(torch.nn.Module):
    """A module with a buffer that a forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3).double()
        self.linear = torch.nn.Linear(3, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(torch.relu(self.norm(x)))).sum(dim=1)


def test_nothing_of_the_users_is_touched() -> None:
    """Point, .grad, buffers, modes, generators of torch, numpy and Python stay as they are."""
    torch.manual_seed(1)
    model = Counted().train()
    f, x = ns.objective(model, lambda y, target: (y - target).abs().sum())
    inputs, target = torch.randn(4, 3).double().requires_grad_(), torch.zeros(4).double()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    direction = {k: torch.ones_like(v) for k, v in x.items()}
    with torch.no_grad():
        ns.subgradient(f, x, inputs, target)
        ns.directional(f, x, direction, inputs, target)
        assert not torch.is_grad_enabled()
    assert model.training and all(p.requires_grad for p in model.parameters()) and inputs.grad is None
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(torch.equal(v, torch.ones_like(v)) for v in direction.values())
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert np.array_equal(np.random.get_state()[1], states[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_modes(mode: Callable[[], Any]) -> None:
    """The result is the same under every mode of the caller's."""
    expected = ns.subgradient(absolute, constant(0, 2))
    with mode():
        found = ns.subgradient(absolute, constant(0, 2))
        slope = ns.directional(absolute, constant(0, 2), constant(1, 1))
    assert torch.equal(found.gradient, expected.gradient) and found.certificate.certified
    assert float(slope) == 2
