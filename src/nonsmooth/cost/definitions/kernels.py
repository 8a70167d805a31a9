"""Kernels of torch below its differentiation that the dictionary opens into records: what they and their backwards execute.

They are counted where the framework's own backward stands beside the scalar sweep, and are not differentiated. What depends
on values (empty places, repeated labels) is counted as if it did not occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []

_MERGES = {"sum": "add", "mean": "add", "prod": "mul", **dict.fromkeys(("amax", "amin", "max", "min"), "compare")}
"""The scalar operation by which a reduction takes one more entry in."""


def _merged(call: Called, entries: int, places: int) -> None:
    """Take entries into places, by the `reduce` of the call; a mean divides in the end."""
    how = call.attributes["reduce"]
    call.tally.add(_MERGES[how], "", max(entries, 0))
    call.tally.add("div", "", places if how == "mean" else 0)


@define("scatter_reduce", "index_reduce")
def reduced_at_places(call: Called) -> None:
    """Every entry of the source taken into its place."""
    _merged(call, call.operands[2].size, prod(call.shape))


@define("segment_reduce")
def segments(call: Called) -> None:
    """Segments along an axis, each reduced: an operation less than it has entries."""
    _merged(call, call.x.size - prod(call.shape), prod(call.shape))


@define("_segment_reduce_backward")
def segments_backward(call: Called) -> None:
    """Pass the cotangent of each segment on: over its length, to its extreme entries, or times the product of the others."""
    grad, data, how = call.operands[0], call.operands[2], call.attributes["reduce"]
    call.tally.add("compare", "", data.size if how in ("max", "min", "amax", "amin") else 0)
    call.tally.add("mul", "", grad.size if how == "prod" else 0)
    call.tally.add("div", "", {"mean": grad.size, "prod": data.size}.get(how, 0))


# --- bags of rows -----------------------------------------------------------------------------------------------------

_BAGS = ("sum", "mean", "max")


@define("_embedding_bag")
def bags(call: Called) -> None:
    """Rows of a table, weighed where weights are given, reduced in bags."""
    table, indices, offsets = call.operands[:3]
    width, how = table.shape[-1], _BAGS[call.attributes.get("mode", 0)]
    full = offsets.size - bool(call.attributes.get("include_last_offset"))
    call.tally.add("mul", "", indices.size * width if len(call.operands) > 3 else 0)
    call.tally.add("compare" if how == "max" else "add", "", max(indices.size - full, 0) * width)
    call.tally.add("div", "", full * width if how == "mean" else 0)


@define("_embedding_bag_backward")
def bags_backward(call: Called) -> None:
    """The cotangent of each bag, scaled, added to the rows that it took."""
    grad, indices = call.operands[:2]
    width, how = grad.shape[-1], _BAGS[call.attributes.get("mode", 0)]
    call.tally.add("mul", "", indices.size * width if len(call.operands) > 6 else 0)
    call.tally.add("div", "", indices.size * width if how == "mean" else 0)
    call.tally.add("add", "", grad.size if how == "max" else indices.size * width)


@define("_embedding_bag_per_sample_weights_backward")
def bag_weights_backward(call: Called) -> None:
    """The inner product of each row that was taken and the cotangent of its bag."""
    width, taken = call.x.shape[-1], call.operands[2].size
    call.tally.add("mul", "", taken * width)
    call.tally.add("add", "", taken * max(width - 1, 0))


# --- products ---------------------------------------------------------------------------------------------------------


@define("_trilinear")
def trilinear(call: Called) -> None:
    """Give the sum of x y z over some axes, each array with axes of size 1 inserted: x y first, over what z has not."""
    a, inserted = call.attributes, [tuple(call.attributes[f"expand{k}"]) for k in (1, 2, 3)]
    shapes = [_with_axes(o.shape, axes) for o, axes in zip(call.operands, inserted, strict=True)]
    shape = np.broadcast_shapes(*shapes)
    first = [k for k in a["sumdim"] if k in inserted[2] and k != a.get("unroll_dim", 1)]
    both = prod(n for k, n in enumerate(shape) if k not in inserted[0] or k not in inserted[1])
    left = both // max(prod(shape[k] for k in first), 1)
    last = prod(n for k, n in enumerate(shape) if k not in first)
    call.tally.add("mul", "", both + last)
    call.tally.add("add", "", both - left + max(last - prod(call.shape), 0))


def _with_axes(shape: Sequence[int], inserted: Sequence[int]) -> tuple[int, ...]:
    """Insert axes of size 1, in their order."""
    found = list(shape)
    for axis in sorted(inserted):
        found.insert(axis, 1)
    return tuple(found)


@define("_weight_norm_interface_backward")
def weight_norm_backward(call: Called) -> list[Numbers]:
    """Of w = v g / |v|: s = <c, v> / |v| for g, and (g / |v|) (c - v s / |v|) for v."""
    grad, v, scale, norms = call.operands[:4]
    kept = call.attributes["dim"] % v.ndim
    axes = [a for a in range(v.ndim) if a != kept]
    norms, scale = (s.alias(tuple(n if a == kept else 1 for a, n in enumerate(v.shape))) for s in (norms, scale))
    slope = (grad * v).sum(axes, keep=True) / norms
    pulled = (scale / norms) * (grad - v * (slope / norms))
    return [pulled, slope.alias(call.results[1])]


# --- losses -----------------------------------------------------------------------------------------------------------


@define("multi_margin_loss_backward")
def multi_margin_backward(call: Called) -> None:
    """For every class but the label's: the margin again, a choice, the cotangent, and what the label's own gets."""
    x, a = call.operands[1], call.attributes
    classes = x.shape[-1] if x.ndim else 1
    others = x.size // max(classes, 1) * max(classes - 1, 0)
    call.tally.add("sub", "", others)
    call.tally.add("add", "", 2 * others)
    call.tally.add("select", "", others)
    call.tally.add("mul", "", others * ((2 if a.get("p", 1) == 2 else 0) + (len(call.operands) > 3)) + x.size)


@define("_ctc_loss_backward")
def alignments_backward(call: Called) -> None:
    """The backward variables of the dynamic program, as many as its forward ones, and exp(u) - exp(.) for every entry.

    At each place of each time the logarithm of a sum of three numbers, then one of two for the class that stands there.
    """
    u, forward = call.operands[1], call.operands[-1]
    for name, each in (("max", 3), ("sub", 5), ("exp", 5), ("log", 2), ("add", 7)):
        call.tally.add(name, "", each * forward.size)
    for name, each in (("exp", 2), ("add", 1), ("sub", 2), ("mul", 1)):
        call.tally.add(name, "", each * u.size)
