"""What adds entries to places given by indices, and what reads them from there."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


def _source(call: Called) -> Numbers:
    """Give the entries that are sent to places."""
    return call.operands[-1]


@define("scatter_add")
def add_at(call: Called) -> Numbers:
    """u_(i_k) + s_k: an addition for each entry that is sent; a pullback of padding adds what it folds."""
    if call.attributes.get("pullback"):
        return call.x.gathered(call.shape, max(call.x.size - prod(call.shape), 0))
    return _base(call, 0.0).accumulated(_source(call))


@define("index_add")
def add_slices_at(call: Called) -> Numbers:
    """u_(i_k) + alpha s_k."""
    alpha, source = call.attributes.get("alpha", 1), _source(call)
    return call.x.accumulated(source if alpha == 1 else source * alpha)


def _base(call: Called, neutral: float) -> Numbers:
    """Give what entries are sent to: where it does not count itself, the neutral number where any is sent."""
    if call.attributes.get("include_self", True):
        return call.x
    index = call.operands[1]
    neutrals = call.x.known(call.shape, lambda u: np.full(u.shape, neutral), call.x)
    return call.x.joined([neutrals], call.shape, lambda u, z, i: np.where(_hits(call, i) > 0, z, u), index)


def _hits(call: Called, index: Any) -> Any:
    """Count the entries that are sent to each place along an axis."""
    index, axis = index.astype(int), call.attributes["dim"]
    places = list(np.indices(index.shape))
    places[axis] = index
    counts = np.zeros(call.shape)
    np.add.at(counts, tuple(places), 1.0)
    return counts


@define("scatter_mean")
def average_at(call: Called) -> Numbers:
    """The mean of the entries that are sent to a place, and of its own."""
    own = float(call.attributes.get("include_self", True))
    total = _base(call, 0.0).accumulated(_source(call))
    return total / total.known(call.shape, lambda i: np.maximum(_hits(call, i) + own, 1.0), call.operands[1])


@define("scatter_prod")
def multiply_at(call: Called) -> Numbers:
    """u_(i_k) s_k."""
    return _base(call, 1.0).accumulated(_source(call), "mul")


@define("index_put", "put")
def put(call: Called) -> Numbers | None:
    """Entries put in the places of others, free; or added to them."""
    if not call.attributes.get("accumulate"):
        return None
    source, indices = _source(call), call.operands[1:-1]
    places = np.broadcast_shapes(*(i.shape for i in indices))
    rest = call.x.shape[len(indices) :] if "indices" in call.attributes.get("given", ("indices",)) else ()
    sent = (*places, *rest)
    return call.x.accumulated(source.alias(sent, lambda a: np.broadcast_to(a, sent)))


@define("embedding")
def embedding(call: Called) -> Numbers | None:
    """Rows of a table, free; of bags of rows their sums or means."""
    if call.attributes.get("pullback"):
        return call.x.known(call.shape, lambda u: np.zeros(call.shape), call.x).accumulated(call.x)
    if "mode" not in call.attributes:
        return None
    return _bags(call)


def _bags(call: Called) -> Numbers:
    """Sum or average the rows of every bag, each times its weight if there are any."""
    (bags, width), index, starts = call.shape, *call.operands[1:3]
    rows = call.x.alias((index.size, width), lambda w, i: w[i.astype(int)], index)
    if len(call.operands) > 3:
        rows = rows * call.operands[3].alias((index.size, 1), lambda w: w[:, None])

    def bag(first: Any) -> Any:
        return np.searchsorted(first[:bags], np.arange(index.size), side="right") - 1

    def places(first: Any) -> Any:
        out = bag(first)[:, None] * width + np.arange(width)
        return out.reshape(-1), np.arange(index.size * width)

    found = rows.gathered(call.shape, max(index.size - bags, 0) * width, places, starts)
    if call.attributes["mode"] != 1:
        return found
    sizes = found.known((bags, 1), lambda s: np.maximum(np.bincount(bag(s), minlength=bags), 1)[:, None], starts)
    return found / sizes
