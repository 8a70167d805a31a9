"""Every record with kinks against the mathematics: sound and tight at its kinks, native away from them.

The oracle at a kink is a set: the gradients that torch gives at generic points nearby. Every one of them must be the value
of backprop under an extreme selection (soundness of the pieces), and every extreme selection must be met (tightness).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import array_api_compat.torch as xp
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.dictionary import OPERATIONS, Call, Cone, Kind, Nonsmooth, Singularity
from nonsmooth.dictionary.order import Extremum, Ranking
from nonsmooth.dictionary.pooling import Pooling
from tests.references.order import naive_pool, naive_ranks

ROW = torch.tensor([1.0, 3.0, 3.0, 2.0], dtype=torch.float64)
PAIR = torch.tensor([[0.5, 1.0, 1.0], [0.5, -1.0, 2.0]], dtype=torch.float64)
W = torch.tensor([1.0, -2.0, 3.0, 5.0], dtype=torch.float64)


def at(value: float) -> torch.Tensor:
    """Give a point of one kinked entry and one that is far away."""
    return torch.tensor([value, value + 0.3], dtype=torch.float64)


def read(f: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Read a result with weights."""

    def reading(x: torch.Tensor) -> torch.Tensor:
        y = f(x)
        return (y * W[: y.numel()].reshape(y.shape)).sum() if y.ndim else y

    return reading


Example = tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]

SWITCHES: dict[str, list[Example]] = {
    "relu": [(torch.relu, at(0))],
    "abs": [(torch.abs, at(0))],
    "leaky_relu": [(lambda x: F.leaky_relu(x, 0.2), at(0))],
    "relu6": [(F.relu6, at(0)), (F.relu6, at(6))],
    "hardtanh": [(lambda x: F.hardtanh(x, -1, 2), at(-1)), (lambda x: F.hardtanh(x, -1, 2), at(2))],
    "clamp": [(lambda x: x.clamp(-1, 2), at(-1)), (lambda x: x.clamp(max=2), at(2)), (lambda x: x.clamp(min=2), at(2))],
    "hardsigmoid": [(F.hardsigmoid, at(-3)), (F.hardsigmoid, at(3))],
    "hardswish": [(F.hardswish, at(-3)), (F.hardswish, at(3))],
    "softshrink": [(lambda x: F.softshrink(x, 0.5), at(-0.5)), (lambda x: F.softshrink(x, 0.5), at(0.5))],
    "threshold": [(lambda x: F.threshold(x, 0.5, 0.5), at(0.5))],
    "elu": [(lambda x: F.elu(x, 2.0), at(0))],
    "selu": [(F.selu, at(0))],
    "copysign": [(lambda x: torch.copysign(x, -torch.ones(2).double()), at(0)), (lambda x: x.copysign(2.0), at(0))],
    "logit_clamped": [(lambda x: torch.logit(x, 0.1), at(0.1)), (lambda x: torch.logit(x, 0.1), at(0.9))],
    "prelu": [(lambda x: F.prelu(x, x[1:]), at(0))],
    "maximum": [(lambda x: torch.maximum(x[0], x[1] - 0.3), at(0))],
    "minimum": [(lambda x: torch.minimum(x[0], x[1] - 0.3), at(0))],
    "fmax": [(lambda x: torch.fmax(x[0] * 2, x[1] - 0.3), at(0))],
    "fmin": [(lambda x: torch.fmin(x[0] * 2, x[1] - 0.3), at(0))],
    "clamp_min_tensor": [(lambda x: x[:1].clamp(min=x[1:] * 2 - 0.6), at(0))],
    "clamp_max_tensor": [(lambda x: x[:1].clamp(max=x[1:] * 2 - 0.6), at(0))],
    "clamp_tensor": [(lambda x: x[:1].clamp(x[1:] * 2 - 0.6, x[1:] + 1), at(0))],
    "where": [
        (lambda x: torch.where(x > 0, 3 * x, x), at(0)),
        (lambda x: torch.where((x <= 0) & (x < 9), 3 * x, x), at(0)),
        (lambda x: (2 * x).masked_fill(x < 0, 0.0), at(0)),
    ],
}
ORDERS: dict[str, list[Example]] = {
    "max": [(lambda x: x.max(), ROW)],
    "min": [(lambda x: x.min(), -ROW)],
    "max_dim": [(lambda x: x.max(0).values, ROW)],
    "min_dim": [(lambda x: x.min(0).values, -ROW)],
    "amax": [(lambda x: x.amax(0), ROW)],
    "amin": [(lambda x: x.amin((0,)), -ROW)],
    "cummax": [(lambda x: x.cummax(0).values, ROW)],
    "cummin": [(lambda x: x.cummin(0).values, -ROW)],
    "max_pool": [(lambda x: F.max_pool1d(x[None], 3, 2, 1), ROW)],
    "adaptive_max_pool": [(lambda x: F.adaptive_max_pool1d(x[None], 1), ROW)],
    "sort": [(lambda x: x.sort().values, ROW), (lambda x: x.sort(descending=True).values, ROW)],
    "topk": [(lambda x: x.topk(2).values, ROW), (lambda x: x.topk(2, largest=False).values, -ROW)],
    "kthvalue": [(lambda x: x.kthvalue(3).values, ROW)],
    "median": [(lambda x: x[1:].median(), torch.tensor([9.0, 1.0, 1.0, 0.0]).double() * torch.tensor(1.0).double())],
}
CONES: dict[str, list[Example]] = {
    "vector_norm": [
        (lambda x: torch.linalg.vector_norm(x, 2), at(0) * 0),
        (lambda x: torch.linalg.vector_norm(x, 3), at(0) * 0),
    ],
    "norm": [(lambda x: x.norm(2), at(0) * 0)],
    "std": [(lambda x: x.std(), at(0) * 0 + 1)],
    "complex_abs": [(lambda x: torch.complex(x[0], x[1]).abs(), at(0) * 0)],
    "hypot": [(lambda x: torch.hypot(x[0], x[1]), at(0) * 0)],
    "dist": [(lambda x: torch.dist(x, torch.ones(2).double()), at(0) * 0 + 1)],
    "cdist": [(lambda x: torch.cdist(x[None], torch.ones(1, 2).double()), at(0) * 0 + 1)],
    "pdist": [(lambda x: F.pdist(torch.stack([x, torch.ones(2).double()])), at(0) * 0 + 1)],
}
SPECTRALS: dict[str, list[Any]] = {  # at repeated values: test_spectral.py
    "eigvalsh": [(lambda x: torch.linalg.eigvalsh(torch.outer(x, x) + torch.diag(x)), at(0) * 0)],
    "svdvals": [(lambda x: torch.linalg.svdvals(torch.outer(x, x) + torch.diag(x)), at(0) * 0)],
}
EXAMPLES = {**SWITCHES, **ORDERS, **CONES, **SPECTRALS}


