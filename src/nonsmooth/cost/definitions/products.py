"""Products of arrays: every entry of the result is a sum of products."""

from __future__ import annotations

from typing import Any

import numpy as np

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers

__all__ = ["matrix_product", "scaled"]


def _equation(a: Numbers, b: Numbers) -> str:
    """Write the product of two stacks of matrices, or of vectors, in the letters of einsum."""
    left, right = "k" if a.ndim == 1 else "...ik", "k" if b.ndim == 1 else "...kj"
    stack = "..." if a.ndim > 1 or b.ndim > 1 else ""
    return f"{left},{right}->{stack}{'i' * (a.ndim > 1)}{'j' * (b.ndim > 1)}"


def matrix_product(a: Numbers, b: Numbers) -> Numbers:
    """C_ij = sum_k A_ik B_kj, for two stacks of matrices: m k n products and m (k - 1) n additions each."""
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    return a.contracted(b, shape, a.shape[-1], "...ik,...kj->...ij")


def scaled(x: Numbers, factor: object) -> Numbers:
    """Multiply by a factor that is not 1."""
    return x if factor is None or factor == 1 else x * float(factor)  # type: ignore[arg-type]


@define("matmul", "mm", "bmm", "mv", "dot", "vdot")
def product(call: Called) -> Numbers:
    """C_ij = sum_k A_ik B_kj."""
    a, b = call.operands
    return a.contracted(b, call.shape, call.attributes["terms"], _equation(a, b))


@define("inner")
def inner(call: Called) -> Numbers:
    """C_ij = sum_k A_ik B_jk; a number multiplies."""
    a, b = call.operands
    if not a.ndim or not b.ndim:
        return a * b
    left, right = "abcdefghijkl"[: a.ndim - 1], "mnopqrstuvwx"[: b.ndim - 1]
    return a.contracted(b, call.shape, a.shape[-1], f"{left}z,{right}z->{left}{right}")


@define("outer")
def outer(call: Called) -> Numbers:
    """C_ij = a_i b_j."""
    return call.operands[0].contracted(call.operands[1], call.shape, 1, "i,j->ij")


@define("linear")
def linear(call: Called) -> Numbers:
    """Y = X W' + b."""
    x, weight = call.operands[:2]
    equation = "...k,jk->...j" if weight.ndim == 2 else "...k,k->..."
    found = x.contracted(weight, call.shape, x.shape[-1], equation)
    return found + call.operands[2] if len(call.operands) > 2 else found


@define("addmm", "addmv", "addbmm", "baddbmm", "addr")
def sum_and_product(call: Called) -> Numbers:
    """Give beta C + alpha A B, over all matrices of the stack in `addbmm`; what beta = 0 leaves out is none."""
    c, a, b = call.operands
    beta, alpha = call.attributes.get("beta", 1), call.attributes.get("alpha", 1)
    shape = call.shape
    if call.attributes.get("terms") is None:
        found = a.contracted(b, shape, 1, "i,j->ij")
    elif a.ndim == 3 and len(shape) == 2:
        found = a.contracted(b, shape, a.shape[0] * a.shape[2], "zik,zkj->ij")
    else:
        found = a.contracted(b, shape, a.shape[-1], _equation(a, b))
    found = scaled(found, alpha)
    return found if beta == 0 else scaled(c, beta) + found


@define("bilinear")
def bilinear(call: Called) -> Numbers:
    """y_o = sum_i x_i (sum_j W_oij z_j) + b_o."""
    x, z, weight = call.operands[:3]
    out, first, second = weight.shape
    inside = z.contracted(weight, (*z.shape[:-1], out, first), second, "...j,oij->...oi")
    found = inside.contracted(x, call.shape, first, "...oi,...i->...o")
    return found + call.operands[3] if len(call.operands) > 3 else found


@define("kron")
def kronecker(call: Called) -> Numbers:
    """Every entry of A times every entry of B."""
    a, b = call.operands
    d = max(a.ndim, b.ndim)
    rows, columns = (1,) * (d - a.ndim) + a.shape, (1,) * (d - b.ndim) + b.shape
    wide = tuple(n for pair in zip(rows, (1,) * d, strict=True) for n in pair)
    narrow = tuple(n for pair in zip((1,) * d, columns, strict=True) for n in pair)
    found = a.alias(wide, lambda u: u.reshape(wide)) * b.alias(narrow, lambda u: u.reshape(narrow))
    return found.alias(call.shape, lambda u: u.reshape(call.shape))


