"""Arrays of which only the shape is known: a definition that is run on them is counted, not computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from nonsmooth.cost.scalars import SCALARS, Style
from nonsmooth.cost.tally import Tally

__all__ = ["Axes", "Numbers", "Shape"]

Shape: TypeAlias = tuple[int, ...]
Axes: TypeAlias = int | Iterable[int] | None
View: TypeAlias = Callable[..., Any] | None
"""How a view takes its entries, for whoever executes a definition: from arrays of numpy to one of the view's shape."""


class Numbers:
    """An array of the scalar program: its shape, and whether its entries move with the point.

    Operators and `apply` count one scalar operation for each entry of the result; views (`alias`) count nothing.

    >>> tally = Tally()
    >>> x = Numbers((2, 3), True, tally)
    >>> (x / x.apply("exp").sum(1, keep=True)).shape
    (2, 3)
    >>> dict(tally.sweep().evaluation)
    {'exp': 6, 'add': 4, 'div': 6}
    """

    def __init__(self, shape: Shape, moving: bool, tally: Tally) -> None:
        self.shape, self.moving, self.tally = tuple(shape), moving, tally

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def like(self, shape: Shape, moving: bool | None = None) -> Numbers:
        """Give an array of another shape in the same tally."""
        return Numbers(shape, self.moving if moving is None else moving, self.tally)

    def apply(self, name: str, other: Numbers | float | None = None, *, times: int = 1) -> Numbers:
        """Run a scalar operation on every entry, or on every pair of entries of two arrays that broadcast."""
        second = other if isinstance(other, Numbers) else None
        shape = np.broadcast_shapes(self.shape, second.shape) if second is not None else self.shape
        moving = ("x" if self.moving else "") + ("y" if second is not None and second.moving else "")
        self.tally.add(name, moving, times * prod(shape))
        return self.like(shape, bool(moving) and SCALARS[name].style is not Style.NONE)

    def special(self, function: str, other: Numbers | float | None = None) -> Numbers:
        """Run a special function, by its name in scipy.special, on every entry or pair of entries."""
        del function
        return self.apply("special", other)

    def rounded(self, how: str) -> Numbers:
        """Round every entry: "floor", "ceil", "round" or "trunc"."""
        del how
        return self.apply("round")

    def exceeds(self, other: Numbers | float) -> Numbers:
        """Compare every entry with another one: a condition for `select`."""
        return self.apply("compare", other)

    def equals(self, other: Numbers | float) -> Numbers:
        """Compare every entry with another one for equality: a condition for `select`."""
        return self.apply("compare", other)

    def select(self, one: Numbers | float, other: Numbers | float) -> Numbers:
        """Choose, by the conditions that the entries are, between entries of two arrays."""
        parts = [a if isinstance(a, Numbers) else self.like((), False) for a in (one, other)]
        shape = np.broadcast_shapes(self.shape, *(a.shape for a in parts))
        moving = "".join(letter for letter, a in zip("xy", parts, strict=True) if a.moving)
        self.tally.add("select", moving, prod(shape))
        return self.like(shape, bool(moving))

    def _from(self, name: str, other: Numbers | float) -> Numbers:
        """Run a scalar operation whose first argument is a number or another array."""
        if isinstance(other, Numbers):
            return other.apply(name, self)
        return self.like((), False).apply(name, self)

    def __add__(self, other: Numbers | float) -> Numbers:
        return self.apply("add", other)

    def __radd__(self, other: float) -> Numbers:
        return self.apply("add", other)

    def __sub__(self, other: Numbers | float) -> Numbers:
        return self.apply("sub", other)

    def __rsub__(self, other: float) -> Numbers:
        return self._from("sub", other)

    def __mul__(self, other: Numbers | float) -> Numbers:
        return self.apply("mul", other)

    def __rmul__(self, other: float) -> Numbers:
        return self.apply("mul", other)

    def __truediv__(self, other: Numbers | float) -> Numbers:
        return self.apply("div", other)

    def __rtruediv__(self, other: float) -> Numbers:
        return self._from("div", other)

    def __neg__(self) -> Numbers:
        return self.apply("neg")

    def alias(self, shape: Shape, view: View = None, *by: Numbers) -> Numbers:
        """Show entries under another shape: views, gathers by arrays of indices, broadcasts."""
        del view, by
        return self.like(shape)

    def joined(self, others: Sequence[Numbers], shape: Shape, view: View = None, *by: Numbers) -> Numbers:
        """Show entries of several arrays as one."""
        del view, by
        return self.like(shape, self.moving or any(a.moving for a in others))

    def known(self, shape: Shape, how: View = None, *of: Numbers) -> Numbers:
        """Give numbers that integer and logical work finds from these and other arrays: free, and not differentiated."""
        del how, of
        return self.like(shape, False)

    def detached(self) -> Numbers:
        """Give the same numbers, not differentiated."""
        return self.like(self.shape, False)

    def _reduced(self, axes: Axes, keep: bool) -> tuple[Shape, int]:
        """Give the shape of a reduction, and how many entries go into each of its results."""
        chosen = range(self.ndim) if axes is None else [axes] if isinstance(axes, int) else list(axes)
        removed = {a % self.ndim for a in chosen} if self.ndim else set()
        terms = prod(self.shape[a] for a in removed)
        shape = tuple(1 if a in removed else n for a, n in enumerate(self.shape) if keep or a not in removed)
        return shape, terms

    def sum(self, axes: Axes = None, *, keep: bool = False) -> Numbers:
        """Add entries up: n - 1 additions for n terms."""
        return self._folded("add", axes, keep)

    def product(self, axes: Axes = None, *, keep: bool = False) -> Numbers:
        """Multiply entries: n - 1 products for n factors."""
        return self._folded("mul", axes, keep)

    def _folded(self, name: str, axes: Axes, keep: bool) -> Numbers:
        """Fold entries by a scalar operation of two numbers."""
        shape, terms = self._reduced(axes, keep)
        self.tally.add(name, "xy" if self.moving else "", prod(shape) * max(terms - 1, 0))
        return self.like(shape)

    def cumulated(self, name: str, axis: int) -> Numbers:
        """Fold entries along an axis and keep every partial result: n - 1 scalar operations for n entries."""
        self.tally.add(name, "xy" if self.moving else "", self.size - self.size // max(self.shape[axis], 1))
        return self.like(self.shape)

    def accumulated(self, source: Numbers, name: str = "add") -> Numbers:
        """Fold every entry of a source into one of these, the places given by indices."""
        moving = self.moving or source.moving
        self.tally.add(name, "xy" if moving else "", source.size)
        return self.like(self.shape, moving)

    def mean(self, axes: Axes = None, *, keep: bool = False) -> Numbers:
        """Average entries."""
        return self.sum(axes, keep=keep) / float(max(self._reduced(axes, keep)[1], 1))

    def chosen(self, shape: Shape, comparisons: int, how: View = None) -> Numbers:
        """Choose entries by comparing: the result is another name of them.

        `how` gives, from the values, the places of the chosen entries in the flat array.
        """
        del how
        self.tally.add("compare", "", comparisons)
        return self.like(shape)

    def largest(self, axes: Axes = None, *, keep: bool = False) -> Numbers:
        """Choose the largest entry: n - 1 comparisons among n."""
        shape, terms = self._reduced(axes, keep)
        return self.chosen(shape, prod(shape) * max(terms - 1, 0))

    def contracted(self, other: Numbers, shape: Shape, terms: int, equation: str | None = None) -> Numbers:
        """Sum products of entries of two arrays: `terms` products for each entry of the result.

        The equation says which, in the letters of `einsum`, for whoever executes it.
        """
        del equation
        return self.bilinear(other, shape, prod(shape) * terms, prod(shape) * max(terms - 1, 0))

    def bilinear(self, other: Numbers, shape: Shape, products: int, sums: int, pairs: View = None) -> Numbers:
        """Sum products of entries of two arrays, so many of both.

        `pairs` gives three flat arrays of places: of the result, and of the factors of every product.
        """
        del pairs
        moving = ("x" if self.moving else "") + ("y" if other.moving else "")
        self.tally.add("mul", moving, products)
        self.tally.add("add", "xy" if moving else "", sums)
        return self.like(shape, bool(moving))

    def gathered(self, shape: Shape, sums: int, places: View = None, *by: Numbers) -> Numbers:
        """Sum entries of an array; `places` gives two flat arrays, of the result and of the entry of every term."""
        del places, by
        self.tally.add("add", "xy" if self.moving else "", sums)
        return self.like(shape)
