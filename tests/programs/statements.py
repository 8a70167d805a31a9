"""The statements of random programs, by kind. Every one is continuous and locally Lipschitz wherever it is evaluated.

The file is a list of one-line formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.programs.writer import Writer

__all__ = ["KINDS", "Statement"]

Statement: TypeAlias = Callable[[Writer], str | None]
"""Writes one statement; gives the name that it defines, or None where it was dropped."""


def pick(w: Writer, forms: tuple[str, ...], **terms: str) -> str | None:
    """Write one of several formulas in named terms."""
    return w.assign(w.rng.choice(forms).format(**terms))


def affine(w: Writer) -> str | None:
    """Write a sum, a matrix product, a rearrangement."""
    a = w.anything()
    b = w.like(a)
    if w.size(a) > 1 and w.rng.random() < 0.4:
        forms = ("{a}.flip(0)", "{a}[1:] - {a}[:-1]", "{a} - {a}.mean()", "{a}.cumsum(0)", "{a} - {a}[0]", "{a}.sum()")
        return pick(w, forms, a=a)
    forms = (
        "{a} + {b}",
        "{a} - {b}",
        "{a} + {k} * {b}",
        "{k} * {a} - 1.0",
        "-{a}",
        "{a} + {k}.0",
        "torch.lerp({a}, {b}, 0.5)",
    )
    return pick(w, forms, a=a, b=b, k=str(w.integer()))


def linear(w: Writer) -> str | None:
    """Write a matrix of small integers times a vector."""
    v = w.vector()
    return w.assign(f"{w.matrix(w.rng.randint(1, 4), w.size(v))} @ {v}")


def gather(w: Writer) -> str | None:
    """Write a vector made of values at hand, often with equal entries."""
    a, b, v = w.scalar(), w.scalar(), w.vector()
    forms = (
        "torch.stack([{a}, {a}, {b}])",
        "torch.stack([{a}, {b}])",
        "torch.stack([{a}, {b}, {a} + {b} - {b}])",
        "torch.stack([{b}, {a} - {b}, {a}, {b} * 2 - {b}])",
        "torch.cat([{v}, {v}])",
        "torch.cat([{v}, -{v}])",
        "torch.cat([{v}.flip(0), {a}.reshape(1)])",
    )
    return pick(w, forms, a=a, b=b, v=v)


def smooth(w: Writer) -> str | None:
    """Write a smooth operation."""
    a = w.anything()
    forms = (
        "torch.sin({a})",
        "torch.cos({a})",
        "torch.tanh({a})",
        "torch.exp(0.5 * torch.tanh({a}))",
        "{a} * {a}",
        "{a} ** 2 / 2",
        "{a} * {b}",
        "F.softplus({a})",
        "torch.sigmoid({a})",
        "{a} / (1.0 + {b} * {b})",
        "torch.logaddexp({a}, {b})",
        "F.gelu({a})",
        "torch.sqrt(1.0 + {a} * {a})",
    )
    return pick(w, forms, a=a, b=w.like(a))


def switch(w: Writer) -> str | None:
    """Write an element-wise operation of several pieces."""
    a = w.anything()
    forms = (
        "torch.relu({a})",
        "torch.relu({a})",
        "torch.abs({a})",
        "abs({a})",
        "F.leaky_relu({a}, 0.25)",
        "F.relu6({a} + 6.0)",
        "F.hardtanh({a})",
        "{a}.clamp(-1.0, 2.0)",
        "{a}.clamp(min=0.0)",
        "torch.clamp({a}, max=1.0)",
        "torch.maximum({a}, {b})",
        "torch.minimum({a}, {b})",
        "torch.fmax({a}, {b})",
        "torch.fmin({a}, 2 * {b})",
        "torch.clamp({a}, -abs({b}), abs({b}))",
        "torch.clamp({a}, min={b})",
        "F.prelu({a}.reshape(1, -1), {slope}).reshape({a}.shape)",
        "F.softshrink({a}, 1.0)",
        "F.hardswish({a} - 3.0)",
        "F.hardsigmoid({a} + 3.0)",
        "F.elu({a}, 2.0)",
        "F.selu({a})",
        "F.threshold({a}, 1.0, 1.0)",
        "F.l1_loss({a}, {b}, reduction='none')",
        "torch.relu_({a}.clone())",
        "{a}.clone().clamp_(0.0, 1.0)",
    )
    return pick(w, forms, a=a, b=w.like(a), slope=w.constant([0.25]))


def order(w: Writer) -> str | None:
    """Write an operation on the order of the entries of a vector."""
    v = w.vector()
    n = w.size(v)
    k = w.rng.randint(1, n)
    forms = [
        "{v}.max()",
        "{v}.min()",
        "{v}.max(0).values",
        "{v}.min(0).values",
        "{v}.amax(0)",
        "{v}.amin()",
        "{v}.sort().values",
        "{v}.sort(descending=True).values[{i}]",
        "torch.msort({v})",
        "{v}.topk({k}).values",
        "{v}.topk({k}).values.sum()",
        "{v}.topk({k}, largest=False).values",
        "{v}.kthvalue({k}).values",
        "{v}.median()",
        "{v}.cummax(0).values",
        "{v}.cummin(0).values",
        "{c} @ {v}.sort().values",
        "torch.outer({v}, {c}).amax(0)",
        "torch.outer({v}, {c}).amin((0, 1))",
        "torch.outer({v}, {c}).max(1).values",
        "torch.aminmax({v}).max",
    ]
    if n > 1:
        forms += [
            "F.max_pool1d({v}.reshape(1, 1, -1), 2, 1).reshape(-1)",
            "F.max_pool1d({v}.reshape(1, 1, -1), 3, 2, 1).reshape(-1)",
            "F.adaptive_max_pool1d({v}.reshape(1, 1, -1), 2).reshape(-1)",
        ]
    weights = w.constant([float(w.rng.choice((1, 2, -1, 0))) for _ in range(n)])
    return pick(w, tuple(forms), v=v, k=str(k), i=str(k - 1), c=weights)


def norm(w: Writer) -> str | None:
    """Write a norm, often of a vector that is zero."""
    v = w.vector()
    here = w.constant(w.scope[v].tolist())
    u = w.rng.choice((v, f"({v} - {here})", f"({v} - {v}[0])", f"({v} - {w.like(v)})", f"torch.relu({v})"))
    forms = [
        "torch.linalg.vector_norm({u})",
        "torch.linalg.vector_norm({u}, 1)",
        "torch.linalg.vector_norm({u}, float('inf'))",
        "torch.linalg.vector_norm({u}, 3)",
        "torch.norm({u})",
        "{u}.norm(p=1)",
        "torch.hypot({u}[0], {a})",
        "torch.dist({u}, {b})",
    ]
    if w.size(v) > 1:
        forms += ["{u}.std()", "torch.cdist({u}.reshape(1, -1), {b}.reshape(1, -1)).reshape(())"]
    return pick(w, tuple(forms), u=u, a=w.scalar(), b=w.like(v))


def spectral(w: Writer) -> str | None:
    """Write eigenvalues or singular values of a small matrix, often with repeated ones or zero."""
    a, b, c = w.scalar(), w.scalar(), w.scalar()
    symmetric = (
        f"torch.stack([{a}, {b}, {b}, {c}]).reshape(2, 2)",
        f"torch.stack([{a}, {b}, {b}, {a}]).reshape(2, 2)",
        f"torch.stack([{a}, {b}, {c}, {b}, {a}, {b}, {c}, {b}, {a}]).reshape(3, 3)",
        f"torch.diag(torch.stack([{a}, {b}, {c}]))",
    )
    any_shape = (
        *symmetric,
        f"torch.stack([{a}, {b}, {c}, -{a}]).reshape(2, 2)",
        f"torch.stack([{a}, {b}]).reshape(1, 2)",
    )
    forms = (
        ("torch.linalg.eigvalsh({m})", symmetric),
        ("torch.linalg.eigvalsh({m})[0]", symmetric),
        ("torch.linalg.eigvalsh({m}).abs().sum()", symmetric),
        ("torch.linalg.svdvals({m})", any_shape),
        ("torch.linalg.matrix_norm({m}, 'nuc')", any_shape),
        ("torch.linalg.matrix_norm({m}, 2)", any_shape),
    )
    form, matrices = w.rng.choice(forms)
    return pick(w, (form,), m=w.rng.choice(matrices))


def choose(w: Writer) -> str | None:
    """Write a `where` on a comparison whose branches join."""
    a = w.anything()
    b, c = w.like(a), w.like(a)
    p = w.rng.choice((f"({a} - {b})", a, a, f"({a} + {b})"))
    forms = (
        "torch.where({a} > {b}, {a}, {b})",
        "torch.where({a} >= {b}, {b}, {a})",
        "torch.where({a} <= {b}, 2 * {a} - {b}, {a})",
        "torch.where({p} > 0, {p} * {c}, torch.zeros_like({p}))",
        "torch.where({p} < 0, torch.zeros_like({p}), {p} * torch.cos({c}))",
        "torch.where({p} >= 0, {p}, {k} * {p})",
        "torch.where({p} > 0, {c} + {k} * {p}, {c})",
        "torch.where({p} > 0, {c} + {p} * {p}, {c})",
        "torch.where(~({p} > 0), {c}, {c} + {p} * torch.sin({c}))",
        "torch.where(({p} > 0) & ({c} > 0), {p} * {c}, torch.zeros_like({p}))",
        "torch.where({p} * {p} > 0, {p} * {p} * {c}, torch.zeros_like({p}))",
        "torch.where({a} > {b}, {a} - {b}, {b} - {a})",
        "torch.where({a}.abs() > 1, 2 * {a} - torch.clamp({a}, -1, 1), {a})",
    )
    return pick(w, forms, a=a, b=b, c=c, p=p, k=str(w.integer(-2, 3)))


def branch(w: Writer) -> str | None:
    """Write an `if`, a loop, a `max` or a `sorted` of Python on data."""
    a, b, c = w.scalar(), w.scalar(), w.scalar()
    p = w.rng.choice((f"({a} - {b})", a, f"({a} + {b} - {b})"))
    forms = (
        "if {a} > {b}:\n    {r} = {a}\nelse:\n    {r} = 2 * {b} - {a}",
        "if {p} > 0:\n    {r} = {c} + {p} * {c}\nelse:\n    {r} = {c} - {k} * {p}",
        "if not {p} >= 0:\n    {r} = {p} * torch.sin({c})\nelse:\n    {r} = {k} * {p}",
        "{r} = {c}\nif {a} < {b}:\n    {r} = {c} + ({b} - {a}) * {k}",
        "if {a} >= {b} and {a} >= {c}:\n    {r} = {a}\nelif {b} >= {c}:\n    {r} = +{b}\nelse:\n    {r} = {c}",
        "{r} = {a}\nfor term in ({b}, {c}):\n    if term > {r}:\n        {r} = term\n{r} = 2 * {r}",
        "{r} = {a} * 1\nwhile {r} > 1:\n    {r} = 2 - {r}",
        "{r} = max({a}, {b}) + {c}",
        "{r} = min([{a}, {b}, {c}]) * 2",
        "{r} = max([{a}, {b}, {c}]) - {a}",
        "{r} = max([{a}, {b}, {c}], key=lambda term: -2 * term)",
        "{r} = sorted([{a}, {b}, {c}])[1] * 2",
        "first, second = sorted([{a}, {b}], key=lambda term: -term)\n{r} = first + {k} * second",
    )
    name = f"t{len(w.sizes)}"
    return w.block(name, w.rng.choice(forms).format(a=a, b=b, c=c, p=p, k=str(w.integer()), r=name))


def cancelling(w: Writer) -> str | None:
    """Write a formula in which kinks cancel, or meet the same argument twice, computed in different ways."""
    a = w.anything()
    forms = (
        "torch.relu({a}) - torch.relu(-{a})",
        "torch.relu({a}) - (torch.relu(-{a}) + {a})",
        "(torch.abs({a}) + {a}) / 2 - torch.relu({a})",
        "torch.abs({a} + {b}) - torch.abs({b} + {a})",
        "torch.relu(({a} + {b}) + {c}) - torch.relu({a} + ({b} + {c}))",
        "torch.maximum({a}, {b}) - ({a} + torch.relu({b} - {a}))",
        "torch.maximum({a}, {b}) + torch.minimum({a}, {b}) - {a}",
        "torch.relu({a}) + torch.log1p(torch.exp(-torch.abs({a})))",
        "torch.relu({a} * (1.0 + torch.exp({c} / 8))) - torch.relu({a} + {a} * torch.exp({c} / 8))",
        "torch.abs({a} * torch.exp({c} / 8) * 3 - torch.exp({c} / 8) * (3 * {a})) + {b}",
        "torch.where({a} > {b}, {a}, {b}) - torch.maximum({a}, {b})",
        "{a}.clamp(min=0) + {a}.clamp(max=0)",
        "F.hardtanh({a}) - torch.clamp({a}, -1.0, 1.0) + {b}",
        "torch.abs(torch.abs({a}) + {a})",
        "torch.relu({b}) - torch.relu({b} - {a} * {a})",
    )
    return pick(w, forms, a=a, b=w.like(a), c=w.like(a))


def flat(w: Writer) -> str | None:
    """Write a kink whose argument has no derivative."""
    a = w.anything()
    forms = (
        "torch.relu(torch.relu({a}))",
        "torch.relu({a} * {a}) + {b}",
        "torch.relu(-{a} * {a})",
        "torch.abs({a} * 0) + {a}",
        "torch.relu({a} - {a}) + torch.sin({a})",
        "torch.relu(torch.relu({a}) * torch.relu(-{a})) + {b}",
        "torch.abs(torch.relu({a}) - {a}.clamp(min=0)) + {b}",
        "torch.maximum({a} * {a}, {b} * {b})",
        "torch.relu(torch.abs({a})) - {b}",
        "torch.linalg.vector_norm(torch.stack([{a} * {a}, {b} * {b}]).reshape(-1)) + torch.relu({a}).sum()",
        "torch.stack([{a} * {a}, {a} * 0, {b} * 0]).amax(0) + {b}",
    )
    return pick(w, forms, a=a, b=w.like(a))


KINDS: dict[str, tuple[Statement, int]] = {
    "affine": (affine, 4),
    "linear": (linear, 4),
    "gather": (gather, 2),
    "smooth": (smooth, 3),
    "switch": (switch, 7),
    "order": (order, 4),
    "norm": (norm, 2),
    "spectral": (spectral, 1),
    "choose": (choose, 3),
    "branch": (branch, 2),
    "cancelling": (cancelling, 3),
    "flat": (flat, 2),
}
"""The kinds of statements and how often they come."""
