"""The scalar programs of operations on arrays: executed beside torch, and counted against what was executed.

Every call of the table is captured, its scalar program is run on real numbers, and value, gradient and the counts of both
sweeps are compared with torch's and with those that shapes give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nonsmooth as ns
from nonsmooth.cost.definitions import DEFINITIONS
from nonsmooth.cost.sweeps import count_steps
from nonsmooth.cost.tally import Sweep
from tests.references.scalar_sweep import execute

Call = tuple[str, Callable[..., Any], list[Any]]


def _recurrent(kind: str, *arguments: Any, length: int = 3, **options: Any) -> Call:
    """Give a call of a recurrent module with its parameters as operands."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(*arguments, **options).double()
    names = [n for n, _ in module.named_parameters()]
    shape = (2, length, arguments[0]) if options.get("batch_first") else (length, 2, arguments[0])
    shape = shape[1:] if kind.endswith("Cell") else shape

    def function(x: torch.Tensor, *parameters: torch.Tensor) -> Any:
        found = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return (
            found if isinstance(found, torch.Tensor) else [found[0], *(found[1] if len(found[1]) == 2 else found[1:])]
        )

    return f"{kind}{arguments}{options}", function, [shape, *(tuple(p.shape) for p in module.parameters())]


def _definite(a: torch.Tensor) -> torch.Tensor:
    """Make matrices positive definite."""
    return a @ a.mT + torch.eye(a.shape[-1], dtype=a.dtype)


def _triangular(a: torch.Tensor) -> torch.Tensor:
    """Make lower triangles far from singular."""
    return torch.tril(a) + 2 * torch.eye(a.shape[-1], dtype=a.dtype)


PRODUCTS: list[Call] = [
    ("matmul", torch.matmul, [(2, 3), (3, 4)]),
    ("matmul of vectors", torch.matmul, [(3,), (3,)]),
    ("matmul by a vector", torch.matmul, [(2, 3, 4), (4,)]),
    ("matmul of a vector", torch.matmul, [(3,), (2, 3, 4)]),
    ("matmul of stacks", torch.matmul, [(3, 1, 2, 2), (2, 2, 3)]),
    ("matmul of nothing", torch.matmul, [(2, 0), (0, 3)]),
    ("matmul of no rows", torch.matmul, [(0, 2), (2, 3)]),
    ("matmul with itself", lambda a: a @ a, [(2, 2)]),
    ("mm", torch.mm, [(2, 1), (1, 3)]),
    ("bmm", torch.bmm, [(2, 2, 3), (2, 3, 2)]),
    ("mv", torch.mv, [(2, 3), (3,)]),
    ("dot", torch.dot, [(4,), (4,)]),
    ("vdot", torch.vdot, [(4,), (4,)]),
    ("inner", torch.inner, [(2, 3), (4, 3)]),
    ("inner with a number", torch.inner, [(), (3,)]),
    ("outer", torch.outer, [(2,), (3,)]),
    ("linear", F.linear, [(2, 2, 3), (4, 3), (4,)]),
    ("linear without bias", F.linear, [(3,), (4, 3)]),
    ("addmm", lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=0.5), [(3,), (2, 2), (2, 3)]),
    ("addmm without beta", lambda c, a, b: torch.addmm(c, a, b, beta=0), [(2, 3), (2, 2), (2, 3)]),
    ("addmv", torch.addmv, [(2,), (2, 3), (3,)]),
    ("addr", torch.addr, [(2, 3), (2,), (3,)]),
    ("addbmm", torch.addbmm, [(2, 3), (2, 2, 4), (2, 4, 3)]),
    ("baddbmm", torch.baddbmm, [(2, 2, 3), (2, 2, 4), (2, 4, 3)]),
    ("bilinear", F.bilinear, [(2, 3), (2, 2), (4, 3, 2), (4,)]),
    ("kron", torch.kron, [(2, 2), (3,)]),
    ("cross", lambda u, v: torch.linalg.cross(u, v), [(2, 3), (1, 3)]),
    ("old cross", lambda u, v: torch.cross(u, v, dim=0), [(3, 2), (3, 2)]),
    ("einsum", lambda a, b: torch.einsum("ij,jk->ik", a, b), [(2, 3), (3, 2)]),
    ("einsum of three", lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), [(2, 3), (3, 2), (2, 2)]),
    ("einsum of a diagonal", lambda a: torch.einsum("ii->i", a), [(3, 3)]),
    ("einsum of a trace", lambda a, b: torch.einsum("iij,j->", a, b), [(2, 2, 3), (3,)]),
    ("einsum with dots", lambda a, b: torch.einsum("...ij,...j->...i", a, b), [(2, 1, 2, 3), (2, 3)]),
    ("einsum that sums alone", lambda a, b: torch.einsum("ij,k->k", a, b), [(2, 3), (2,)]),
    ("einsum without an arrow", lambda a, b: torch.einsum("ij,jk", a, b), [(2, 3), (3, 2)]),
    ("einsum that turns", lambda a: torch.einsum("ijk->kij", a), [(2, 3, 2)]),
]

