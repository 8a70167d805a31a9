"""Definitions that are executed give torch's values and gradients, and count what is counted from shapes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nonsmooth as ns
from nonsmooth.cost import scalars
from tests.references.scalar_sweep import Executed, WrongValue, execute
from tests.references.scalar_tape import VALUES
from tests.zoo import randn, weighed

POSITIVE = randn(3, 4, seed=1).abs() + 0.3
UNIT = randn(3, 4, seed=2).tanh() * 0.9
PROBABILITY = randn(3, 4, seed=3).sigmoid()
REAL = randn(3, 4, seed=4)
OTHER = randn(3, 4, seed=5)
LABELS = torch.tensor([1, 0, 3])
WEIGHTS = torch.tensor([0.5, 1.5, 2.0, 0.25], dtype=torch.float64)
INDEX = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])

Case = tuple[Callable[[torch.Tensor], Any], torch.Tensor]

UNARY: dict[str, torch.Tensor] = {
    **dict.fromkeys(
        "exp exp2 expm1 sin cos tan sinh cosh tanh atan asinh erf erfc sigmoid square neg abs sign".split(), REAL
    ),
    **dict.fromkeys("floor ceil round trunc frac sinc deg2rad rad2deg positive i0 digamma lgamma relu".split(), REAL),
    **dict.fromkeys("log log2 log10 log1p sqrt rsqrt reciprocal".split(), POSITIVE),
    **dict.fromkeys("asin acos atanh erfinv".split(), UNIT),
    "acosh": POSITIVE + 1,
    "logit": PROBABILITY,
}

CASES: dict[str, Case] = {
    **{name: (getattr(torch, name), x) for name, x in UNARY.items()},
    "add": (lambda x: (x + x.cos(), x + 2, torch.add(x, x[0], alpha=3), 1.5 + x), REAL),
    "sub": (lambda x: (x - x.cos(), x - 2, torch.sub(x, x[0], alpha=3), 1.5 - x, torch.rsub(x, x, alpha=2)), REAL),
    "mul": (lambda x: (x * x.cos(), x * 2, 1.5 * x, x * x[:, :1], x * OTHER, x / 3), REAL),
    "div": (lambda x: (x / x.cos(), 2 / x, OTHER / x, x / OTHER, x[0] / x), POSITIVE),
    "rounded div": (
        lambda x: (
            x.div(OTHER, rounding_mode="floor"),
            x.div(OTHER, rounding_mode="trunc"),
            x.detach().floor_divide(0.7),
        ),
        REAL,
    ),
    "remainder": (lambda x: (x % 0.7, torch.fmod(x, 0.7), x.remainder(OTHER.abs() + 1)), REAL),
    "pow": (
        lambda x: (x**2, x**3, x**4, x**0, x**1, x**2.5, x**-1, x**0.5, x**x, x**OTHER, 2**x, OTHER.abs() ** x),
        POSITIVE,
    ),
    "addcmul": (lambda x: (x.addcmul(x.cos(), x.sin(), value=2), x.addcmul(OTHER, x)), REAL),
    "addcdiv": (lambda x: (x.addcdiv(x.cos(), x + 3, value=2), x.addcdiv(OTHER, POSITIVE)), REAL),
    "lerp": (lambda x: (x.lerp(x.cos(), 0.3), x.lerp(OTHER, x.sigmoid())), REAL),
    "hypot": (lambda x: torch.hypot(x, x.cos()), REAL),
    "atan2": (lambda x: (torch.atan2(x, x.cos()), torch.atan2(x, OTHER), torch.atan2(OTHER, x)), REAL),
    "logaddexp": (lambda x: (torch.logaddexp(x, x.cos()), torch.logaddexp2(x, OTHER)), REAL),
    "xlogy": (
        lambda x: (torch.xlogy(x, x.cosh()), torch.special.xlog1py(x, x.square()), torch.special.entr(x.abs())),
        REAL,
    ),
    "clamped logit": (lambda x: x.logit(0.2), PROBABILITY),
    "ldexp and frexp": (lambda x: (torch.ldexp(x, LABELS[:1]), torch.frexp(x).mantissa), REAL),
    "copysign": (lambda x: x.copysign(OTHER), REAL),
    "heaviside": (lambda x: x * torch.heaviside(x.detach(), OTHER), REAL),
    "special": (
        lambda x: (
            torch.special.i0e(x),
            torch.special.i1(x),
            torch.special.i1e(x),
            torch.special.erfcx(x),
            torch.special.log_ndtr(x),
            torch.special.ndtri(x / 9),
            torch.mvlgamma(x + 2, 3),
            torch.polygamma(1, x),
            torch.special.zeta(torch.full_like(x, 2.5), x),
            torch.special.gammainc(POSITIVE, x),
            torch.special.gammaincc(POSITIVE, x),
        ),
        POSITIVE,
    ),
    **{
        f"activation {name}": (lambda x, name=name, options=options: getattr(F, name)(x, **options), REAL)
        for name, options in (
            ("leaky_relu", {}),
            ("relu6", {}),
            ("hardtanh", {"min_val": -0.3}),
            ("hardsigmoid", {}),
            ("hardswish", {}),
            ("softshrink", {"lambd": 0.2}),
            ("hardshrink", {"lambd": 0.2}),
            ("threshold", {"threshold": 0.1, "value": 0.1}),
            ("threshold", {"threshold": 0.1, "value": 0.4}),
            ("elu", {"alpha": 0.7}),
            ("selu", {}),
            ("celu", {"alpha": 0.7}),
            ("silu", {}),
            ("mish", {}),
            ("gelu", {}),
            ("gelu", {"approximate": "tanh"}),
            ("logsigmoid", {}),
            ("softplus", {}),
            ("softplus", {"beta": 2.0, "threshold": 1.0}),
            ("glu", {}),
            ("glu", {"dim": 1}),
            ("tanhshrink", {}),
            ("softsign", {}),
        )
    },
    "prelu": (lambda x: F.prelu(x, x[0].sigmoid()), REAL),
    "clamp": (
        lambda x: (x.clamp(-0.5, 0.5), x.clamp(min=0.1), x.clamp(x.cos() - 1, x.sin() + 1), x.clamp(max=x[0])),
        REAL,
    ),
    "maximum": (
        lambda x: (torch.maximum(x, x.cos()), torch.minimum(x, OTHER), torch.fmax(x, OTHER), torch.fmin(x, x[0])),
        REAL,
    ),
    "where": (lambda x: (torch.where(x > 0, x, x.cos()), torch.where(x > 0, x, 2.0), x.masked_fill(x > 1, 0.5)), REAL),
    "sum": (lambda x: (x.sum(), x.sum(0), x.sum((0, 1), keepdim=True), x.nansum(1), x.mean(), x.mean(1, True)), REAL),
    "prod": (lambda x: (x.prod(), x.prod(1), x.cumprod(0), x.cumprod(1)), REAL),
    "trace": (lambda x: x.trace(), REAL),
    "var": (
        lambda x: (x.var(), x.var(0), x.var(1, correction=0, keepdim=True), x.std(), x.std((0, 1)), x.std(1, False)),
        REAL,
    ),
    "logsumexp": (lambda x: (x.logsumexp(0), x.logsumexp((0, 1), True), x.logcumsumexp(1)), REAL),
    "cumsum": (lambda x: (x.cumsum(0), x.cumsum(1), x.sum().cumsum(0)), REAL),
    "diff": (lambda x: (x.diff(), x.diff(n=2, dim=1), x.diff(prepend=x[:, :1], append=x[:, 1:3])), REAL),
    **{
        f"loss {name} {reduction} {options}": (
            lambda x, name=name, reduction=reduction, options=options, target=target: getattr(F, name)(
                x, target, reduction=reduction, **options
            ),
            point,
        )
        for name, point, target, choices in (
            ("mse_loss", REAL, OTHER, ({},)),
            ("l1_loss", REAL, OTHER, ({},)),
            ("smooth_l1_loss", REAL, OTHER, ({}, {"beta": 0.3})),
            ("huber_loss", REAL, OTHER, ({}, {"delta": 0.3})),
            ("soft_margin_loss", REAL, OTHER.sign(), ({},)),
            ("hinge_embedding_loss", REAL, OTHER.sign(), ({},)),
            ("binary_cross_entropy", PROBABILITY, OTHER.sigmoid(), ({}, {"weight": WEIGHTS})),
            (
                "binary_cross_entropy_with_logits",
                REAL,
                OTHER.sigmoid(),
                ({}, {"weight": WEIGHTS}, {"pos_weight": WEIGHTS}, {"weight": WEIGHTS, "pos_weight": WEIGHTS}),
            ),
            ("nll_loss", REAL, LABELS, ({}, {"weight": WEIGHTS}, {"ignore_index": 0})),
            ("kl_div", REAL, OTHER.softmax(1), ({},)),
            (
                "cross_entropy",
                REAL,
                LABELS,
                (
                    {},
                    {"weight": WEIGHTS},
                    {"label_smoothing": 0.2},
                    {"label_smoothing": 0.2, "weight": WEIGHTS},
                    {"ignore_index": 3},
                    {"ignore_index": 3, "weight": WEIGHTS, "label_smoothing": 0.1},
                ),
            ),
            ("cross_entropy", REAL, OTHER.softmax(1), ({}, {"weight": WEIGHTS}, {"label_smoothing": 0.2})),
        )
        for reduction in ("none", "mean", "sum")
        for options in choices
        if (name, reduction) != ("kl_div", "mean")  # torch warns of it
    },
    "cross_entropy of images": (
        lambda x: F.cross_entropy(x.reshape(1, 3, 2, 2), LABELS[:2].repeat(2).reshape(1, 2, 2)),
        REAL,
    ),
    "cross_entropy of one sample": (lambda x: F.cross_entropy(x[0], LABELS[2]), REAL),
    "moves": (
        lambda x: (
            x.T.reshape(2, 6),
            x.flip(0)[1:, ::2],
            torch.cat([x, x.cos()], 1).roll(1, 0),
            F.pad(x, (1, 2), value=0.5),
            x.tril() + x.triu(1),
            x.gather(0, INDEX),
            x[LABELS[:2]],
            x.repeat(2, 1).unfold(0, 2, 3),
            x.expand(2, 3, 4).permute(2, 0, 1),
            torch.stack([x, x]).select(0, 1).diagonal(),
            x.repeat_interleave(2, 0),
            x.index_fill(0, LABELS[:1], 3.0),
        ),
        REAL,
    ),
    "writing in place": (lambda x: _written(x), REAL),
    "scatter_add": (lambda x: (x.scatter_add(0, INDEX, x[:2].cos()), OTHER.scatter_add(0, INDEX, x[:2])), REAL),
    "index_add": (lambda x: (x.index_add(0, LABELS[1:2], x[:1]), OTHER.index_add(1, LABELS, x[:, :3], alpha=2)), REAL),
    "index_put": (
        lambda x: (
            x.index_put((LABELS[:2],), x[2], accumulate=True),
            x.index_put((LABELS[:2], LABELS[1:]), x[0, :1], accumulate=True),
            x.index_put((LABELS[:2],), x[2]),
            x.put(LABELS, x[0, :3], accumulate=True),
        ),
        REAL,
    ),
    **{
        f"scatter_reduce {r} {own}": (
            lambda x, r=r, own=own: x.scatter_reduce(0, INDEX, x[:2].cos(), r, include_self=own),
            POSITIVE,
        )
        for r in ("sum", "mean", "prod")
        for own in (True, False)
    },
    "embedding": (lambda x: F.embedding(LABELS[:2], x), REAL),
    "comparisons": (lambda x: x * (x > 0) * torch.isclose(x, x) * torch.equal(x, x), REAL),
}


def _written(x: torch.Tensor) -> torch.Tensor:
    """Write to views of an array."""
    y = torch.zeros(3, 5, dtype=x.dtype)
    y[:, 1:] = x
    y[0].mul_(2).add_(x[1, 0])
    y[1:, 0].copy_(x[0, :2])
    return y.relu_().exp()


def nonzero(counts: Any) -> dict[str, int]:
    """Leave out what does not occur."""
    return {name: n for name, n in counts.items() if n}


def executed(f: Callable[..., torch.Tensor], x: Any, data: tuple[Any, ...] = ()) -> tuple[Executed, Counter[str]]:
    """Execute a function's scalar program and its sweeps; hold them against torch and the counts from shapes."""
    program = ns.capture(f, x, *data)
    found = execute(program, x, data)
    gradient, pulled = found.gradient()
    leaves, structure = program.framework.flatten(x)
    points = [t.detach().clone().requires_grad_() for t in leaves]
    value = f(program.framework.unflatten(points, structure), *data)
    expected = torch.autograd.grad(value, points, allow_unused=True)
    np.testing.assert_allclose(found.value, value.detach().numpy(), rtol=1e-8, atol=1e-10)
    for own, theirs in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(own, 0.0 if theirs is None else theirs.numpy(), rtol=1e-6, atol=1e-8)
    rng = np.random.default_rng(0)
    directions = [[rng.standard_normal(g.shape) for g in gradient] for _ in range(2)]
    slopes, once, each = found.directional(directions)
    for slope, direction in zip(slopes, directions, strict=True):
        inner = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
        assert slope == pytest.approx(inner, rel=1e-6, abs=1e-8)
    stated = found.stated
    assert nonzero(found.tape.counts) == nonzero(stated.evaluation)
    assert nonzero(pulled) == nonzero(stated.pull)
    assert nonzero(once) == nonzero(stated.once)
    assert nonzero(each) == {name: 2 * n for name, n in nonzero(stated.push).items()}
    return found, pulled


