"""Constants of attention on bounded sets hold, and those that are said to be attained are."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests.bounds.constants.suprema import anywhere, ball, both_sides, constants, fixed, sampled  # noqa: E402

F = torch.nn.functional
attend = F.scaled_dot_product_attention


def plain(q, k, v, mask=None, scale=None):
    """Attention, as it is defined."""
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else torch.where(mask, scores, -torch.inf)
    return torch.softmax(scores, -1) @ v


def test_attained_for_few_rows() -> None:
    """Two keys and one query attain l_Q, l_K, l_V, L_QQ, L_QV, L_KK and L_KV."""
    reaches = [anywhere(1, 2, norm=3.0), anywhere(2, 2, norm=2.0), anywhere(2, 2, norm=1.5)]
    local = constants(attend, *reaches)
    both = {(0,): 0.98, (1,): 0.98, (0, 0): 0.95, (0, 2): 0.98, (1, 1): 0.95, (1, 2): 0.98, (0, 1): 0.6}
    both_sides(plain, reaches, local, both)
    large = [anywhere(2, 2, norm=60.0), anywhere(2, 2, norm=60.0), anywhere(2, 2, norm=1.0)]
    both_sides(plain, large, constants(attend, *large), {(2,): 0.98}, 30.0)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 2, 2, 2)])
def test_heads(shape: tuple[int, ...]) -> None:
    """Heads side by side: the constants hold, and those of a single head are attained among them."""
    reaches = [anywhere(*shape, norm=2.0)] * 3
    local = constants(lambda q, k, v: attend(q, k, v, scale=0.7), *reaches)

    def phi(q, k, v):
        return plain(q, k, v, scale=0.7)

    both_sides(phi, reaches, local, {(0,): 0.97, (1,): 0.97, (0, 0): 0.9, (1, 1): 0.9, (0, 1): 0.5})


def test_about_a_point() -> None:
    """On balls about given arrays the constants are smaller, and hold; a mask that is added moves as well."""
    rng = np.random.default_rng(0)
    reaches = [
        ball(rng.normal(size=(3, 2)), 0.3),
        ball(rng.normal(size=(4, 2)), 0.2),
        ball(rng.normal(size=(4, 2)), 0.2),
    ]
    local = constants(attend, *reaches)
    loose = constants(attend, *(anywhere(*r.shape, norm=r.norm) for r in reaches))
    assert all(a <= b for a, b in zip(local.lipschitz, loose.lipschitz, strict=True))
    both_sides(plain, reaches, local, {(0,): 0.3, (1,): 0.3, (2,): 0.4, (0, 0): 0.0, (1, 1): 0.0, (0, 1): 0.0})
    masked = [*reaches, ball(rng.normal(size=(3, 4)), 0.5)]
    local = constants(lambda q, k, v, m: attend(q, k, v, attn_mask=m), *masked)
    pairs = {(3,): 0.3, (0, 3): 0.0, (1, 3): 0.0, (2, 3): 0.3, (3, 3): 0.0}
    both_sides(plain, masked, local, pairs)


def test_masks_groups_and_the_unbounded() -> None:
    """Causal and boolean masks, heads in groups; what is not bounded has no constants, and is named."""
    reaches = [anywhere(1, 4, 3, 2, norm=2.0), anywhere(1, 2, 3, 2, norm=2.0), anywhere(1, 2, 3, 2, norm=2.0)]
    local = constants(lambda q, k, v: attend(q, k, v, enable_gqa=True, is_causal=True), *reaches)
    mask = torch.tril(torch.ones(3, 3, dtype=torch.bool))

    def repeat(a):
        return a.repeat_interleave(2, 1)

    sampled(lambda q, k, v: plain(q, repeat(k), repeat(v), mask), reaches, local)

    def phi(q, k, v):
        return plain(q, repeat(k), repeat(v), mask)

    both_sides(phi, reaches, local, {(0,): 0.9, (1,): 0.5, (2,): 0.5})
    boolean = constants(
        lambda q, k, v, m: attend(q, k, v, attn_mask=m), *[anywhere(3, 2, norm=1.0)] * 3, fixed(mask.numpy())
    )
    assert boolean.lipschitz[2] == pytest.approx(sqrt(3))
    unbounded = constants(attend, anywhere(2, 2), anywhere(2, 2, norm=1.0), anywhere(2, 2, norm=1.0))
    assert unbounded.lipschitz[1] == inf and "queries" in unbounded.why and unbounded.lipschitz[0] < inf