CONVOLUTIONS: list[Call] = [
    ("conv1d", F.conv1d, [(2, 2, 5), (3, 2, 3), (3,)]),
    ("conv1d of one image", F.conv1d, [(2, 5), (3, 2, 2)]),
    ("conv1d, strides", lambda u, w: F.conv1d(u, w, stride=2, padding=2, dilation=2), [(1, 2, 6), (2, 2, 3)]),
    ("conv1d, same", lambda u, w: F.conv1d(u, w, padding="same", dilation=2), [(1, 1, 5), (2, 1, 3)]),
    ("conv1d, groups", lambda u, w, b: F.conv1d(u, w, b, padding=1, groups=2), [(1, 4, 4), (2, 2, 3), (2,)]),
    ("conv2d", lambda u, w, b: F.conv2d(u, w, b, padding=1), [(1, 2, 3, 4), (2, 2, 3, 3), (2,)]),
    ("conv2d, depthwise", lambda u, w: F.conv2d(u, w, stride=(2, 1), groups=2), [(1, 2, 4, 3), (4, 1, 2, 2)]),
    ("conv2d of one entry", lambda u, w: F.conv2d(u, w, padding=1), [(1, 1, 1, 1), (1, 1, 3, 3)]),
    ("conv3d", F.conv3d, [(1, 1, 2, 3, 2), (2, 1, 2, 2, 1), (2,)]),
    ("conv_transpose1d", F.conv_transpose1d, [(2, 2, 3), (2, 3, 2), (3,)]),
    (
        "conv_transpose1d, strides",
        lambda u, w: F.conv_transpose1d(u, w, stride=3, padding=1, output_padding=2, dilation=2),
        [(1, 1, 3), (1, 2, 3)],
    ),
    ("conv_transpose2d", lambda u, w: F.conv_transpose2d(u, w, stride=2, groups=2), [(1, 4, 2, 2), (4, 1, 2, 3)]),
    ("conv_transpose3d", F.conv_transpose3d, [(1, 1, 2, 1, 2), (1, 1, 2, 2, 1)]),
    ("conv_tbc", lambda u, w, b: torch.conv_tbc(u, w, b, 1), [(4, 2, 2), (2, 2, 3), (3,)]),
]

WINDOWS: list[Call] = [
    ("avg_pool1d", lambda u: F.avg_pool1d(u, 2), [(1, 2, 5)]),
    ("avg_pool2d", lambda u: F.avg_pool2d(u, 3, 2, 1), [(1, 2, 5, 4)]),
    ("avg_pool2d, cut", lambda u: F.avg_pool2d(u, 2, 2, ceil_mode=True), [(1, 1, 3, 5)]),
    ("avg_pool2d, entries", lambda u: F.avg_pool2d(u, 2, 1, 1, count_include_pad=False), [(1, 3, 3)]),
    ("avg_pool2d, divisor", lambda u: F.avg_pool2d(u, 2, divisor_override=3), [(1, 1, 4, 4)]),
    ("avg_pool3d", lambda u: F.avg_pool3d(u, 2, 1), [(1, 1, 2, 3, 2)]),
    ("adaptive_avg_pool1d", lambda u: F.adaptive_avg_pool1d(u, 3), [(1, 2, 5)]),
    ("adaptive_avg_pool2d", lambda u: F.adaptive_avg_pool2d(u, (2, 3)), [(1, 1, 5, 4)]),
    ("adaptive_avg_pool2d to one", lambda u: F.adaptive_avg_pool2d(u, 1), [(1, 2, 3, 3)]),
    ("adaptive_avg_pool3d", lambda u: F.adaptive_avg_pool3d(u, 2), [(1, 1, 3, 2, 3)]),
    ("max_pool1d", lambda u: F.max_pool1d(u, 2), [(1, 2, 5)]),
    ("max_pool2d", lambda u: F.max_pool2d(u, 3, 2, 1), [(1, 2, 5, 4)]),
    ("max_pool2d, dilated", lambda u: F.max_pool2d(u, 2, 1, dilation=2, ceil_mode=True), [(1, 1, 4, 5)]),
    ("max_pool3d", lambda u: F.max_pool3d(u, 2), [(1, 1, 2, 4, 2)]),
    ("adaptive_max_pool1d", lambda u: F.adaptive_max_pool1d(u, 2), [(1, 2, 5)]),
    ("adaptive_max_pool2d", lambda u: F.adaptive_max_pool2d(u, (2, 3)), [(1, 1, 5, 4)]),
    ("unfold", lambda u: F.unfold(u, 2, padding=1, stride=2), [(2, 2, 3, 4)]),
    ("fold", lambda u: F.fold(u, (3, 4), (2, 2), padding=1), [(2, 8, 20)]),
    ("fold of one image", lambda u: F.fold(u, (3, 3), 2), [(4, 4)]),
]

