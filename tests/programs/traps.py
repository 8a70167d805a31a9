"""Traps: programs that backprop differentiates without a word and that no certificate may cover unnoticed.

Each is a formula in t, whose value at the point is 0 and whose derivative there is not, and in u, another such term or
a smooth one. A trap that `must_refuse` leaves the theory: its function is not continuous next to the point, or a part
of it cannot be seen, or its derivative is not that of its values. The others implement a function that is harmless; a
certificate is allowed if the certified gradient is a limit of gradients.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.programs.generator import write_statements
from tests.programs.jax_text import NotInJax, in_jax
from tests.programs.writer import RandomProgram, Writer, random_point

__all__ = ["TRAPS", "Trap", "sayable", "trapped_program"]


@dataclass(frozen=True)
class Trap:
    """Lines that define `r` from `t` and `u`."""

    lines: str
    must_refuse: bool = False


CUSTOM = """class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t):
        ctx.save_for_backward(t)
        return t.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (t,) = ctx.saved_tensors
        return g * (t > 0).to(g.dtype)


r = Custom.apply(t) - torch.relu(t)"""

TRAPS: dict[str, Trap] = {
    # predicates without a derivative, and predicates that are not what the branches differ by
    "where square": Trap("r = torch.where(t * t > 0, t, 2 * t)"),
    "where square, mixed": Trap("r = torch.where(t * t > 0, t, 2 * t) + torch.abs(u)"),
    "where sum of squares": Trap("r = torch.where(t * t + u * u > 0, t - u, u)"),
    "where absolute": Trap("r = torch.where(torch.abs(t) > 0, t, 3 * t)"),
    "where norm": Trap("r = torch.where(torch.linalg.vector_norm(torch.stack([t, u])) > 0, t + u, 2 * u)"),
    "where other": Trap("r = torch.where(u > 0, t, 2 * t)", must_refuse=True),
    "where other, guarded": Trap("r = torch.where(u >= 0, t * u, t)", must_refuse=True),
    "where constant": Trap("r = torch.where(t > 0, t, 2 * t - 1)", must_refuse=True),
    "where squared distance": Trap("r = torch.where(t * t < 0, 5 * t, t)"),
    "where zero predicate": Trap("r = torch.where(t * 0 >= 0, t, 2 * t)"),
    "where equal": Trap("r = torch.where(t == 0, -t, t)"),
    "where not equal": Trap("r = torch.where(t != 0, t, 5 * t)"),
    "where equal, joined": Trap("r = torch.where(t == u, u, t)"),
    "where equal, vector": Trap(
        "r = torch.where(torch.stack([t, u]) == 0, 2 * torch.stack([u, t]), 0 * u).sum()", must_refuse=True
    ),
    # the same with an `if`
    "if square": Trap("r = t if t * t > 0 else 2 * t"),
    "if other": Trap("r = t if u > 0 else 2 * t", must_refuse=True),
    "if equal": Trap("if t == 0:\n    r = -t\nelse:\n    r = t"),
    "if jump": Trap("if t > 0:\n    r = t + 1\nelse:\n    r = t", must_refuse=True),
    "if all equal": Trap("r = 3 * t if torch.equal(t, torch.zeros_like(t)) else t"),
    "if both": Trap("r = t + u if t * t > 0 and u * u > 0 else 2 * t", must_refuse=True),
    "if both, continuous": Trap("r = t + min(abs(t), abs(u)) if t * t > 0 and u * u > 0 else t"),
    "if nested": Trap("r = t\nif t * t > 0:\n    if u * u > 0:\n        r = t + torch.minimum(abs(t), abs(u))"),
    "if all": Trap("v = torch.stack([t, u])\nr = t + v.abs().amin() if (v * v > 0).all() else t"),
    "if any": Trap("v = torch.stack([t, u])\nr = v.max() + t if (v > 0).any() else 1 * t"),
    "if close": Trap("r = 3 * t - 2 * u if torch.allclose(t, u, rtol=0.0, atol=0.0) else t"),
    "where both": Trap("r = torch.where((t * t > 0) & (u * u > 0), t + torch.minimum(abs(t), abs(u)), t)"),
    "where nested": Trap("r = torch.where(t * t > 0, torch.where(u * u > 0, t + torch.abs(u), t), u)"),
    "max by another key": Trap("r = max([t, u], key=lambda term: term * term)", must_refuse=True),
    # singular operations at their bad points
    "square root": Trap("r = torch.sqrt(torch.abs(t)) ** 2 - torch.abs(t)", must_refuse=True),
    "square root alone": Trap("r = torch.sqrt(torch.relu(t))", must_refuse=True),
    "norm by hand": Trap("r = torch.sqrt(t * t + u * u)"),
    "power": Trap("r = torch.abs(t) ** 0.5", must_refuse=True),
    "entropy": Trap("r = torch.special.entr(torch.relu(t))", must_refuse=True),
    # values that leave the program
    "item": Trap("r = t * (1.0 if t.item() > 0 else 2.0) - torch.relu(t)", must_refuse=True),
    "float": Trap("r = t - float(t.detach()) + torch.abs(u)", must_refuse=True),
    "escaped maximum": Trap("r = max(float(t.detach()), 0.0) + u", must_refuse=True),
    "tolist": Trap("r = t * (3.0 if t.tolist() > 0 else 1.0)", must_refuse=True),
    "numpy": Trap("r = u + torch.as_tensor(np.abs(t.detach().numpy()).item(), dtype=DTYPE)", must_refuse=True),
    "escaped index": Trap("r = torch.stack([t, 2 * t])[int(u > 0)]", must_refuse=True),
    "truth value": Trap("r = t if t else 2 * t"),
    "whole number": Trap("r = (t + 1).long().to(DTYPE) + u", must_refuse=True),
    "boolean": Trap("r = t.bool() * t * 2 - t"),
    # derivatives that are not those of the values
    "detach": Trap("r = t - t.detach() / 2", must_refuse=True),
    "detached kink": Trap("r = torch.relu(t) - torch.relu(t).detach() + u", must_refuse=True),
    "straight through": Trap("r = t + (torch.round(t + 0.25) - t).detach()", must_refuse=True),
    "straight-through sign": Trap("r = torch.tanh(t) + (torch.sign(t) - torch.tanh(t)).detach()", must_refuse=True),
    "no grad": Trap("with torch.no_grad():\n    s = torch.relu(t)\nr = t - s", must_refuse=True),
    "custom function": Trap(CUSTOM),
    # jumps, also where the function that results has none
    "sign": Trap("r = torch.sign(t) * (t + 1)", must_refuse=True),
    "sign times": Trap("r = torch.sign(t) * t - torch.abs(t)"),
    "floor": Trap("r = torch.floor(t) + u", must_refuse=True),
    "fraction": Trap("r = t - torch.floor(t)", must_refuse=True),
    "round": Trap("r = torch.round(t + 0.5) * u", must_refuse=True),
    "truncated": Trap("r = torch.trunc(t + 1.0)", must_refuse=True),
    "hard shrink": Trap("r = F.hardshrink(t + 0.5, 0.5)", must_refuse=True),
    "remainder": Trap("r = torch.remainder(t + 2.0, 1.0)", must_refuse=True),
    "mask": Trap("r = (t > 0).double() * (t + 1)", must_refuse=True),
    "mask of a kink": Trap("r = (t > 0).to(DTYPE) * t - torch.relu(t)"),
    "mask by arithmetic": Trap("m = (t > 0).to(DTYPE)\nr = m * t + (1 - m) * 2 * t - torch.maximum(-t, u)"),
    "mask of floats in where": Trap("m = (t > 0).to(DTYPE)\nr = torch.where(m * 2 > 1, t, 2 * t) - torch.relu(t)"),
    "masked fill": Trap("r = (t + 1).masked_fill(t > 0, 0.0)", must_refuse=True),
    "multiplied comparison": Trap("r = t * (t >= 0) - torch.relu(t)"),
    "sum of comparisons": Trap("r = (torch.stack([t, u]) > 0).to(DTYPE).sum() + t", must_refuse=True),
    "boolean indexing": Trap("r = torch.stack([t, u])[torch.stack([t, u]) > 0].sum() - torch.relu(t) - torch.relu(u)"),
    # indices of ties, used for other data
    "arg max of other data": Trap("r = torch.stack([t, 2 * t])[torch.stack([u, -u]).argmax()]", must_refuse=True),
    "arg max of the data": Trap("s = torch.stack([t, u])\nr = s[s.argmax()] - s.max()"),
    "indices of sort": Trap(
        "i = torch.stack([u, t, 2 * t]).sort().indices\nr = torch.stack([t, u, t]).gather(0, i)[0]", must_refuse=True
    ),
    "indices of max": Trap(
        "i = torch.stack([u, -u, t]).max(0).indices\nr = torch.stack([u, t, 0 * t])[i]", must_refuse=True
    ),
    "arg sort": Trap("i = torch.argsort(torch.stack([t, u]))\nr = torch.stack([2 * t, u - t])[i][1]", must_refuse=True),
    "one hot": Trap("r = (F.one_hot(torch.stack([t, u]).argmax(), 2).to(DTYPE) * torch.stack([u, t])).sum()"),
    "bucket": Trap("r = torch.bucketize(t, torch.zeros(1, dtype=DTYPE)).to(DTYPE) + u", must_refuse=True),
}
"""The traps by name."""


def sayable(name: str) -> bool:
    """Tell whether a trap can be said in JAX."""
    try:
        in_jax(TRAPS[name].lines)
    except NotInJax:
        return False
    return True


def trapped_program(seed: int, name: str) -> RandomProgram:
    """Write a trap under a random linear change of variables, among the statements of a random program."""
    rng = random.Random(f"{name} {seed}")
    writer = Writer(rng, random_point(rng, low=2))
    if seed % 3:
        write_statements(writer, rng.randint(0, 4), ("affine", "linear", "switch", "smooth", "order"))
    t = _zero_term(writer, "t")
    _zero_term(writer, "u", apart_from=t)
    writer.block("r", TRAPS[name].lines)
    rest = ""
    if seed % 3:
        write_statements(writer, rng.randint(0, 3), ("affine", "switch", "choose", "cancelling"))
        last = list(writer.sizes)[-1]
        rest = "" if last == "r" else f" + {writer.integer()} * {last}{'.sum()' if writer.size(last) else ''}"
    weight = rng.choice((0.7, 1.3, -1.9))  # so that the rest, in halves of integers, cannot take the trap away again
    return writer.program(f"trap {name} {seed}", f"{weight} * r.sum(){rest}")


def _zero_term(writer: Writer, name: str, apart_from: list[float] | None = None) -> list[float]:
    """Define a linear form of x that is 0 at the point; give its coefficients, no multiples of those given."""
    n = len(writer.point)
    while True:
        form = [float(writer.rng.choice((0, 1, -1, 2, -2))) for _ in range(n)]
        others = [apart_from] if apart_from else [[0.0] * n]
        if any(form) and not any(_parallel(form, other) for other in others):
            break
    writer.block(name, f"{name} = {writer.constant(form)} @ (x - {writer.constant(list(writer.point))})")
    return form


def _parallel(a: list[float], b: list[float]) -> bool:
    """Tell whether two vectors are multiples of each other."""
    return any(b) and all(p * s == q * r for p, q in zip(a, b, strict=True) for r, s in zip(a, b, strict=True))
