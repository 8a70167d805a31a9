"""Bounds of modules of torch: parameters and buffers, writes in place, draws, shapes alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.errors import UsageError


def test_a_module_on_the_meta_device_needs_no_values() -> None:
    """Of what runs through a ball about zero the shape is enough; what is fixed must have values."""
    with torch.device("meta"):
        net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.empty(2, 3)
    with_values = ns.bounds(
        nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.ones(2, 3), weights=1.0, inputs=ns.Ball(5.0)
    )
    assert ns.bounds(net, x, weights=1.0, inputs=ns.Ball(5.0)).both == with_values.both
    with pytest.raises(UsageError, match="no values, only a shape"):
        ns.bounds(net, x, weights=1.0)


def test_a_whole_model_on_the_meta_device_with_buffers_and_draws() -> None:
    """Batch normalisation in training and dropout need no values; what is fixed in evaluation is not known."""
    with torch.device("meta"):
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 4, 2)
        net, x = nn.Sequential(*layers), torch.empty(2, 3, 4, 4)
    assert ns.bounds(net, x, weights=1.0, inputs=ns.Ball(1.0)).both.smoothness < float("inf")
    assert ns.bounds(net.eval(), x, weights=1.0, inputs=ns.Ball(1.0)).both.lipschitz == float("inf")

    def made(w: torch.Tensor) -> torch.Tensor:
        return w + torch.zeros(3, device=w.device)

    assert ns.bounds(made, torch.empty(3, device="meta"), weights=1.0).weights.lipschitz == pytest.approx(1)


def test_buffers_are_constants_with_their_values() -> None:
    """Batch normalisation in evaluation divides by its running variance."""
    net = nn.BatchNorm1d(2, eps=0.0, affine=False).eval()
    net.running_var.copy_(torch.tensor([4.0, 0.25]))
    assert ns.bounds(nn.Sequential(nn.Linear(2, 2), net), torch.ones(3, 2), inputs=1.0).blocks[0].kind == "inputs"
    found = ns.bounds(lambda w, x: net(x) + 0 * w.sum(), torch.ones(1), torch.ones(3, 2), inputs=1.0)
    assert found.inputs.lipschitz == pytest.approx(2.0)
    assert torch.equal(net.running_var, torch.tensor([4.0, 0.25]))


def test_dropout_is_bounded_for_every_draw() -> None:
    """Entries are kept times 1 / (1 - p), or dropped; the generator stays as it was."""
    net, x = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.75)).train(), torch.ones(1, 2)
    state = torch.get_rng_state()
    found, plain = (ns.bounds(f, x, weights=1.0) for f in (net, net[:1]))
    assert found.weights.lipschitz == pytest.approx(4 * plain.weights.lipschitz)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_write_through_a_view_reaches_what_it_shows() -> None:
    """The base of a view that is written to moves as well."""

    def f(w: torch.Tensor) -> torch.Tensor:
        z = torch.zeros(4)
        z[:2] = 3 * w
        return z

    found = ns.bounds(f, torch.ones(2), weights=1.0)
    assert found.weights.lipschitz >= 3 and found.both.norm >= 3


def test_in_place_operations_follow_the_values_that_they_write() -> None:
    """A relu in place, a sum in place."""

    def f(w: torch.Tensor) -> torch.Tensor:
        z = 2 * w
        z.add_(w)
        return F.relu_(z)

    assert ns.bounds(f, torch.ones(2), weights=1.0).weights.lipschitz == pytest.approx(3)


def test_no_graph_is_left_and_no_gradient() -> None:
    """Parameters keep requires_grad and have no grad."""
    net = nn.Linear(2, 2)
    ns.bounds(net, torch.ones(1, 2), weights=ns.Ball(1.0, "here"), loss=F.mse_loss, target=torch.zeros(1, 2))
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.is_grad_enabled()


def test_what_an_index_or_a_choice_hides_may_jump() -> None:
    """A value that moves through whole numbers or truth values has no Lipschitz constant, and the line is named."""
    table = torch.arange(10.0)
    for f in (
        lambda w: table[w.long()],
        lambda w: w * (w > 0.5),
        lambda w: torch.take_along_dim(table, w.round().int().long(), 0),
    ):
        found = ns.bounds(f, torch.ones(3), weights=1.0)
        assert found.weights.lipschitz == float("inf")
        assert any("test_bounds_torch.py" in cause for cause in found.causes)


def test_a_division_by_a_number_is_no_product() -> None:
    """The dictionary lists it among the products; its constant is the reciprocal."""
    assert ns.bounds(lambda w: w / 0.25, torch.ones(3), weights=1.0).weights.lipschitz == pytest.approx(4)


def test_a_frozen_model_is_bounded_in_its_inputs() -> None:
    """A model without trainable parameters has inputs all the same."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    wanted = ns.bounds(net, torch.ones(1, 2), inputs=0.1).inputs
    for p in net.parameters():
        p.requires_grad_(False)
    assert ns.bounds(net, torch.ones(1, 2), inputs=0.1).inputs == wanted
    assert ns.bounds(nn.Tanh(), torch.ones(1, 2), inputs=float("inf")).inputs.lipschitz == pytest.approx(1)


