"""Attention: what the dense formula computes, the masked scores among it."""

from __future__ import annotations

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.definitions.products import matrix_product
from nonsmooth.cost.definitions.softmax import softmax_along
from nonsmooth.cost.numbers import Numbers

__all__: list[str] = []


@define("scaled_dot_product_attention")
def attention(call: Called) -> Numbers:
    """softmax(Q K' s + M) V, over the keys; s = 1 / sqrt(E) unless it is given.

    A boolean mask, and the causal one, choose between scores and -inf; heads in groups share keys and values.
    """
    query, key, value = call.operands[:3]
    if call.attributes.get("enable_gqa") or (query.ndim > 2 and key.shape[-3:-2] not in ((1,), query.shape[-3:-2])):
        key, value = _shared(key, query), _shared(value, query)
    scale = call.attributes.get("scale")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    turned = (*key.shape[:-2], key.shape[-1], key.shape[-2])
    scores = matrix_product(query, key.alias(turned, lambda a: a.swapaxes(-1, -2))) * scale
    if call.attributes.get("is_causal"):
        shape = scores.shape[-2:]
        scores = scores.known(shape, lambda *_: np.tril(np.ones(shape, dtype=bool))).select(scores, -np.inf)
    if len(call.operands) > 3:
        mask = call.operands[3]
        scores = mask.select(scores, -np.inf) if call.attributes.get("boolean_mask") else scores + mask
    return matrix_product(softmax_along(scores, scores.ndim - 1), value)


def _shared(heads: Numbers, query: Numbers) -> Numbers:
    """Show keys or values once for every query head of their group."""
    times = query.shape[-3] // heads.shape[-3]
    shape = (*heads.shape[:-3], query.shape[-3], *heads.shape[-2:])
    return heads.alias(shape, lambda a: np.repeat(a, times, -3))
