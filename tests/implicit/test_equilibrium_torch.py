"""The deep equilibrium layer in torch: against dense derivatives row by row, and what it guarantees and refuses."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import nonsmooth as ns
from nonsmooth.errors import NotConverged, NotInvertible, UsageError
from nonsmooth.implicit import DeepEquilibrium
from nonsmooth.implicit.monotone import activation_slopes, singular_value_bound
from nonsmooth.implicit.torch.batched import _Memory, dense_solve


def double(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Draw normal numbers."""
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer_of(seed: int = 0, inputs: int = 3, width: int = 8, scale: float = 2.0, **options: object) -> DeepEquilibrium:
    """Make a layer whose matrices are enlarged."""
    torch.manual_seed(seed)
    layer = DeepEquilibrium(inputs, width, **{"dtype": torch.float64, **options})
    with torch.no_grad():
        layer.cell.V.mul_(scale)
        if layer.cell.S is not None:
            layer.cell.S.mul_(scale)
    return layer


def dense_gradients(layer: DeepEquilibrium, x: torch.Tensor, cotangent: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Differentiate one evaluation of the cell by a dense solve for every row."""
    y = layer(x).detach()
    blocks = [
        torch.func.jacrev(lambda t, a=a: layer.cell(t[None], a[None])[0])(b).detach() for a, b in zip(x, y, strict=True)
    ]
    adjoint = torch.stack(
        [torch.linalg.solve(torch.eye(len(J), dtype=J.dtype) - J.T, g) for J, g in zip(blocks, cotangent, strict=True)]
    )
    return torch.autograd.grad(layer.cell(y, x), [*layer.parameters(), x], adjoint)


FORMS = [
    ("relu", "monotone"),
    ("tanh", "monotone"),
    ("sigmoid", "monotone"),
    ("softplus", "monotone"),
    ("leaky_relu", "monotone"),
    ("relu", "contractive"),
    ("gelu", "contractive"),
    ("sigmoid", "contractive"),
    ("relu", "free"),
    ("silu", "free"),
]


@pytest.mark.parametrize(("activation", "parametrisation"), FORMS)
def test_gradients_are_those_of_dense_solves(activation: str, parametrisation: str) -> None:
    """Parameters and inputs, in both precisions."""
    scale = 0.9 if parametrisation == "free" else 2.0
    layer = layer_of(activation=activation, parametrisation=parametrisation, scale=scale)
    x, cotangent = double(6, 3).requires_grad_(), double(6, 8, 1)
    found = torch.autograd.grad(layer(x), [*layer.parameters(), x], cotangent)
    for a, b in zip(found, dense_gradients(layer, x, cotangent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    single = copy.deepcopy(layer).float()
    y = single(x.detach().float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), layer(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(60))
def test_the_bound_of_the_singular_values_holds(seed: int) -> None:
    """Random parameters, random D and its vertices."""
    rng = np.random.default_rng(seed)
    margin, scale, width = rng.choice([0.01, 0.1, 0.5, 0.9]), 10.0 ** rng.uniform(-1.5, 1), int(rng.integers(1, 9))
    kind = rng.choice(["monotone", "contractive"])
    activation = rng.choice(["relu", "sigmoid"] if kind == "monotone" else ["relu", "gelu"])
    layer = layer_of(seed, 2, width, scale, margin=margin, parametrisation=kind, activation=activation)
    W, (low, high), bound = layer.weight.detach(), layer.cell.slopes, layer.singular_value_bound()
    assert bound > 0
    if kind == "monotone":
        part = torch.eye(width, dtype=torch.float64) - layer.cell.slope * (W + W.T) / 2
        assert float(torch.linalg.eigvalsh(part)[0]) >= margin - 1e-9
    for k in range(60):
        d = rng.uniform(low, high, width) if k % 2 else rng.choice([low, high], width)
        B = np.eye(width) - d[:, None] * W.numpy()
        assert np.linalg.svd(B, compute_uv=False)[-1] >= bound * (1 - 1e-9)


def test_the_bound_is_sharp_for_one_unit() -> None:
    """|1 - d w| over d in [0, 1]: min(1, m)."""
    for m in (0.1, 0.5, 0.99):
        assert singular_value_bound(m, 1 + m) == pytest.approx(m)
    assert singular_value_bound(0.5, 0.0) == pytest.approx(0.5)  # K is at least 1 + m


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_against_a_diagnosis(seed: int) -> None:
    """On kinks: a layer without a bias at x = 0 has all of them active."""
    layer = layer_of(seed, 2, 4, bias=False)
    x, W = torch.zeros(2, dtype=torch.float64), layer.weight.detach()
    U = layer.cell.U.weight.detach()
    function = ns.implicit.fixed_point(lambda y, x: torch.relu(W @ y + U @ x))
    found = function.diagnose(x, y=torch.zeros(4, dtype=torch.float64))
    assert found.invertible
    assert found.kinks == 4
    assert found.smallest_singular_value >= layer.singular_value_bound() * (1 - 1e-9)
    y = layer(x[None].requires_grad_())
    y.sum().backward()  # the condition holds by construction


def test_a_monotone_layer_that_does_not_contract() -> None:
    """Plain iteration diverges; splitting converges, and the gradient is right."""
    layer = layer_of(scale=4.0, width=20)
    x, cotangent = double(6, 3).requires_grad_(), double(6, 20, 1)
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) > 4
    with torch.no_grad():
        y = torch.zeros(6, 20, dtype=torch.float64)
        for _ in range(200):
            y = layer.cell(y, x)
        assert not bool((y - layer.cell(y, x)).abs().max() < 1)
    found = torch.autograd.grad(layer(x), [*layer.parameters(), x], cotangent)
    assert layer.report is not None
    assert layer.report.method == "Peaceman-Rachford"
    assert layer.report.residual < 1e-11
    for a, b in zip(found, dense_gradients(layer, x, cotangent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


def test_plain_steps_that_diverge_do_not_spoil_the_splitting() -> None:
    """It begins at the start then."""
    layer, x, cotangent = layer_of(scale=20.0, width=30), double(6, 3).requires_grad_(), double(6, 30, 1)
    found = torch.autograd.grad(layer(x), [*layer.parameters(), x], cotangent)
    for a, b in zip(found, dense_gradients(layer, x, cotangent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


class Doubling(nn.Module):
    """y = 2 relu(y) + x: I - J is 1 or -1 at 0, and 0 between."""

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Give the next y."""
        return 2 * torch.relu(y) + x


def test_a_violated_condition_is_refused() -> None:
    """By the row, at a cell and at a free matrix; a choice warns, or is silent."""
    x = torch.tensor([[-1.0], [0.0]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotInvertible, match=r"row 1 of the batch.*\n?.*2 \* torch.relu"):
        DeepEquilibrium(Doubling())(x).sum().backward()
    assert x.grad is None
    with pytest.warns(ns.errors.ImplicitWarning, match="row 1"):
        DeepEquilibrium(Doubling(), violated="warn")(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    DeepEquilibrium(Doubling(), violated="ignore")(x).sum().backward()
    layer = layer_of(inputs=1, width=1, parametrisation="free", bias=False)
    with torch.no_grad():
        layer.cell.V.fill_(2.0)
        layer.cell.U.weight.fill_(1.0)
    with pytest.raises(NotInvertible, match="row 1 of the batch"):
        layer(x).sum().backward()
    below = layer(x[:1].detach().requires_grad_())
    below.sum().backward()


def test_rounding_of_a_steep_argument_in_a_cell() -> None:
    """The solution is the number below that of the kink, but the argument there is -5e-11."""

    class Steep(nn.Module):
        def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return 2e-6 * torch.relu(1e6 * (y - 0.3)) + x

    x = torch.tensor([[np.nextafter(0.3, 0.0)]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotInvertible):
        DeepEquilibrium(Steep())(x).sum().backward()


def test_a_singular_matrix_without_kinks_is_refused() -> None:
    """y = y + tanh(x) - x is solved by every y at x = 0."""

    class Idle(nn.Module):
        def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return y + torch.tanh(x) * 0.0 * x + x

    x = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotInvertible):
        DeepEquilibrium(Idle())(x).sum().backward()


class Cell(nn.Module):
    """A cell of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4).double(), nn.Linear(3, 4).double()

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Give the next y."""
        return torch.tanh(0.6 * self.a(torch.relu(y)) + self.b(x))


def test_a_cell_of_a_user() -> None:
    """Gradients against dense solves, second derivatives against differences, forward mode, batched cotangents."""
    torch.manual_seed(0)
    layer, x = DeepEquilibrium(Cell(), 4), double(5, 3).requires_grad_()
    cotangent = double(5, 4, 1)
    found = torch.autograd.grad(layer(x), [*layer.parameters(), x], cotangent)
    for a, b in zip(found, dense_gradients(layer, x, cotangent), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    small = x[:2].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (small,))
    assert torch.autograd.gradcheck(layer, (small,), check_forward_ad=True, check_batched_grad=True)


@pytest.mark.parametrize("steps", [100, 1])
def test_a_cell_whose_rows_depend_on_each_other(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks are not all of B then: where iterating does not help, the whole system is solved."""
    monkeypatch.setattr("nonsmooth.implicit.torch.rows.STEPS", steps)

    class Mixing(nn.Module):
        def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return -0.5 * y.roll(1, 0) + x

    x = double(3, 2).requires_grad_()
    layer = DeepEquilibrium(Mixing())
    (found,) = torch.autograd.grad(layer(x)[0].sum(), x)
    B = torch.eye(3, dtype=torch.float64) + 0.5 * torch.eye(3, dtype=torch.float64).roll(1, 0)
    torch.testing.assert_close(found, torch.linalg.inv(B)[0][:, None].expand(3, 2), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("parametrisation", ["monotone", "contractive"])
def test_derivatives_of_every_kind(parametrisation: str) -> None:
    """Second derivatives, forward mode, batched cotangents."""
    layer, x = layer_of(width=4, activation="tanh", parametrisation=parametrisation), double(3, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x,))
    assert torch.autograd.gradcheck(layer, (x,), check_forward_ad=True, check_batched_grad=True)


def test_shapes() -> None:
    """One row, none, several axes, and no gradient."""
    layer = layer_of()
    for shape in ((3,), (1, 3), (2, 5, 3), (0, 3), (2, 0, 3)):
        x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        y = layer(x)
        assert y.shape == (*shape[:-1], 8)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == shape
    with torch.no_grad():
        assert not layer(torch.ones(2, 3, dtype=torch.float64)).requires_grad
    torch.testing.assert_close(layer(torch.ones(2, 3).double())[0], layer(torch.ones(3).double()))
    assert DeepEquilibrium(Cell(), 4)(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 4)


def test_it_is_a_module() -> None:
    """state_dict, copies, pickles, types."""
    layer, x = layer_of(), double(2, 3)
    y = layer(x)
    other = layer_of(1)
    other.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    for again in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.eval(), layer.train()):
        torch.testing.assert_close(again(x), y, rtol=0, atol=0)
    cell = DeepEquilibrium(Cell(), 4)
    cell(x.requires_grad_()).sum().backward()
    torch.testing.assert_close(pickle.loads(pickle.dumps(cell))(x), cell(x))
    assert layer.float()(x.float()).dtype == torch.float32
    assert "monotone" in repr(layer)


def test_a_step_of_training_lowers_the_loss() -> None:
    """A layer and a linear map, by gradient steps."""
    torch.manual_seed(0)
    net = nn.Sequential(DeepEquilibrium(3, 8), nn.Linear(8, 1))
    x, target = torch.randn(20, 3), torch.randn(20, 1)
    optimiser = torch.optim.SGD(net.parameters(), 0.02)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(net(x), target)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(b < a for a, b in itertools.pairwise(losses))


def test_what_is_refused() -> None:
    """In words."""
    for arguments, options, words in [
        ((3,), {}, "width"),
        ((3, 0), {}, "width=0"),
        ((3, 4), {"activation": "nothing"}, "nothing"),
        ((3, 4), {"activation": "gelu"}, "increasing"),
        ((3, 4), {"activation": lambda t: t / (1 + t.abs())}, "slopes"),
        ((3, 4), {"margin": 1.0}, "margin"),
        ((3, 4), {"parametrisation": "orthogonal"}, "orthogonal"),
        ((3, 4), {"tolerance": -1.0}, "tolerance"),
    ]:
        with pytest.raises(UsageError, match=words):
            DeepEquilibrium(*arguments, **options)
    with pytest.raises(UsageError, match=r"\(\.\.\., 3\)"):
        layer_of()(torch.zeros(2, 4).double())
    with pytest.raises(UsageError, match="shape"):
        DeepEquilibrium(Doubling(), start=lambda x: x[:, :1])(double(2, 3))
    with pytest.raises(NotConverged, match="row 0"):
        layer_of(scale=4.0, width=20, iterations=3)(double(2, 3))
    with pytest.raises(NotConverged, match="row 1"):
        layer_of()(torch.tensor([[0.0, 0, 0], [0, float("nan"), 0]], dtype=torch.float64))
    y = layer_of(activation=lambda t: t / (1 + t.abs()), slopes=(0.0, 1.0))(double(2, 3))
    assert y.shape == (2, 8)


def test_slopes() -> None:
    """Of activations of the dictionary."""
    like = torch.zeros(2, dtype=torch.float64)
    for function, low, high in [(torch.relu, 0, 1), (torch.sigmoid, 0, 0.25), (lambda t: 2 - 3 * torch.relu(t), -3, 0)]:
        assert activation_slopes(function, like) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("parametrisation", ["monotone", "contractive", "free"])
def test_half_precision_is_solved_in_single(parametrisation: str, dtype: torch.dtype) -> None:
    """Torch has no norms and factors of matrices in half precision."""
    torch.manual_seed(0)
    layer = DeepEquilibrium(3, 4, parametrisation=parametrisation, dtype=dtype)
    x = torch.randn(5, 3).to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    fine, fine_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    fine.zero_grad()
    fine_y = fine(fine_x)
    fine_y.sum().backward()
    assert y.dtype == x.grad.dtype == layer.cell.V.grad.dtype == layer.weight.dtype == dtype
    near = {"atol": 10 * torch.finfo(dtype).eps, "rtol": 10 * torch.finfo(dtype).eps}
    torch.testing.assert_close(y.double(), fine_y, **near)
    torch.testing.assert_close(x.grad.double(), fine_x.grad, **near)
    torch.testing.assert_close(layer.cell.V.grad.double(), fine.cell.V.grad, **near)


def test_under_autocast_the_system_is_solved_in_single() -> None:
    """Also where the backward pass runs there, as in loops that leave it inside."""
    for seed in range(4):
        torch.manual_seed(seed)
        layer, x = DeepEquilibrium(3, 4), torch.randn(4, 3)
        layer(x).sum().backward()
        expected = layer.cell.V.grad.clone()
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
            y.float().sum().backward()
        assert y.dtype == torch.bfloat16 and layer.report.residual < 1e-4
        torch.testing.assert_close(layer.cell.V.grad, expected, atol=0.1 * float(expected.abs().max()), rtol=0.0)


def test_blocks_that_may_be_singular_in_half_precision_alone() -> None:
    """I - J is diagonal, of 2 to 9, and 64 unknowns in bfloat16 tell nothing of its least singular value."""

    class Steep(nn.Module):
        def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return x - torch.linspace(1, 8, 64, dtype=x.dtype) * y

    def pull(dtype: torch.dtype) -> None:
        x = torch.zeros(2, 64, dtype=dtype, requires_grad=True)
        DeepEquilibrium(Steep())(x).sum().backward()

    pull(torch.float32)
    with pytest.raises(NotConverged, match="cannot be told in this precision"):
        pull(torch.bfloat16)


def test_blocks_in_half_precision_are_solved() -> None:
    """They are the last resort of a cell in half precision."""
    blocks, right = 0.2 * double(6, 3).reshape(2, 3, 3) + torch.eye(3), double(2, 3, seed=1)
    found, singular = dense_solve(blocks.bfloat16(), right.bfloat16(), True, 1e-2)
    assert found.dtype == torch.bfloat16 and not singular.any()
    expected = torch.linalg.solve(blocks.mT, right)
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_steps_are_combined_in_any_precision(dtype: torch.dtype) -> None:
    """The residuals 1 and -1 of two steps combine to 0."""
    memory = _Memory(torch.zeros(1, 1, dtype=dtype))
    for moved, residual in ((2.0, 1.0), (4.0, -1.0)):
        memory.add(torch.full((1, 1), moved, dtype=dtype), torch.full((1, 1), residual, dtype=dtype))
    found = memory.combined()
    assert found.dtype == dtype and abs(found.item() - 3) < 0.05