def test_every_record_with_kinks_has_an_example() -> None:
    """Computed from the dictionary: a new record without an example fails here."""
    kinky = {name for name, record in OPERATIONS.items() if isinstance(record, Nonsmooth)}
    assert kinky == set(EXAMPLES)


def nearby_gradients(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, draws: int = 60) -> list[torch.Tensor]:
    """Differentiate by torch at generic points next to x."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(draws):
        leaf = (x + 1e-7 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        found.append(torch.autograd.grad(f(leaf), leaf)[0])
    return found


def extreme_gradients(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, name: str) -> Iterator[torch.Tensor]:
    """Apply the extreme selections of one operation; everything else has no kink here."""
    program = ns.capture(f, x)
    record = OPERATIONS[name]
    rules: list[Any] = [0.0, 1.0]
    if isinstance(record, Ranking):
        rules = ["first", "last"]
    elif isinstance(record, Extremum):
        size = program.values[program.nonsmooth[0].operands[0].value].shape
        count = torch.Size(size).numel()
        rules = [
            torch.tensor(order, dtype=torch.float64).exp2().exp2().reshape(size) ** 4
            for order in itertools.permutations(range(count))
        ]
        rules = [
            10.0 ** (20 * torch.tensor(order).double().reshape(size)) for order in itertools.permutations(range(count))
        ]
    for rule in rules:
        yield ns.backprop(program, x, at_kinks={name: rule})


@pytest.mark.parametrize(("name", "number"), [(n, i) for n, e in {**SWITCHES, **ORDERS}.items() for i in range(len(e))])
def test_extreme_selections_are_the_gradients_nearby(name: str, number: int) -> None:
    """Sound: each gradient nearby is an extreme selection. Tight: each extreme selection is a gradient nearby."""
    f, x = EXAMPLES[name][number]
    f = read(f)
    assert ns.kinks(f, x).count >= 1
    near, extreme = nearby_gradients(f, x), list(extreme_gradients(f, x, name))
    for gradient in near:
        assert any(torch.allclose(gradient, e, atol=1e-5) for e in extreme), (gradient, extreme)
    if not isinstance(OPERATIONS[name], Ranking):
        for e in extreme:
            assert any(torch.allclose(gradient, e, atol=1e-5) for gradient in near), e


@pytest.mark.parametrize("name", CONES)
def test_cones(name: str) -> None:
    """At the zero vector every element of the dual ball, and at its boundary the one-sided derivative."""
    for f, x in CONES[name]:
        program = ns.capture(lambda u, g=f: g(u).sum(), x)
        assert ns.kinks(program, x).count == 1
        assert torch.equal(ns.backprop(program, x, at_kinks=0.5), torch.zeros(2).double())
        record, step = OPERATIONS[name], program.nonsmooth[0]
        assert isinstance(record, Cone)
        for v in (torch.tensor([1.0, -2.0]).double(), torch.tensor([0.3, 0.4]).double()):

            def dual(step: Any, kink: str, call: Call, v: torch.Tensor = v, record: Cone = record) -> Any:
                tangents = tuple(
                    v.reshape(o.shape) if i == 0 and o.numel() == 2 else o * 0 for i, o in enumerate(call.operands)
                )
                if step.operation.name == "hypot":
                    tangents = (v[0], v[1])
                if step.operation.name == "complex_abs":
                    tangents = (torch.complex(v[0], v[1]),)
                if step.operation.name == "pdist":
                    tangents = (torch.stack([v, v * 0]),)
                image = record.image(call, tangents)
                p = record.exponent(call)
                unit = image.abs() ** (p - 1) * image.sign()
                return unit / torch.linalg.vector_norm(unit, p / (p - 1), dim=-1, keepdim=True)

            slope = float(ns.backprop(program, x, at_kinks=dual) @ v)
            quotient = float((f(x + 1e-6 * v).sum() - f(x).sum()) / 1e-6)
            assert slope == pytest.approx(quotient, rel=1e-5), step


@pytest.mark.parametrize("name", EXAMPLES)
def test_away_from_kinks_push_is_native(name: str) -> None:
    """At random points the record's push is torch's derivative, and linear in the tangents."""
    record = OPERATIONS[name]
    assert isinstance(record, Nonsmooth)
    for f, point in EXAMPLES[name]:
        x = point + torch.randn(point.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        program = ns.capture(read(f), x)
        expected = ns.backprop(program, x)
        (step,) = program.nonsmooth
        evaluation = program.framework.evaluate(program, x, (), observe=True)
        call = next(c.call for c in evaluation.calls if c.step is evaluation.program.steps[step.index])
        rules = {k: 0.5 for k in record.kinks} | ({"tie": "even"} if record.kind is Kind.ORDER else {})
        rules |= {"zero vector": "zero", "tie": "even"} if record.kind is Kind.CONE else {}
        u, v = (
            [torch.randn(o.shape, dtype=torch.promote_types(o.dtype, torch.float64)) for o in call.operands]
            for _ in range(2)
        )
        if name == "where":
            u[0] = v[0] = call.operands[0]
        both = [a + 2 * b for a, b in zip(u, v, strict=True)]
        push = [record.push(call, rules, tuple(t)) for t in (u, v, both)]
        assert torch.allclose(push[2], push[0] + 2 * push[1])
        forced = ns.backprop(program, x, at_kinks=lambda step, kink, call: None)
        assert torch.equal(forced, expected)
        assert not any(bool(m.any()) for m in record.active(call).values())
        assert all(bool((m > 0).all()) for m in record.margins(call).values())


@pytest.mark.parametrize("seed", range(12))
def test_windows_and_ranks_against_plain_loops(seed: int) -> None:
    """Pooling windows, gaps, even splits and tied blocks equal their transcription in plain Python."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(-2, 3, (5, 6), generator=generator).double()
    kernel, stride, padding, dilation = (
        [(2, 3), (2, 1), (1, 1), (1, 2)] if seed % 2 else [(3, 2), (1, 2), (0, 1), (2, 1)]
    )
    result = F.max_pool2d(image[None], kernel, stride, padding, dilation)
    attributes = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation, "spatial_from": 1}
    call = Call(xp, (image[None],), attributes, result)
    record = OPERATIONS["max_pool"]
    assert isinstance(record, Pooling)
    gaps, shares = naive_pool(image.tolist(), kernel, stride, padding, dilation)
    assert torch.equal(record.margins(call)["tie"][0], torch.tensor(gaps).double())
    assert torch.equal(record.active(call)["tie"][0], torch.tensor(gaps) == 0)
    tangent = torch.randn(1, 5, 6, generator=generator, dtype=torch.float64)
    expected = torch.tensor(
        [[sum(w * float(tangent[0, i, j]) for (i, j), w in cell.items()) for cell in row] for row in shares]
    )
    for rule in ("even", torch.ones(1, 5, 6).double()):
        assert torch.allclose(record.push(call, {"tie": rule}, (tangent,))[0], expected.double())
    row = torch.randint(0, 3, (6,), generator=generator).double()
    sort = OPERATIONS["sort"]
    assert isinstance(sort, Ranking)
    call = Call(xp, (row,), {"dim": 0}, row.sort().values)
    for rule in ("even", "first", "last"):
        pushed = sort.push(call, {"tie": rule}, (tangent[0, 0],))
        assert torch.allclose(pushed, torch.tensor(naive_ranks(row.tolist(), tangent[0, 0].tolist(), rule)).double())


