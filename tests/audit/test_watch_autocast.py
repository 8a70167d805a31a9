"""Autocast: what an operator is made of runs after its casts, watched or not, and under chosen slopes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F

import nonsmooth as ns

Loss = Callable[[torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {
    "attention": lambda h: F.scaled_dot_product_attention(h[None, None], h[None, None], h[None, None]).sum(),
    "l1": lambda h: F.l1_loss(h, torch.zeros_like(h)),
    "smooth l1": lambda h: F.smooth_l1_loss(h, torch.zeros_like(h)),
    "smooth l1, beta = 0": lambda h: F.smooth_l1_loss(h, torch.zeros_like(h), beta=0.0),
    "huber": lambda h: F.huber_loss(h, torch.zeros_like(h)),
    "hinge embedding": lambda h: F.hinge_embedding_loss(h, torch.ones_like(h)),
    "margin ranking": lambda h: F.margin_ranking_loss(h, h.roll(1), torch.ones_like(h)),
    "triplet margin": lambda h: F.triplet_margin_loss(h, h.roll(1, 0), h.roll(2, 0)),
    "cosine embedding": lambda h: F.cosine_embedding_loss(h, h.roll(1, 0), torch.ones(len(h))),
    "multi margin": lambda h: F.multi_margin_loss(h, torch.zeros(len(h), dtype=torch.long)),
    "multilabel margin": lambda h: F.multilabel_margin_loss(h, torch.zeros_like(h, dtype=torch.long)),
    "kl": lambda h: F.kl_div(h.log_softmax(1), h.roll(1, 0).softmax(1)),
    "poisson": lambda h: F.poisson_nll_loss(h, torch.ones_like(h)),
    "cdist": lambda h: torch.cdist(h, h.roll(1, 0)).sum(),
    "quantile": lambda h: h.quantile(0.3, dim=1).sum(),
    "prelu": lambda h: F.prelu(h, torch.tensor([0.1])).sum(),
    "relu and max pooling": lambda h: F.max_pool2d(torch.relu(h)[None, None], 2).sum(),
    "max pooling in space": lambda h: F.max_pool3d(h[None, None, None].expand(1, 1, 4, -1, -1), 2).sum(),
    "where": lambda h: torch.where(h > 0, h, 2 * h).sum(),
    "cross entropy": lambda h: F.cross_entropy(h, torch.zeros(len(h), dtype=torch.long)),
}


def train(
    loss: Loss, dtype: torch.dtype, around: Callable[[torch.nn.Module], AbstractContextManager[object]]
) -> list[torch.Tensor]:
    """Train two steps on a batch half of which is zero; give losses, gradients and parameters."""
    torch.manual_seed(0)
    model, inputs = torch.nn.Linear(8, 8), torch.randn(8, 8)
    inputs[:4] = 0
    torch.nn.init.zeros_(model.bias)
    optimiser, seen = torch.optim.SGD(model.parameters(), lr=0.1), []
    with around(model):
        for _ in range(2):
            optimiser.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                value = loss(model(inputs))
            value.backward()  # type: ignore[no-untyped-call]
            seen += [value.detach().clone(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
            optimiser.step()
    return [*seen, *model.parameters()]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_training_is_as_without(name: str, dtype: torch.dtype) -> None:
    native = train(LOSSES[name], dtype, lambda model: nullcontext())
    watched = train(LOSSES[name], dtype, lambda model: ns.watch(model, every=1, change_every=1))
    chosen = train(LOSSES[name], dtype, lambda model: ns.at_kinks("torch"))
    for other in (watched, chosen):
        assert [t.dtype for t in native] == [t.dtype for t in other]
        assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(native, other, strict=True))


def test_kinks_are_met_after_the_casts() -> None:
    log = None

    def watched(model: torch.nn.Module) -> ns.Watch:
        nonlocal log
        log = ns.watch(model, every=1, change_every=1)
        return log

    train(LOSSES["l1"], torch.bfloat16, watched)
    assert log is not None
    first = log.records[0]
    assert (first.active, first.can_matter) == (32, 32)  # zero rows on a zero bias
    assert first.change is not None and set(first.change.parameters) == {"bias"}
    assert first.change.norm == pytest.approx(
        8**0.5 * 4 / 64
    )  # sign(0) = 0, and now 1, in 4 rows of 8, and the mean of 64
