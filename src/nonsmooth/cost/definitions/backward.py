"""Kernels of the frameworks' backward passes that are no operation of the dictionary: what they execute.

They are counted where the framework's own backward stands beside the scalar sweep, and are not differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers
from nonsmooth.program.windows import Meetings, geometry, meetings

__all__: list[str] = []


@define("threshold_backward", "softshrink_backward", "hardshrink_backward")
def threshold_backward(call: Called) -> Numbers:
    """Let the cotangent through where u, or |u|, is above the threshold: a choice for each entry."""
    return call.operands[0].apply("select")


@define("leaky_relu_backward")
def leaky_relu_backward(call: Called) -> Numbers:
    """C where u > 0, else slope c."""
    grad = call.operands[0]
    return grad.apply("select", grad * 1.0)


@define("native_dropout_backward")
def dropout_backward(call: Called) -> Numbers:
    """Scale the cotangents that were kept."""
    return call.x * call.operands[1] * 1.0


# --- what puts cotangents into zeros ----------------------------------------------------------------------------------


@define("select_backward", "slice_backward", "diagonal_backward", "value_selecting_reduction_backward")
def placed(call: Called) -> None:
    """A cotangent stored in an array of zeros: stores, and no arithmetic."""


@define(
    *("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward"),
    *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward", "embedding_dense_backward", "unfold_backward"),
    *(f"re{what}_pad{d}d_backward" for what in ("plication", "flection") for d in (1, 2, 3)),
)
def added_to_places(call: Called) -> Numbers:
    """Each cotangent added to the place that it came from."""
    call.tally.add("add", "", call.x.size)
    return call.x.like(call.shape)


@define("select_and_scatter_add")
def window_places(call: Called) -> Numbers:
    """Find the largest entry of each window again, and add the cotangent to its place."""
    axes = geometry(call.attributes, call.x.shape)
    call.tally.add("compare", "", max(prod(m.count for m in axes) - call.x.size, 0))
    call.tally.add("add", "", call.x.size)
    return call.operands[1].like(call.shape)


def _spread(call: Called, axes: Sequence[Meetings]) -> Numbers:
    """Divide the cotangent of each window's mean, and add it to the entries that the window meets."""
    grad = call.x
    images = grad.size // max(prod(grad.shape[grad.ndim - len(axes) :]), 1)
    call.tally.add("div", "", grad.size)
    call.tally.add("add", "", images * prod(m.count for m in axes))
    return grad.like(call.shape)


@define("avg_pool2d_backward", "avg_pool3d_backward")
def avg_pool_backward(call: Called) -> Numbers:
    """The backward of the mean of windows."""
    a, d = call.attributes, len(call.attributes["kernel_size"])
    stride, padding = a["stride"] or a["kernel_size"], a["padding"]
    sizes, results = call.operands[1].shape[-d:], call.x.shape[-d:]
    steps, pads = ([v[k % len(v)] for k in range(d)] for v in (stride, padding))
    rows = zip(sizes, a["kernel_size"], steps, pads, results, strict=True)
    return _spread(call, [meetings(n, k, s, (p, p), results=m) for n, k, s, p, m in rows])


