"""A call of an operation as what is known of it before any evaluation: the shapes of its arrays, and which of them move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

__all__ = ["ShapedCall", "ShapedOperand"]


@dataclass(frozen=True)
class ShapedOperand:
    """An array that a step takes; `moving` tells whether it depends on the point in a way that is differentiated.

    `item` is what stands in the program: the reference of a value, or a number.
    """

    shape: tuple[int, ...]
    moving: bool = False
    item: Any = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """The number of its entries.

        >>> ShapedOperand((2, 3)).size
        6
        """
        return prod(self.shape)


@dataclass(frozen=True)
class ShapedCall:
    """One step of a program as shapes.

    The attributes are those of the record, and what shapes leave open, in words that every framework shares:

    * products of arrays (`matmul`, `linear`, `einsum` ...): `terms`, the products summed into one entry of the result; of
      those over other axes than a product of matrices has, `contracted` and `beside`: the axes of both that are summed
      over, and those that run along with each other;
    * convolutions: `spatial` (sizes of the input's spatial axes), `kernel`, `stride`, `padding` ((low, high) for each
      axis), `base_dilation`, `dilation`, `groups`, `transposed`, `channels` (of input and output), `batch`, and `layout`
      where it is another than that of the operator's name: the axes of batch, channel and space of image and result, and
      of result channel, channel and space of the kernel;
    * reductions and what runs along axes: `axes`.

    `discrete` says that no array and no number among operands and results is real or complex: integer and logical work.
    """

    operation: str
    operands: tuple[ShapedOperand, ...]
    results: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    discrete: bool = False

    @property
    def size(self) -> int:
        """The number of entries of the first result."""
        return prod(self.results[0]) if self.results else 0
