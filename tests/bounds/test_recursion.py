"""The recursions against their transcription, against sampled networks from both sides, and against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
import torch

from nonsmooth.bounds.recursion import (
    ChainBounds,
    LayerConstants,
    MapConstants,
    concatenated,
    deep_chain,
    generic_chain,
    input_chain,
    localised_chain,
    objective_bounds,
    stacked,
    sum_of_separate,
    summed,
)
from nonsmooth.errors import UsageError
from tests.references.chain_bounds import Deep, General, chain, deep, localised, with_respect_to_input

Activation = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, tuple[Activation, tuple[float, float, float, float, float]]] = {
    "identity": (lambda z: z, (1.0, 0.0, 0.0, inf, 1.0)),
    "tanh": (torch.tanh, (1.0, 4 / (3 * sqrt(3)), 0.0, 1.0, 1.0)),
    "sigmoid": (torch.sigmoid, (0.25, 1 / (6 * sqrt(3)), 0.5, 1.0, 0.25)),
    "softplus": (torch.nn.functional.softplus, (1.0, 0.25, math.log(2), inf, 0.5)),
    "sine": (torch.sin, (1.0, 1.0, 0.0, 1.0, 1.0)),
    "square": (torch.square, (inf, 2.0, 0.0, inf, 0.0)),
}
"""l, L, |a(0)|, bound and |a'(0)| of functions of one number."""

CURVED = 48 / (25 * sqrt(5))
"""Of batch norm: sup 3 s (1 + s^2)^(-5/2)."""


def entries(name: str, size: int) -> MapConstants:
    """Give the constants of a function of one number over the entries of an array."""
    l, L, zero, bound, slope = ACTIVATIONS[name][1]
    return MapConstants(l, L, zero * sqrt(size), bound * sqrt(size), slope)


class Network:
    """A multilayer perceptron with biases on a batch, drawn by a seed, some layers behind a batch normalisation."""

    def __init__(self, seed: int, names: tuple[str, ...] = ("tanh", "sigmoid", "softplus", "sine", "identity")) -> None:
        rng = np.random.default_rng(seed)
        self.depth, self.samples = int(rng.integers(1, 5)), int(rng.integers(2, 5))
        self.widths = [int(n) for n in rng.integers(1, 4, self.depth + 1)]
        self.names = [str(rng.choice(names)) for _ in range(self.depth)]
        self.eps = [float(10.0 ** rng.uniform(-1, 1)) if rng.random() < 0.3 else None for _ in range(self.depth)]
        self.radii = [float(10.0 ** rng.uniform(-0.7, 0.5)) for _ in range(self.depth)]
        self.x = torch.tensor(rng.normal(size=(self.samples, self.widths[0])) * 10.0 ** rng.uniform(-1, 0.5))
        self.sizes = [(n + 1) * k for n, k in zip(self.widths[:-1], self.widths[1:], strict=True)]
        self.rng = rng

    @property
    def layers(self) -> list[LayerConstants]:
        found = []
        for n, k, name, eps, radius in zip(
            self.widths[:-1], self.widths[1:], self.names, self.eps, self.radii, strict=True
        ):
            layer = LayerConstants(1.0, sqrt(self.samples), radius, (entries(name, self.samples * k),))
            if eps is not None:
                curved = CURVED / (sqrt(self.samples) * eps)
                slope = 1 / sqrt(eps)
                layer = replace(layer, before=MapConstants(slope, curved, 0.0, sqrt(self.samples * n), slope))
            found.append(layer)
        return found

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        z = self.x
        for part, n, k, name, eps in zip(
            torch.split(w, self.sizes), self.widths[:-1], self.widths[1:], self.names, self.eps, strict=True
        ):
            if eps is not None:
                z = (z - z.mean(0)) / torch.sqrt(eps + z.var(0, unbiased=False))
            z = ACTIVATIONS[name][0](z @ part[: n * k].reshape(n, k) + part[n * k :])
        return z.reshape(-1)

    def draw(self) -> torch.Tensor:
        """Draw weights in the balls, on their spheres as a rule."""
        parts = []
        for size, radius in zip(self.sizes, self.radii, strict=True):
            v = self.rng.normal(size=size)
            inside = radius if self.rng.random() < 0.7 else radius * self.rng.random()
            parts.append(v / np.linalg.norm(v) * inside)
        return torch.tensor(np.concatenate(parts))

    def observe(self, pairs: int = 12) -> ChainBounds:
        """Give the largest norm, difference quotient of F and difference quotient of its Jacobian that are met."""
        jacobian = torch.func.jacrev(self)
        m = l = L = 0.0
        for number in range(pairs):
            w = self.draw()
            other = (
                self.draw() if number % 3 == 0 else w + (self.draw() - w) * 10.0 ** -(number % 4)
            )  # balls are convex
            distance = float((w - other).norm())
            if distance < 1e-9:
                continue
            m = max(m, float(self(w).norm()))
            J, K = jacobian(w), jacobian(other)
            l = max(l, float((self(w) - self(other)).norm()) / distance, float(torch.linalg.matrix_norm(J, 2)))
            L = max(L, float(torch.linalg.matrix_norm(J - K, 2)) / distance)
        return ChainBounds(m, l, L)


