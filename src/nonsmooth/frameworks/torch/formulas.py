"""Formulas for operators that torch cannot take apart itself, with torch's own slopes at their kinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["FORMULAS"]


def _reduce(loss: torch.Tensor, reduction: int) -> torch.Tensor:
    """Reduce a loss per sample: 0 none, 1 mean, 2 sum."""
    return loss if reduction == 0 else loss.mean() if reduction == 1 else loss.sum()


def multi_margin_loss(
    self: torch.Tensor, target: torch.Tensor, p: float, margin: float, weight: torch.Tensor | None, reduction: int
) -> torch.Tensor:
    """Give sum_{j != y} max(0, margin - u_y + u_j)^p / n, torch's slope at the hinge being 0."""
    u = self if self.dim() == 2 else self.reshape(1, -1)
    y = target.reshape(-1, 1)
    hinge = torch.relu(margin - u.gather(1, y) + u)
    others = torch.ones_like(u).scatter(1, y, 0.0)
    terms = hinge * others if p == 1 else hinge * hinge * others
    if weight is not None:
        terms = terms * weight[y]
    loss = _reduce(terms.sum(1) / u.shape[1], reduction)
    return loss.reshape(()) if self.dim() < 2 else loss


def multilabel_margin_loss(self: torch.Tensor, target: torch.Tensor, reduction: int, **unused: Any) -> torch.Tensor:
    """Give sum_{i in labels, j not} max(0, 1 - u_i + u_j) / n; labels end at the first -1."""
    del unused
    u, y = (self, target) if self.dim() == 2 else (self.reshape(1, -1), target.reshape(1, -1))
    valid = (y < 0).cumsum(1) == 0
    index = torch.where(valid, y, 0)
    marks = torch.zeros_like(u).scatter_add(1, index, valid.to(u.dtype))
    hinge = torch.relu(1 - u.gather(1, index).unsqueeze(2) + u.unsqueeze(1))
    mask = valid.to(u.dtype).unsqueeze(2) * (marks == 0).to(u.dtype).unsqueeze(1)
    loss = _reduce((hinge * mask).sum((1, 2)) / u.shape[1], reduction)
    return loss.reshape(()) if self.dim() < 2 else loss


def aminmax(self: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Give the smallest and the largest entry."""
    axes: Any = [] if dim is None else dim
    return torch.return_types.aminmax((torch.amin(self, axes, keepdim), torch.amax(self, axes, keepdim)))


def std_mean(
    self: torch.Tensor, dim: Any = None, unbiased: bool = True, correction: Any = None, keepdim: bool = False
) -> Any:
    """Give the standard deviation and the mean."""
    correction = float(unbiased) if correction is None else correction
    mean = self.mean() if dim is None else self.mean(dim, keepdim)
    return torch.std(self, dim, correction=correction, keepdim=keepdim), mean


def var_mean(
    self: torch.Tensor, dim: Any = None, unbiased: bool = True, correction: Any = None, keepdim: bool = False
) -> Any:
    """Give the variance and the mean."""
    correction = float(unbiased) if correction is None else correction
    mean = self.mean() if dim is None else self.mean(dim, keepdim)
    return torch.var(self, dim, correction=correction, keepdim=keepdim), mean


def smooth_l1_loss(self: torch.Tensor, target: torch.Tensor, reduction: int, beta: float) -> torch.Tensor:
    """Give |u - t|, which is what is left of the loss at beta = 0."""
    del beta
    return _reduce((self - target).abs(), reduction)


def native_dropout(input: torch.Tensor, p: float, train: bool | None) -> Any:
    """Give the masked and scaled input, and the mask."""
    keep = torch.ones_like(input, dtype=torch.bool) if train is False else torch.empty_like(input).bernoulli_(1 - p) > 0
    return input * keep / (1 - p if p < 1 else 1), keep


def nanmedian(self: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Give the median; the point is finite, so that there is no nan to ignore."""
    return torch.median(self) if dim is None else torch.median(self, dim, keepdim)


def lowest_norm(self: torch.Tensor, dim: Any = None, keepdim: bool = False, **unused: Any) -> torch.Tensor:
    """Give the smallest |entry|, the norm with p = -inf."""
    del unused
    return torch.amin(self.abs(), [] if dim is None else dim, keepdim)


def _starts(samples: torch.Tensor, size: int, kernel: int, count: int) -> torch.Tensor:
    """Give where the fractional windows begin along one axis."""
    step = (size - kernel) / (count - 1) if count > 1 else 0.0
    places = torch.arange(count, dtype=samples.dtype, device=samples.device)
    starts = ((places + samples[..., None]) * step).floor() - (samples[..., None] * step).floor()
    return torch.where(places == count - 1, float(size - kernel), starts).long()


def fractional_max_pool(self: torch.Tensor, kernel_size: Any, output_size: Any, random_samples: torch.Tensor) -> Any:
    """Give the largest entry of every fractional window, and its index in the flattened image."""
    d = len(output_size)
    x = self if self.dim() == d + 2 else self[None]
    samples = random_samples.reshape(x.shape[0], x.shape[1], -1)
    index = torch.zeros((*x.shape[:2], *(1,) * (2 * d)), dtype=torch.long, device=x.device)
    for axis in range(d):
        sample = samples[..., d - 1 - axis]
        starts = _starts(sample, x.shape[2 + axis], kernel_size[axis], output_size[axis])
        place = starts[..., None] + torch.arange(kernel_size[axis], device=x.device)
        shape = [*x.shape[:2], *(1,) * (2 * d)]
        shape[2 + axis], shape[2 + d + axis] = output_size[axis], kernel_size[axis]
        index = index * x.shape[2 + axis] + place.reshape(shape)
    index = index.reshape((*x.shape[:2], *output_size, -1))
    windows = x.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)
    pooled, places = windows.max(-1)
    indices = index.gather(-1, places[..., None])[..., 0]
    return (pooled, indices) if self.dim() == d + 2 else (pooled[0], indices[0])


