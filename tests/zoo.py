"""A zoo of models and functions of torch: each a scalar function of a point, with its data, in double precision.

It is a table, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import nonsmooth as ns

DTYPE = torch.float64

Entry = tuple[Callable[..., torch.Tensor], Any, tuple[Any, ...]]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw normal numbers without touching torch's generator."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def weighed(result: Any) -> torch.Tensor:
    """Add a result up, each entry weighed by its own number, so that nothing cancels."""
    tensors = [result] if isinstance(result, torch.Tensor) else [t for t in result if isinstance(t, torch.Tensor)]
    total = torch.zeros((), dtype=DTYPE)
    for t in tensors:
        if t.is_complex():
            t = torch.view_as_real(t.resolve_conj())
        if t.is_floating_point():
            total = total + (t * torch.cos(torch.arange(t.numel(), dtype=t.dtype)).reshape(t.shape)).sum()
    return total


def module(make: Callable[[], nn.Module], *inputs: Any, call: Callable[..., Any] | None = None) -> Entry:
    """Make an entry of a module: its parameters are the point, random but for nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().to(DTYPE)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.5)
    run = call or (lambda m, *a: m(*a))

    def step(m: nn.Module, *batch: Any) -> torch.Tensor:
        result = run(m, *batch)
        return weighed(result[0] if isinstance(result, tuple) else result)

    f, x = ns.objective(model, step=step)
    return f, x, inputs


def of(f: Callable[..., Any], *shape: int, data: tuple[Any, ...] = (), positive: bool = False) -> Entry:
    """Make an entry of a function of one tensor."""
    x = randn(*shape, seed=1)
    return (lambda x, *a: weighed(f(x, *a))), (x.abs() + 0.5 if positive else x), data


class PointNet(nn.Module):
    """Farthest point sampling, k nearest neighbours, a shared network, the largest feature: PointNet++ in small."""

    def __init__(self) -> None:
        super().__init__()
        self.local, self.head = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6)), nn.Linear(6, 2)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Classify clouds of points."""
        chosen = [torch.zeros(points.shape[0], dtype=torch.long)]
        distance = torch.full(points.shape[:2], float("inf"), dtype=points.dtype)
        for _ in range(3):
            last = points.gather(1, chosen[-1][:, None, None].expand(-1, 1, 3))
            distance = torch.minimum(distance, (points - last).square().sum(-1))
            chosen.append(distance.argmax(1))
        index = torch.stack(chosen, 1)
        centres = points.gather(1, index[..., None].expand(-1, -1, 3))
        near = torch.cdist(centres, points).topk(4, dim=-1, largest=False).indices
        batch = torch.arange(points.shape[0])[:, None, None]
        groups = points[batch, near] - centres[:, :, None]
        return self.head(self.local(groups).amax(2).amax(1))


class GroupSort(nn.Module):
    """A network whose activation sorts the units of each group."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 1)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Sort in pairs."""
        return self.second(self.first(u).reshape(-1, 3, 2).sort(-1).values.reshape(-1, 6))


def attention(mask: Any = None, causal: bool = False, grouped: bool = False) -> Entry:
    """Make an entry of fused attention."""

    def f(q: torch.Tensor) -> torch.Tensor:
        k, v = (q[:, :2], q[:, :2].sin()) if grouped else (q.cos(), q.sin())
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)

    return of(f, 2, 4, 3, 5)


def penalty(make: Callable[[], nn.Module], *shape: int) -> Entry:
    """Make an entry whose loss holds the norm of the gradient with respect to the input."""

    def call(m: nn.Module, u: torch.Tensor) -> torch.Tensor:
        u = u.detach().requires_grad_()
        (g,) = torch.autograd.grad(m(u).square().sum(), u, create_graph=True)
        return g.square().sum().reshape(1)

    return module(make, randn(*shape), call=call)


def packed(m: nn.Module, u: torch.Tensor) -> torch.Tensor:
    """Run a recurrent layer on sequences of two lengths."""
    sequences = nn.utils.rnn.pack_padded_sequence(u, torch.tensor([5, 3]), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(m(sequences)[0], batch_first=True)[0]


def encoder() -> nn.Module:
    """Make one layer of a transformer."""
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1, enable_nested_tensor=False
    )


