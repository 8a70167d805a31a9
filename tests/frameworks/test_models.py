"""Models: values and gradients of the program are torch's own, and the model stays what it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import nonsmooth as ns

SERIES = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[1, 2, 2], [9, 0, 3]])
CAUSAL = nn.Transformer.generate_square_subsequent_mask(3)
parametrizations = nn.utils.parametrizations

Step = Callable[..., torch.Tensor]


def first(module: nn.Module, t: torch.Tensor) -> torch.Tensor:
    """Square what a module returns, or the first of it."""
    out = module(t)
    return (out[0] if isinstance(out, tuple) else out).pow(2).mean()


def attention(need_weights: bool, mask: torch.Tensor | None) -> Step:
    """Attend to the series itself."""
    return lambda m, t: m(t, t, t, need_weights=need_weights, attn_mask=mask)[0].pow(2).mean()


class Embedded(nn.Module):
    """Embeddings of every sort, one of them tied."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.bag = nn.Embedding(10, 4, padding_idx=0, max_norm=None), nn.EmbeddingBag(10, 4)
        self.decoder = nn.Linear(4, 10, bias=False)
        self.decoder.weight = self.words.weight

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """Embed and decode."""
        return self.decoder(self.words(t)) + self.bag(t).sum()


class Twice(nn.Module):
    """One module called twice, one through a checkpoint, one with hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.register_forward_hook(lambda m, i, o: o * 2)
        self.other.register_forward_pre_hook(lambda m, i: (i[0] + 1,))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        """Use everything."""
        inner = torch.utils.checkpoint.checkpoint(lambda u: torch.relu(self.layer(u)), t, use_reentrant=False)
        return self.layer(inner) + self.other(t)


MODELS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, Step]] = {
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), SERIES, attention(False, None)),
    "attention weights": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), SERIES, attention(True, None)),
    "attention mask": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), SERIES, attention(False, CAUSAL)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), SERIES, first),
    "encoder gelu": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", norm_first=True, batch_first=True),
        SERIES,
        first,
    ),
    "transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True),
        SERIES,
        lambda m, t: m(t, t, tgt_mask=CAUSAL).pow(2).mean(),
    ),
    "bidirectional lstm": (lambda: nn.LSTM(8, 5, 2, bidirectional=True), SERIES, first),
    "rnn relu": (lambda: nn.RNN(8, 5, nonlinearity="relu"), SERIES, first),
    "gru cell": (lambda: nn.GRUCell(8, 5), SERIES[0], first),
    "lstm cell": (lambda: nn.LSTMCell(8, 5), SERIES[0], first),
    "embedded": (Embedded, TOKENS, first),
    "twice": (Twice, SERIES, first),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(8, 3)), SERIES, first),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 3)), SERIES, first),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(8, 8)), SERIES, first),
    "instance norm": (lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), SERIES, first),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(3, 3), nn.PReLU()), SERIES, first),
    "upsampling": (
        lambda: nn.Sequential(nn.ConvTranspose1d(3, 2, 2), nn.Upsample(scale_factor=2), nn.AvgPool1d(2), nn.GLU(1)),
        SERIES,
        first,
    ),
}


@pytest.mark.filterwarnings("ignore:.*enable_nested_tensor.*", "ignore:.*Mismatched memory format.*", "ignore:.*lazy.*")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_torchs(name: str, training: bool) -> None:
    torch.manual_seed(0)
    build, data, step = MODELS[name]
    model = build().train(training)
    before = {k: (v.clone(), v._version) for k, v in model.state_dict(keep_vars=True).items()}
    f, x = ns.objective(model, step=step)
    program = ns.capture(f, x, data)
    found = ns.value_and_backprop(program, x, data)
    after = model.state_dict(keep_vars=True)
    assert all(torch.equal(after[k], v) and after[k]._version == n for k, (v, n) in before.items())
    assert model.training is training
    value = step(model, data)
    expected = torch.autograd.grad(value, list(x.values()), allow_unused=True)
    assert torch.allclose(found.value, value.detach(), rtol=1e-6)
    for (key, mine), theirs in zip(found.gradient.items(), expected, strict=True):
        assert torch.allclose(mine, torch.zeros_like(mine) if theirs is None else theirs, rtol=1e-5, atol=1e-7), key