def ratios(observed: ChainBounds, bound: ChainBounds) -> tuple[float, float, float]:
    """Give observed / bound of m, l and L; 0 where both are."""
    pairs = zip(
        (observed.norm, observed.lipschitz, observed.smoothness),
        (bound.norm, bound.lipschitz, bound.smoothness),
        strict=True,
    )
    return tuple(o / b if o > 1e-9 else 0.0 for o, b in pairs)  # type: ignore[return-value]


def worst(seeds: range) -> np.ndarray:
    """Give the largest ratios over networks: of the deep layers' recursion, and of the localised one."""
    found = []
    for seed in seeds:
        network = Network(seed)
        norm = float(network.x.norm())
        observed = network.observe()
        found.append([ratios(observed, f(network.layers, norm)[-1]) for f in (deep_chain, localised_chain)])
    return np.array(found).max(0)


def test_no_network_exceeds_its_bounds() -> None:
    most = worst(range(40))
    assert most.max() <= 1 + 1e-9
    assert most[1].min() > 0.1  # the bounds are not idle either: m, l and L come within a tenth


@pytest.mark.slow
def test_no_network_exceeds_its_bounds_on_many() -> None:
    assert worst(range(40, 1000)).max() <= 1 + 1e-9


def test_a_locally_lipschitz_stage_is_served_by_the_localised_recursion_alone() -> None:
    for seed in range(30):
        network = Network(seed, ("square", "tanh"))
        norm = float(network.x.norm())
        bound = localised_chain(network.layers, norm)[-1]
        assert all(map(math.isfinite, (bound.norm, bound.lipschitz, bound.smoothness)))
        assert max(ratios(network.observe(6), bound)) <= 1 + 1e-9
        if network.names[0] == "square":
            assert deep_chain(network.layers, norm)[0].lipschitz == inf


def test_localised_is_never_above_deep_which_is_never_above_the_generic_chain() -> None:
    for seed in range(200):
        network = Network(seed)
        norm = float(network.x.norm())
        general, usual = localised_chain(network.layers, norm), deep_chain(network.layers, norm)
        joint = [layer.joint(m) for layer, m in zip(network.layers, [norm, *(b.norm for b in usual[:-1])], strict=True)]
        for a, b, c in zip(general, usual, generic_chain(joint), strict=True):
            assert a.norm <= b.norm * (1 + 1e-12)
            assert a.lipschitz <= b.lipschitz * (1 + 1e-12) <= c.lipschitz * (1 + 1e-9)
            assert a.smoothness <= b.smoothness * (1 + 1e-12) <= c.smoothness * (1 + 1e-9)


def test_the_joint_constants_of_a_layer_hold() -> None:
    for seed in range(40):
        network = Network(seed)
        n, k = network.widths[:2]
        radius, name, size = network.radii[0], network.names[0], network.sizes[0]
        layer, norm = replace(network.layers[0], before=MapConstants(1.0, slope_at_zero=1.0)), 2.0

        def phi(both: torch.Tensor, n: int = n, k: int = k, name: str = name, size: int = size) -> torch.Tensor:
            v, z = both[:size], both[size:].reshape(-1, n)
            return ACTIVATIONS[name][0](z @ v[: n * k].reshape(n, k) + v[n * k :]).reshape(-1)

        bound, jacobian, points = layer.joint(norm), torch.func.jacrev(phi), []
        for _ in range(8):
            parts = [torch.tensor(network.rng.normal(size=s)) for s in (size, network.samples * n)]
            points.append(torch.cat([p / p.norm() * r for p, r in zip(parts, (radius, norm), strict=True)]))
        for a, b in zip(points[1:], points, strict=False):
            J, K = jacobian(a), jacobian(b)
            assert float(torch.linalg.matrix_norm(J, 2)) <= bound.lipschitz * (1 + 1e-9)
            assert float(torch.linalg.matrix_norm(J - K, 2)) <= bound.smoothness * float((a - b).norm()) * (1 + 1e-9)