CAUSAL = torch.triu(torch.full((3, 3), -float("inf"), dtype=DTYPE), 1)
PADDING = torch.tensor([[False, False, True]] * 2)
TOKENS, IMAGE, SEQUENCE = randn(2, 3, 8), randn(2, 2, 6, 6), randn(2, 5, 3)
LABELS = torch.tensor([1, 0, 2])

NETWORKS: dict[str, Callable[[], Entry]] = {
    "encoder": lambda: module(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2, enable_nested_tensor=False
        ),
        TOKENS,
    ),
    "encoder, gelu, norm first": lambda: module(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True), TOKENS
    ),
    "decoder": lambda: module(
        lambda: nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), TOKENS, TOKENS.flip(1)
    ),
    "transformer": lambda: module(
        lambda: nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True), TOKENS, TOKENS.flip(1)
    ),
    "attention with weights": lambda: module(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True), TOKENS, call=lambda m, t: m(t, t, t, need_weights=True)
    ),
    "attention without weights": lambda: module(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True), TOKENS, call=lambda m, t: m(t, t, t, need_weights=False)
    ),
    "attention, padded": lambda: module(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        TOKENS,
        call=lambda m, t: m(t, t, t, key_padding_mask=torch.tensor([[False, False, True]] * 2)),
    ),
    "attention, masked": lambda: module(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        TOKENS,
        call=lambda m, t: m(t, t, t, attn_mask=torch.triu(torch.ones(3, 3), 1).bool()),
    ),
    "fused attention": attention,
    "fused attention, causal": lambda: attention(causal=True),
    "fused attention, float mask": lambda: attention(mask=randn(3, 3)),
    "fused attention, boolean mask": lambda: attention(mask=torch.tril(torch.ones(3, 3)).bool()),
    "fused attention, grouped queries": lambda: attention(grouped=True),
    "lstm": lambda: module(lambda: nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), SEQUENCE),
    "gru": lambda: module(lambda: nn.GRU(3, 4, batch_first=True), SEQUENCE),
    "rnn relu": lambda: module(lambda: nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True), SEQUENCE),
    "rnn tanh": lambda: module(lambda: nn.RNN(3, 4, batch_first=True), SEQUENCE),
    "cells": lambda: module(
        lambda: nn.ModuleList([nn.LSTMCell(3, 4), nn.GRUCell(4, 4), nn.RNNCell(4, 4, nonlinearity="relu")]),
        SEQUENCE[:, 0],
        call=lambda m, u: m[2](m[1](m[0](u)[0])),
    ),
    "convolutions": lambda: module(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 3, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        IMAGE,
    ),
    "convolutions, strided": lambda: module(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, padding_mode="reflect"),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(4, 2, 3, stride=2),
        ),
        IMAGE,
    ),
    "convolutions, 1 and 3 axes": lambda: module(
        lambda: nn.Sequential(
            nn.Conv1d(2, 3, 3), nn.Unflatten(2, (2, 2, 1)), nn.Conv3d(3, 2, 1), nn.AvgPool3d((1, 2, 1))
        ),
        randn(2, 2, 6),
    ),
    "batch norm, training": lambda: module(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True)), IMAGE
    ),
    "batch norm, evaluation": lambda: module(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval(), IMAGE
    ),
    "group, instance and layer norm": lambda: module(
        lambda: nn.Sequential(
            nn.GroupNorm(1, 2), nn.InstanceNorm2d(2, affine=True), nn.LayerNorm(6), nn.LocalResponseNorm(2)
        ),
        IMAGE,
    ),
    "rms norm": lambda: module(lambda: nn.RMSNorm(8), TOKENS),
    "weight norm": lambda: module(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), SEQUENCE),
    "embedding bags": lambda: module(
        lambda: nn.ModuleList([nn.EmbeddingBag(6, 3, mode=m) for m in ("sum", "mean", "max")]),
        torch.tensor([[0, 1, 2], [3, 4, 5]]),
        call=lambda m, i: sum(b(i) for b in m),
    ),
    "embedding": lambda: module(lambda: nn.Embedding(6, 3), torch.tensor([[0, 1, 2], [3, 4, 5]])),
    "group sort": lambda: module(GroupSort, randn(3, 4)),
    "points": lambda: module(PointNet, randn(2, 8, 3)),
    "activations": lambda: module(
        lambda: nn.Sequential(
            nn.Linear(3, 4),
            nn.ELU(),
            nn.SELU(),
            nn.CELU(),
            nn.GELU(),
            nn.SiLU(),
            nn.Mish(),
            nn.Softplus(),
            nn.Hardswish(),
            nn.Hardtanh(),
            nn.PReLU(),
            nn.Softshrink(0.1),
            nn.Hardsigmoid(),
            nn.ReLU6(),
            nn.Softsign(),
            nn.Tanhshrink(),
            nn.LogSigmoid(),
            nn.GLU(),
        ),
        SEQUENCE,
    ),
    "encoder, padded": lambda: module(encoder, TOKENS, call=lambda m, t: m(t, src_key_padding_mask=PADDING)),
    "encoder, causal": lambda: module(encoder, TOKENS, call=lambda m, t: m(t, mask=CAUSAL, is_causal=True)),
    "encoder, evaluation": lambda: module(lambda: encoder().eval(), TOKENS),
    "transformer, masked": lambda: module(
        lambda: nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True),
        TOKENS,
        TOKENS.flip(1),
        call=lambda m, a, b: m(a, b, tgt_mask=CAUSAL, src_key_padding_mask=PADDING),
    ),
    "attention with bias and zeros": lambda: module(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True),
        TOKENS,
        call=lambda m, t: m(t, t, t),
    ),
    **{
        f"{name}, {way}": (
            lambda kind=kind, options=options, call=call: module(
                lambda: kind(3, 4, 2, batch_first=True, bidirectional=True, **options), SEQUENCE, call=call
            )
        )
        for name, kind, options in (
            ("lstm", nn.LSTM, {}),
            ("gru", nn.GRU, {}),
            ("rnn tanh", nn.RNN, {}),
            ("rnn relu", nn.RNN, {"nonlinearity": "relu"}),
        )
        for way, call in (("both ways", None), ("packed", packed))
    },  # type: ignore[misc]
    "lstm with projection": lambda: module(lambda: nn.LSTM(3, 4, proj_size=2), SEQUENCE),
    "spectral norm, evaluation": lambda: module(
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).eval(), SEQUENCE
    ),
    **{
        f"penalty through {name}": (lambda make=make, shape=shape: penalty(make, *shape))
        for name, (make, *shape) in {
            "relu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), 2, 3),
            "layer norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1)), 2, 3),
            "layer norm without weights": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, 0.1, False)), 2, 3),
            "rms norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4), nn.Tanh(), nn.Linear(4, 1)), 2, 3),
            "group norm": (lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.Tanh()), 2, 1, 4, 4),
            "instance norm": (
                lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.InstanceNorm2d(4, affine=True), nn.Tanh()),
                *(2, 1, 4, 4),
            ),
            "batch norm": (lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Tanh()), 2, 1, 4, 4),
            "batch norm, evaluation": (
                lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Tanh()).eval(),
                *(2, 1, 4, 4),
            ),
            "activations": (
                lambda: nn.Sequential(
                    nn.Linear(3, 4),
                    nn.GELU(),
                    nn.SiLU(),
                    nn.Softplus(),
                    nn.ELU(),
                    nn.Mish(),
                    nn.LogSigmoid(),
                    nn.Linear(4, 1),
                ),
                *(2, 3),
            ),
            "kinked activations": (
                lambda: nn.Sequential(
                    nn.Linear(3, 4),
                    nn.LeakyReLU(),
                    nn.PReLU(),
                    nn.Hardtanh(),
                    nn.Hardswish(),
                    nn.SELU(),
                    nn.CELU(),
                    nn.Softmax(-1),
                    nn.LogSoftmax(-1),
                    nn.GLU(),
                    nn.Softshrink(0.01),
                ),
                *(2, 3),
            ),
            "transposed convolution": (
                lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(2)),
                *(2, 1, 3, 3),
            ),
            "convolution on a line": (
                lambda: nn.Sequential(nn.Conv1d(1, 2, 2), nn.Tanh(), nn.AvgPool1d(2), nn.MaxPool1d(2)),
                *(2, 1, 9),
            ),
            "convolution in space": (
                lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Tanh(), nn.AvgPool3d((2, 1, 1)), nn.MaxPool3d((2, 1, 1))),
                *(1, 1, 5, 3, 3),
            ),
            "upsampling": (
                lambda: nn.Sequential(
                    nn.Conv2d(1, 2, 2),
                    nn.Tanh(),
                    nn.Upsample(scale_factor=2, mode="bilinear"),
                    nn.Upsample(scale_factor=2),
                    nn.ReplicationPad2d(1),
                ),
                *(1, 1, 3, 3),
            ),
            "adaptive pooling": (lambda: nn.Sequential(nn.Linear(3, 4), nn.AdaptiveMaxPool1d(2)), 2, 3),
            "in-place relu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Softplus()), 2, 3),
        }.items()
    },  # type: ignore[misc]
    "penalty through linear": lambda: penalty(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), 2, 3),
    "penalty through convolution": lambda: penalty(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 1)), 2, 1, 5, 5
    ),
    "penalty through pooling": lambda: penalty(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)), 2, 1, 5, 5
    ),
}
"""Networks, whose point is their parameters."""

