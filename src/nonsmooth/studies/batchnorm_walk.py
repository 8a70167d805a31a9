"""The same bounds by the walk over the captured program of the network, which knows nothing of layers."""

from __future__ import annotations

from importlib.util import find_spec
from math import sqrt

from nonsmooth.bounds.recursion import ChainBounds
from nonsmooth.errors import NonsmoothError
from nonsmooth.studies.batchnorm_networks import COLOURS, Network, build_module

__all__ = ["walk_network"]


def walk_network(
    network: Network, *, batch: int, radius: float, eps: float | None = None, place: str = "layers"
) -> tuple[ChainBounds | None, str]:
    """Bound the network, as a module of torch that has shapes and no numbers, by `ns.bounds`.

    Every parameter runs through a ball of the radius, kernels and biases each through their own: a set that holds the one of
    the recursion. The images run through the ball of radius sqrt(m 3 side^2). Status: `computed`, as `ns.bounds` says.

    Args:
        network: which.
        batch: m, the images of a batch.
        radius: mu, of the ball of every parameter.
        eps: of batch normalisation; None: there is none.
        place: where it stands.

    Returns:
        The bounds with respect to all weights; or None, and why they could not be had.
    """
    if find_spec("torch") is None:
        return None, "torch is not installed"
    import torch

    import nonsmooth as ns

    model = build_module(network, None if eps is None else place, eps or 0.0)
    images = torch.empty(batch, COLOURS, network.side, network.side, device="meta")
    try:
        found = ns.bounds(model, images, weights=radius, inputs=ns.Ball(sqrt(batch * network.entries))).weights
    except (NonsmoothError, ValueError) as error:  # torch refuses batch normalisation with eps = 0
        return None, str(error)
    return ChainBounds(found.norm, found.lipschitz, found.smoothness), ""