# Networks sin or identity of v2 a1(v1 x), one number each: the term without which a bound is exceeded, and by whom.
NEEDED = {
    "through": (("identity", "identity"), (1.0, 3.0), 1.0),
    "direct": (("identity", "identity"), (3.0, 0.1), 1.0),
    "carried": (("sine", "identity"), (1.0, 10.0), 10.0),
    "squared": (("identity", "sine"), (0.2, 10.0), 1.0),
    "crossed": (("identity", "identity"), (1.0, 1.0), 1.0),
    "own": (("identity", "sine"), (3.0, 0.1), 5.0),
}


@pytest.mark.parametrize("term", list(NEEDED))
def test_every_term_is_needed(term: str) -> None:
    names, radii, x = NEEDED[term]

    def network(v: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS[names[1]][0](v[1] * ACTIVATIONS[names[0]][0](v[0] * x))

    sides = [torch.linspace(-r, r, 41, dtype=torch.float64) for r in radii]
    points = torch.cartesian_prod(*sides)
    slopes = torch.func.vmap(torch.func.grad(network))(points).norm(dim=1).max()
    bends = torch.linalg.matrix_norm(torch.func.vmap(torch.func.hessian(network))(points), 2).max()
    layers = [Deep(r, 1.0, 0.0, *ACTIVATIONS[name][1][:2]) for r, name in zip(radii, names, strict=True)]
    _, l, L = deep(layers, x)[-1]
    assert float(slopes) <= l and float(bends) <= L
    _, l, L = deep(layers, x, without=(term,))[-1]
    assert float(slopes) > l or float(bends) > L


HALF, THRICE = (0.5, 0.5, 0.0, inf, 0.5), (3.0, 0.0, 0.0, inf, 3.0)
"""sin(z)/2 and 3 z."""

# The layers, the input, and what is attained of m, of l and of L, each by hand; 0 where it is not asked.
MISPRINTS = {
    "later slopes": ([General(1.0, 1.0, 0.0, 0.0, 0.0, (HALF,))], 2.0, (0.0, 0.0, 0.5 * 4)),  # sin(2 v)/2 at sin = 1
    "no slope": ([General(2.0, 1.0, 0.0, 0.0, 0.0, (ACTIVATIONS["sine"][1], THRICE))], 2.0, (0.0, 0.0, 3 * 4.0)),
    "cross without slopes": (
        [General(1.0, 1.0, 0.0, 0.0, 0.0, ()), General(1.0, 1.0, 0.0, 0.0, 0.0, (THRICE,))],
        1.0,
        (0.0, 0.0, 3.0),  # 3 v_2 v_1
    ),
    "no values": ([General(1.0, 1.0, 0.0, 5.0, 0.0, ())], 2.0, (12.0, 0.0, 0.0)),  # v x + 5 x
    "no offset": ([General(1.0, 1.0, 0.0, 0.0, 4.0, ())], 2.0, (6.0, 0.0, 0.0)),  # v x + 4
}


@pytest.mark.parametrize("misprint", list(MISPRINTS))
def test_a_misprint_of_the_localised_recursion_is_refuted(misprint: str) -> None:
    layers, norm, attained = MISPRINTS[misprint]
    right, wrong = localised(layers, norm)[-1], localised(layers, norm, misprint)[-1]
    assert all(a <= b + 1e-12 for a, b in zip(attained, right, strict=True))
    assert any(a > b + 1e-12 for a, b in zip(attained, wrong, strict=True))


def test_the_printed_constant_of_a_bias_is_refuted() -> None:
    """A bias counts once for every sample; 1, as it is printed for convolutions, is exceeded by the bias itself."""
    samples, radius = 9, 1.0
    right = LayerConstants(1.0, sqrt(samples), radius)
    observed = sqrt(samples) * radius / radius  # b_0(v) = v (1, ..., 1) at x = 0
    assert localised_chain([right], 0.0)[-1].lipschitz == observed
    assert localised_chain([replace(right, weights=1.0)], 0.0)[-1].lipschitz < observed


@pytest.mark.parametrize("seed", range(20))
def test_the_recursions_are_their_transcription(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(count: int) -> list[float]:
        return [float(v) for v in 10.0 ** rng.uniform(-1, 1, count)]

    maps = [tuple(draw(2)) for _ in range(5)]
    for ours, theirs in ((generic_chain, chain), (input_chain, with_respect_to_input)):
        found = ours([MapConstants(*m) for m in maps])[-1]
        assert (found.lipschitz, found.smoothness) == pytest.approx(theirs(maps))  # type: ignore[arg-type]
    norm, layers, plain = draw(1)[0], [], []
    for _ in range(4):
        mu, L_b, l_b, l_a, L_a, l_pi, L_pi, zero, l_c, L_c, c_zero, m_c = draw(12)
        stages = MapConstants(l_a, L_a, zero), MapConstants(l_pi, L_pi)
        layers.append(LayerConstants(L_b, l_b, mu, stages, before=MapConstants(l_c, L_c, c_zero, m_c)))
        plain.append(Deep(mu, L_b, l_b, l_a, L_a, l_pi, L_pi, l_pi * zero, l_c, L_c, c_zero, m_c))
    for bound, values in zip(deep_chain(layers, norm), deep(plain, norm), strict=True):
        assert (bound.norm, bound.lipschitz, bound.smoothness) == pytest.approx(values)
    layers, plain = [], []
    for _ in range(4):
        R, L_b, l_u, l_x, b_0 = draw(5)
        stages = tuple(tuple(draw(5)) for _ in range(int(rng.integers(0, 4))))
        layers.append(LayerConstants(L_b, l_u, R, tuple(MapConstants(*s) for s in stages), values=l_x, offset=b_0))
        plain.append(General(R, L_b, l_u, l_x, b_0, stages))  # type: ignore[arg-type]
    for bound, values in zip(localised_chain(layers, norm), localised(plain, norm), strict=True):  # type: ignore[arg-type]
        assert (bound.norm, bound.lipschitz, bound.smoothness) == pytest.approx(values)


def sampled(f: Callable[[torch.Tensor], torch.Tensor], size: int, seed: int = 0) -> tuple[float, float]:
    """Give the largest Jacobian, and the largest difference quotient of Jacobians, over pairs of near points."""
    rng, jacobian, l, L = np.random.default_rng(seed), torch.func.jacrev(f), 0.0, 0.0
    for _ in range(300):
        x = torch.tensor(rng.normal(size=size) * 2)
        step = torch.tensor(rng.normal(size=size)) * 1e-4
        J, K = jacobian(x), jacobian(x + step)
        l = max(l, float(torch.linalg.matrix_norm(J, 2)))
        L = max(L, float(torch.linalg.matrix_norm(J - K, 2) / step.norm()))
    return l, L


def test_the_parallel_rules_hold_and_are_attained() -> None:
    """Sums and stacks of sines: 2 sin x has l = L = 2, sin 3x has l = 3, L = 9."""
    a, b = MapConstants(2.0, 2.0), MapConstants(3.0, 9.0)

    def two(x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.sin(x)

    def three(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x)

    cases = (
        (stacked, lambda x: torch.stack([two(x[0]), three(x[1])]), 2),
        (sum_of_separate, lambda x: (two(x[0]) + three(x[1]))[None], 2),
        (concatenated, lambda x: torch.cat([two(x), three(x)]), 1),
        (summed, lambda x: two(x) + three(x), 1),
    )
    for rule, f, size in cases:
        bound, (l, L) = rule([a, b]), sampled(f, size)
        assert 0.95 * bound.lipschitz <= l <= bound.lipschitz + 1e-9
        assert 0.8 * bound.smoothness <= L <= bound.smoothness * (1 + 1e-4)
    assert stacked([]) == MapConstants(0.0, 0.0, 0.0, 0.0, 0.0) == summed([])
    assert concatenated([replace(a, bound=3.0), replace(b, bound=4.0)]).bound == 5.0


def test_an_objective() -> None:
    chain_ = ChainBounds(2.0, 3.0, 5.0)
    assert objective_bounds(chain_, MapConstants(2.0, 0.5)) == ChainBounds(inf, 6.0, 14.5)


def test_what_is_not_smooth_is_infinite_and_what_does_not_move_adds_nothing() -> None:
    relu = MapConstants(1.0, inf)
    found = deep_chain([LayerConstants(1.0, 1.0, 1.0, (relu,))], 1.0)[-1]
    assert found == ChainBounds(2.0, 2.0, inf)
    still = deep_chain([LayerConstants(0.0, 0.0, 1.0, (relu,))], inf)[-1]
    assert still == ChainBounds(0.0, 0.0, 0.0)
    assert LayerConstants(1.0, 1.0, 1.0, (relu,)).joint(1.0).smoothness == inf


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: MapConstants(-1.0), r"MapConstants\(lipschitz\)=-1.0"),
        (lambda: MapConstants(1.0, math.nan), r"MapConstants\(smoothness\)=nan"),
        (lambda: LayerConstants(1.0, 1.0, -2.0), r"LayerConstants\(radius\)=-2.0"),
        (lambda: deep_chain([], math.nan), "norm=nan"),
        (lambda: localised_chain([], -1.0), "norm=-1.0"),
    ],
)
def test_wrong_use(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        wrong()