@define("cross", "linalg_cross")
def cross(call: Called) -> Numbers:
    """w_1 = u_2 v_3 - u_3 v_2, and so on around."""
    u, v = call.operands
    axis = call.attributes["axes"][0] - len(call.shape)

    def turned(x: Numbers, by: int) -> Numbers:
        return x.alias(x.shape, lambda a: np.roll(a, -by, axis))

    return turned(u, 1) * turned(v, 2) - turned(u, 2) * turned(v, 1)


# --- einsum -----------------------------------------------------------------------------------------------------------


class Labelled:
    """An array whose axes have letters."""

    def __init__(self, array: Numbers, letters: str) -> None:
        self.array, self.letters = array, letters

    def sizes(self) -> dict[str, int]:
        """Give the size of every letter."""
        return dict(zip(self.letters, self.array.shape, strict=True))

    def without_repeats(self) -> Labelled:
        """Take the diagonal where a letter repeats, and drop axes of size 1, which broadcast."""
        kept = "".join(dict.fromkeys(c for c, n in zip(self.letters, self.array.shape, strict=True) if n != 1))
        sizes, letters = self.sizes(), self.letters

        def view(a: Any) -> Any:
            indices = np.indices(shape, sparse=True) if shape else ()
            places = dict(zip(kept, indices, strict=True))
            return a[tuple(places.get(c, 0) for c in letters)].reshape(shape)

        shape = tuple(sizes[c] for c in kept)
        return Labelled(self.array.alias(shape, view), kept)

    def summed(self, needed: set[str]) -> Labelled:
        """Sum over the letters that nothing else needs."""
        axes = [i for i, c in enumerate(self.letters) if c not in needed]
        if not axes:
            return self
        return Labelled(self.array.sum(axes), "".join(c for c in self.letters if c in needed))

    def times(self, other: Labelled, needed: set[str]) -> Labelled:
        """Multiply, and sum over the letters that nothing else needs: each array alone, then both together."""
        one, two = self.summed(needed | set(other.letters)), other.summed(needed | set(self.letters))
        sizes = one.sizes() | two.sizes()
        kept = "".join(c for c in sizes if c in needed)
        terms = int(np.prod([n for c, n in sizes.items() if c not in needed], dtype=int))
        shape = tuple(sizes[c] for c in kept)
        equation = f"{one.letters},{two.letters}->{kept}"
        return Labelled(one.array.contracted(two.array, shape, terms, equation), kept)


def _spelled(equation: str, arrays: tuple[Numbers, ...]) -> tuple[list[str], str]:
    """Give the letters of every array and of the result, the dots written out."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    spare = [chr(c) for c in range(0x3B1, 0x3B1 + 60)]
    wide = max((a.ndim - len(p) + 3 for p, a in zip(parts, arrays, strict=True) if "..." in p), default=0)
    dots = "".join(spare[:wide])
    letters = []
    for part, array in zip(parts, arrays, strict=True):
        held = array.ndim - len(part) + 3
        letters.append(part.replace("...", dots[len(dots) - held :] if held else ""))
    if not arrow:
        named = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(named)
    return letters, right.replace("...", dots)


@define("einsum")
def einsum(call: Called) -> Numbers:
    """Sums of products by an equation: two arrays at a time, in the order of the path, else from left to right."""
    letters, result = _spelled(call.attributes["equation"], call.operands)
    parts = [Labelled(a, names).without_repeats() for a, names in zip(call.operands, letters, strict=True)]
    path = list(call.attributes.get("path") or [])
    while len(parts) > 1:
        one, two = (path.pop(0), path.pop(0)) if path else (0, 1)
        chosen = [parts[one], parts[two]]
        parts = [p for i, p in enumerate(parts) if i not in (one, two)]
        needed = set(result).union(*(p.letters for p in parts))
        found = chosen[0].times(chosen[1], needed)
        parts = [*parts, found] if call.attributes.get("path") else [found, *parts]
    final = parts[0].summed(set(result))

    def view(a: Any) -> Any:
        order = [final.letters.index(c) for c in result if c in final.letters]
        return a.transpose(order).reshape(call.shape)

    return final.array.alias(call.shape, view)