RESAMPLING: list[Call] = [
    *(
        (
            f"interpolate {mode} {size} {options}",
            lambda u, m=mode, s=size, o=options: F.interpolate(u, s, mode=m, **o),
            [shape],
        )
        for mode, size, shape, options in [
            ("nearest", 5, (1, 2, 3), {}),
            ("nearest-exact", 5, (1, 2, 3), {}),
            ("nearest", (2, 4), (1, 1, 3, 3), {}),
            ("nearest", 3, (1, 1, 2, 2, 2), {}),
            ("linear", 5, (1, 2, 3), {}),
            ("linear", 5, (1, 2, 3), {"align_corners": True}),
            ("bilinear", (5, 2), (1, 1, 3, 4), {}),
            ("bilinear", (5, 4), (1, 1, 3, 4), {"align_corners": True}),
            ("trilinear", 3, (1, 1, 2, 2, 2), {}),
            ("bicubic", (3, 5), (1, 1, 4, 3), {}),
            ("bicubic", (3, 5), (1, 1, 4, 3), {"align_corners": True}),
        ]
    ),
    ("interpolate by a factor", lambda u: F.interpolate(u, scale_factor=1.7, mode="bilinear"), [(1, 1, 3, 3)]),
    ("affine_grid", lambda t: F.affine_grid(t, [2, 1, 2, 3], align_corners=False), [(2, 2, 3)]),
    ("affine_grid, aligned", lambda t: F.affine_grid(t, [1, 1, 2, 3, 2], align_corners=True), [(1, 3, 4)]),
    *(
        (
            f"grid_sample {mode} {padding} {aligned}",
            lambda u, g, m=mode, p=padding, a=aligned: F.grid_sample(u, g * 1.1, m, p, a),
            [(1, 2, 3, 4), (1, 2, 3, 2)],
        )
        for mode, padding, aligned in [
            ("bilinear", "zeros", False),
            ("bilinear", "zeros", True),
            ("bilinear", "border", False),
            ("bilinear", "reflection", False),
            ("bilinear", "reflection", True),
            ("bicubic", "zeros", False),
            ("nearest", "zeros", True),
        ]
    ),
    ("grid_sample in space", lambda u, g: F.grid_sample(u, g, align_corners=False), [(1, 1, 2, 2, 3), (1, 1, 2, 1, 3)]),
]

NORMALISATION: list[Call] = [
    ("softmax", lambda u: u.softmax(-1), [(2, 3)]),
    ("softmax of one", lambda u: u.softmax(0), [(1, 3)]),
    ("softmax of a number", lambda u: u.softmax(0), [()]),
    ("log_softmax", lambda u: u.log_softmax(0), [(3, 2)]),
    ("layer_norm", lambda u, w, b: F.layer_norm(u, (3, 2), w, b), [(2, 3, 2), (3, 2), (3, 2)]),
    ("layer_norm, bias alone", lambda u, b: F.layer_norm(u, (3,), None, b), [(2, 3), (3,)]),
    ("layer_norm, plain", lambda u: F.layer_norm(u, (4,)), [(2, 4)]),
    ("rms_norm", lambda u, w: F.rms_norm(u, (4,), w), [(2, 4), (4,)]),
    ("group_norm", lambda u, w, b: F.group_norm(u, 2, w, b), [(2, 4, 3), (4,), (4,)]),
    ("group_norm, plain", lambda u: F.group_norm(u, 1), [(2, 2, 2, 2)]),
    ("instance_norm", lambda u, w: F.instance_norm(u, weight=w), [(2, 2, 4), (2,)]),
    (
        "batch_norm, training",
        lambda u, w, b: F.batch_norm(u, torch.zeros(2).double(), torch.ones(2).double(), w, b, True),
        [(3, 2, 2), (2,), (2,)],
    ),
    ("batch_norm, training alone", lambda u: F.batch_norm(u, None, None, training=True), [(4, 2)]),
    (
        "batch_norm, evaluation",
        lambda u, w, b: F.batch_norm(u, torch.zeros(2).double(), torch.ones(2).double(), w, b),
        [(3, 2, 2), (2,), (2,)],
    ),
    ("weight_norm", lambda v, g: torch._weight_norm(v, g, 0), [(2, 3), (2, 1)]),
    ("weight_norm, other axis", lambda v, g: torch._weight_norm(v, g, 1), [(2, 3), (1, 3)]),
]

