"""The networks of the study of batch normalisation: VGG of 11, 13, 16 or 19 layers, with kinks or smooth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nonsmooth.errors import UsageError

__all__ = ["BLOCKS", "PLACES", "Layer", "Network", "build_module", "vgg"]

BLOCKS: Mapping[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""How many convolutions stand before each pooling, by the number of layers that have weights."""

CHANNELS, HIDDEN, COLOURS, KERNEL, POOL = (64, 128, 256, 512, 512), (4096, 4096), 3, 3, 2
"""Channels of each block, units of the dense layers, colours of an image, sides of kernels and of pooling windows."""

PLACES: Mapping[str, str] = {
    "layers": "before every layer but the first",
    "convolutions": "before every convolution but the first",
}
"""Where batch normalisation stands."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights: a convolution of stride 1 that keeps the sides, or a dense one; an activation; a pooling.

    Attributes:
        entering, leaving: channels, or units of a dense layer, before and after.
        side: of the image that enters, in pixels; 1 for a dense layer, whose entries are channels of one pixel.
        kernel: side of the kernel; 1 for a dense layer.
        pool: side of the disjoint windows of the pooling; 1: none.
        activation: "relu", "softplus" or "softmax".
    """

    kind: str
    entering: int
    leaving: int
    side: int
    kernel: int
    pool: int
    activation: str

    @property
    def pixels(self) -> int:
        """Pixels of the image that enters, and of the one that the weights make of it: the patches."""
        return self.side * self.side


@dataclass(frozen=True)
class Network:
    """A chain of layers on images, ending in softmax.

    Attributes:
        depth: how many layers have weights.
        smooth: softplus and average pooling in the places of relu and max pooling.
        side: of the images.
    """

    depth: int
    smooth: bool
    side: int
    classes: int
    layers: tuple[Layer, ...]

    @property
    def entries(self) -> int:
        """Numbers in one image."""
        return COLOURS * self.side * self.side

    def normalised(self, place: str) -> tuple[bool, ...]:
        """Say for each layer whether a batch normalisation stands before it."""
        if place not in PLACES:
            raise UsageError(f"normalise={place!r}: batch normalisation stands at {' or '.join(PLACES)}.")
        return tuple(
            number > 0 and (place == "layers" or layer.kind == "convolution")
            for number, layer in enumerate(self.layers)
        )


def vgg(depth: int = 16, *, smooth: bool = False, side: int = 224, classes: int = 1000) -> Network:
    """Give the VGG network with so many layers that have weights.

    Args:
        depth: 11, 13, 16 or 19.
        smooth: softplus for relu, average pooling for max pooling.
        side: of the images, a multiple of 32.
        classes: units of the softmax at the end.

    Raises:
        UsageError: there is no such network.

    >>> [layer.leaving for layer in vgg(11).layers]
    [64, 128, 256, 256, 512, 512, 512, 512, 4096, 4096, 1000]

    Source: SimonyanZisserman2015.
    """
    if depth not in BLOCKS:
        raise UsageError(f"depth={depth!r}: VGG has {', '.join(map(str, BLOCKS))} layers.")
    if side < 1 or side % POOL ** len(CHANNELS) or classes < 1:
        raise UsageError(
            f"side={side!r}, classes={classes!r}: pass a side that is a multiple of {POOL ** len(CHANNELS)}, and a class or more."
        )
    activation, layers, entering, now = "softplus" if smooth else "relu", [], COLOURS, side
    for count, leaving in zip(BLOCKS[depth], CHANNELS, strict=True):
        for number in range(count):
            pool = POOL if number == count - 1 else 1
            layers.append(Layer("convolution", entering, leaving, now, KERNEL, pool, activation))
            entering = leaving
        now //= POOL
    entering *= now * now
    for leaving in (*HIDDEN, classes):
        layers.append(Layer("dense", entering, leaving, 1, 1, 1, activation))
        entering = leaving
    last = Layer("dense", layers[-1].entering, classes, 1, 1, 1, "softmax")
    return Network(depth, smooth, side, classes, (*layers[:-1], last))


def build_module(network: Network, place: str | None = None, eps: float = 0.0, device: str = "meta") -> Any:
    """Build the network as a module of torch, in training mode; on the device "meta" it has shapes and no numbers.

    >>> sum(p.numel() for p in build_module(vgg(16)).parameters())
    138357544
    """
    from torch import nn

    normalised = network.normalised(place) if place is not None else (False,) * network.depth
    parts: list[Any] = []
    for layer, here in zip(network.layers, normalised, strict=True):
        convolution = layer.kind == "convolution"
        if not convolution and not any(isinstance(part, nn.Flatten) for part in parts):
            parts.append(nn.Flatten())
        if here:
            normalise = nn.BatchNorm2d if convolution else nn.BatchNorm1d
            parts.append(normalise(layer.entering, eps=eps, affine=False, track_running_stats=False, device=device))
        if convolution:
            parts.append(
                nn.Conv2d(layer.entering, layer.leaving, layer.kernel, padding=layer.kernel // 2, device=device)
            )
        else:
            parts.append(nn.Linear(layer.entering, layer.leaving, device=device))
        parts.append({"relu": nn.ReLU, "softplus": nn.Softplus}.get(layer.activation, lambda: nn.Softmax(-1))())
        if layer.pool > 1:
            parts.append((nn.AvgPool2d if network.smooth else nn.MaxPool2d)(layer.pool))
    return nn.Sequential(*parts)
