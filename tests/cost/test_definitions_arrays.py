"""The scalar programs of operations on arrays: executed beside torch, and counted against what was executed.

Every call of the table is captured, its scalar program is run on real numbers, and value, gradient and the counts of both
sweeps are compared with torch's and with those that shapes give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
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


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")
@pytest.mark.parametrize(("function", "shapes"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_the_scalar_program_computes_what_torch_computes_and_runs_what_shapes_count(function, shapes) -> None:
    """Value (compared step by step), gradient, and the counts of both sweeps."""
    x, total = _points(shapes), _total(function)
    program = ns.capture(total, x)
    executed = execute(program, x)
    gradient, pulled = executed.gradient()
    leaves = tuple(t.clone().requires_grad_() for t in x)
    native = torch.autograd.grad(total(leaves), leaves, allow_unused=True)
    for found, wanted, leaf in zip(gradient, native, leaves, strict=True):
        expected = np.zeros(tuple(leaf.shape)) if wanted is None else wanted.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert +executed.tape.counts == +executed.stated.evaluation
    assert +pulled == +executed.stated.pull