def test_an_error_of_the_function_is_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    """Shapes that do not fit raise torch's error, without the trace that torch logs for shapes."""
    with pytest.raises(RuntimeError, match="reduction dim"):
        ns.bounds(nn.Linear(4, 3), torch.ones(2, 3), weights=1.0)
    assert "fake_tensor" not in capfd.readouterr().err


@pytest.mark.parametrize("radius", [1e100, 1e200, 1e300])
def test_radii_that_leave_the_numbers_give_infinite_bounds_and_no_warning(radius: float) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3))
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(72, 3))
    x, pixels = torch.randn(5, 4), torch.randn(2, 1, 8, 8)
    for model, data in ((net, x), (images, pixels)):
        for norm in ("euclidean", "spectral", "max"):
            balls = {"weights": ns.Ball(radius, "here", norm), "inputs": ns.Ball(radius, "here")}
            both = ns.bounds(model, data, **balls).both
            assert min(both.norm, both.lipschitz, both.smoothness) > 1.0


def test_a_default_device_without_values_is_not_that_of_the_model() -> None:
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(5, 4)
    outside = ns.bounds(net, x, weights=ns.Ball(0.1, "here"), inputs=0.1)
    with torch.device("meta"):
        inside = ns.bounds(net, x, weights=ns.Ball(0.1, "here"), inputs=0.1)
    assert (inside.weights, inside.inputs) == (outside.weights, outside.inputs)


def test_weights_in_a_spectral_ball_move_inputs_by_its_radius() -> None:
    net = nn.Linear(6, 5, bias=False)
    x = torch.randn(3, 6)
    about_zero = ns.bounds(net, x, weights=ns.Ball(2.0, norm="spectral"), inputs=float("inf"))
    here = ns.bounds(net, x, weights=ns.Ball(2.0, "here", "spectral"), inputs=float("inf"))
    norm = float(torch.linalg.matrix_norm(net.weight.detach().double(), 2))
    assert about_zero.inputs.lipschitz == pytest.approx(2.0) and here.inputs.lipschitz == pytest.approx(2.0 + norm)
    conv = nn.Conv2d(3, 4, 1, bias=False)
    found = ns.bounds(conv, torch.randn(1, 3, 5, 5), weights=ns.Ball(2.0, norm="spectral"), inputs=float("inf"))
    assert found.inputs.lipschitz == pytest.approx(2.0)


def test_a_spectral_ball_says_nothing_of_a_matrix_that_stands_for_a_vector() -> None:
    """Sum of w_ij x_ij: the norm of its derivative is that of all entries, sqrt(2) times the spectral norm here."""
    for product in (lambda w, x: torch.einsum("ab,ab->", w, x), lambda w, x: torch.einsum("ab,ab->b", w, x)):
        found = ns.bounds(
            product, torch.eye(2), torch.ones(2, 2), weights=ns.Ball(1.0, norm="spectral"), inputs=float("inf")
        )
        jacobian = torch.autograd.functional.jacobian(lambda x, f=product: f(torch.eye(2), x), torch.ones(2, 2))
        assert found.inputs.lipschitz >= float(torch.linalg.matrix_norm(jacobian.reshape(-1, 4), 2)) * (1 - 1e-6)


def test_values_at_the_center_are_computed_only_where_they_say_something(monkeypatch: pytest.MonkeyPatch) -> None:
    from nonsmooth.frameworks.torch.stepwise import StepwiseTorch

    ran: list[str] = []
    run = StepwiseTorch.run
    monkeypatch.setattr(StepwiseTorch, "run", lambda self, step, env: ran.append(step.label) or run(self, step, env))
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3)), torch.randn(5, 4)
    bounds = ns.bounds(net, x, inputs=0.1)
    assert len(ran) >= 3 and bounds.inputs.norm < 10
    ran.clear()
    assert ns.bounds(net, x, inputs=float("inf"), budget=0).inputs.lipschitz < 10 and ran == []


def test_a_long_chain_is_evaluated_without_recursion() -> None:
    """Values are computed when they are asked for: the last one of more steps than Python nests calls."""

    def chain(w: torch.Tensor) -> torch.Tensor:
        for _ in range(1200):
            w = w + 0.5
        return w

    program = ns.capture(chain, torch.ones(2))
    values = program.framework.step_by_step(program, [torch.ones(2)], [])
    for step in program.steps:
        values.advance(step)
    (last,) = program.steps[-1].results
    assert values.center(last).tolist() == [601.0, 601.0]