NODES = torch.tensor([0, 2, 0, 1])
VOLUME, WEIGHTS = randn(1, 2, 2, 2, 3, seed=3).tanh(), torch.tensor([0.5, 1.5, 0.7], dtype=DTYPE)
ONES, RIGHT = torch.ones(4, dtype=DTYPE), torch.ones(3, 1, dtype=DTYPE)
GRID, BILINEAR, PROBABILITIES = randn(1, 3, 3, 2, seed=9).tanh(), randn(2, 3, 3), randn(3, 3, seed=5).sigmoid()

FUNCTIONS: dict[str, Callable[[], Entry]] = {
    **{
        f"vector norm {p}": (lambda p=p: of(lambda x: torch.linalg.vector_norm(x, p), 4))
        for p in (0.5, 1, 2, 3, float("inf"))
    },  # type: ignore[misc]
    **{
        f"matrix norm {p}": (lambda p=p: of(lambda x: torch.linalg.matrix_norm(x, p), 3, 2))
        for p in ("fro", "nuc", 2, -2, 1, -1, float("inf"))
    },  # type: ignore[misc]
    "eigvalsh": lambda: of(lambda x: torch.linalg.eigvalsh(x + x.mT), 2, 3, 3),
    "eigh": lambda: of(lambda x: torch.linalg.eigh(x + x.T).eigenvectors.abs(), 3, 3),
    "svdvals": lambda: of(torch.linalg.svdvals, 3, 2),
    "svd": lambda: of(lambda x: torch.linalg.svd(x, full_matrices=False).U.abs(), 3, 2),
    "determinants": lambda: of(lambda x: (torch.linalg.det(x), torch.linalg.slogdet(x).logabsdet), 3, 3),
    "solvers": lambda: of(
        lambda x: (torch.linalg.inv(x), torch.linalg.solve(x, torch.ones(3, dtype=DTYPE)), torch.linalg.pinv(x)), 3, 3
    ),
    "cholesky": lambda: of(lambda x: torch.linalg.cholesky(x @ x.T + torch.eye(3, dtype=DTYPE)), 3, 3),
    "qr": lambda: of(lambda x: torch.linalg.qr(x).R, 3, 3),
    "order": lambda: of(
        lambda x: (
            x.sort(descending=True).values,
            x.topk(3).values,
            x.kthvalue(2).values,
            x.median(),
            x.median(0).values,
            x.nanmedian(),
        ),
        4,
        5,
    ),
    "quantiles": lambda: of(
        lambda x: (x.quantile(0.3), x.nanquantile(torch.tensor([0.1, 0.8], dtype=DTYPE), dim=1)), 4, 5
    ),
    "cumulative": lambda: of(
        lambda x: (x.cummax(0).values, x.cummin(1).values, x.logcumsumexp(0), x.cumsum(0), x.cumprod(1)), 4, 5
    ),
    "extrema": lambda: of(
        lambda x: (
            x.max(),
            x.min(0).values,
            x.amax((0, 1)),
            x.aminmax(dim=0),
            torch.maximum(x, x.T),
            torch.fmin(x, 2 * x.T),
        ),
        4,
        4,
    ),
    "distances": lambda: of(
        lambda x: (
            torch.cdist(x, x.flip(0) + 1),
            F.pdist(x),
            torch.cdist(x, 2 * x, p=1),
            F.pairwise_distance(x, x.flip(0) + 1),
            F.cosine_similarity(x, x.flip(0)),
        ),
        4,
        3,
    ),
    **{
        f"scatter_reduce {r} {s}": (
            lambda r=r, s=s: of(
                lambda x: torch.full((3,), 0.1, dtype=DTYPE).scatter_reduce(
                    0, torch.tensor([0, 1, 0, 2, 1]), x, r, include_self=s
                ),
                5,
                positive=True,
            )
        )
        for r in ("sum", "mean", "prod", "amax", "amin")
        for s in (True, False)
    },  # type: ignore[misc]
    "index operations": lambda: of(
        lambda x: (
            x.index_add(0, torch.tensor([0, 2]), x[:2]),
            x.index_fill(0, torch.tensor([1]), 0.0),
            x.gather(1, torch.tensor([[0], [2], [1]])),
            x.masked_fill(torch.eye(3).bool(), 0.0),
            x.take(torch.tensor([0, 5])),
            x.roll(1),
            x.tril(),
            x.diag(),
        ),
        3,
        3,
    ),
    **{
        f"grid_sample {m} {p}": (
            lambda m=m, p=p: of(
                lambda x: F.grid_sample(x, GRID, mode=m, padding_mode=p, align_corners=False), 1, 2, 4, 4
            )
        )
        for m in ("bilinear", "nearest", "bicubic")
        for p in ("zeros", "border", "reflection")
    },  # type: ignore[misc]
    "grid_sample, moving": lambda: of(
        lambda x: F.grid_sample(
            IMAGE[:1, :1], F.affine_grid(x.reshape(1, 2, 3), [1, 1, 3, 3], align_corners=False), align_corners=False
        ),
        6,
    ),
    **{
        f"interpolate {m}": (lambda m=m, d=d: of(lambda x: F.interpolate(x, scale_factor=2, mode=m), 1, 2, *(3,) * d))
        for m, d in (
            ("nearest", 2),
            ("linear", 1),
            ("bilinear", 2),
            ("bicubic", 2),
            ("trilinear", 3),
            ("area", 2),
            ("nearest-exact", 2),
        )
    },  # type: ignore[misc]
    "folding": lambda: of(
        lambda x: (
            F.unfold(x, 2),
            F.fold(F.unfold(x, 2), (4, 4), 2),
            F.pixel_shuffle(x, 2),
            F.pad(x, (1, 1, 1, 1), mode="replicate"),
        ),
        1,
        4,
        4,
        4,
    ),
    "pooling": lambda: of(
        lambda x: (
            F.max_pool2d(x, 3, 2, 1),
            F.adaptive_max_pool2d(x, 2),
            F.avg_pool2d(x, 2),
            F.lp_pool2d(x, 2.0, 2),
            F.max_pool1d(x[0], 2),
        ),
        1,
        2,
        5,
        5,
    ),
    "ctc": lambda: of(
        lambda x: F.ctc_loss(
            x.log_softmax(-1), torch.tensor([[1, 2], [2, 1]]), torch.tensor([5, 4]), torch.tensor([2, 2])
        ),
        5,
        2,
        4,
    ),
    "margins": lambda: of(
        lambda x: (
            F.multi_margin_loss(x, LABELS),
            F.multilabel_margin_loss(x, torch.tensor([[0, 2, -1]] * 3)),
            F.triplet_margin_loss(x, x.flip(0) + 1, x.flip(1)),
            F.hinge_embedding_loss(x, torch.tensor([[1.0, -1, 1]] * 3)),
            F.cosine_embedding_loss(x, x.flip(0), torch.tensor([1.0, -1, 1])),
            F.margin_ranking_loss(x[0], x[1], torch.ones(3)),
            F.soft_margin_loss(x, torch.ones(3, 3)),
            F.multilabel_soft_margin_loss(x, torch.ones(3, 3)),
        ),
        3,
        3,
    ),
    "losses": lambda: of(
        lambda x: (
            F.cross_entropy(x, LABELS, label_smoothing=0.1),
            F.l1_loss(x, x.T),
            F.huber_loss(x, 2 * x),
            F.smooth_l1_loss(x, x.T),
            F.kl_div(x.log_softmax(1), x.T.softmax(1), reduction="batchmean"),
            F.gaussian_nll_loss(x, x.T, x.square() + 1),
            F.poisson_nll_loss(x, x.square()),
            F.binary_cross_entropy(x.sigmoid(), PROBABILITIES),
            F.binary_cross_entropy_with_logits(x, PROBABILITIES),
            F.nll_loss(x.log_softmax(1), LABELS),
        ),
        3,
        3,
    ),
    "fourier": lambda: of(
        lambda x: (
            torch.fft.fft(x),
            torch.fft.rfft(x),
            torch.fft.irfft(torch.fft.rfft(x)),
            torch.fft.fft2(x),
            torch.fft.ifftn(x),
            torch.fft.hfft(x),
            torch.fft.ihfft(x),
            torch.fft.rfftn(x),
            torch.fft.fftshift(x),
            torch.stft(x.reshape(-1), 4, return_complex=True, window=torch.ones(4, dtype=DTYPE)),
        ),
        4,
        4,
    ),
    "complex": lambda: of(
        lambda x: (
            torch.complex(x, x.T).abs(),
            torch.polar(x.square() + 1, x),
            torch.complex(x, x.T).angle(),
            torch.complex(x, x.T).prod(),
        ),
        3,
        3,
    ),
    "products": lambda: of(
        lambda x: (
            torch.einsum("ij,jk,kl->il", x, x.T, x),
            torch.kron(x, x),
            torch.linalg.matrix_exp(x),
            torch.linalg.multi_dot([x, x, x]),
            torch.baddbmm(x[None], x[None], x[None]),
            F.bilinear(x, x, BILINEAR),
        ),
        3,
        3,
    ),
    "mode": lambda: of(lambda x: (x.mode().values, x.mode(0).values), 3, 4),
    **{
        f"index_reduce {r} {s}": (
            lambda r=r, s=s: of(
                lambda x: (
                    torch.full((3,), 0.1, dtype=DTYPE).index_reduce(0, NODES, x[:, 0], r, include_self=s),
                    x.index_reduce(0, NODES[:2], x[:2].cos(), r, include_self=s),
                ),
                4,
                2,
                positive=True,
            )
        )
        for r in ("prod", "mean", "amax", "amin")
        for s in (True, False)
    },  # type: ignore[misc]
    "segment_reduce": lambda: of(
        lambda x: tuple(
            torch.segment_reduce(x, r, lengths=torch.tensor([2, 1, 3])) for r in ("sum", "mean", "max", "min", "prod")
        ),
        6,
        2,
    ),
    "logdet": lambda: of(lambda x: torch.logdet(x @ x.T + torch.eye(3, dtype=DTYPE)), 3, 3),
    "least squares": lambda: of(
        lambda x: (
            torch.linalg.pinv(x),
            torch.linalg.lstsq(x, ONES[:, None]).solution,
            x * torch.linalg.matrix_rank(x),
        ),
        4,
        3,
    ),
    "square svd": lambda: of(lambda x: (torch.linalg.svd(x).S, torch.linalg.svd(x).Vh.abs()), 3, 3),
    "complex spectra": lambda: of(
        lambda x: (
            torch.linalg.svdvals(torch.complex(x, x.T + 1)),
            torch.linalg.eigvalsh(torch.complex(x + x.T, x - x.T)),
        ),
        3,
        3,
    ),
    "eigenvalues": lambda: of(lambda x: torch.linalg.eigvals(x).abs().sum(), 3, 3),
    "lu": lambda: of(lambda x: torch.linalg.lu(x)[1:], 3, 3),
    "lu_solve": lambda: of(lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(x), RIGHT), 3, 3),
    "triangular solvers": lambda: of(
        lambda x: (
            torch.cholesky_solve(RIGHT, torch.linalg.cholesky(x @ x.T + torch.eye(3, dtype=DTYPE))),
            torch.linalg.solve_triangular(x.tril(), RIGHT, upper=False),
        ),
        3,
        3,
    ),
    "tensors as matrices": lambda: of(
        lambda x: (
            torch.linalg.tensorinv(x.reshape(2, 2, 4), 2),
            torch.linalg.matrix_power(x, 3),
            torch.linalg.matrix_power(x, -1),
            torch.linalg.vander(x[0]),
            torch.linalg.vecdot(x, x.T),
        ),
        4,
        4,
    ),
    "fourier, inverse and hermitian": lambda: of(
        lambda x: (
            torch.fft.ifft(x),
            torch.fft.ifft2(x),
            torch.fft.fftn(x),
            torch.fft.rfft2(x),
            torch.fft.irfft2(torch.fft.rfft2(x)),
            torch.fft.irfftn(torch.fft.rfftn(x)),
            torch.fft.hfft2(x),
            torch.fft.ihfft2(x),
            torch.fft.hfftn(x),
            torch.fft.ihfftn(x),
            torch.fft.ifftshift(x),
            torch.fft.fft(torch.fft.fft(x), norm="ortho"),
        ),
        4,
        4,
    ),
    "fourier, in windows": lambda: of(
        lambda x: torch.istft(torch.stft(x, 4, return_complex=True, window=ONES), 4, window=ONES), 16
    ),
    "conjugate of what was written": lambda: of(
        lambda x: torch.zeros(3, 3, dtype=torch.complex128).add_(torch.complex(x, x.T)).conj() * torch.complex(x, x),
        3,
        3,
    ),
    "complex arithmetic": lambda: of(
        lambda x: (
            torch.complex(x, x.T) * torch.complex(x.sin(), x) / torch.complex(x, x + 3),
            torch.complex(x, x.T).exp(),
            torch.complex(x, x.T).log(),
            torch.complex(x, x.T).sqrt(),
            torch.complex(x, x.T) @ torch.complex(x, x),
            torch.complex(x, x.T).conj().real,
            torch.complex(x, x.T).pow(2),
            torch.linalg.solve(torch.complex(x, x.T), RIGHT.to(torch.complex128)),
            torch.complex(x, x.T).sgn(),
        ),
        3,
        3,
    ),
    "grid_sample in space": lambda: of(lambda x: F.grid_sample(x, VOLUME, align_corners=True), 1, 1, 3, 3, 3),
    **{
        f"grid_sample, moving, {m} {p}": (
            lambda m=m, p=p: of(
                lambda x: F.grid_sample(IMAGE[:1, :1], x[None].tanh(), mode=m, padding_mode=p, align_corners=False),
                3,
                3,
                2,
            )
        )
        for m in ("bilinear", "bicubic")
        for p in ("zeros", "border", "reflection")
    },  # type: ignore[misc]
    "interpolate, aligned and antialiased": lambda: of(
        lambda x: (
            F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
            F.interpolate(x, size=(2, 2), mode="bicubic", antialias=True),
            F.interpolate(x, size=(2, 2), mode="bilinear", antialias=True),
        ),
        1,
        2,
        4,
        4,
    ),
    "losses with options": lambda: of(
        lambda x: (
            F.multi_margin_loss(x, LABELS, p=2, weight=WEIGHTS),
            F.triplet_margin_with_distance_loss(x, x.flip(0) + 1, x.flip(1)),
            F.triplet_margin_loss(x, x.flip(0) + 1, x.flip(1), swap=True),
            F.nll_loss(x.log_softmax(1)[None], LABELS[None]),
            F.cross_entropy(x, PROBABILITIES),
            F.cross_entropy(x, LABELS, ignore_index=2, weight=WEIGHTS),
            F.mse_loss(x, x.T),
            F.kl_div(x.log_softmax(1), PROBABILITIES.log(), log_target=True, reduction="sum"),
            F.poisson_nll_loss(x, x.square(), full=True),
            F.gaussian_nll_loss(x, x.T, x.square() + 1, full=True),
            F.huber_loss(x, 2 * x, delta=0.3, reduction="none"),
            F.smooth_l1_loss(x, 2 * x, beta=0.0),
        ),
        3,
        3,
    ),
    "pieces": lambda: of(
        lambda x: (
            x.cov(),
            torch.trapezoid(x),
            torch.cumulative_trapezoid(x),
            torch.gradient(x)[0],
            torch.diff(x),
            torch.block_diag(x, x),
            torch.cartesian_prod(x[0], x[1]),
            torch.combinations(x[0]),
            torch.tensordot(x, x, 1),
            torch.cross(x, x.T, dim=1),
            x.unfold(0, 2, 1),
            torch.cdist(x[None], x.T[None], p=3),
            x.nanmean(),
            x.addcdiv(x, x.square() + 1),
            torch.lerp(x, x.T, 0.3),
            x.frac(),
            torch.frexp(x).mantissa,
            torch.special.i0(x),
        ),
        3,
        3,
    ),
    "writing": lambda: of(
        lambda x: (
            x.masked_select(x > 0),
            x.index_put((torch.tensor([0, 1]),), x[2]),
            torch.where(x > 0, x, x * 2),
            x.clamp(min=x.T - 1),
            x.put(torch.tensor([1]), x[0, :1]),
            x.index_copy(0, torch.tensor([0]), x[1:2]),
            x.scatter(0, torch.tensor([[0, 1, 2]]), x[:1]),
            torch.stack([x, x + 1]).amin((0, 1)),
            x.repeat_interleave(2, 0),
            torch.take_along_dim(x, torch.tensor([[0], [1], [2]]), 1),
            x.select_scatter(x[0], 0, 1),
        ),
        3,
        3,
    ),
    "more pooling": lambda: of(
        lambda x: (
            F.lp_pool1d(x[0].abs(), 3.0, 2),
            F.adaptive_avg_pool3d(x[:, None], 2),
            F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
            F.adaptive_max_pool1d(x[0], 2),
            F.max_pool3d(x[:, None], 2),
            F.avg_pool1d(x[0], 2),
        ),
        1,
        2,
        4,
        4,
    ),
    "bags": lambda: of(
        lambda x: (
            F.embedding_bag(NODES, x, torch.tensor([0, 2]), mode="sum", per_sample_weights=ONES.cumsum(0)),
            F.embedding_bag(torch.tensor([0, 1, 2, 1]), x, torch.tensor([0, 2]), mode="mean"),
            F.embedding_bag(NODES, x, torch.tensor([0, 2]), mode="max"),
        ),
        3,
        2,
    ),
    "elementary": lambda: of(
        lambda x: (
            x.exp(),
            x.log(),
            x.sqrt(),
            x.rsqrt(),
            x.pow(2.5),
            x.sin(),
            x.tan(),
            x.atan2(x.flip(0) + 1),
            x.erf(),
            x.lgamma(),
            x.digamma(),
            x.sigmoid(),
            x.logit(0.01),
            x.hypot(x.flip(0)),
            x.clamp(0.6, 1.0),
            x.xlogy(x.flip(0)),
            x.sinc(),
            x.std(),
            x.var(),
            x.logsumexp(0),
            x.softmax(0),
            x.renorm(2, 0, 0.5),
        ),
        4,
        1,
        positive=True,
    ),
}
"""Functions of one tensor."""

ZOO = {**NETWORKS, **FUNCTIONS}


def bert() -> Entry:
    """Build a small BERT with random weights."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    tokens, mask = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    call = lambda m, t, a: m(input_ids=t, attention_mask=a).last_hidden_state  # noqa: E731
    return module(lambda: BertModel(config), tokens, mask, call=call)


def gpt2() -> Entry:
    """Build a small GPT-2 with random weights and its own loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=20,
        bos_token_id=1,
        eos_token_id=1,
        n_positions=8,
        n_embd=8,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    tokens = torch.tensor([[1, 2, 3, 4, 5], [5, 6, 7, 8, 9]])
    return module(lambda: GPT2LMHeadModel(config), tokens, call=lambda m, t: m(input_ids=t, labels=t).loss.reshape(1))


HUGGING_FACE: dict[str, Callable[[], Entry]] = {"bert": bert, "gpt2": gpt2}
"""Models of the transformers package."""
