"""Which elements of an output a backward pass reaches, also of an output that is a view of a tensor used later."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Window", "base_of", "reached"]


def reached(mask: torch.Tensor, reaches: torch.Tensor) -> torch.Tensor:
    """Mark the marked elements that a cotangent reaches; all of them where the shapes do not say."""
    if mask.shape == reaches.shape:
        return mask & reaches
    if mask.ndim > reaches.ndim and mask.shape[: reaches.ndim] == reaches.shape:
        return mask & reaches.reshape(*reaches.shape, *(1,) * (mask.ndim - reaches.ndim))
    if mask.numel() == reaches.numel():
        return (mask.reshape(-1) & reaches.reshape(-1)).reshape(mask.shape)
    return mask


def base_of(output: torch.Tensor) -> torch.Tensor | None:
    """Give the tensor of which an output in place shows a part: later steps may use it and not the view."""
    base = output._base if output._is_view() else None
    return base if base is not None and base.requires_grad and base.dtype == output.dtype else None


@dataclass(frozen=True)
class Window:
    """The part of a tensor that a view of it shows."""

    whole: tuple[torch.Size, tuple[int, ...]]
    part: tuple[torch.Size, tuple[int, ...], int]

    @classmethod
    def of(cls, view: torch.Tensor, base: torch.Tensor) -> Window:
        """Read where a view lies."""
        start = int(view.storage_offset() - base.storage_offset())
        return cls((base.shape, base.stride()), (view.shape, view.stride(), start))

    def look(self, cotangent: torch.Tensor) -> torch.Tensor:
        """Give that part of a cotangent of the whole."""
        laid_out = cotangent.new_empty_strided(*self.whole).copy_(cotangent)
        return laid_out.as_strided(*self.part)
