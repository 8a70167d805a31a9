"""The study of batch normalisation: what it does to the Lipschitz and smoothness bounds of VGG with respect to its weights.

After the slides of Roulet and Harchaoui, with their printed constants and with the right ones side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import isfinite, log10

import numpy as np
from scipy.optimize import brentq

from nonsmooth.bounds.recursion import ChainBounds
from nonsmooth.errors import UsageError
from nonsmooth.report.progress import Report, silent
from nonsmooth.report.table import FORMAT_VERSION
from nonsmooth.studies.batchnorm_constants import CONSTANTS, bound_network, layer_constants, mean_loss
from nonsmooth.studies.batchnorm_networks import BLOCKS, PLACES, Network, vgg
from nonsmooth.studies.batchnorm_result import (
    CLAIMS,
    QUANTITIES,
    BatchNormStudy,
    Claim,
    Crossing,
    Curve,
    NetworkBounds,
    Piece,
)
from nonsmooth.studies.batchnorm_walk import walk_network

__all__ = ["DEPTHS", "EPSILONS", "study_batchnorm"]

DEPTHS, EPSILONS = tuple(BLOCKS), tuple(CLAIMS)
"""The networks and the eps of the study, unless others are asked for."""

COMPARED = ("printed", "right")
"""The lists of constants that are drawn and compared."""

RANGE = (1e-6, 1e6)
"""Of eps, in the picture and where bounds are equal."""

STATUS = {
    "right": "proved in exact arithmetic, computed in floating point: bounds on the product of the balls of the weights",
    "slide": "the same, for the slide's formula of batch normalisation",
    "printed, as printed": "computed from the printed constants",
    "walk": "computed: from the captured program, rounded up, on a set that holds the other",
    "crossings": "computed",
}
"""What each kind of number is."""


def study_batchnorm(
    *,
    depth: int = 16,
    depths: Sequence[int] = DEPTHS,
    epsilons: Sequence[float] = EPSILONS,
    batch: int = 128,
    radius: float = 1.0,
    side: int = 224,
    classes: int = 1000,
    points: int = 49,
    walk: bool = True,
    progress: Report | None = None,
) -> BatchNormStudy:
    """Bound VGG networks with respect to their weights, with batch normalisation and without, and compare.

        l, L of w -> psi(w), the outputs of a batch, on { ||v_l|| <= radius for every layer l },    ||x|| <= sqrt(m 3 side^2)

    by the recursion for deep layers, with the printed constants and with the right ones. Status: stated in `status`.

    Args:
        depth: of the network of the table: 11, 13, 16 or 19.
        depths: of the networks that are compared.
        epsilons: of batch normalisation; at 0 it is not Lipschitz, and the bounds are infinite.
        batch: m, images of a batch.
        radius: mu, of the ball of each layer's weights and bias.
        side: of the images in pixels, a multiple of 32.
        classes: of the softmax.
        points: of each curve against eps.
        walk: bound the networks of the table also by the walk over the program.
        progress: called as (what, done, of how many) while it works.

    Returns:
        The study; `print(study)`, `study.to_json()`, `study.save(folder)`.

    Raises:
        UsageError: a network that does not exist, or numbers that mean nothing.

    Source: RouletHarchaoui2019, Santurkar2018.
    """
    start, report = time.perf_counter(), progress or silent
    if not epsilons or not all(isfinite(e) and e >= 0 for e in epsilons):
        raise UsageError(f"epsilons={tuple(epsilons)!r}: pass one or more numbers, 0 or larger.")
    if points < 2:
        raise UsageError(f"points={points!r}: a curve has two or more.")
    every, kinds = sorted({*depths, depth}), tuple(dict.fromkeys(epsilons))
    smooth = {d: vgg(d, smooth=True, side=side, classes=classes) for d in every}
    networks: list[NetworkBounds] = []
    for number, d in enumerate(every):
        report(f"VGG-{d}", number, len(every) + 1)
        own = [(vgg(d, side=side, classes=classes), None, None), (smooth[d], None, None)]
        own += [(smooth[d], eps, place) for place in PLACES for eps in kinds]  # type: ignore[misc]
        networks += [
            _bound(n, eps, place, batch=batch, radius=radius, walk=walk and d == depth) for n, eps, place in own
        ]
    report("curves and crossings", len(every), len(every) + 1)
    first = (batch, radius)
    return BatchNormStudy(
        format_version=FORMAT_VERSION,
        setting={"images a batch": batch, "radius of each ball": radius, "pixels a side": side, "classes": classes},
        status=STATUS,
        depth=depth,
        networks=tuple(networks),
        claims=tuple(_claims(networks, depth)),
        crossings=tuple(
            Crossing(d, q, c, place, _crossing(smooth[d], q, c, place, *first))
            for d in every for c in COMPARED for place in PLACES for q in QUANTITIES
        ),
        curves=tuple(_curve(smooth[depth], c, place, points, *first) for c in COMPARED for place in PLACES),
        pieces=tuple(_pieces(smooth[depth], kinds, *first)),
        seconds=time.perf_counter() - start,
    )  # fmt: skip


def _bound(
    network: Network, eps: float | None, place: str | None, *, batch: int, radius: float, walk: bool
) -> NetworkBounds:
    """Bound one network by every list of constants that says something of it, and by the walk."""
    chosen = place or next(iter(PLACES))
    lists = [name for name in CONSTANTS if name != "slide" or eps is not None]
    found = {
        name: bound_network(network, CONSTANTS[name], batch=batch, radius=radius, eps=eps, place=chosen)
        for name in lists
    }
    return NetworkBounds(
        network.depth,
        network.smooth,
        eps,
        place,
        {name: layers for name, (layers, _) in found.items()},
        {name: objective for name, (_, objective) in found.items()},
        *(walk_network(network, batch=batch, radius=radius, eps=eps, place=chosen) if walk else (None, "")),
    )


def _claims(networks: Sequence[NetworkBounds], depth: int) -> Iterator[Claim]:
    """Compare the networks of the table with what the slides say."""
    own = [n for n in networks if n.depth == depth and n.smooth]
    without = next(n for n in own if n.eps is None)
    for n in own:
        if n.eps is None or n.eps not in CLAIMS:
            continue
        pairs = [
            (constants, n.network(constants), without.network(constants if constants in without.by_layer else "right"))
            for constants in n.by_layer
        ]
        if n.walk is not None and without.walk is not None:
            pairs.append(("walk", n.walk, without.walk))
        for constants, bound, base in pairs:
            for quantity in QUANTITIES:
                ours, theirs = getattr(bound, quantity), getattr(base, quantity)
                found = "larger" if ours > theirs else "smaller" if ours < theirs else "equal"
                yield Claim(n.eps, quantity, constants, str(n.place), CLAIMS[n.eps], found)


def _crossing(network: Network, quantity: str, constants: str, place: str, batch: int, radius: float) -> float | None:
    """Find the eps at which batch normalisation leaves a bound as it is."""

    def at(eps: float | None) -> float:
        bounds: ChainBounds = bound_network(
            network, CONSTANTS[constants], batch=batch, radius=radius, eps=eps, place=place
        )[0][-1]
        return log10(getattr(bounds, quantity))

    without = at(None)

    def gap(exponent: float) -> float:
        return at(10.0**exponent) - without

    low, high = (log10(e) for e in RANGE)
    return 10.0 ** brentq(gap, low, high) if gap(low) > 0 > gap(high) else None


def _curve(network: Network, constants: str, place: str, points: int, batch: int, radius: float) -> Curve:
    """Bound a network against eps."""
    eps = [float(e) for e in np.geomspace(*RANGE, points)]
    found = [
        bound_network(network, CONSTANTS[constants], batch=batch, radius=radius, eps=e, place=place)[0][-1] for e in eps
    ]
    return Curve(constants, place, tuple(eps), tuple(b.lipschitz for b in found), tuple(b.smoothness for b in found))


def _pieces(network: Network, epsilons: Sequence[float], batch: int, radius: float) -> Iterator[Piece]:
    """Give the constants of the layers of a network, each kind once."""
    lists = {name: CONSTANTS[name] for name in ("as printed", "right")}
    normalised = network.normalised("layers")
    seen: set[str] = set()
    for layer, here in zip(network.layers, normalised, strict=True):
        name = f"{layer.kind}, {layer.side} x {layer.side}" if layer.kind == "convolution" else layer.kind
        found = [layer_constants(layer, c, batch=batch, radius=radius) for c in lists.values()]
        pieces = {f"{name}: L_b": [f.bilinear for f in found], f"{name}: bias": [f.weights for f in found]}
        for number, word in enumerate(
            (layer.activation, f"average of {layer.pool} x {layer.pool}")[: len(found[0].stages)]
        ):
            pieces[f"{word}: l"] = [f.stages[number].lipschitz for f in found]
            pieces[f"{word}: L"] = [f.stages[number].smoothness for f in found]
        if here and layer.kind not in seen:
            seen.add(layer.kind)
            for eps in epsilons:
                norms = [layer_constants(layer, c, batch=batch, radius=radius, eps=eps).before for c in lists.values()]
                words = f"batch norm {eps:g} of {layer.entering} x {layer.side} x {layer.side}"
                pieces[f"{words}: l"] = [c.lipschitz for c in norms]
                pieces[f"{words}: L"] = [c.smoothness for c in norms]
                pieces[f"{words}: norm"] = [c.bound for c in norms]
        for words, (printed, right) in pieces.items():
            where, _, constant = words.rpartition(": ")
            if words not in seen:
                seen.add(words)
                yield Piece(where, constant, printed, right)
    losses = [mean_loss(c, batch) for c in lists.values()]
    yield Piece("mean logistic loss", "l", *(c.lipschitz for c in losses))
    yield Piece("mean logistic loss", "L", *(c.smoothness for c in losses))