@functools.cache
def counted(name: str) -> Counter[str]:
    """Execute a case, and give what its evaluation counted."""
    f, x = CASES[name]
    return executed(lambda u: weighed(f(u)), x)[0].tape.counts


@pytest.mark.parametrize("name", CASES)
def test_definitions_compute_what_they_count(name: str) -> None:
    """Value, gradient, directional derivatives and all counts of one operation."""
    assert counted(name).total() > 0


def test_every_scalar_operation_is_executed() -> None:
    """The twin knows every scalar operation of the table, and the cases above run every one."""
    used = sum((counted(name) for name in CASES), Counter[str]())
    assert set(scalars.SCALARS) == set(VALUES) | {"select", "compare", "round", "special"}
    assert set(scalars.SCALARS) == set(used)


def test_a_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition that computes something else than torch is refused at its step."""
    from nonsmooth.cost.definitions import DEFINITIONS

    monkeypatch.setitem(DEFINITIONS, "sin", lambda call: call.x.apply("cos"))
    with pytest.raises(WrongValue, match="`sin`"):
        executed(lambda x: x.sin().sum(), REAL)


def test_a_wrong_count_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partial derivative that is counted as free, and is not, is found."""
    wrong = scalars.Scalar("square", scalars.Style.PRODUCT, {"x": Counter()})
    monkeypatch.setitem(scalars.SCALARS, "square", wrong)
    with pytest.raises(AssertionError):
        executed(lambda x: x.square().sum(), REAL)
