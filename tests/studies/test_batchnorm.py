"""The study of batch normalisation: the table, its constants from both sides, a small network, the report, wrong use."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from math import inf, log10, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies.batchnorm import BatchNormStudy, study_batchnorm
from nonsmooth.studies.batchnorm_constants import CONSTANTS, bound_network, layer_constants, mean_loss
from nonsmooth.studies.batchnorm_networks import Layer, Network, build_module, vgg
from nonsmooth.studies.batchnorm_walk import walk_network

# network, eps, where batch norm stands, constants: log10 of l and of L.
TABLE = [
    (False, None, None, "printed", 26.97, inf),
    (True, None, None, "printed", 26.98, 54.07),
    (True, 1e-2, "convolutions", "printed", 41.68, 83.51),
    (True, 1e2, "convolutions", "printed", 17.99, 36.14),
    (False, None, None, "right", 10.85, inf),
    (True, None, None, "right", 9.69, 19.83),
    (True, 1e-2, "layers", "right", 23.17, 46.46),
    (True, 1e2, "layers", "right", 1.61, 3.37),
]


@pytest.fixture(scope="module")
def study() -> BatchNormStudy:
    return study_batchnorm(walk=False)


@pytest.mark.parametrize(("smooth", "eps", "place", "constants", "l", "L"), TABLE)
def test_the_table(
    study: BatchNormStudy, smooth: bool, eps: float | None, place: str | None, constants: str, l: float, L: float
) -> None:
    bound = study.find(16, eps, place, smooth=smooth).network(constants)
    assert log10(bound.lipschitz) == pytest.approx(l, abs=0.006)
    assert log10(bound.smoothness) == pytest.approx(L, abs=0.006)


def test_every_inequality_is_judged_and_a_false_one_is_said(study: BatchNormStudy) -> None:
    assert len(study.claims) == 2 * 2 * 4 * 2 and all(c.holds for c in study.claims)
    wrong = replace(study.claims[0], found="smaller")
    broken = replace(study, claims=(wrong, *study.claims[1:]))
    assert not wrong.holds and "31 of 32 hold" in str(broken) and "NOT SO: at eps 0.01" in str(broken)
    assert "smaller (!)" in str(broken) and "(!)" not in str(study)


def test_the_bounds_are_equal_where_they_are_said_to_be(study: BatchNormStudy) -> None:
    for c in study.crossings:
        assert c.eps is not None
        network = vgg(c.depth, smooth=True)
        pair = [
            getattr(bound_network(network, CONSTANTS[c.constants], eps=eps, place=c.place)[0][-1], c.quantity)
            for eps in (None, c.eps, 0.9 * c.eps, 1.1 * c.eps)
        ]
        assert log10(pair[1]) == pytest.approx(log10(pair[0]), abs=1e-6)
        assert pair[2] > pair[0] > pair[3]


def test_the_bounds_fall_with_eps(study: BatchNormStudy) -> None:
    for curve in study.curves:
        for values in (curve.lipschitz, curve.smoothness):
            assert all(a >= b for a, b in pairwise(values))


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_layers_are_those_of_the_module(depth: int) -> None:
    """Entries that enter and leave each layer, against the shapes that torch finds."""
    for place in (None, "layers", "convolutions"):
        network = vgg(depth, smooth=depth != 13, side=64, classes=10)
        module = build_module(network, place, 1e-2)
        z, entered = torch.empty(2, 3, 64, 64, device="meta"), []
        for part in module:
            if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
                entered.append(z[0].numel())
            z = part(z)
        assert entered == [layer.entering * layer.pixels for layer in network.layers] and z.shape == (2, 10)
        norms = [type(p).__name__ for p in module if "BatchNorm" in type(p).__name__]
        assert len(norms) == {None: 0, "layers": depth - 1, "convolutions": depth - 4}[place]
        weights = [p for p in module if isinstance(p, torch.nn.Conv2d | torch.nn.Linear)]
        assert len(weights) == depth == len(network.layers)


def small(rng: np.random.Generator) -> Network:
    """Draw a network of the same make, small enough for its Jacobian."""
    pool, channels, classes = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(2, 4))
    side, hidden = 4 // pool, 2
    layers = (
        Layer("convolution", 3, channels, 4, 3, pool, "softplus"),
        Layer("convolution", channels, 2, side, 3, 1, "softplus"),
        Layer("dense", 2 * side * side, hidden, 1, 1, 1, "softplus"),
        Layer("dense", hidden, classes, 1, 1, 1, "softmax"),
    )
    return Network(len(layers), True, 4, classes, layers)


@pytest.mark.parametrize("seed", range(6))
def test_no_small_network_exceeds_its_bounds(seed: int) -> None:
    """Difference quotients of the network, of its Jacobian, and of its loss and gradient, with weights in the balls."""
    rng, batch = np.random.default_rng(seed), 3
    network, radius = small(rng), float(10.0 ** rng.uniform(-0.5, 0.7))
    eps, place = (None, None) if seed % 3 == 0 else (float(10.0 ** rng.uniform(-1, 1)), "layers")
    layers, objective = bound_network(
        network, CONSTANTS["right"], batch=batch, radius=radius, eps=eps, place=place or "layers"
    )
    module = build_module(network, place, eps or 0.0, device="cpu").double()
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]
    x = torch.tensor(rng.choice([-1.0, 1.0], size=(batch, 3, 4, 4)))
    target = torch.tensor(rng.integers(0, network.classes, batch))

    def psi(w: torch.Tensor) -> torch.Tensor:
        parts = torch.split(w, [s.numel() for s in shapes])
        state = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return torch.func.functional_call(module, state, (x,))

    def flat(w: torch.Tensor) -> torch.Tensor:
        return psi(w).reshape(-1)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(psi(w), target)

    def draw() -> torch.Tensor:
        parts = []
        for kernel, bias in zip(shapes[::2], shapes[1::2], strict=True):
            v = rng.normal(size=kernel.numel() + bias.numel())
            parts.append(v / np.linalg.norm(v) * radius)
        return torch.tensor(np.concatenate(parts))

    seen = [0.0, 0.0, 0.0, 0.0]
    for number in range(8):
        w = draw()
        other = w + (draw() - w) * 10.0 ** -(number % 4)
        distance = float((w - other).norm())
        J, K = torch.func.jacrev(flat)(w), torch.func.jacrev(flat)(other)
        g, h = torch.func.grad(loss)(w), torch.func.grad(loss)(other)
        found = (
            float(torch.linalg.matrix_norm(J, 2)), float(torch.linalg.matrix_norm(J - K, 2)) / distance,
            float(g.norm()), float((g - h).norm()) / distance,
        )  # fmt: skip
        seen = [max(a, b) for a, b in zip(seen, found, strict=True)]
        assert float(psi(w).norm()) <= layers[-1].norm
    bounds = (layers[-1].lipschitz, layers[-1].smoothness, objective.lipschitz, objective.smoothness)
    assert all(0 < a <= b for a, b in zip(seen, bounds, strict=True))


def test_a_convolution_attains_its_constant() -> None:
    side = 224
    kernel, image = torch.full((1, 1, 3, 3), 1 / 3.0), torch.full((1, 1, side, side), 1 / side)
    attained = float(torch.nn.functional.conv2d(image, kernel, padding=1).norm())
    layer = Layer("convolution", 1, 1, side, 3, 1, "softplus")
    right, printed = (layer_constants(layer, CONSTANTS[c], batch=1, radius=1.0).bilinear for c in ("right", "printed"))
    assert 0.99 * right < attained <= right < printed


@pytest.mark.parametrize("form", ["right", "slide"])
def test_batch_norm_attains_its_constants(form: str) -> None:
    """On 5 samples of one feature: no Jacobian and no second derivative is larger, and both are attained to 1 %."""
    number = 5
    e = torch.tensor([3.0, -1.0, -1.0, -1.0, 0.0], dtype=torch.float64)
    e = e / e.norm()
    for eps in (1e-2, 1.0, 30.0):
        l, L, bound = CONSTANTS[form].batch_norm(eps, number, 1, 1)

        def c(z: torch.Tensor, eps: float = eps) -> torch.Tensor:
            u = z - z.mean()
            variance = u.square().mean()
            return u / (torch.sqrt(eps + variance) if form == "right" else eps + torch.sqrt(variance))

        scale = sqrt(eps * number) if form == "right" else eps * sqrt(number)
        generator = torch.Generator().manual_seed(0)
        points = [
            torch.randn(number, generator=generator, dtype=torch.float64) * scale * r for r in (0.1, 0.5, 1, 3) * 8
        ]
        points += [e * scale * r for r in (1e-4, 0.5)]
        slopes, bends = [], []
        for z in points:
            slopes.append(float(torch.linalg.matrix_norm(torch.func.jacrev(c)(z), 2)))
            H = torch.func.jacfwd(torch.func.jacrev(c))(z)
            for h in (e, torch.randn(number, generator=generator, dtype=torch.float64)):
                h = h / h.norm()
                bends.append(float(torch.einsum("ijk,j,k->i", H, h, h).norm()))
            assert float(c(z).norm()) <= bound
        assert 0.99 * l < max(slopes) <= l * (1 + 1e-9)
        assert 0.99 * L < max(bends) <= L * (1 + 1e-9)


def test_activations_and_loss_attain_their_constants() -> None:
    z = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(torch.nn.functional.softplus))(z)
    bends = torch.func.vmap(torch.func.grad(torch.func.grad(torch.nn.functional.softplus)))(z)
    for found, constant in zip((slopes, bends), CONSTANTS["right"].softplus, strict=True):
        assert 0.99 * constant < float(found.abs().max()) <= constant + 1e-12
    generator, h = torch.Generator().manual_seed(0), torch.tensor([1.0, -1.0], dtype=torch.float64) / sqrt(2)
    l, L = CONSTANTS["right"].softmax
    pairs = [torch.tensor([t, 0.0], dtype=torch.float64) for t in np.linspace(-4, 4, 201)]
    jacobians = [torch.func.jacrev(lambda z: torch.softmax(z, 0))(p) for p in pairs]
    second = [torch.func.jacfwd(torch.func.jacrev(lambda z: torch.softmax(z, 0)))(p) for p in pairs]
    assert 0.99 * l < max(float(torch.linalg.matrix_norm(J, 2)) for J in jacobians) <= l + 1e-12
    assert 0.99 * L < max(float(torch.einsum("ijk,j,k->i", H, h, h).norm()) for H in second) <= L + 1e-12
    for _ in range(200):
        z = torch.randn(6, generator=generator, dtype=torch.float64) * 3
        H = torch.func.jacfwd(torch.func.jacrev(lambda z: torch.softmax(z, 0)))(z)
        k = torch.randn(6, generator=generator, dtype=torch.float64)
        assert float(torch.einsum("ijk,j,k->i", H, k / k.norm(), k / k.norm()).norm()) <= L
    loss = mean_loss(CONSTANTS["right"], 1)
    far = torch.tensor([[-40.0, 40.0]], dtype=torch.float64)
    g = torch.func.grad(lambda z: torch.nn.functional.cross_entropy(z, torch.tensor([0])))(far)
    assert 0.99 * loss.lipschitz < float(g.norm()) <= loss.lipschitz
    H = torch.func.hessian(lambda z: torch.nn.functional.cross_entropy(z, torch.tensor([0])))(0 * far).reshape(2, 2)
    assert float(torch.linalg.matrix_norm(H, 2)) == pytest.approx(loss.smoothness)


def test_without_eps_batch_norm_is_not_lipschitz() -> None:
    found = study_batchnorm(depth=11, depths=(11,), epsilons=(0.0,), walk=False, points=3)
    for place in ("layers", "convolutions"):
        bound = found.find(11, 0.0, place).network("right")
        assert (bound.lipschitz, bound.smoothness) == (inf, inf)
    assert not found.claims and "not Lipschitz" in str(found)


def test_the_report(study: BatchNormStudy, tmp_path: Path) -> None:
    text = str(study)
    assert max(map(len, text.splitlines())) <= 100 and "32 of 32 hold" in text
    assert [p.name for p in study.save(tmp_path)] == ["report.json", "report.txt", "batchnorm.png"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["format_version"] == 1 and len(data["networks"]) == 4 * 6
    assert len(data["networks"][0]["by_layer"]["right"]) == 11
    assert "<table>" in study._repr_html_()
    tiny = study_batchnorm(depth=11, depths=(), epsilons=(0.0, 1e-300), radius=1e30, points=2, walk=False)
    tiny.draw(tmp_path / "unbounded.png")
    assert "inf" in str(tiny)


@pytest.mark.parametrize(("smooth", "eps"), [(True, None), (True, 1e-2), (False, None)])
def test_the_walk_is_below_the_recursion(smooth: bool, eps: float | None) -> None:
    network = vgg(11, smooth=smooth, side=32, classes=10)
    bound, why = walk_network(network, batch=4, radius=1.0, eps=eps)
    right = bound_network(network, CONSTANTS["right"], batch=4, eps=eps)[0][-1]
    assert bound is not None and not why
    assert bound.norm <= right.norm * (1 + 1e-6)
    assert 0 < bound.lipschitz <= right.lipschitz and 0 < bound.smoothness <= right.smoothness


def test_the_walk_is_judged_too_and_where_there_is_none_the_report_says_why() -> None:
    bound, why = walk_network(vgg(11, smooth=True, side=32), batch=4, radius=1.0, eps=0.0)
    assert bound is None and "eps" in why
    study = study_batchnorm(depth=11, depths=(), epsilons=(1e-2, 0.0), side=32, batch=4, points=3)
    assert len(study.claims) == 2 * 5 * 2 and all(c.holds for c in study.claims if c.constants == "walk")
    assert "The walk over the program was not made" in str(study) and study.find(11, None, None).walk is not None


def test_the_command(tmp_path: Path) -> None:
    arguments = ["study", "batchnorm", "--depth", "11", "--depths", "11,13", "--eps", "1e-2", "--no-walk", "--json"]
    found = CliRunner().invoke(cli.app, [*arguments, "-o", str(tmp_path)], prog_name="nonsmooth")
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert {n["depth"] for n in data["networks"]} == {11, 13} and (tmp_path / "batchnorm.png").exists()
    for wrong, words in (("--depth=12", "depth=12"), ("--eps=x", "eps='x'"), ("--radius=0", "radius=0.0")):
        refused = CliRunner().invoke(cli.app, ["study", "batchnorm", wrong], prog_name="nonsmooth")
        assert refused.exit_code == 2 and words in refused.output


def test_wrong_use() -> None:
    for wrong, words in (
        ({"epsilons": ()}, "epsilons"),
        ({"epsilons": (-1.0,)}, "epsilons"),
        ({"batch": 0}, "batch=0"),
        ({"radius": inf}, "radius=inf"),
        ({"side": 30}, "side=30"),
        ({"classes": 0}, "classes=0"),
        ({"depths": (12,)}, "depth=12"),
        ({"points": 1}, "points=1"),
    ):
        with pytest.raises(UsageError, match=words):
            study_batchnorm(walk=False, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="normalise='nowhere'"):
        vgg().normalised("nowhere")