_HEADS = [(1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 3)]

ATTENTION: list[Call] = [
    ("attention", F.scaled_dot_product_attention, _HEADS),
    ("attention, scaled", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), _HEADS),
    ("attention, causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), _HEADS),
    ("attention, mask", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), [*_HEADS, (3, 4)]),
    (
        "attention, choice",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.ones(3, 4, dtype=torch.bool).tril(1)),
        _HEADS,
    ),
    (
        "attention, groups",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(1, 4, 2, 2), (1, 2, 3, 2), (1, 2, 3, 2)],
    ),
]

RECURRENT: list[Call] = [
    _recurrent("LSTM", 2, 2),
    _recurrent("LSTM", 2, 2, num_layers=2, bidirectional=True, length=2),
    _recurrent("LSTM", 2, 3, proj_size=2, batch_first=True),
    _recurrent("LSTM", 1, 2, bias=False),
    _recurrent("GRU", 2, 2),
    _recurrent("GRU", 2, 2, bidirectional=True, bias=False),
    _recurrent("RNN", 2, 3, num_layers=2),
    _recurrent("LSTMCell", 2, 2),
    _recurrent("GRUCell", 2, 2),
    _recurrent("RNNCell", 2, 2, bias=False),
]

ALGEBRA: list[Call] = [
    ("inv", torch.linalg.inv, [(3, 3)]),
    ("inv of a stack", torch.linalg.inv, [(2, 2, 2)]),
    ("solve", torch.linalg.solve, [(3, 3), (3, 2)]),
    ("solve for a vector", torch.linalg.solve, [(3, 3), (3,)]),
    ("solve from the right", lambda a, b: torch.linalg.solve(a, b, left=False), [(3, 3), (2, 3)]),
    ("det", torch.linalg.det, [(3, 3)]),
    ("det of a stack", torch.linalg.det, [(2, 2, 2)]),
    ("slogdet", torch.linalg.slogdet, [(3, 3)]),
    ("lu_factor", lambda a: torch.linalg.lu_factor(a)[0], [(3, 3)]),
    ("lu_factor, tall", lambda a: torch.linalg.lu_factor(a)[0], [(4, 2)]),
    ("lu", lambda a: torch.linalg.lu(a)[1:], [(3, 3)]),
    ("lu, tall", lambda a: torch.linalg.lu(a)[1:], [(2, 3, 2)]),
    ("lu_factor, wide", lambda a: torch.linalg.lu_factor(a)[0], [(2, 3)]),
    ("lu_solve", lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b), [(3, 3), (3, 2)]),
    ("cholesky", lambda a: torch.linalg.cholesky(_definite(a)), [(3, 3)]),
    ("cholesky of one", lambda a: torch.linalg.cholesky(_definite(a)), [(2, 1, 1)]),
    ("cholesky_solve", lambda b, a: torch.cholesky_solve(b, _triangular(a)), [(3, 2), (3, 3)]),
    ("cholesky_inverse", lambda a: torch.cholesky_inverse(_triangular(a)), [(3, 3)]),
    ("triangle", lambda a, b: torch.linalg.solve_triangular(_triangular(a), b, upper=False), [(3, 3), (3, 2)]),
    (
        "triangle from the right",
        lambda a, b: torch.linalg.solve_triangular(_triangular(a).mT, b, upper=True, left=False),
        [(3, 3), (2, 3)],
    ),
    (
        "unit triangle",
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True, unitriangular=True),
        [(3, 3), (3, 1)],
    ),
    ("old triangle", lambda b, a: torch.triangular_solve(b, _triangular(a), upper=False)[0], [(3, 2), (3, 3)]),
    ("qr", torch.linalg.qr, [(3, 3)]),
    ("qr, tall", torch.linalg.qr, [(4, 2)]),
    ("householder", torch.linalg.householder_product, [(4, 2), (2,)]),
    ("lstsq", lambda a, b: torch.linalg.lstsq(a, b)[0], [(4, 2), (4, 2)]),
]

