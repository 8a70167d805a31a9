"""The constants of the layers of VGG: as they are printed, and right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, log, sqrt

from nonsmooth.bounds.recursion import (
    ChainBounds,
    LayerConstants,
    MapConstants,
    deep_chain,
    objective_bounds,
)
from nonsmooth.errors import UsageError
from nonsmooth.studies.batchnorm_networks import Layer, Network

__all__ = ["CONSTANTS", "Constants", "bound_network", "layer_constants", "mean_loss"]

BatchNorm = Callable[[float, int, int, int], tuple[float, float, float]]
"""From eps, the batch, and the channels and pixels of an image: l, L and a bound of the norm of the result."""


@dataclass(frozen=True)
class Constants:
    """What one list says of the layers; pairs are l and L.

    Attributes:
        what: which list that is.
        convolution: L_b of a convolution, the norm of the bilinear map.
        softplus, softmax: of the activations.
        average: l of the pooling by averages over disjoint windows of a side.
        batch_norm: l, L and a bound of the norm.
        loss: of the logistic loss of one sample.
    """

    what: str
    convolution: Callable[[Layer], float]
    softplus: tuple[float, float]
    softmax: tuple[float, float]
    average: Callable[[int], float]
    batch_norm: BatchNorm
    loss: tuple[float, float]


def _printed_norm(eps: float, batch: int, channels: int, pixels: int) -> tuple[float, float, float]:
    """Give 2/sqrt(eps), 2/(sqrt(m) eps) and d m, d the entries of a sample."""
    if eps == 0:
        return inf, inf, float(batch * channels * pixels)
    return 2 / sqrt(eps), 2 / sqrt(batch) / eps, float(batch * channels * pixels)


def _right_norm(eps: float, batch: int, channels: int, pixels: int) -> tuple[float, float, float]:
    """Give 1/sqrt(eps), (48 / (25 sqrt 5)) / (sqrt(M) eps), sqrt(d M): M = m pixels entries, of d channels, make a mean.

    With the mean taken off, a projection, u -> u / sqrt(eps + ||u||^2 / M) has the slopes 1/sqrt(eps + s^2), s^2 =
    ||u||^2/M, across u and less along it; its second derivative is largest along u, 3 s eps / (sqrt(M) (eps + s^2)^(5/2)),
    at s = sqrt(eps) / 2.
    """
    number = batch * pixels
    if eps == 0:
        return inf, inf, sqrt(channels * number)
    return 1 / sqrt(eps), 48 / (25 * sqrt(5)) / sqrt(number) / eps, sqrt(channels * number)


def _slide_norm(eps: float, batch: int, channels: int, pixels: int) -> tuple[float, float, float]:
    """Give 1/eps, 2 / (sqrt(M) eps^2), sqrt(d M) of u / (eps + ||u|| / sqrt(M)); all are attained, in the limit, at 0."""
    number = batch * pixels
    if eps == 0:
        return inf, inf, sqrt(channels * number)
    return 1 / eps, 2 / sqrt(number) / eps / eps, sqrt(channels * number)


_PRINTED = Constants(
    what="the printed list",
    convolution=lambda layer: float(layer.side),  # the root of the number of patches
    softplus=(2.0, 4.0),
    softmax=(2.0, 4.0),
    average=lambda side: 1.0,
    batch_norm=_printed_norm,
    loss=(2.0, 2.0),
)

_RIGHT = Constants(
    what="the least constants of each layer",
    convolution=lambda layer: float(layer.kernel),  # a pixel is in at most kernel^2 patches
    softplus=(1.0, 0.25),
    softmax=(0.5, sqrt(2 / 27)),
    average=lambda side: 1.0 / side,
    batch_norm=_right_norm,
    loss=(sqrt(2), 0.5),
)

CONSTANTS: Mapping[str, Constants] = {
    "as printed": _PRINTED,
    "printed": Constants(**{**vars(_PRINTED), "what": "the printed list, softplus mended to 1, 1/4", "softplus": (1.0, 0.25)}),
    "right": _RIGHT,
    "slide": Constants(**{**vars(_RIGHT), "what": "right, for the slide's (z - mean) / (eps + sigma)", "batch_norm": _slide_norm}),
}  # fmt: skip
"""The lists by name. The printed list has softplus by the constants of another line, an obvious slip."""


def layer_constants(
    layer: Layer, constants: Constants, *, batch: int, radius: float, eps: float | None = None
) -> LayerConstants:
    """Give what the recursion needs of a layer pi(a(b(v, c(z)))), the whole batch being one vector.

        ||b(v, y)|| <= (L_b ||y|| + sqrt(m n_p)) ||v||,    n_p patches (1 for a dense layer), bias included

    Args:
        layer: which.
        constants: from which list.
        batch: m, samples.
        radius: mu, of the ball of its weights and bias.
        eps: of the batch normalisation before it; None: there is none.

    >>> from nonsmooth.studies.batchnorm_networks import vgg
    >>> first = vgg(16, smooth=True).layers[0]
    >>> [layer_constants(first, CONSTANTS[name], batch=128, radius=1.0).bilinear for name in ("printed", "right")]
    [224.0, 3.0]

    Source: RouletHarchaoui2019.
    """
    bilinear = constants.convolution(layer) if layer.kind == "convolution" else 1.0
    size = batch * layer.leaving * layer.pixels
    if layer.activation == "softmax":
        activation = MapConstants(*constants.softmax, sqrt(batch / layer.leaving), sqrt(batch))
    elif layer.activation == "softplus":
        activation = MapConstants(*constants.softplus, log(2) * sqrt(size))
    else:
        activation = MapConstants(1.0, inf)
    stages = [activation]
    if layer.pool > 1:
        slope = constants.average(layer.pool) if layer.activation == "softplus" else 1.0
        stages.append(MapConstants(slope, 0.0 if layer.activation == "softplus" else inf))
    whole = LayerConstants(bilinear, sqrt(batch * layer.pixels), radius, tuple(stages))
    if eps is None:
        return whole
    slope, bend, bound = constants.batch_norm(eps, batch, layer.entering, layer.pixels)
    return LayerConstants(bilinear, whole.weights, radius, whole.stages, MapConstants(slope, bend, 0.0, bound))


def mean_loss(constants: Constants, batch: int) -> MapConstants:
    """Give the constants of the mean of a loss over a batch: l / sqrt(m), L / m, by the rule of separate inputs summed."""
    slope, bend = constants.loss
    return MapConstants(slope / sqrt(batch), bend / batch)


def bound_network(
    network: Network,
    constants: Constants,
    *,
    batch: int = 128,
    radius: float = 1.0,
    eps: float | None = None,
    place: str = "layers",
) -> tuple[tuple[ChainBounds, ...], ChainBounds]:
    """Bound a network after each layer, and its mean logistic loss, with respect to all weights.

    Guarantee: `proved`, where the constants are right, on the product of the balls ||v_l|| <= radius, for images with
    entries in [-1, 1], so that ||x|| <= sqrt(m 3 side^2).

    Args:
        network: which.
        constants: from which list.
        batch: m, the images of a batch.
        radius: mu, of every ball.
        eps: of batch normalisation; None: there is none.
        place: where it stands, one of `PLACES`.

    Raises:
        UsageError: numbers that mean nothing.

    >>> from nonsmooth.studies.batchnorm_networks import vgg
    >>> layers, objective = bound_network(vgg(16, smooth=True), CONSTANTS["right"])
    >>> f"{layers[-1].lipschitz:.2e} {layers[-1].smoothness:.2e}"
    '4.89e+09 6.72e+19'

    Source: RouletHarchaoui2019.
    """
    if batch < 1 or not 0 < radius < inf or (eps is not None and not eps >= 0):
        raise UsageError(
            f"batch={batch!r}, radius={radius!r}, eps={eps!r}: pass an image or more, a positive finite radius, eps >= 0."
        )
    normalised = network.normalised(place) if eps is not None else (False,) * network.depth
    layers = [
        layer_constants(layer, constants, batch=batch, radius=radius, eps=eps if here else None)
        for layer, here in zip(network.layers, normalised, strict=True)
    ]
    found = deep_chain(layers, sqrt(batch * network.entries))
    return found, objective_bounds(found[-1], mean_loss(constants, batch))