def copysign(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Give |u| times the sign of b, which jumps at b = 0."""
    return self.abs() * torch.copysign(torch.ones_like(other), other)


def scatter_reduce(
    self: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor, reduce: str, include_self: bool = True
) -> Any:
    """Give the largest (or smallest) of the entries that are sent to each place, which share a tie evenly."""
    dim = dim % max(self.dim(), 1)
    rest = [n for axis, n in enumerate(self.shape) if axis != dim]
    if not self.dim() or rest != [n for axis, n in enumerate(index.shape) if axis != dim]:
        return NotImplemented
    src = src[tuple(slice(n) for n in index.shape)].movedim(dim, -1)
    places = torch.arange(self.shape[dim], device=index.device)
    sent = index.movedim(dim, -1).unsqueeze(-2) == places[:, None]
    outside = -float("inf") if reduce == "amax" else float("inf")
    own = self.movedim(dim, -1)
    keep = torch.full_like(sent[..., 0], True) if include_self else ~sent.any(-1)
    candidates = torch.cat(
        [torch.where(keep, own, outside)[..., None], torch.where(sent, src.unsqueeze(-2), outside)], -1
    )
    return (candidates.amax(-1) if reduce == "amax" else candidates.amin(-1)).movedim(-1, dim)


def renorm(self: torch.Tensor, p: float, dim: int, maxnorm: float) -> torch.Tensor:
    """Give every slice along an axis, scaled down to the norm `maxnorm` where it is longer."""
    axes = [a for a in range(self.dim()) if a != dim % self.dim()]
    norm = torch.linalg.vector_norm(self, p, axes, keepdim=True)
    return self * torch.where(norm > maxnorm, maxnorm / (norm + 1e-7), 1.0)


def embedding_bag(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    mode: int = 0,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
    **unused: Any,
) -> Any:
    """Give the sum (mode 0), the mean (1) or the largest entries (2) of the rows of every bag, 0 for an empty bag."""
    del unused
    starts = offsets[:-1] if include_last_offset else offsets
    bag = torch.searchsorted(starts, torch.arange(indices.shape[0], device=indices.device), right=True) - 1
    real = indices != padding_idx
    rows, bag = weight[indices[real]], bag[real][:, None].expand(-1, weight.shape[1])
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[real][:, None]
    empty = weight.new_zeros((starts.shape[0], weight.shape[1]))
    sizes = torch.bincount(bag[:, 0], minlength=starts.shape[0])
    if mode == 2:
        result = torch.scatter_reduce(empty, 0, bag, rows, "amax", include_self=False)
    else:
        result = empty.scatter_add(0, bag, rows)
        result = result / sizes.clamp(min=1).to(result.dtype)[:, None] if mode == 1 else result
    return result, bag[:, 0], sizes, bag


def nanmean(
    self: torch.Tensor, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Give the sum of the entries that are numbers over their count, which torch finds by comparing entries with themselves."""
    total = torch.nansum(self, dim, keepdim, dtype=dtype)
    return total / torch.isnan(self).logical_not().sum(dim, keepdim)


def rms_norm(
    input: torch.Tensor, normalized_shape: Any, weight: torch.Tensor | None = None, eps: float | None = None
) -> torch.Tensor:
    """Give w u / sqrt(mean(u^2) + eps), its parts in sight of a gradient inside the function."""
    axes = list(range(input.dim() - len(normalized_shape), input.dim()))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    unit = input * (input.square().mean(axes, True) + eps).rsqrt()
    return unit if weight is None else unit * weight


def index_reduce(
    self: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, include_self: bool = True
) -> torch.Tensor:
    """Give what `scatter_reduce` gives for whole slices."""
    shape = [1] * source.dim()
    shape[dim] = -1
    places = index.reshape(shape).expand(source.shape)
    return torch.scatter_reduce(self, dim, places, source, reduce, include_self=include_self)


def segment_reduce(
    data: torch.Tensor,
    reduce: str,
    lengths: torch.Tensor | None = None,
    indices: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Any:
    """Give the sum, mean, product or largest (smallest) entry of every segment of the rows."""
    del indices, unsafe
    lengths = offsets.diff() if lengths is None and offsets is not None else lengths
    if lengths is None or lengths.dim() != 1 or axis != 0:
        return NotImplemented
    rows = torch.repeat_interleave(torch.arange(lengths.shape[0], device=data.device), lengths)
    rows = rows.reshape(-1, *(1,) * (data.dim() - 1)).expand(data.shape)
    kind = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}[reduce]
    neutral = {"sum": 0.0, "prod": 1.0, "amax": -float("inf"), "amin": float("inf")}[kind]
    start = data.new_full((lengths.shape[0], *data.shape[1:]), neutral if initial is None else initial)
    result = torch.scatter_reduce(start, 0, rows, data, kind)
    if reduce != "mean":
        return result
    return result / lengths.to(data.dtype).reshape(-1, *(1,) * (data.dim() - 1))


def multilabel_margin_loss_forward(self: torch.Tensor, target: torch.Tensor, reduction: int) -> Any:
    """Give the loss, and the labels as a mask."""
    marks = torch.zeros_like(self)
    return multilabel_margin_loss(self, target, reduction), marks


def linalg_lu(A: torch.Tensor, pivot: bool = True) -> Any:
    """Give permutation, lower and upper factor, from the compact factors."""
    compact, pivots = torch.linalg.lu_factor(A, pivot=pivot)
    return torch.lu_unpack(compact, pivots)


FORMULAS: dict[str, Callable[..., Any]] = {
    "multi_margin_loss": multi_margin_loss,
    "multilabel_margin_loss": multilabel_margin_loss,
    "aminmax": aminmax,
    "std_mean": std_mean,
    "var_mean": var_mean,
    "smooth_l1_loss": smooth_l1_loss,
    "native_dropout": native_dropout,
    "nanmedian": nanmedian,
    "linalg_vector_norm": lowest_norm,
    "norm": lowest_norm,
    "fractional_max_pool2d": fractional_max_pool,
    "fractional_max_pool3d": fractional_max_pool,
    "copysign": copysign,
    "renorm": renorm,
    "_embedding_bag": embedding_bag,
    "scatter_reduce": scatter_reduce,
    "rms_norm": rms_norm,
    "nanmean": nanmean,
    "index_reduce": index_reduce,
    "segment_reduce": segment_reduce,
    "multilabel_margin_loss_forward": multilabel_margin_loss_forward,
    "linalg_lu": linalg_lu,
}
"""The formulas, by the operator that they stand for."""