NORMS: list[Call] = [
    *(
        (f"vector_norm {p}", lambda u, p=p: torch.linalg.vector_norm(u, p, dim=1), [(2, 3)])
        for p in (2, 1, float("inf"), 3, 0.5, 0)
    ),
    ("norm", lambda u: u.norm(), [(2, 3)]),
    ("norm that keeps", lambda u: u.norm(p=3, dim=0, keepdim=True), [(2, 3)]),
    *(
        (f"cdist {p}", lambda u, v, p=p: torch.cdist(u, v, p), [(2, 2, 3), (2, 3, 3)])
        for p in (2.0, 1.0, float("inf"), 3.0)
    ),
    *((f"pdist {p}", lambda u, p=p: F.pdist(u, p), [(3, 2)]) for p in (2.0, 1.0, 3.0)),
    *((f"dist {p}", lambda u, v, p=p: torch.dist(u, v, p), [(2, 3), (3,)]) for p in (2.0, 1.0, float("inf"), 4.0)),
]

ORDER: list[Call] = [
    ("max", lambda u: u.max(), [(2, 3)]),
    ("min", lambda u: u.min(), [()]),
    ("max_dim", lambda u: u.max(0), [(3, 2)]),
    ("min_dim", lambda u: u.min(-1, keepdim=True), [(3, 2)]),
    ("amax", lambda u: u.amax((0, 2)), [(2, 3, 2)]),
    ("amin", lambda u: u.amin(1, keepdim=True), [(2, 1)]),
    ("cummax", lambda u: u.cummax(1), [(2, 4)]),
    ("cummin", lambda u: u.cummin(0), [(3, 2)]),
    ("sort", lambda u: u.sort(1)[0] * torch.arange(5.0), [(2, 5)]),
    ("sort, descending", lambda u: u.sort(0, descending=True)[0][1], [(3, 2)]),
    ("sort of one", lambda u: u.sort()[0], [(1,)]),
    ("topk", lambda u: u.topk(2)[0], [(2, 5)]),
    ("topk, smallest", lambda u: u.topk(3, largest=False, dim=0)[0][0], [(4, 2)]),
    ("kthvalue", lambda u: u.kthvalue(2)[0], [(2, 5)]),
    ("median", lambda u: u.median(), [(2, 3)]),
    ("median along", lambda u: u.median(1)[0], [(2, 4)]),
    ("mode", lambda u: u.mode()[0], [(2, 4)]),
]

CALLS = [
    *PRODUCTS,
    *CONVOLUTIONS,
    *WINDOWS,
    *RESAMPLING,
    *NORMALISATION,
    *ATTENTION,
    *RECURRENT,
    *ALGEBRA,
    *NORMS,
    *ORDER,
]