@pytest.mark.parametrize("mistake", ["slope", "sign", "missing"])
def test_the_testers_catch_a_wrong_record(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong slope, a wrong sign and a missing kink each fail a test of this file."""
    right = OPERATIONS["relu"]
    assert isinstance(right, ns.Switch)
    wrong = {
        "slope": replace(right, pieces=lambda call: ((0.0,), (1.5,))),
        "sign": replace(right, pieces=lambda call: ((1.0,), (0.0,))),
        "missing": replace(right, arguments=lambda call: (call.operands[0] + 7,)),
    }[mistake]
    monkeypatch.setitem(OPERATIONS, "relu", wrong)
    with pytest.raises(AssertionError):
        test_extreme_selections_are_the_gradients_nearby("relu", 0)
        test_away_from_kinks_push_is_native("relu")


BAD_POINTS = {
    "sqrt": 0.0, "rsqrt": 0.0, "log": 0.0, "log2": 0.0, "log10": 0.0, "log1p": -1.0, "reciprocal": 0.0, "acos": 1.0, "asin": -1.0,
    "acosh": 1.0, "atanh": 1.0, "sign": 0.0, "floor": 2.0, "ceil": -1.0, "round": 0.5, "trunc": 1.0, "frac": -2.0, "erfinv": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_POINTS)
def test_bad_points(name: str) -> None:
    """Singular points and jumps have distance 0 there and a positive one beside it."""
    record = OPERATIONS[name]
    assert isinstance(record, Singularity)
    point = torch.tensor([BAD_POINTS[name], BAD_POINTS[name] * 0.8 + (0.5 if name == "acosh" else 0.13)]).double()
    (distance,) = record.margins(Call(xp, (point,), {}, point)).values()
    assert float(distance[0]) == 0.0 and float(distance[1]) > 0.0


LEAVING = {
    "eigenvectors of a repeated eigenvalue": (
        lambda x: torch.linalg.eigh(x + x.T).eigenvectors.square().sum(),
        torch.eye(3, dtype=torch.float64),
        "repeated eigenvalue",
    ),
    "vectors of a repeated singular value": (
        lambda x: torch.linalg.svd(x).U.square().sum(),
        torch.eye(2, dtype=torch.float64),
        "repeated or zero singular value",
    ),
    "vectors of the singular value 0": (
        lambda x: torch.linalg.svd(x).U[0, 0],
        torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64),
        "repeated or zero singular value",
    ),
    "pseudoinverse of lower rank": (
        lambda x: torch.linalg.pinv(x).sum(),
        torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64),
        "lower rank",
    ),
    "mode of equal entries": (lambda x: x.mode().values, torch.tensor([2.0, 1.0, 2.0]), "equal entries"),
    "mantissa of a power of 2": (lambda x: torch.frexp(x).mantissa.sum(), torch.tensor([4.0]), "power of 2"),
    "tied pivots": (lambda x: torch.linalg.lu_factor(x)[0].sum(), torch.tensor([[1.0, 2], [-1, 3]]), "tied pivots"),
    "logarithm on its cut": (
        lambda x: torch.complex(x, torch.zeros_like(x)).log().imag.sum(),
        torch.tensor([-1.0]),
        "0",
    ),
}


@pytest.mark.parametrize("name", LEAVING)
def test_bad_points_that_leave_the_theory_are_said(name: str) -> None:
    f, x, kink = LEAVING[name]
    certificate = ns.subgradient(f, x).certificate
    assert not certificate.certified
    assert any(kink in r.message for r in certificate.reasons), str(certificate)


def test_margins_of_jumps_are_distances() -> None:
    """Of the mode to the next equal entries, of a mantissa to the next power of 2, of a pivot to the next tie."""
    margins = {}
    for name, f, x in (
        ("mode", lambda x: x.mode().values, torch.tensor([2.0, 1.0, 1.25])),
        ("frexp", lambda x: torch.frexp(x).mantissa.sum(), torch.tensor([5.0])),
        ("lu_factor", lambda x: torch.linalg.lu_factor(x)[0].sum(), torch.tensor([[4.0, 2], [-3, 3]])),
    ):
        program = ns.capture(f, x)
        step = next(s for s in program.steps if s.operation.name == name)
        result = step.target(x)
        call = Call(xp, (x,), step.attributes, result[0] if isinstance(result, tuple) else result)
        margins[name] = float(min(m.min() for m in OPERATIONS[name].margins(call).values()))
    assert margins == {"mode": 0.25, "frexp": 1.0, "lu_factor": 0.25}