@define("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward")
def adaptive_avg_pool_backward(call: Called) -> Numbers:
    """The backward of the mean of windows from floor(o n / m) to ceil((o + 1) n / m)."""
    d = 2 if "2d" in str(call.attributes.get("kernel", "2d")) and call.x.ndim < 5 else 3
    met = 1
    for n, m in zip(call.operands[1].shape[-d:], call.x.shape[-d:], strict=True):
        met *= sum(-(-(o + 1) * n // m) - o * n // m for o in range(m))
    images = call.x.size // max(prod(call.x.shape[-d:]), 1)
    call.tally.add("div", "", call.x.size)
    call.tally.add("add", "", images * met)
    return call.x.like(call.shape)


def _upsampled(names: Sequence[str], neighbours: int) -> None:
    """Define the backward of an interpolation, which reads so many neighbours."""

    @define(*names)
    def definition(call: Called) -> Numbers:
        """Each cotangent, times its weights, added to the entries that were interpolated."""
        call.tally.add("mul", "", call.x.size * neighbours if neighbours > 1 else 0)
        call.tally.add("add", "", call.x.size * neighbours)
        return call.x.like(call.shape)


_upsampled([f"{name}{d}d_backward" for name in ("upsample_nearest", "_upsample_nearest_exact") for d in (1, 2, 3)], 1)
_upsampled(["upsample_linear1d_backward"], 2)
_upsampled(["upsample_bilinear2d_backward"], 4)
_upsampled(["upsample_trilinear3d_backward"], 8)
_upsampled(["upsample_bicubic2d_backward"], 16)


# --- products ---------------------------------------------------------------------------------------------------------


@define("convolution_backward")
def convolution_backward(call: Called) -> list[Numbers]:
    """The cotangents of image, kernel and bias, as far as they are asked for: the products of the convolution each.

    The products that meet in one entry are added; an entry that meets none stays zero.
    """
    grad, image, kernel = call.operands[:3]
    a, mask = call.attributes, call.attributes["output_mask"]
    axes = geometry(a)
    per_group = a["channels"][0] // max(a["groups"], 1)
    products = a["batch"] * a["channels"][1] * per_group * prod(m.count for m in axes)
    met = [
        a["batch"] * a["channels"][0] * prod(m.met("entries") for m in axes),
        a["channels"][1] * per_group * prod(m.met("places") for m in axes),
    ]
    found = []
    for wanted, target, sums in zip(mask[:2], (image, kernel), met, strict=True):
        if wanted:
            call.tally.add("mul", "", products)
            call.tally.add("add", "", max(products - sums, 0))
            found.append(target.like(target.shape))
    if mask[2]:
        found.append(grad.sum([k for k in range(grad.ndim) if k != grad.ndim - len(axes) - 1]))
    return found


@define("_scaled_dot_product_flash_attention_for_cpu_backward")
def attention_backward(call: Called) -> list[Numbers]:
    """The cotangents of queries, keys and values; the weights P = exp(S - logsumexp) are computed again.

    dV = P' dO,  dP = dO V',  dS = P (dP - sum dO O),  dQ = dS K,  dK = dS' Q.
    """
    grad, q, k, v, out, total = call.operands[:6]
    mask = call.operands[6] if len(call.operands) > 6 else None
    scores = (*q.shape[:-1], k.shape[-2])
    s = q.contracted(k, scores, q.shape[-1]) * 1.0
    weights = ((s if mask is None else s + mask) - total.alias((*q.shape[:-1], 1))).apply("exp")
    dv = weights.contracted(grad, v.shape, _terms(weights, grad, v))
    dp = grad.contracted(v, scores, v.shape[-1])
    ds = weights * (dp - (grad * out).sum(-1, keep=True)) * 1.0
    return [ds.contracted(k, q.shape, k.shape[-2]), ds.contracted(q, k.shape, _terms(ds, q, k)), dv]


def _terms(weights: Numbers, other: Numbers, result: Numbers) -> int:
    """Count the products summed into one entry: several queries' where heads share keys."""
    return weights.size * other.shape[-1] // max(result.size, 1)


def _distances(call: Called, pairs: int, width: int) -> Numbers:
    """Give the backward of p-norms of differences, for so many pairs of points."""
    p, grad = call.attributes["p"], call.x
    differences = grad.like((pairs, width)) - grad.like((pairs, width))
    if p == 2:
        pulled = differences * (grad.like((pairs, 1)) / grad.like((pairs, 1)))
    elif p in (0, 1) or p == float("inf"):
        pulled = differences.apply("sign") * grad.like((pairs, 1))
    else:
        scaled = grad.like((pairs, 1)) / grad.like((pairs, 1)).apply("pow")
        pulled = differences * differences.apply("abs").apply("pow") * scaled
    call.tally.add("add", "", pulled.size)
    return grad.like(call.shape)


@define("_cdist_backward")
def cdist_backward(call: Called) -> Numbers:
    """The backward of all distances, for the points of one of two sets."""
    return _distances(call, call.x.size, call.operands[1].shape[-1])


@define("_pdist_backward")
def pdist_backward(call: Called) -> Numbers:
    """The backward of all distances within a set: each pair has two ends."""
    return _distances(call, 2 * call.x.size, call.operands[1].shape[-1])


# --- normalisation, softmax, losses -----------------------------------------------------------------------------------


@define("_softmax_backward_data")
def softmax_backward(call: Called) -> Numbers:
    """Give y (c - sum(c y))."""
    grad, result = call.operands[:2]
    return result * (grad - (grad * result).sum(call.attributes["dim"], keep=True)) if grad.ndim else grad * 0.0


@define("_log_softmax_backward_data")
def log_softmax_backward(call: Called) -> Numbers:
    """Give c - exp(y) sum(c)."""
    grad, result = call.operands[:2]
    return grad - result.apply("exp") * grad.sum(call.attributes["dim"], keep=True) if grad.ndim else grad * 0.0


@define("nll_loss_backward", "nll_loss2d_backward")
def nll_loss_backward(call: Called) -> Numbers:
    """Put -c / n, times the weight of its class, at every label."""
    labels, weighed = call.operands[2], len(call.operands) > 4
    call.tally.add("div", "", 1 if call.attributes.get("reduction") == 1 else 0)
    call.tally.add("neg", "", labels.size)
    call.tally.add("mul", "", labels.size if weighed else 0)
    return call.operands[1].like(call.shape)


def _normalised(
    call: Called, grad: Numbers, unit: Numbers, scale: Numbers, weight: Numbers | None, axes: Sequence[int]
) -> Numbers:
    """Give r (w c - mean(w c) - y mean(w c y)), y the normalised entries and r their scale."""
    moved = grad if weight is None else grad * weight
    return scale * (moved - moved.mean(axes, keep=True) - unit * (moved * unit).mean(axes, keep=True))


def _parameters(grad: Numbers, unit: Numbers, mask: Sequence[bool], axes: Sequence[int]) -> list[Numbers]:
    """Give the cotangents of weight and bias, as far as they are asked for."""
    return ([(grad * unit).sum(axes)] if mask[1] else []) + ([grad.sum(axes)] if mask[2] else [])


@define("native_layer_norm_backward")
def layer_norm_backward(call: Called) -> list[Numbers]:
    """The cotangents of input, weight and bias; mean and scale were kept."""
    grad, u, mean, scale = call.operands[:4]
    mask, inner = call.attributes["output_mask"], len(call.attributes["normalized_shape"])
    affine = (
        call.operands[4] if len(call.operands) > 4 and call.operands[4].shape == u.shape[u.ndim - inner :] else None
    )
    unit = (u - mean) * scale
    axes, outer = list(range(u.ndim - inner, u.ndim)), list(range(u.ndim - inner))
    first = [_normalised(call, grad, unit, scale, affine, axes)] if mask[0] else []
    return first + _parameters(grad, unit, mask, outer)


@define("native_batch_norm_backward")
def batch_norm_backward(call: Called) -> list[Numbers]:
    """The cotangents of input, weight and bias; mean and scale were kept, outside of training the input's is scaled."""
    grad, u = call.operands[:2]
    mask, axes = call.attributes["output_mask"], [k for k in range(u.ndim) if k != 1]
    channel = u.like((u.shape[1], *(1,) * (u.ndim - 2)))
    weight = channel if call.attributes.get("weight", True) is not None else None
    unit = (u - channel) * channel if call.attributes["train"] or mask[1] else u
    if not mask[0]:
        first = []
    elif call.attributes["train"]:
        first = [_normalised(call, grad, unit, channel, weight, axes)]
    else:
        first = [grad * channel if weight is None else grad * channel * weight]
    return first + _parameters(grad, unit, mask, axes)


@define("native_group_norm_backward")
def group_norm_backward(call: Called) -> list[Numbers]:
    """The cotangents of input, weight and bias; mean and scale of each group were kept."""
    grad, u, mean, scale = call.operands[:4]
    a, mask = call.attributes, call.attributes["output_mask"]
    shape = (a["N"], a["group"], a["C"] // a["group"], a["HxW"])
    grad, u = grad.alias(shape), u.alias(shape)
    mean, scale = (s.alias((a["N"], a["group"], 1, 1)) for s in (mean, scale))
    unit = (u - mean) * scale
    weight = call.operands[4].alias((1, a["group"], a["C"] // a["group"], 1)) if len(call.operands) > 4 else None
    first = [_normalised(call, grad, unit, scale, weight, [2, 3]).alias(call.operands[1].shape)] if mask[0] else []
    return first + [p.alias((a["C"],)) for p in _parameters(grad, unit, mask, [0, 3])]