def _total(function: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    """Sum the floating results of a function, each entry with a weight of its own."""

    def total(arrays: tuple[torch.Tensor, ...]) -> torch.Tensor:
        found = function(*arrays)
        found = [found] if isinstance(found, torch.Tensor) else found
        parts = [t for t in found if isinstance(t, torch.Tensor) and t.is_floating_point()]
        return sum(((1.0 + 0.5 * torch.arange(t.numel(), dtype=t.dtype)) * t.reshape(-1)).sum() for t in parts)  # type: ignore[return-value]

    return total


def _points(shapes: list[Any], seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Draw arrays of some shapes."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def _compared(function: Callable[..., Any], x: tuple[torch.Tensor, ...], data: tuple[torch.Tensor, ...]) -> None:
    """Compare value (step by step), gradient, and the counts of both sweeps."""

    def total(x: tuple[torch.Tensor, ...], *data: torch.Tensor) -> torch.Tensor:
        return _total(function)((*x, *data))

    program = ns.capture(total, x, *data)
    executed = execute(program, x, data)
    gradient, pulled = executed.gradient()
    leaves = tuple(t.clone().requires_grad_() for t in x)
    native = torch.autograd.grad(total(leaves, *data), leaves, allow_unused=True)
    for found, wanted, leaf in zip(gradient, native, leaves, strict=True):
        expected = np.zeros(tuple(leaf.shape)) if wanted is None else wanted.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert +executed.tape.counts == +executed.stated.evaluation
    assert +pulled == +executed.stated.pull


OLD = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")


@OLD
@pytest.mark.parametrize(("function", "shapes"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_the_scalar_program_computes_what_torch_computes_and_runs_what_shapes_count(function, shapes) -> None:
    """Where every operand moves."""
    _compared(function, _points(shapes), ())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("matmul", lambda call: call.x.bilinear(call.operands[1], call.shape, 12, 8, lambda *_: ([0] * 12,) * 3)),
        ("softmax", lambda call: call.x.apply("exp") / call.x.apply("exp").sum(1, keep=True) * 2.0),
        ("conv1d", lambda call: call.x.bilinear(call.operands[1], call.shape, 1, 0, lambda *_: ([0], [0], [0]))),
        ("max", lambda call: call.x.chosen((), 0)),
    ],
)
def test_a_wrong_definition_is_found(name: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong values, or counts that are not those that ran, fail the comparison; so does a choice without comparisons."""
    function, shapes = next(c[1:] for c in CALLS if c[0] == name)
    _compared(function, _points(shapes), ())
    monkeypatch.setitem(DEFINITIONS, name, wrong)
    if name == "max":  # a count that is stated and wrong is found by its closed form alone
        assert _sweep(function, *shapes)[name].evaluation["compare"] != 5
        return
    with pytest.raises(AssertionError):
        _compared(function, _points(shapes), ())


SEVERAL = [c for c in CALLS if len(c[2]) > 1]


@OLD
@pytest.mark.parametrize(("function", "shapes"), [c[1:] for c in SEVERAL], ids=[c[0] for c in SEVERAL])
def test_where_one_operand_moves_and_the_others_are_data(function, shapes) -> None:
    """What does not move has no cotangent."""
    points = _points(shapes, seed=2)
    _compared(function, points[:1], points[1:])


@pytest.mark.parametrize("seed", range(12))
def test_convolutions_of_random_geometry(seed: int) -> None:
    """Strides, paddings, dilations, groups and directions drawn."""
    draw = np.random.default_rng(seed)
    d, groups = int(draw.integers(1, 3)), int(draw.integers(1, 3))
    stride, padding, dilation = (tuple(map(int, draw.integers(low, 4 - d, d))) for low in (1, 0, 1))
    kernel = tuple(map(int, draw.integers(1, 4, d)))
    channels = groups * int(draw.integers(1, 3)), groups * int(draw.integers(1, 3))
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    image = (int(draw.integers(1, 3)), channels[0], *map(int, draw.integers(4, 6, d)))
    if seed % 2:
        padding = tuple(min(p, w * (k - 1)) for p, w, k in zip(padding, dilation, kernel, strict=True))
        extra = tuple(int(draw.integers(0, max(s, w))) for s, w in zip(stride, dilation, strict=True))
        function = getattr(F, f"conv_transpose{d}d")
        options |= {"padding": padding, "output_padding": extra}
        shapes: list[Any] = [image, (channels[0], channels[1] // groups, *kernel), (channels[1],)]
    else:
        function = getattr(F, f"conv{d}d")
        needed = [w * (k - 1) + 1 for w, k in zip(dilation, kernel, strict=True)]
        image = (*image[:2], *(max(n, m) for n, m in zip(image[2:], needed, strict=True)))
        options["padding"] = padding
        shapes = [image, (channels[1], channels[0] // groups, *kernel), (channels[1],)]
    _compared(lambda u, w, b: function(u, w, b, **options), _points(shapes, seed), ())


# --- closed forms -----------------------------------------------------------------------------------------------------


def _sweep(function: Callable[..., Any], *shapes: Any) -> dict[str, Sweep]:
    """Count the steps of a call by operation."""
    program = ns.capture(_total(function), tuple(torch.rand(s) for s in shapes))
    return {c.step.operation.name: c.sweep for c in reversed(count_steps(program)) if c.sweep is not None}


@pytest.mark.parametrize(("m", "k", "n"), [(3, 4, 5), (1, 7, 1), (6, 1, 2), (64, 32, 16)])
def test_a_product_of_matrices_is_2_m_k_n_less_m_n(m: int, k: int, n: int) -> None:
    """Forward 2 m k n - m n; back two products of the same size, and an addition for every one of them."""
    sweep = _sweep(torch.matmul, (m, k), (k, n))["matmul"]
    assert sweep.evaluation.total() == 2 * m * k * n - m * n
    assert sweep.pull == Counter(mul=2 * m * k * n, add=2 * m * k * n + 2 * m * (k - 1) * n)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [(5, 3, 1, 0), (8, 3, 2, 1), (4, 3, 1, 1), (7, 2, 3, 1)]
)
def test_a_convolution_counts_the_pairs_that_meet(size: int, kernel: int, stride: int, padding: int) -> None:
    """Along an axis the places of the kernel that lie inside of the image, counted one by one."""
    results = (size + 2 * padding - kernel) // stride + 1
    inside = [sum(0 <= o * stride - padding + k < size for k in range(kernel)) for o in range(results)]
    products = 2 * 3 * 4 * sum(inside) ** 2
    sums = products - 2 * 4 * sum(n > 0 for n in inside) ** 2
    sweep = _sweep(lambda u, w: F.conv2d(u, w, None, stride, padding), (2, 3, size, size), (4, 3, kernel, kernel))[
        "conv2d"
    ]
    assert sweep.evaluation == Counter(mul=products, add=sums)
    if not padding:
        assert products == 2 * 4 * 3 * (kernel * results) ** 2


@pytest.mark.parametrize(("rows", "n"), [(3, 5), (1, 1), (4, 10)])
def test_softmax_of_n_entries(rows: int, n: int) -> None:
    """n - 1 comparisons, n - 1 additions, n each of -, exp and /; nothing is pulled back through the comparisons."""
    sweep = _sweep(lambda u: u.softmax(1), (rows, n))["softmax"]
    each = Counter(compare=n - 1, sub=n, exp=n, add=n - 1, div=n)
    assert +sweep.evaluation == +Counter({name: rows * times for name, times in each.items()})
    assert "compare" not in sweep.pull


@pytest.mark.parametrize(
    ("name", "function", "shape", "comparisons"),
    [
        ("max", lambda u: u.max(), (2, 3), 5),
        ("amax", lambda u: u.amax(1), (4, 7), 4 * 6),
        ("cummax", lambda u: u.cummax(0), (5, 2), 2 * 4),
        ("sort", lambda u: u.sort(1), (3, 8), 3 * (8 * 3 - 7)),
        ("sort", lambda u: u.sort(), (9,), 9 * 4 - 15),
        ("topk", lambda u: u.topk(1), (2, 16), 2 * 15),
        ("topk", lambda u: u.topk(3), (16,), 15 + 2 * 4),
        ("kthvalue", lambda u: u.kthvalue(15), (16,), 15 + 4),
        ("median", lambda u: u.median(), (16,), 16 * 4 - 15),
        ("mode", lambda u: u.mode(), (16,), 16 * 4 - 15 + 15),
        ("max_pool", lambda u: F.max_pool2d(u, 2), (3, 1, 4, 6), 3 * 6 * 3),
        ("max_pool", lambda u: F.max_pool1d(u, 3, 1, 1), (1, 4), 2 * 1 + 2 * 2),
    ],
)
def test_comparisons(name: str, function: Callable[..., Any], shape: tuple[int, ...], comparisons: int) -> None:
    """What is chosen by comparing costs comparisons alone, and nothing back: it is another name of an entry."""
    sweep = _sweep(function, shape)[name]
    assert (+sweep.evaluation, +sweep.pull) == (Counter(compare=comparisons), Counter())


@pytest.mark.parametrize(("heads", "queries", "keys", "width", "values"), [(2, 3, 4, 5, 6), (1, 1, 1, 1, 1)])
def test_attention_is_two_products_a_scale_and_a_softmax(heads, queries, keys, width, values) -> None:
    """L S (2 E - 1) + L S + L (5 S - 2) + L E_v (2 S - 1) for each head."""
    shapes = (1, heads, queries, width), (1, heads, keys, width), (1, heads, keys, values)
    sweep = _sweep(F.scaled_dot_product_attention, *shapes)["scaled_dot_product_attention"]
    scores = queries * keys * (2 * width - 1) + queries * keys
    expected = scores + queries * (5 * keys - 2) + queries * values * (2 * keys - 1)
    assert sweep.evaluation.total() == heads * expected


@pytest.mark.parametrize(
    ("name", "function", "n", "leading"),
    [
        ("lu_factor", lambda a: torch.linalg.lu_factor(a)[0], 40, 2 / 3),
        ("linalg_cholesky", lambda a: torch.linalg.cholesky(_definite(a)), 40, 1 / 3),
        ("linalg_inv", torch.linalg.inv, 40, 2.0),
        ("linalg_qr", torch.linalg.qr, 40, 8 / 3),
    ],
)
def test_the_leading_terms_of_linear_algebra(name: str, function: Callable[..., Any], n: int, leading: float) -> None:
    """Coefficient of n^3, up to terms of lower order."""
    program = ns.capture(_total(function), (torch.rand(n, n, dtype=torch.float64) + n * torch.eye(n),))
    (total,) = {c.sweep.evaluation.total() for c in count_steps(program) if c.step.operation.name == name}
    assert total == pytest.approx(leading * n**3, rel=0.15)


def test_a_transform_of_n_complex_numbers_is_5_n_log2_n() -> None:
    """And its pullback the same, with an addition for both parts of each number."""
    sweep = _sweep(lambda u: torch.fft.fft(u).abs(), (3, 16))["fft_fft"]
    assert sweep.evaluation.total() == 3 * 5 * 16 * 4
    assert sweep.pull.total() == 3 * 5 * 16 * 4 + 3 * 2 * 16


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("linalg_eigh", lambda a: torch.linalg.eigh(a + a.mT)[0]),
        ("eigvalsh", lambda a: torch.linalg.eigvalsh(a + a.mT)),
        ("linalg_svd", lambda a: torch.linalg.svd(a, full_matrices=False)[1]),
        ("svdvals", torch.linalg.svdvals),
        ("linalg_pinv", torch.linalg.pinv),
        ("linalg_matrix_exp", torch.linalg.matrix_exp),
        ("linalg_eig", lambda a: torch.linalg.eigvals(a).abs()),
    ],
)
def test_what_is_elementary_as_a_whole_grows_with_the_cube(name: str, function: Callable[..., Any]) -> None:
    """Stated counts: of a stack as often as of one matrix, and eight times as much for twice the size, nearly."""
    one, two, stack = (_sweep(function, s)[name] for s in ((8, 8), (16, 16), (3, 8, 8)))
    assert stack.evaluation.total() == pytest.approx(3 * one.evaluation.total(), rel=0.01)
    assert two.evaluation.total() == pytest.approx(8 * one.evaluation.total(), rel=0.01)
    assert one.pull.total() > one.pull["add"] > 64


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_packed_sequences_of_one_length_count_as_a_plain_one(kind: str) -> None:
    """The same steps on the same rows, whichever way they are laid."""
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(2, 3, 2, bidirectional=True)
    names = [n for n, _ in layer.named_parameters()]

    def plain(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))[0]

    def packed(x, *parameters):
        sequences = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 4]))
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (sequences,))[0].data

    shapes = [(4, 2, 2), *(tuple(p.shape) for p in layer.parameters())]
    record = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[kind]
    assert _sweep(plain, *shapes)[record] == _sweep(packed, *shapes)[record]


# --- torch's own counter ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function", "shapes", "products"),
    [
        ("mm", torch.mm, [(3, 4), (4, 5)], lambda sweep: sweep.evaluation["mul"]),
        ("bmm", torch.bmm, [(2, 3, 4), (2, 4, 5)], lambda sweep: sweep.evaluation["mul"]),
        ("addmm", torch.addmm, [(5,), (3, 4), (4, 5)], lambda sweep: sweep.evaluation["mul"]),
        ("conv2d", F.conv2d, [(2, 3, 6, 6), (4, 3, 3, 2)], lambda sweep: sweep.evaluation["mul"]),
        (
            "conv2d",
            lambda u, w: F.conv2d(u, w, stride=2, groups=2),
            [(2, 4, 6, 6), (4, 2, 3, 2)],
            lambda s: s.evaluation["mul"],
        ),
        ("conv_transpose2d", F.conv_transpose2d, [(1, 2, 3, 3), (2, 3, 2, 2)], lambda sweep: sweep.evaluation["mul"]),
        (
            "scaled_dot_product_attention",
            F.scaled_dot_product_attention,
            [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)],
            lambda sweep: sweep.evaluation["mul"] - 2 * 3 * 5,  # the scale is no product of matrices
        ),
    ],
)
def test_torchs_counter_of_products_of_matrices_is_twice_ours(name, function, shapes, products) -> None:
    """torch counts a product and an addition for every term, where n terms have n - 1 additions."""
    arrays = [torch.rand(s) for s in shapes]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # which it sees as two products
        function(*arrays)
    assert counter.get_total_flops() == 2 * products(_sweep(function, *shapes)[name])


def test_torchs_counter_takes_padding_for_entries() -> None:
    """A padded convolution of torch's counter has a product for every place of the kernel, inside the image or not."""
    image, kernel = torch.rand(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    with FlopCounterMode(display=False) as counter:
        F.conv2d(image, kernel, padding=1)
    ours = _sweep(lambda u, w: F.conv2d(u, w, padding=1), (1, 1, 3, 3), (1, 1, 3, 3))["conv2d"].evaluation["mul"]
    assert (counter.get_total_flops(), 2 * ours) == (2 * 81, 2 * 49)
