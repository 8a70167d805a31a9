"""Fourier transforms: elementary as a whole, with the count of the fast algorithm.

The counts are conventions that are stated, not derived: the leading term of the algorithm for powers of 2, whatever the
sizes are and whichever algorithm a library takes for them.

Source: GolubVanLoan2013.
"""

from __future__ import annotations

from collections import Counter
from math import prod

from nonsmooth.cost.definitions.definition import Called, define
from nonsmooth.cost.numbers import Numbers
from nonsmooth.cost.tally import Whole

__all__: list[str] = []

_KINDS = "fft fft2 fftn ifft ifft2 ifftn rfft rfft2 rfftn irfft irfft2 irfftn hfft ihfft".split()


def _transform(kind: str) -> None:
    """Define one kind of transform.

    A transform of n complex numbers is n log2 n / 2 butterflies, each a product and two sums of complex numbers: 2 n log2 n
    products and 3 n log2 n additions (log2 rounded up); one from or to real numbers takes half of that, also as the kernel of
    torch that says `onesided` or `last_dim_size`. It is linear: its adjoint, and itself for a direction, cost the same.
    """

    @define(f"fft_{kind}")
    def definition(call: Called) -> list[Numbers]:
        x, axes = call.x, call.attributes["axes"]
        onesided, to_real = bool(call.attributes.get("onesided")), "last_dim_size" in call.attributes
        real = kind.startswith(("r", "ir", "h", "ih")) or onesided or to_real
        sizes = [max(x.shape[a], call.shape[a]) for a in axes]
        if call.attributes.get("lengths"):
            sizes = list(call.attributes["lengths"])
        rest = prod(n for a, n in enumerate(x.shape) if a not in axes)
        points = rest * prod(sizes)
        stages = sum(max(n - 1, 0).bit_length() for n in sizes)
        part = 2 if real else 1
        counts = Counter(mul=2 * points * stages // part, add=3 * points * stages // part)
        counts["mul"] += points * (2 // part) if _scaled(call, kind) else 0
        linear = counts if x.moving else Counter[str]()
        numbers = x.size * (1 if onesided or kind.startswith(("r", "ih")) else 2) if x.moving else 0
        call.tally.wholes.append(Whole(f"fft_{kind}", counts, Counter(), Counter(linear), Counter(linear), numbers))
        return [x.like(call.shape)]


def _scaled(call: Called, kind: str) -> bool:
    """Tell whether the result is scaled: that of an inverse unless the norm says "forward", and the other way round."""
    norm, inverse = call.attributes.get("norm"), kind.startswith("i")
    if isinstance(call.attributes.get("normalization"), int):
        return bool(call.attributes["normalization"])
    return bool(norm == "ortho" or (inverse and norm in (None, "backward")) or (not inverse and norm == "forward"))


for _kind in _KINDS:
    _transform(_kind)
