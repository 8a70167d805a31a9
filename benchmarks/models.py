"""The three models of the benchmarks, with data on which no kink, or a share of the units, is active."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Setup = tuple[nn.Module, Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]


def mlp(active: float) -> Setup:
    """Build an MLP 784-512-512-10 with a batch of 128."""
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    silence(model, active)
    return model, nn.functional.cross_entropy, (torch.randn(128, 784), torch.randint(10, (128,)))


def cnn(active: float) -> Setup:
    """Build a CNN with pooling on 28 x 28 images with a batch of 64."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 10),
    )
    silence(model, active)
    return model, nn.functional.cross_entropy, (torch.randn(64, 1, 28, 28), torch.randint(10, (64,)))


class Encoder(nn.Module):
    """A transformer encoder layer under a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Encode and classify."""
        return self.head(self.layer(tokens).mean(1))


def encoder(active: float) -> Setup:
    """Build a transformer encoder layer (d 256, 64 tokens) with a batch of 8."""
    model = Encoder()
    silence(model, active)
    return model, nn.functional.cross_entropy, (torch.randn(8, 64, 256), torch.randint(10, (8,)))


def silence(model: nn.Module, share: float) -> None:
    """Put a share of the units of every layer before a relu at the kink: zero weights, zero bias."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers[:-1]:
        if isinstance(layer, nn.Linear) and layer.out_features == 256:
            continue
        units = round(share * layer.weight.shape[0])
        with torch.no_grad():
            layer.weight[:units] = 0.0
            if layer.bias is not None:
                layer.bias[:units] = 0.0


MODELS: dict[str, Callable[[float], Setup]] = {"mlp": mlp, "cnn": cnn, "encoder": encoder}
"""The models by name."""
